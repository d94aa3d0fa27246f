"""Where an image shows anything: not in the black corners of an ultrasound sector, nor in padding."""

from __future__ import annotations

import cv2
import numpy as np

EVEN = 0.02  # of the image's range of greys, by which padding may vary: lossy compression leaves a little
MAX_EVEN = 5  # grey levels, at most
NEIGHBOURS = 5  # pixels a side of the square within which it is to be even
MIN_SHARE = 0.002  # of the image, below which an even patch is chance
CORNER_SHARE = 0.05  # of the shorter side, how large a corner is: letters may stand in it
MAX_SIDE = 1024  # pixels; of a larger image every second, third, ... pixel is looked at


def field_of_view(image: np.ndarray) -> np.ndarray:
    """(H, W), False in the padding of `image`, uint8 (H, W, 3): even patches that take in a corner of the image.

    Tissue has grain, padding has none. A cyst may be as even and reach the border, but no corner.
    """
    step = -(-max(image.shape[:2]) // MAX_SIDE)
    grey = image[::step, ::step].max(axis=-1).astype(np.int16)
    low, high = np.percentile(grey, (1, 99))
    tolerance = min(MAX_EVEN, EVEN * (high - low))
    kernel = np.ones((NEIGHBOURS, NEIGHBOURS), np.uint8)
    even = cv2.dilate(grey, kernel) - cv2.erode(grey, kernel) <= tolerance
    _, patches, stats, _ = cv2.connectedComponentsWithStats(even.astype(np.uint8), connectivity=4)
    outside = np.zeros(grey.shape, bool)
    for patch in _in_corners(patches):
        if stats[patch, cv2.CC_STAT_AREA] < MIN_SHARE * grey.size:
            continue
        inside = patches == patch
        alike = np.abs(grey - np.median(grey[inside])) <= tolerance
        # its rim is not even, for it has other neighbours, but of the same grey
        outside |= cv2.dilate((inside & alike).astype(np.uint8), kernel).astype(bool) & alike
    if step > 1:
        outside = np.repeat(np.repeat(outside, step, 0), step, 1)[: image.shape[0], : image.shape[1]]
    return ~outside


def _in_corners(patches: np.ndarray) -> np.ndarray:
    """The numbers of patches, from 1, of which a part lies in a corner."""
    side = max(NEIGHBOURS, round(CORNER_SHARE * min(patches.shape)))
    ends = (slice(None, side), slice(-side, None))
    found = np.unique(np.concatenate([patches[rows, columns].ravel() for rows in ends for columns in ends]))
    return found[found > 0]
