"""What every segmenter does: encode an image once, then segment it for any number of sentences, as SAM 2 does."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.output import SegmentationOutput, check_query


class ImageFeatures(NamedTuple):
    """Text-independent features of an image at one size: the maps (1, C_k, h_k, w_k) that the head reads, the output
    grid (rows, columns), the pixel features of the refinement, None for a head without, and the (rows, columns) of the
    mirrored margin on each side of the image, in its pixels.
    """

    maps: list[torch.Tensor]
    grid: tuple[int, int]
    pixels: torch.Tensor | None = None
    margin: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """What `encode` found in an image, for `segment` of the same pipeline.

    `features` are those at every size the pipeline looks at, on its device. `signature`, float32 (D,) on the CPU, tells
    which image kind it is, None where the pipeline does not ask. `size` is the (height, width) of the image in
    pixels. `encoder` stands for the pipeline: what it encoded means nothing to another.
    """

    features: tuple[ImageFeatures, ...]
    signature: torch.Tensor | None
    size: tuple[int, int]
    encoder: object

    @property
    def nbytes(self) -> int:
        """Bytes of the features and the signature."""
        tensors = [part for look in self.features for part in (*look.maps, look.pixels)] + [self.signature]
        return sum(part.nbytes for part in tensors if part is not None)


class Segmenter(ABC):
    """Keeps nothing of an image: what `encode` returns is the caller's. Safe to call from several threads.

    `weights` is the sha256 of the files it was loaded from, "" for one that was not.
    """

    weights: str = ""

    def __init__(self) -> None:
        self._encoder = object()

    @abstractmethod
    def encode(self, image: np.ndarray) -> EncodedImage:
        """Looks at an image, uint8 (H, W), (H, W, 3) or (H, W, 4): most of the work, the same for every sentence.

        Raises EmitDiffError for an image that cannot be used.
        """

    @abstractmethod
    def segment(self, encoded: EncodedImage, text: str, threshold: float = 0.5) -> SegmentationOutput:
        """`encoded` by this pipeline; `text` what to find; pixels above `threshold` are the mask.

        Raises EmitDiffError for a text or threshold that cannot be used, and an image that another pipeline encoded.
        """

    def __call__(self, image: np.ndarray, text: str, threshold: float = 0.5) -> SegmentationOutput:
        """Encodes `image` and segments it; arguments and errors as there. For several sentences, call the two."""
        started = time.perf_counter()
        check_query(text, threshold)  # what is wrong with it is said before the longest part
        found = self.segment(self.encode(image), text, threshold)
        return replace(found, seconds=time.perf_counter() - started)

    def _check_encoded(self, encoded: EncodedImage) -> None:
        if not isinstance(encoded, EncodedImage):
            raise EmitDiffError(f"A {type(encoded).__name__} was given: give what encode(image) returns.")
        if encoded.encoder is not self._encoder:
            raise EmitDiffError("This image was encoded by another segmenter: encode it with the one that segments it.")
