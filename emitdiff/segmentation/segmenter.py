"""What every segmenter does: encode an image once, then segment it for any number of sentences, as SAM 2 does."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.field_of_view import field_of_view
from emitdiff.segmentation.output import SegmentationOutput, Untaught, check_query, checked_image
from emitdiff.segmentation.wording.reader import Request, TaughtWords, TextReader
from emitdiff.turns import Turns


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
    pixels. `encoder` stands for the pipeline: what it encoded means nothing to another. `shown`, bool (H, W), is False
    where the image shows nothing (`field_of_view`).
    """

    features: tuple[ImageFeatures, ...]
    signature: torch.Tensor | None
    size: tuple[int, int]
    encoder: object
    shown: np.ndarray | None = None

    def within(self, values: np.ndarray) -> np.ndarray:
        """`values` (H, W), 0 where the image shows nothing."""
        return values if self.shown is None else np.where(self.shown, values, 0).astype(values.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the features, the signature and the field of view."""
        tensors = [part for look in self.features for part in (*look.maps, look.pixels)] + [self.signature, self.shown]
        return sum(part.nbytes for part in tensors if part is not None)


class Segmenter(ABC):
    """Finds the `targets` it was taught, phrases like "left lung"; `card` says how it came about. `weights` is the
    sha256 of the files it was loaded from, "" for one that was not.

    Keeps nothing of an image: what `encode` returns is the caller's. Safe to call from several threads, which take
    `turns`: a turn for an image, another for each question. Several pipelines may be given the same `turns`.
    """

    weights: str = ""

    def __init__(self, targets: Sequence[str], card: dict | None = None) -> None:
        self._encoder = object()
        self.targets, self.card = tuple(targets), card or {}
        self.turns = Turns()
        self.reader = TextReader(self.targets, TaughtWords.of_card(self.card))

    def encode(self, image: np.ndarray) -> EncodedImage:
        """Looks at an image, uint8 (H, W), (H, W, 3) or (H, W, 4): most of the work, the same for every sentence.

        Raises EmitDiffError for an image that cannot be used.
        """
        image = checked_image(image)
        return replace(self._encode(image), shown=field_of_view(image))

    def segment(
        self, encoded: EncodedImage, text: str, threshold: float = 0.5, untaught: Untaught = "refuse"
    ) -> SegmentationOutput:
        """`encoded` by this pipeline; `text` what to find; pixels above `threshold` are the mask.

        A text that asks for nothing these weights were taught gets no mask, and the warnings say what they were taught.
        `untaught` "try" has the network asked nevertheless: it may mark anything, and nothing it marks is `found`.

        Raises EmitDiffError for a text, threshold or `untaught` that cannot be used, and an image that another pipeline
        encoded.
        """
        started = time.perf_counter()
        check_query(text, threshold, untaught)
        self._check_encoded(encoded)
        request = self.reader.read(text)
        if not request.problem:
            found = self._answer(encoded, request)
        else:
            request = replace(request, nearest=self._nearest(encoded, request.nearest))
            found = self._unasked(encoded, request, untaught)
        return replace(found, seconds=time.perf_counter() - started).at(threshold)

    def __call__(
        self, image: np.ndarray, text: str, threshold: float = 0.5, untaught: Untaught = "refuse"
    ) -> SegmentationOutput:
        """Encodes `image` and segments it; arguments and errors as there. For several sentences, call the two."""
        started = time.perf_counter()
        check_query(text, threshold, untaught)  # what is wrong with it is said before the longest part
        found = self.segment(self.encode(image), text, threshold, untaught)
        return replace(found, seconds=time.perf_counter() - started)

    @abstractmethod
    def _encode(self, image: np.ndarray) -> EncodedImage:
        """As `encode`, of uint8 (H, W, 3), but for the field of view."""

    @abstractmethod
    def _answer(self, encoded: EncodedImage, request: Request) -> SegmentationOutput:
        """What the network makes of `request.spoken`, without a mask yet: probabilities outside the field of view
        are 0."""

    def _nearest(self, encoded: EncodedImage, phrase: str | None) -> str | None:
        """The taught target to suggest for this image, where the text alone suggests `phrase` or nothing."""
        return phrase

    def _unasked(self, encoded: EncodedImage, request: Request, untaught: Untaught) -> SegmentationOutput:
        """The answer to a text that asks for no taught target: none, or to "try" whatever the network marks."""
        nothing = np.zeros(encoded.size, np.float32)
        found = SegmentationOutput(nothing.astype(np.uint8), nothing, False, None, None, nothing, 0.0)
        tried = untaught == "try"
        if tried:
            found = replace(self._answer(encoded, request), target=None, absent=False)
        sentences = [request.problem, *([f"Nearest: {request.nearest}?"] if request.nearest else [])]
        sentences += ["It was looked for nevertheless: what is marked means little."] if tried else []
        warnings = (" ".join(sentences), *found.warnings)
        return replace(found, warnings=warnings, untaught=True, nearest=request.nearest)

    def _check_encoded(self, encoded: EncodedImage) -> None:
        if not isinstance(encoded, EncodedImage):
            raise EmitDiffError(f"A {type(encoded).__name__} was given: give what encode(image) returns.")
        if encoded.encoder is not self._encoder:
            raise EmitDiffError("This image was encoded by another segmenter: encode it with the one that segments it.")
