"""A segmenter as a judge of painted images: does it find each label where the mask has it?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from emitdiff.datasets import DatasetFolder, Sample
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
