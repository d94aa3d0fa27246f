"""Directions in a sentence, kept true when its picture is mirrored or turned: "upper left" becomes "upper right".

Anatomical sides follow as well: a chest seen in a mirror shows its left lung where the right one is looked for.
"""

from __future__ import annotations

import re

import cv2
import numpy as np

DIRECTIONS = ("upper", "left", "lower", "right")  # the order in which a quarter turn to the left moves them on
NAMES = {"top": "upper", "bottom": "lower"}
WORD = re.compile(r"\b(upper|lower|left|right|top|bottom)(?=most\b|wards?\b|\b)", re.IGNORECASE)
REVERSED_PAIR = re.compile(r"\b(left|right)(\s+|-)(upper|lower)\b", re.IGNORECASE)


def rotate_quarters(array: np.ndarray, quarters: int, mirror: bool) -> np.ndarray:
    """`array` (H, W, ...) mirrored left to right where `mirror`, then turned to the left by `quarters` x 90 degrees."""
    return np.ascontiguousarray(np.rot90(array[:, ::-1] if mirror else array, quarters))


def rotate_degrees(array: np.ndarray, degrees: float, labels: bool = False) -> np.ndarray:
    """uint8 `array` (H, W, ...) turned to the left about its middle at its own size, the corners filled by reflection.

    Bilinear, or with `labels` nearest neighbour, which makes no class ids that were not there.
    """
    height, width = array.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    kind = cv2.INTER_NEAREST if labels else cv2.INTER_LINEAR
    return cv2.warpAffine(array, matrix, (width, height), flags=kind, borderMode=cv2.BORDER_REFLECT_101)


def rewrite_directions(text: str, quarters: int = 0, mirror: bool = False) -> str:
    """`text` as it is true of `rotate_quarters(picture, quarters, mirror)`; other words, case and punctuation are kept.

    A quarter turn of "upper left" would give "left lower": such pairs are put back in the usual order.
    """

    def moved(found: re.Match) -> str:
        word = found[0].lower()
        side = DIRECTIONS.index(NAMES.get(word, word))
        if mirror and side % 2:
            side = 4 - side
        new = DIRECTIONS[(side + quarters) % 4]
        if word in NAMES:
            new = {name: side for side, name in NAMES.items()}.get(new, new)
        return _in_case(new, found[0])

    written = WORD.sub(moved, text)
    if quarters % 2 == 0:
        return written
    return REVERSED_PAIR.sub(lambda pair: f"{_in_case(pair[3], pair[1])}{pair[2]}{_in_case(pair[1], pair[3])}", written)


def _in_case(word: str, like: str) -> str:
    if like.isupper():
        return word.upper()
    return word.capitalize() if like[0].isupper() else word.lower()
