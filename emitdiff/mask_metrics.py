"""How far two masks agree, for one look on the page: plain arrays, without the seconds that importing MONAI takes.

Whole datasets are measured by segmentation/evaluation.py; a test holds the two to the same figures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def agreement(
    predicted: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None
) -> dict[str, float | None]:
    """dice, iou, precision, recall and hd95 of two 0/1 masks of one shape, (H, W) or (S, H, W).

    `hd95` is in the unit of `spacing` (one length an axis), without it in pixels, and None where either mask is empty;
    then dice and iou are 1 where both are and 0 where one is. precision and recall are None where nothing is drawn, or
    nothing is there to be drawn.
    """
    predicted, truth = np.asarray(predicted) > 0, np.asarray(truth) > 0
    both, drawn, there = (int(np.count_nonzero(mask)) for mask in (predicted & truth, predicted, truth))
    return {
        "dice": 2 * both / (drawn + there) if drawn + there else 1.0,
        "iou": both / (drawn + there - both) if drawn + there else 1.0,
        "precision": both / drawn if drawn else None,
        "recall": both / there if there else None,
        "hd95": _hausdorff(predicted, truth, spacing) if drawn and there else None,
    }


def _hausdorff(first: np.ndarray, second: np.ndarray, spacing: Sequence[float] | None) -> float:
    """The larger of the two 95th percentiles of the distance from each outline to the other."""
    from scipy.ndimage import binary_erosion, distance_transform_edt

    # Only the box around both masks counts: volumes are mostly empty. Its rim of zeros keeps outlines at the border.
    either = first | second
    places = [np.flatnonzero(either.any(tuple(set(range(either.ndim)) - {axis}))) for axis in range(either.ndim)]
    box = tuple(slice(place[0], place[-1] + 1) for place in places)
    masks = [np.pad(mask[box], 1) for mask in (first, second)]
    edges = [mask & ~binary_erosion(mask) for mask in masks]
    away = [distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    return float(max(np.percentile(away[1][edges[0]], 95), np.percentile(away[0][edges[1]], 95)))
