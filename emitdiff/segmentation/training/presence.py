"""Training of the presence classifier, the last stage: everything else in the head is frozen."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch.nn import functional

from emitdiff.segmentation.greys import GREY_LEVELS
from emitdiff.segmentation.model.features import DiffusionFeatures, load_features, pooled
from emitdiff.segmentation.model.text import TextEncoder
from emitdiff.segmentation.model.textdiff import PresenceHead, TextDiff
from emitdiff.segmentation.training.examples import LabelledImage, Query, image_tensor, sample_images, sample_query
from emitdiff.segmentation.training.schedule import learning_rate
from emitdiff.segmentation.training.settings import CELL, TrainSegmentation
from emitdiff.training_state import StageState

IMAGES_PER_STEP, QUERIES_PER_IMAGE = 8, 4  # images a step, questions about each
RATE = 2e-3
SLIVER = 16  # pixels, of which fewer are neither there nor not there
REFUSALS_COUNT = 2.0  # times as much as the false belief that something is there


def train_presence(sets: list[list[LabelledImage]], settings: TrainSegmentation, checkpoint: Path, minutes: float,
                   device: torch.device) -> None:  # fmt: skip
    """The presence layers of `checkpoint`/head for `minutes`; everything else in it stays bit for bit."""
    torch.manual_seed(settings.seed)
    features = load_features(checkpoint / "backbone", None, settings.timesteps, settings.seed).to(device)
    text, head = TextEncoder.load(checkpoint / "text").to(device), TextDiff.load(checkpoint / "head").to(device)
    presence = cast(PresenceHead, head.presence)
    optimizer = torch.optim.AdamW(presence.parameters(), lr=RATE, weight_decay=0.05)
    parts = {"presence": presence, "optimizer": optimizer}
    state = StageState(Path(settings.out) / "presence" / "state.pt", minutes, parts, device)
    state.after_save = lambda: head.save(checkpoint / "head")
    rng = np.random.default_rng((settings.seed, state.steps))
    losses: list[float] = []
    for step in state.run("presence"):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(RATE, step, state.progress, warm_up=20)
        images = sample_images(sets, IMAGES_PER_STEP, settings.resolution, rng, GREY_LEVELS)
        loss = presence_loss(head, text, features, images, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses = [*losses[-99:], loss.item()]
        state.bar.set_postfix(step=step, loss=f"{np.mean(losses):.4f}", refresh=False)


def presence_loss(head: TextDiff, text: TextEncoder, features: DiffusionFeatures, images: list[LabelledImage],
                  rng: np.random.Generator) -> torch.Tensor:  # fmt: skip
    """Cross-entropy of whether each target asked about is there; half of the questions are about what is labelled."""
    batch = image_tensor(images).to(next(head.parameters()).device)
    cells = (batch.shape[-2] // CELL, batch.shape[-1] // CELL)
    asked = [(row, sample_query(images[row], index % 2 == 0, rng)) for row in range(len(images))
             for index in range(QUERIES_PER_IMAGE)]  # fmt: skip
    asked = [(row, query) for row, query in asked if is_certain(query)]
    rows = [row for row, _ in asked]
    present = torch.tensor([float(query.mask.any()) for _, query in asked], device=batch.device)
    with torch.no_grad(), torch.autocast(batch.device.type, torch.bfloat16):
        projected = head.project(pooled([part.float() for part in features(batch)], cells))
        tokens, visible = text([query.text for _, query in asked])
        attended = head.attend([part[rows] for part in projected], tokens, visible)
    logits = cast(PresenceHead, head.presence)([part.float() for part in attended])
    weights = 1 + (REFUSALS_COUNT - 1) * present
    return functional.binary_cross_entropy_with_logits(logits, present, weights)


def is_certain(query: Query) -> bool:
    """Whether it can be told if the target is there: not from a sliver at the edge, nor where much is unknown."""
    shown = int(query.mask.sum())
    return (shown == 0 or shown >= SLIVER) and (query.known is None or shown > 0 and bool(query.known.mean() > 0.5))
