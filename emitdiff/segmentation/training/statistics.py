"""The statistics of the head's batch normalization, taken anew once the weights are final.

While training, every batch is normalized by its own mean and variance, and moving averages of them are kept for later.
Those belong to weights that have changed since, and to no weights at all beside averaged (EMA) ones; one overflow stays
in them for good, and silences its channel. So they are counted over training images for the weights as they will be
used ("precise" statistics: Wu and Johnson, arXiv 2105.07576, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from emitdiff.segmentation.greys import GREY_LEVELS
from emitdiff.segmentation.model.features import load_features, pooled
from emitdiff.segmentation.model.text import TextEncoder
from emitdiff.segmentation.model.textdiff import TextDiff
from emitdiff.segmentation.training.examples import LabelledImage, image_tensor, sample_images, sample_query
from emitdiff.segmentation.training.settings import CELL, TrainSegmentation

BATCHES, IMAGES_PER_BATCH = 40, 8


@torch.no_grad()
def estimate_statistics(sets: Sequence[Sequence[LabelledImage]], settings: TrainSegmentation, checkpoint: Path,
                        device: torch.device) -> None:  # fmt: skip
    """Of `checkpoint`/head, over `BATCHES` batches of views like those it was trained on; its weights stay."""
    rng = np.random.default_rng(settings.seed)
    features = load_features(checkpoint / "backbone", None, settings.timesteps, settings.seed).to(device)
    text, head = TextEncoder.load(checkpoint / "text").to(device), TextDiff.load(checkpoint / "head").to(device)
    norms = [layer for layer in head.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # an average over all batches instead of a moving one
        norm.train()
    for number in range(BATCHES):
        side = settings.resolution if number % 2 else max(64, settings.resolution * 3 // 4 // 64 * 64)
        batch = image_tensor(images := sample_images(sets, IMAGES_PER_BATCH, side, rng, GREY_LEVELS)).to(device)
        rows = [*range(len(images)), *range(len(images))]
        queries = [sample_query(images[row], index < len(images), rng) for index, row in enumerate(rows)]
        cells = (batch.shape[-2] // CELL, batch.shape[-1] // CELL)
        with torch.autocast(device.type, torch.bfloat16):
            projected = head.project(pooled([part.float() for part in features(batch)], cells))
            attended = head.attend([part[rows] for part in projected], *text([query.text for query in queries]))
            head.classifier.hidden(attended, cells)
    head.eval().save(checkpoint / "head")
