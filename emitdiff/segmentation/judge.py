"""What the segmentation half says of painted images: is each label found where the mask has it, and what do the
frozen features look like?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from emitdiff.datasets import DatasetFolder, Sample
from emitdiff.images import image_to_tensor
from emitdiff.segmentation.features import DiffusionFeatures
from emitdiff.segmentation.metrics import SIDES, questions_of
from emitdiff.segmentation.pipeline import SegmentationPipeline


def label_answers(
    find: SegmentationPipeline, dataset: DatasetFolder
) -> Callable[[Sample], list[tuple[np.ndarray, np.ndarray]]]:
    """For a sample of `dataset`, or one painted from it: (mask found, mask asked for), boolean (H, W), of every label
    that the sample shows. Left and right lung are asked for only where they are labels of their own."""
    labels = dataset.info.labels
    return lambda sample: [
        (find(sample.image, text).mask > 0, truth)
        for name, text, truth in questions_of(sample, dataset)
        if truth.any() and (name not in SIDES or name in labels)
    ]


def feature_statistics(features: DiffusionFeatures) -> Callable[[np.ndarray], np.ndarray]:
    """For uint8 (H, W, 3), sides multiples of 32: the mean and the standard deviation over space of each channel of
    each block, float32 (2 * channels,).

    At every position the channels are first divided by their root mean square, as LPIPS does (arXiv 1801.03924, eq. 1),
    so that no block and no channel of large numbers decides alone.
    """

    @torch.inference_mode()
    def look(image: np.ndarray) -> np.ndarray:
        maps = [part[0].float() for part in features(image_to_tensor(image).to(next(features.parameters()).device))]
        equal = [part / part.square().mean(0).sqrt().clamp_min(1e-6) for part in maps]
        found = [number for part in equal for number in (part.mean((1, 2)), part.std((1, 2)))]
        return torch.cat(found).cpu().numpy()

    return look
