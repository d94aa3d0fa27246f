"""What a segmenter answers, and what its pipelines do alike: check what they are given, grow maps, tell doubt."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from emitdiff.errors import EmitDiffError
from emitdiff.images import to_rgb
from emitdiff.segmentation.vocabulary import Target

Answer = Literal["found", "unsure", "not there"]


@dataclass(frozen=True)
class SegmentationOutput:
    """`mask` uint8 (H, W) 0 or 1 and `probability` float32 (H, W) in 0..1, both at the size of the image given.

    `found` is False for an empty mask: nothing here answers the sentence. `target` is the trained target the sentence
    names, None where it puts it another way. `present` in 0..1 says how surely the image shows it at all; it is a score
    and no frequency, for to refuse what is there counts more than a mask too many. Where it is low the target is held
    to be `absent`, and the mask is empty whatever the threshold; where it is neither low nor high the answer is
    `unsure`, and whether the mask is drawn rightly is for whoever looks at it to say.
    `uncertainty` float32 (H, W) in 0..1 is how much the head's votes disagree, in bits (Jensen-Shannon divergence, as
    in DDPM-seg), or for a head without votes the entropy of its one answer. `seconds` is the time taken, with the
    encoding where that was part of the call. `untaught` says that the text names nothing the head was trained on:
    whatever is found then means little.
    """

    mask: np.ndarray
    probability: np.ndarray
    found: bool
    target: str | None
    present: float
    uncertainty: np.ndarray
    seconds: float
    warnings: tuple[str, ...] = ()
    absent: bool = False
    untaught: bool = False
    unsure: bool = False

    @property
    def answer(self) -> Answer:
        """What to tell: "not there" for an empty mask, "unsure" for one that may be altogether wrong, else "found"."""
        if not self.found:
            return "not there"
        return "unsure" if self.unsure else "found"

    def at(self, threshold: float) -> SegmentationOutput:
        """The same answer with the mask of another threshold; no network runs."""
        found = np.zeros(self.mask.shape, bool) if self.absent else self.probability > threshold
        return replace(self, mask=found.astype(np.uint8), found=bool(found.any()))


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


def check_query(text: str, threshold: float) -> None:
    """Raises EmitDiffError where the text or the threshold cannot be used."""
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


def trained_phrase(target: Target | None, targets: tuple[str, ...]) -> str | None:
    """The phrase of a target that a sentence names, None where it is none of the trained `targets`."""
    return target.phrase if target is not None and target.phrase in targets else None
