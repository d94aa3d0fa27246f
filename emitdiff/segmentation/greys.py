"""Greys brought to one scale before the networks look: one linear stretch for each kind of image.

A CT in another window, an MRI of another scanner show the same tissue at other levels. Two anchors of the tissue, not
of the picture, are moved to where the training images have them, so that black borders and padding change nothing.
X-rays and microscopy stay as they are: their air, film and stains mean something, and a stretch took Dice away there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

BACKGROUND = 8 / 255  # of the range of greys above the darkest: below is air, border or padding
ANCHORS = (15.0, 99.5)  # percentiles of the tissue
DARKEST, BRIGHTEST = 0.5, 99.5  # percentiles: of the picture, and of what is not its darkest
MIN_TISSUE = 64  # pixels
MAX_GAIN = 4.0  # and its inverse; a picture that would need more shows nothing to be brought anywhere
COLOURED_SHARE, COLOUR_DIFFERENCE = 0.01, 12  # share of pixels whose channels differ by more: then it is no grey image


class GreyLevels(NamedTuple):
    """Where the `ANCHORS` of the tissue go, in grey levels 0..255."""

    low: float
    high: float


# Means over training images of the sets that the embedded segmenter learnt from.
GREY_LEVELS: Mapping[str, GreyLevels] = {
    "abdominal CT": GreyLevels(27, 255),
    "prostate MRI": GreyLevels(22, 223),
    "cardiac MRI": GreyLevels(13, 192),
    "breast ultrasound": GreyLevels(33, 213),
}


def is_coloured(image: np.ndarray) -> bool:
    """Whether uint8 (H, W, 3) has colours that mean something; an ultrasound's marker of a few pixels does not."""
    difference = image.max(axis=2).astype(np.int16) - image.min(axis=2)
    return bool((difference > COLOUR_DIFFERENCE).mean() > COLOURED_SHARE)


def tissue_levels(image: np.ndarray) -> tuple[float, float] | None:
    """The `ANCHORS` of the tissue of uint8 (H, W, 3), None where there is hardly any or it is one grey."""
    greys = image[..., 0]
    darkest = np.percentile(greys, DARKEST)
    shown = greys[greys > darkest]
    if len(shown) < MIN_TISSUE:
        return None
    tissue = shown[shown > darkest + BACKGROUND * (np.percentile(shown, BRIGHTEST) - darkest)]
    low, high = np.percentile(tissue, ANCHORS)
    return (float(low), float(high)) if high > low else None


def scale_greys(image: np.ndarray, levels: GreyLevels | None) -> np.ndarray:
    """uint8 (H, W, 3) with the tissue's anchors at `levels`; what is beyond 0..255 is clipped.

    As it is without `levels`, for coloured images, and where the anchors say nothing or lie too near to each other.
    """
    found = None if levels is None or is_coloured(image) else tissue_levels(image)
    if levels is None or found is None:
        return image
    gain = (levels.high - levels.low) / (found[1] - found[0])
    if not 1 / MAX_GAIN <= gain <= MAX_GAIN:
        return image
    greys = (np.arange(256) - found[0]) * gain + levels.low
    return np.clip(np.rint(greys), 0, 255).astype(np.uint8)[image]
