"""What a segmenter answers, and what its pipelines do alike: check what they are given, grow maps, tell doubt."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from torch.nn import functional

from emitdiff.errors import EmitDiffError
from emitdiff.images import to_rgb

Untaught = Literal["refuse", "try"]  # what is done with a text that asks for nothing that was taught
Answer = Literal["found", "unsure", "not there", "not taught"]


@dataclass(frozen=True)
class SegmentationOutput:
    """`mask` uint8 (H, W) 0 or 1 and `probability` float32 (H, W) in 0..1, both at the size of the image given.

    `found` is False for an empty mask: nothing here answers the sentence. `target` is the trained target the sentence
    names, None for an empty one. `present` in 0..1 says how surely the image shows it at all; it is a score
    and no frequency, for to refuse what is there counts more than a mask too many. Where it is low the target is held
    to be `absent`, and the mask is empty whatever the threshold; where it is neither low nor high the answer is
    `unsure`, and whether the mask is drawn rightly is for whoever looks at it to say.
    `uncertainty` float32 (H, W) in 0..1 is how much the head's votes disagree, in bits (Jensen-Shannon divergence, as
    in DDPM-seg), or for a head without votes the entropy of its one answer. `seconds` is the time taken, with the
    encoding where that was part of the call. `untaught` says that the text asks for nothing the head was taught: the
    mask is empty and `present` None, or where it was to "try" the mask is what the network marks, and is not `found`;
    `nearest` is the taught target to ask for instead, None where none is close. Pieces of the mask that are smaller
    than `least_piece` of the largest one, in 0..1, are left out of it.
    """

    mask: np.ndarray
    probability: np.ndarray
    found: bool
    target: str | None
    present: float | None
    uncertainty: np.ndarray
    seconds: float
    warnings: tuple[str, ...] = ()
    absent: bool = False
    untaught: bool = False
    unsure: bool = False
    nearest: str | None = None
    least_piece: float = 0.0

    @property
    def answer(self) -> Answer:
        """What to tell: "not there" for an empty mask, "unsure" for one that may be altogether wrong, else "found"; but
        "not taught" where `untaught`."""
        if self.untaught:
            return "not taught"
        if not self.found:
            return "not there"
        return "unsure" if self.unsure else "found"

    def at(self, threshold: float) -> SegmentationOutput:
        """The same answer with the mask of another threshold; no network runs."""
        if self.absent:
            found = np.zeros(self.mask.shape, bool)
        else:
            found = without_strays(self.probability > threshold, self.least_piece)
        return replace(self, mask=found.astype(np.uint8), found=bool(found.any()) and not self.untaught)


def without_strays(mask: np.ndarray, least: float) -> np.ndarray:
    """bool (H, W) without the pieces that are smaller than `least` of the largest one; pixels that touch at a corner
    are of one piece."""
    if not least or not mask.any():
        return mask
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return np.isin(pieces, 1 + np.flatnonzero(areas >= least * areas.max()))


def checked_image(image: np.ndarray) -> np.ndarray:
    """`image` as uint8 (H, W, 3). Raises EmitDiffError where it cannot be used."""
    shape = np.shape(image)
    colour = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    if not colour or min(shape[:2]) < 8 or np.asarray(image).dtype != np.uint8:
        raise EmitDiffError(
            f"The image is {np.asarray(image).dtype} of shape {shape}: give uint8 (H, W) or (H, W, 3) of at least "
            "8 x 8 pixels; read_scan(path).image() makes one from any scan."
        )
    return to_rgb(image)


def check_query(text: str, threshold: float, untaught: str = "refuse") -> None:
    """Raises EmitDiffError where the text, the threshold or what is to be done with an untaught text cannot be used."""
    if untaught not in get_args(Untaught):
        raise EmitDiffError(f"untaught is {untaught!r}: give {' or '.join(map(repr, get_args(Untaught)))}.")
    if not isinstance(text, str):
        raise EmitDiffError(f"The text is of type {type(text).__name__}: give a sentence naming what to find.")
    if not 0 < threshold < 1:
        raise EmitDiffError(f"The threshold is {threshold}: give a probability between 0 and 1.")


def entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """Bits of (..., classes, H, W)."""
    return torch.special.entr(probabilities).sum(-3) / math.log(2)


def upsample(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps (B, C, h, w) at `size` = (H, W), bilinearly."""
    return functional.interpolate(maps, size=size, mode="bilinear", antialias=False)
