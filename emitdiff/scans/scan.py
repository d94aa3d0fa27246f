"""One decoded file, series or archive: its slices as pictures, and masks written in its geometry."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from emitdiff.errors import EmitDiffError
from emitdiff.files import file_stem, write_atomically
from emitdiff.images import to_rgb
from emitdiff.provenance import USE_NOTICE
from emitdiff.scans.decoding import checked_ids
from emitdiff.scans.geometry import Geometry, SeriesReference, Window


def check_slice(name: str, index: int, count: int) -> None:
    """EmitDiffError where slice `index` of `count` is not there."""
    if not 0 <= index < count:
        range_of = f"give a number from 0 to {count - 1}" if count > 1 else "it has one, 0, which need not be named"
        raise EmitDiffError(f"'{name}' has no slice {index}: {range_of}.")


def check_time_point(name: str, time_point: int | None, count: int) -> None:
    """EmitDiffError where one of the `count` volumes of a file is asked for and is not there."""
    if time_point is not None and not 0 <= time_point < count:
        raise EmitDiffError(f"'{name}' has {count} volume(s), counted from 0; time point {time_point} was asked for.")


@dataclass(frozen=True)
class Wanted:
    """What of a scan is to be read: one slice alone, or all; one of several volumes; for which window."""

    index: int | None = None
    time_point: int | None = None
    window: str | Window | None = None


@dataclass(eq=False)
class Scan:
    """One decoded file, series or archive. It keeps pixels and geometry and nothing that names a patient.

    `kind` is "image", "dicom" or "nifti"; `modality` "CT", "MRI", "Ultrasound" or "X-ray" when the file says so;
    `spacing` is (slice, row, column) in millimetres; `windows` are the named choices that apply, the default first,
    {} where the values are 8 bit and shown as they are; `orientation` says how the slices are shown. `sides` are the
    patient's sides where the file tells them and no geometry does. Where `only` is a number, no other slice was read.
    """

    name: str
    kind: str
    values: np.ndarray = field(repr=False)  # (S, H, W) or (S, H, W, 3); not windowed
    modality: str | None = None
    spacing: tuple[float, float, float] | None = None
    warnings: tuple[str, ...] = ()
    windows: dict[str, Window] = field(default_factory=dict)
    orientation: str = "as stored"
    # DICOM may have windows of its own for every slice; under the names in `windows`, which has those of the middle.
    slice_windows: tuple[dict[str, Window], ...] = field(default=(), repr=False)
    inverted: bool = False  # MONOCHROME1: low values are bright
    geometry: Geometry | None = field(default=None, repr=False)
    origin: SeriesReference | None = field(default=None, repr=False)  # of DICOM: how the images are identified
    sides: dict[str, str] = field(default_factory=dict)
    only: int | None = None
    volumes: int = 1  # that the file holds at the same places: time points, echoes
    volume: int = 0  # which of them this is
    laterality: str | None = None  # "left", "right" or "both", of a paired part of the body, where the file says so

    def keep(self, wanted: Wanted) -> Scan:
        """Itself, where the slice and volume asked for are there; for formats without volumes."""
        if wanted.index is not None:
            self.image(wanted.index)  # which refuses
        check_time_point(self.name, wanted.time_point, 1)
        return self

    @property
    def num_slices(self) -> int:
        return len(self.values)

    @property
    def middle(self) -> int:
        """The slice shown where none was asked for."""
        return self.num_slices // 2

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of a displayed slice."""
        height, width = self.values.shape[1:3]
        return height, width

    def window_used(self, index: int = 0, window: str | Window | None = None) -> Window | None:
        """The window that `image(index, window)` applies; None where the values are shown as they are."""
        if isinstance(window, Window):
            if not (window.width > 0 and np.isfinite([window.width, window.centre]).all()):
                given = f"{window.width:g}/{window.centre:g}"
                raise EmitDiffError(f"A window needs a width above 0 and a level, both finite; {given} was given.")
            return window
        if not self.windows and window is None:
            return None
        window = next(iter(self.windows)) if window is None else window
        if self.slice_windows and window in self.slice_windows[index]:
            return self.slice_windows[index][window]
        if window not in self.windows:
            choices = ", ".join(self.windows) or "none: its values are 8 bit"
            raise EmitDiffError(f"'{self.name}' has no window '{window}'. Windows that apply: {choices}.")
        return self.windows[window]

    def image(self, index: int = 0, window: str | Window | None = None) -> np.ndarray:
        """Slice `index` as uint8 (H, W, 3). `window` is a name from `windows` or a Window; None takes the default."""
        check_slice(self.name, index, self.num_slices)
        if self.only not in {None, index}:
            raise EmitDiffError(f"Of '{self.name}' slice {self.only} alone was read; slice {index} was asked for.")
        used, values = self.window_used(index, window), self.values[index]
        values = values if used is None else used.grey_levels(values)
        return to_rgb(255 - values if self.inverted else values)

    def edge_letters(self) -> dict[str, str]:
        """The patient's side at each edge of a slice, {"left": "R", ...}; {} where the file does not tell."""
        return self.sides if self.geometry is None else self.geometry.edge_letters()

    @property
    def mask_forms(self) -> tuple[str, ...]:
        """What `save_mask` can write for this scan, its own kind first.

        Slices that are not evenly spaced have no NIfTI, which would have them elsewhere.
        """
        uneven = self.geometry is not None and not self.geometry.even
        if uneven and self.origin is not None:
            return ("DICOM SEG",)
        placed = self.geometry is not None and not uneven
        plain = "NIfTI" if placed else "PNG" if self.num_slices == 1 else "TIFF"
        return ("DICOM SEG", plain) if self.origin is not None else (plain,)

    def save_mask(
        self, masks: np.ndarray | dict[int, np.ndarray], folder: str | Path, form: str | None = None, label: str = ""
    ) -> Path:
        """Write class ids, (S, H, W) or (H, W) or {slice: (H, W)}, at the size and in the geometry of the source.

        Slices that are not given are background. `form` is one of `mask_forms`, by default the last: with a geometry
        (NIfTI, DICOM with positions) NIfTI in the source's own orientation; for slices that are not evenly spaced DICOM
        SEG; otherwise PNG, or TIFF with one page per slice. `label` names the class in a DICOM SEG. Returns the path of
        the file.
        """
        slices, folder = self._stack_masks(masks), Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        stem = file_stem(self.name)
        form = form or self.mask_forms[-1]
        if form not in self.mask_forms:
            uneven = self.geometry is not None and not self.geometry.even and form == "NIfTI"
            why = ", which would spread its uneven slices evenly" if uneven else ""
            choices = " or ".join(self.mask_forms)
            raise EmitDiffError(f"A mask of '{self.name}' cannot be {form}{why}: choose {choices}.")
        if self.origin is not None and form == "DICOM SEG":
            from emitdiff.scans.dicom_seg import write_segmentation

            ids = [int(value) for value in np.unique(slices) if value] or [1]
            names = {value: label or "mask" if len(ids) == 1 else f"class {value}" for value in ids}
            return write_segmentation(slices, self.origin, folder / f"{stem}_mask.dcm", names)
        if self.geometry is not None and form == "NIfTI":
            from emitdiff.scans.nifti_mask import write_nifti

            return write_nifti(slices, self.geometry, folder / f"{stem}_mask.nii.gz")
        first, *others = (Image.fromarray(page) for page in slices)
        path = folder / (f"{stem}_mask.tif" if others else f"{stem}_mask.png")
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", USE_NOTICE)
        how: dict[str, Any] = {"format": "PNG", "pnginfo": text}
        if others:
            how = {"format": "TIFF", "save_all": True, "append_images": others, "description": USE_NOTICE}
        write_atomically(path, lambda partial: first.save(partial, **how))
        return path

    def _stack_masks(self, masks: np.ndarray | dict[int, np.ndarray]) -> np.ndarray:
        if not isinstance(masks, dict):
            array = np.asarray(masks)
            masks = dict(enumerate(array[None] if array.ndim == 2 else array))
            if len(masks) != self.num_slices:
                raise EmitDiffError(f"'{self.name}' has {self.num_slices} slice(s); {len(masks)} mask(s) were given.")
        stack = np.zeros((self.num_slices, *self.size), np.uint8)
        for index, mask in masks.items():
            mask = np.asarray(mask)
            if not 0 <= index < self.num_slices or mask.shape != self.size:
                raise EmitDiffError(
                    f"A mask of shape {mask.shape} was given for slice {index}; '{self.name}' has slices 0 to "
                    f"{self.num_slices - 1} of shape {self.size}."
                )
            stack[index] = checked_ids(mask, self.name)
        return stack
