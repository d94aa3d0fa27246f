"""Two masks compared: by hand, against MONAI, and at the edges of what is defined."""

import numpy as np
import pytest

from emitdiff.mask_metrics import compute_mask_metrics, dice

TRUTH = np.zeros((40, 50), np.uint8)
TRUTH[10:20, 10:30] = 1
SHIFTED = np.roll(TRUTH, 5, axis=1)
EMPTY = np.zeros_like(TRUTH)


def test_by_hand_in_pixels_and_millimetres():
    found = compute_mask_metrics(SHIFTED, TRUTH)
    assert found == {"dice": 0.75, "iou": 0.6, "precision": 0.75, "recall": 0.75, "hd95": 5.0}
    assert compute_mask_metrics(SHIFTED, TRUTH, (3.0, 0.5))["hd95"] == 2.5


def test_empty_masks():
    assert compute_mask_metrics(EMPTY, EMPTY) == {
        "dice": 1.0,
        "iou": 1.0,
        "precision": None,
        "recall": None,
        "hd95": None,
    }
    assert compute_mask_metrics(EMPTY, TRUTH) == {
        "dice": 0.0,
        "iou": 0.0,
        "precision": None,
        "recall": 0.0,
        "hd95": None,
    }


@pytest.mark.parametrize(
    ("shape", "spacing"), [((40, 50), None), ((40, 50), (0.7, 1.3)), ((6, 20, 24), (3.0, 1.0, 0.5))]
)
def test_the_same_figures_as_monai(shape, spacing):
    import torch
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou
    from scipy.ndimage import gaussian_filter

    smooth = [gaussian_filter(np.random.default_rng(seed).random(shape), 2) for seed in (0, 1)]
    first, second = ((each > np.median(each)).astype(np.uint8) for each in smooth)
    tensors = [torch.from_numpy(mask)[None, None].float() for mask in (first, second)]
    found = compute_mask_metrics(first, second, spacing)
    assert found["dice"] == pytest.approx(compute_dice(*tensors).item())
    assert found["iou"] == pytest.approx(compute_iou(*tensors).item())
    distance = compute_hausdorff_distance(*tensors, include_background=True, percentile=95, spacing=spacing)
    assert found["hd95"] == pytest.approx(distance.item(), rel=1e-5)


def test_dice_of_two_masks():
    first, second = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert dice(first, second) == 1
    first[:2], second[1:3] = True, True
    assert dice(first, second) == 0.5
