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
from emitdiff.scans.decoding import checked_class_ids
from emitdiff.scans.geometry import Geometry, SeriesReference, Window


@dataclass(eq=False)
class Scan:
    """One decoded file, series or archive. It keeps pixels and geometry and nothing that names a patient.

    `kind` is "image", "dicom" or "nifti"; `modality` "CT", "MRI", "Ultrasound" or "X-ray" when the file says so;
    `spacing` is (slice, row, column) in millimetres; `windows` are the named choices that apply, the default first,
    {} where the values are 8 bit and shown as they are; `orientation` says how the slices are shown.
    """

    name: str
    kind: str
    values: np.ndarray = field(repr=False)  # (S, H, W), or (S, H, W, 3) uint8 or uint16; not windowed
    modality: str | None = None
    spacing: tuple[float, float, float] | None = None
    warnings: tuple[str, ...] = ()
    windows: dict[str, Window] = field(default_factory=dict)
    orientation: str = "as stored"
    inverted: bool = False  # MONOCHROME1: low values are bright
    geometry: Geometry | None = field(default=None, repr=False)
    origin: SeriesReference | None = field(default=None, repr=False)  # of DICOM: how the images are identified

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
        if window is None:
            return next(iter(self.windows.values()))
        if window not in self.windows:
            choices = ", ".join(self.windows) or "none: its values are 8 bit"
            raise EmitDiffError(f"'{self.name}' has no window '{window}'. Windows that apply: {choices}.")
        return self.windows[window]

    def image(self, index: int = 0, window: str | Window | None = None) -> np.ndarray:
        """Slice `index` as uint8 (H, W, 3). `window` is a name from `windows` or a Window; None takes the default."""
        if not 0 <= index < self.num_slices:
            raise EmitDiffError(f"'{self.name}' has slices 0 to {self.num_slices - 1}; slice {index} was asked for.")
        used, values = self.window_used(index, window), self.values[index]
        if used is not None:
            # DICOM PS3.3 C.11.2.1.2.1: the width counts both ends, so it is one more than the distance between them.
            span = used.width - 1 if self.kind == "dicom" and used.width > 1 else used.width
            scaled = (values.astype(np.float32) - (used.centre - used.width / 2)) * (255 / span)
            values = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
        return to_rgb(255 - values if self.inverted else values)

    @property
    def mask_forms(self) -> tuple[str, ...]:
        """What `save_mask` can write for this scan, its own kind first."""
        plain = "NIfTI" if self.geometry is not None else "PNG" if self.num_slices == 1 else "TIFF"
        return ("DICOM SEG", plain) if self.origin is not None else (plain,)

    def save_mask(
        self, masks: np.ndarray | dict[int, np.ndarray], folder: str | Path, form: str | None = None, label: str = ""
    ) -> Path:
        """Write class ids, (S, H, W) or (H, W) or {slice: (H, W)}, at the size and in the geometry of the source.

        Slices that are not given are background. `form` is one of `mask_forms`, by default the last: with a geometry
        (NIfTI, DICOM with positions) NIfTI in the source's own orientation; otherwise PNG, or TIFF with one page per
        slice. `label` names the class in a DICOM SEG. Returns the path of the file.
        """
        slices, folder = self._stack_masks(masks), Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        stem = file_stem(self.name)
        if form is not None and form not in self.mask_forms:
            raise EmitDiffError(f"A mask of '{self.name}' cannot be {form}: choose {' or '.join(self.mask_forms)}.")
        if self.origin is not None and form == "DICOM SEG":
            from emitdiff.scans.dicom_seg import write_segmentation

            ids = [int(value) for value in np.unique(slices) if value] or [1]
            names = {value: label or "mask" if len(ids) == 1 else f"class {value}" for value in ids}
            return write_segmentation(slices, self.origin, self.geometry, folder / f"{stem}_mask.dcm", names)
        if self.geometry is not None:
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
            stack[index] = checked_class_ids(mask, self.name)
        return stack
