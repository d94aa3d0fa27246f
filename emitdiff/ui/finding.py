"""Segmentation results of a slice or a whole scan, with their mask files."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from emitdiff.images import overlay
from emitdiff.ui.archive import folder_of
from emitdiff.ui.results import Scan, SegmentationOutput
from emitdiff.ui.source import at_view_size, with_edge_letters

# what the second view shows: white is 1
MAPS = {"Probability": "probability", "Uncertainty": "uncertainty"}
MAX_TEXT_LENGTH = 80  # letters of a sentence that are repeated in the answer


@dataclass(eq=False)
class Finding:
    """One slice's answer to `text`. `without` is the answer to no text at all, where that was asked for; `volume` is
    what the answer is a part of. The mask file lies in `folder`, which goes with the finding."""

    scan: Scan
    image: np.ndarray
    index: int
    output: SegmentationOutput
    text: str
    threshold: float
    checkpoint: str
    without: SegmentationOutput | None = None
    volume: Volume | None = None
    folder: Path | None = None

    def at(self, threshold: float) -> Finding:
        """The same answers with the masks of another threshold."""
        without = self.without.at(threshold) if self.without else None
        return replace(self, output=self.output.at(threshold), without=without, threshold=threshold, folder=None)

    def belongs_to(self, scan: Scan, index: int, image: np.ndarray, volume: Volume | None) -> bool:
        """Whether this is still the answer to slice `index` of `scan`, shown as `image` (H, W, 3).

        Slices may look alike, and so may files; and the answer of a volume goes with that `volume`.
        """
        same = self.index == index and self.scan.name == scan.name and self.volume in (None, volume)
        return same and np.array_equal(self.image, image)

    def save(self, form: str | None) -> Path:
        """The mask file of this slice, or of the whole volume, in the geometry of the source."""
        if self.volume is not None:
            return self.volume.save(form, self.threshold)
        if self.folder is None:
            self.folder = folder_of(self)
        label = f"{self.text} (not taught)" if self.output.untaught else self.text
        return self.scan.save_mask({self.index: self.output.mask}, self.folder, form, label)

    @property
    def refused(self) -> bool:
        """Whether nothing was looked for, since the text asks for nothing that these weights were taught."""
        return self.output.untaught and not self.output.probability.any()

    def picture(self, opacity: float, outlined: bool, without: bool = False) -> np.ndarray:
        """The image with the mask over it at `opacity` in per cent; `without` takes the mask found without text."""
        output = self.without if without and self.without is not None else self.output
        image, mask = at_view_size(self.image), at_view_size(output.mask)
        drawn = overlay(
            image, mask, opacity / 100, 2 if outlined else 0, dashed=output.answer in ("unsure", "not taught")
        )
        return with_edge_letters(drawn, self.scan)

    def map(self, mapped: str) -> np.ndarray:
        """One of `MAPS` in grey, uint8 (h, w, 3)."""
        grey = np.rint(np.clip(getattr(self.output, MAPS[mapped]), 0, 1) * 255).astype(np.uint8)
        return at_view_size(np.repeat(grey[..., None], 3, axis=-1))

    def describe(self) -> str:
        """What was found, in a sentence that says so plainly when nothing was."""
        output, text = self.output, shorten(self.text, MAX_TEXT_LENGTH, placeholder=" …")
        area = 100 * float(np.mean(output.mask > 0))
        if self.refused:
            nearest = f" Nearest: {output.nearest}?" if output.nearest else ""
            return f"Nothing was looked for: “{text}” asks for nothing these weights were taught.{nearest}"
        if output.untaught:
            return f"Looked anyway for “{text}”, which was not taught: {area:.1f} % is marked, and may be anything."
        if output.absent:
            said = f"presence {output.present:.2f}"
            return f"Target absent: the image does not appear to show “{text}” ({said})."
        if not output.found:
            highest = float(np.max(output.probability))
            return (
                f"Not found: no pixel of “{text}” is above the threshold (highest probability {highest:.2f}, threshold "
                f"{self.threshold:.2f})."
            )
        meant = (
            f", interpreted as “{output.target}”"
            if output.target and output.target.lower() != self.text.lower()
            else ""
        )
        took = f"{output.seconds:.1f} s" if output.seconds >= 0.1 else f"{1000 * output.seconds:.0f} ms"
        if output.answer == "unsure":
            return (
                f"Unsure whether the image shows “{text}”{meant} (presence {output.present:.2f}): the dashed outline, "
                f"{area:.1f} % of the image, is where it would be. In {took}."
            )
        return f"Found “{text}”{meant}: {area:.1f} % of the image, in {took}."

    def compare_without(self) -> str:
        """What the text changed, in a sentence; "" where nothing was asked without it."""
        if self.without is None:
            return ""
        one, other = self.output.mask > 0, self.without.mask > 0
        sizes = int(one.sum() + other.sum())
        words = f"Without text: {100 * float(other.mean()):.1f} % of the image"
        return f"{words}; Dice between the two masks: {2 * int((one & other).sum()) / max(sizes, 1):.2f}."

    def remove(self) -> None:
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(eq=False)
class Volume:
    """The answers of all slices, or of those that were reached, kept with eight bits a pixel."""

    scan: Scan
    window: str | None
    text: str
    checkpoint: str
    answers: dict[int, SegmentationOutput] = field(default_factory=dict)
    saved: dict[tuple[str | None, float], Path] = field(default_factory=dict)
    scores: dict[Any, list[dict]] = field(default_factory=dict)  # kept by whoever compares it with a true mask
    folder: Path = field(init=False)
    _masks: dict[float, np.ndarray] = field(default_factory=dict)  # of the threshold used last

    def __post_init__(self) -> None:
        self.folder = folder_of(self)

    def add(self, index: int, output: SegmentationOutput) -> None:
        small = {name: np.rint(getattr(output, name) * 255).astype(np.uint8) for name in MAPS.values()}
        self.answers[index] = replace(output, mask=np.broadcast_to(np.uint8(0), output.mask.shape), **small)

    def answer(self, index: int, threshold: float) -> SegmentationOutput:
        """The answer of slice `index` as the segmenter gave it, with the mask of `threshold`."""
        kept = self.answers[index]
        large = {name: getattr(kept, name).astype(np.float32) / 255 for name in MAPS.values()}
        return replace(kept, **large).at(threshold)

    def finding(self, index: int, image: np.ndarray, threshold: float) -> Finding:
        """Slice `index`, whose picture is `image`, as a finding."""
        output = self.answer(index, threshold)
        return Finding(self.scan, image, index, output, self.text, threshold, self.checkpoint, volume=self)

    def masks(self, threshold: float) -> np.ndarray:
        """0 and 1, uint8 (S, H, W); 0 in slices that were not reached."""
        if threshold not in self._masks:
            masks = np.zeros((self.scan.num_slices, *self.scan.size), np.uint8)
            for index in self.answers:
                masks[index] = self.answer(index, threshold).mask
            self._masks = {threshold: masks}
        return self._masks[threshold]

    def save(self, form: str | None, threshold: float) -> Path:
        """One file with the masks of all slices; written once for each form and threshold."""
        if (form, threshold) not in self.saved:
            folder = Path(tempfile.mkdtemp(dir=self.folder))  # its own name: the last file may still be fetched
            self.saved[form, threshold] = self.scan.save_mask(self.masks(threshold), folder, form, self.text)
        return self.saved[form, threshold]

    def describe(self, threshold: float) -> str:
        """How much was found where: "“liver” in 34 of 96 slices, 1204 ml"."""
        masks = self.masks(threshold)
        shown, total = int(masks.any(axis=(1, 2)).sum()), self.scan.num_slices
        words = f"“{self.text}” in {shown} of {total} slices" if shown else f"“{self.text}” was not found in any slice"
        unsure = sum(self.answer(index, threshold).answer == "unsure" for index in self.answers)
        words += f", unsure in {unsure} of them" if unsure else ""
        if self.scan.spacing and shown:
            words += f", {masks.sum() * float(np.prod(self.scan.spacing)) / 1000:.3g} ml"
        reached = len(self.answers)
        return (
            f"{words}."
            if reached == total
            else f"{words}; stopped after {reached} of {total}, the remaining slices are empty."
        )

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
