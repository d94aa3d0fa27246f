"""How fine the masks are that a few-shot head is to learn, beside the cells in which it first answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emitdiff.images import resize_image, resize_mask
from emitdiff.mask_metrics import dice
from emitdiff.segmentation.few_shot.queries import Example

# the same: so fine that larger looks at an image help (MoNuSeg +.018; at .86 and above they hurt)
MULTISCALE_BELOW = 0.8
MULTISCALE_SIZES = (1, 1.25, 1.5)  # times the resolution, at which a head for such masks looks at an image


def dice_on_cells(examples: Sequence[Example], cell: int) -> float:
    """Mean Dice in 0..1 of the masks with what is left of them when every `cell` x `cell` pixels are all in or out."""
    masks = [mask for one in examples for mask in one.labelled.masks.values() if mask.any()]
    return float(np.mean([dice(_coarsened(mask, cell), mask) for mask in masks])) if masks else 1.0


def _coarsened(mask: np.ndarray, cell: int) -> np.ndarray:
    height, width = mask.shape
    share = resize_image(mask.astype(np.float32), (max(1, height // cell), max(1, width // cell)))
    return resize_mask(share >= 0.5, (height, width))
