"""Text that is part of the pixels, like a name at the rim of an ultrasound image: found, to be warned about.

Nothing is read: what is looked for are thin strokes on calm ground, as high as letters are, several in a row. Text on
restless ground or in the middle is not found, nor is handwriting; a scale beside the image may be taken for text.
"""

from __future__ import annotations

import cv2
import numpy as np

WARNING = (
    "There seems to be text in the image, which may identify the patient: crop it or black it out before you share "
    "what is made from it."
)
LONG_SIDE = 1024  # larger images are looked at in this size
RIM = 0.25  # of the height or width, on each side: where devices write
HEIGHTS = (6, 40)  # pixels of a letter
CONTRAST = 50  # grey levels between a letter and its ground
RESTLESS = 60  # grey levels that the ground may vary by around a letter
THIN = 0.17  # of a letter's height: half the width of its strokes
LETTERS = 6  # in a row
MERGED = 6  # times its height, that letters which touch may be long together
TEXTURE = 300  # letters: where there are more, it is no text but tissue
PIECES = 4  # that a row falls into at least


def has_text_at_rim(image: np.ndarray) -> bool:
    """Whether uint8 (H, W, 3) or (H, W) shows what looks like a line of text near one of its sides."""
    grey = image if image.ndim == 2 else image.max(axis=-1)  # coloured letters too
    scale = LONG_SIDE / max(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return any(_has_line(_letters(part), grey.shape) for part in (grey, 255 - grey))


def _letters(grey: np.ndarray) -> np.ndarray:
    """(left, top, width, height) of what is as thin and as large as a letter, on calm ground, float (N, 4)."""
    ground = cv2.morphologyEx(grey, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_RECT, (13, 13)))
    around = cv2.getStructuringElement(cv2.MORPH_RECT, (15, 15))
    calm = cv2.subtract(cv2.dilate(ground, around), cv2.erode(ground, around)) < RESTLESS
    strokes = ((cv2.subtract(grey, ground) > CONTRAST) & calm).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(strokes, connectivity=8)
    boxes = stats[1:, :4].astype(np.float64)
    width, height = boxes[:, 2], boxes[:, 3]
    kept = (height >= HEIGHTS[0]) & (height <= HEIGHTS[1]) & (width <= MERGED * height)
    kept &= stats[1:, cv2.CC_STAT_AREA] > 0.15 * width * height
    depth, inside = np.zeros(count), strokes > 0
    np.maximum.at(depth, labels[inside].astype(np.intp), cv2.distanceTransform(strokes, cv2.DIST_L2, 3)[inside])
    return boxes[kept & (depth[1:] <= THIN * height + 0.5)]


def _has_line(boxes: np.ndarray, size: tuple[int, ...]) -> bool:
    """Whether enough letters of like height stand beside each other, the row of them near a side of the image."""
    if not PIECES <= len(boxes) <= TEXTURE:
        return False
    boxes = boxes[np.argsort(boxes[:, 0])]
    left, top, width, height = boxes.T
    bottom = top + height
    for first in range(len(boxes)):
        level = np.abs(bottom - bottom[first]) <= 0.25 * height[first]
        alike = (height >= 0.6 * height[first]) & (height <= 1.7 * height[first])
        line = np.flatnonzero(level & alike & (left >= left[first]))
        gaps = left[line][1:] - (left + width)[line][:-1] > height[first]
        row = line[: np.argmax(gaps) + 1] if gaps.any() else line
        letters = np.maximum(1, np.rint(width[row] / (0.9 * height[row]))).sum()
        middle = (top + height / 2)[row].mean()
        if (
            letters >= LETTERS
            and len(row) >= PIECES
            and _near_a_side(middle, left[first], (left + width)[row[-1]], size)
        ):
            return True
    return False


def _near_a_side(middle: float, start: float, end: float, size: tuple[int, ...]) -> bool:
    rows, columns = size[:2]
    return bool(
        middle < RIM * rows
        or middle > (1 - RIM) * rows
        or end < RIM * 1.6 * columns
        or start > (1 - RIM * 1.6) * columns
    )
