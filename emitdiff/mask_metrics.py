"""Metrics of two masks in NumPy, Dice for everybody and the others for the page: importing MONAI takes seconds.

Whole datasets are measured by segmentation/evaluation.py; a test holds the two to the same figures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Dice of two boolean masks of one shape, in 0..1; 1.0 if both are empty."""
    overlap, total = np.count_nonzero(predicted & truth), np.count_nonzero(predicted) + np.count_nonzero(truth)
    return 2 * int(overlap) / int(total) if total else 1.0


def compute_mask_metrics(
    predicted: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None
) -> dict[str, float | None]:
    """dice, iou, precision, recall and hd95 of two 0/1 masks of one shape, (H, W) or (S, H, W).

    `hd95` is in the unit of `spacing` (one length an axis), without it in pixels, and None where either mask is empty;
    then dice and iou are 1 where both are and 0 where one is. precision and recall are None where nothing is drawn, or
    nothing is there to be drawn.
    """
    predicted, truth = np.asarray(predicted) > 0, np.asarray(truth) > 0
    overlap, num_predicted, num_truth = (int(np.count_nonzero(mask)) for mask in (predicted & truth, predicted, truth))
    return {
        "dice": dice(predicted, truth),
        "iou": overlap / (num_predicted + num_truth - overlap) if num_predicted + num_truth else 1.0,
        "precision": overlap / num_predicted if num_predicted else None,
        "recall": overlap / num_truth if num_truth else None,
        "hd95": _hausdorff(predicted, truth, spacing) if num_predicted and num_truth else None,
    }


def _hausdorff(first: np.ndarray, second: np.ndarray, spacing: Sequence[float] | None) -> float:
    """The larger of the two 95th percentiles of the distance from each outline to the other."""
    from scipy.ndimage import binary_erosion, distance_transform_edt

    # Only the box around both masks counts: volumes are mostly empty. Its rim of zeros keeps outlines at the border.
    either = first | second
    extents = [np.flatnonzero(either.any(tuple(set(range(either.ndim)) - {axis}))) for axis in range(either.ndim)]
    box = tuple(slice(extent[0], extent[-1] + 1) for extent in extents)
    masks = [np.pad(mask[box], 1) for mask in (first, second)]
    edges = [mask & ~binary_erosion(mask) for mask in masks]
    distances = [distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    return float(max(np.percentile(distances[1][edges[0]], 95), np.percentile(distances[0][edges[1]], 95)))
