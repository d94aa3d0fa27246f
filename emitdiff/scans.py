"""Medical files to slices, and masks back in the geometry of the file they belong to.

The content of a file decides what it is, never its suffix. Sizes are read from the header and checked before
anything is decoded. The decoders live next door, in pictures.py, dicom.py and nifti.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, PngImagePlugin

from emitdiff.errors import EmitDiffError
from emitdiff.images import USE, file_stem, to_rgb

if TYPE_CHECKING:
    from emitdiff.dicom_seg import Origin

MAX_PIXELS = 2**26  # one slice: 8192 x 8192
MAX_VOXELS = 2**27  # all samples of all slices: 512 slices of 512 x 512, which is 512 MiB as float32
MAX_SLICES = 4096
MAX_MASK_CLASSES = 32
EXPECTED = "Expected PNG, JPEG, WebP, TIFF, DICOM (file, folder or zip) or NIfTI (.nii, .nii.gz)."


@dataclass(frozen=True)
class Window:
    """The values shown: from `centre` - `width` / 2 (black) to `centre` + `width` / 2 (white)."""

    centre: float
    width: float


# Hounsfield units, the usual choices of a radiology workstation.
WINDOWS = {
    "soft tissue": Window(40, 400),
    "lung": Window(-600, 1500),
    "brain": Window(40, 80),
    "bone": Window(400, 1800),
}


@dataclass(frozen=True, eq=False)
class Geometry:
    """How the displayed slices lie in a file: display axis d shows file axis `axes[d]`, backwards where `flips[d]`.

    `shape` is the file's own, `affine` (4, 4) takes its voxel indices to millimetres (RAS+), and `fields` are the
    geometry fields of a NIfTI header, to be written back as they were.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    shape: tuple[int, ...]
    affine: np.ndarray
    fields: dict[str, np.ndarray] = field(default_factory=dict)

    def to_display(self, array: np.ndarray) -> np.ndarray:
        """File order to (slice, row, column)."""
        return np.flip(array.transpose(self.axes), self._flipped())

    def to_file(self, slices: np.ndarray) -> np.ndarray:
        """(slice, row, column) to file order."""
        return np.flip(slices, self._flipped()).transpose(np.argsort(self.axes)).reshape(self.shape)

    def display_affine(self) -> np.ndarray:
        """(4, 4), from (slice, row, column, 1) as displayed to millimetres (RAS+)."""
        order = np.zeros((4, 4))
        order[3, 3] = 1
        for display, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            order[axis, display] = -1 if flip else 1
            order[axis, 3] = (*self.shape, 1)[axis] - 1 if flip else 0
        return self.affine @ order

    def sides(self) -> dict[str, str]:
        """The patient's side at each edge of a displayed slice, as {"left": "R", "right": "L", "top": "A", ...}.

        R and L, A and P (front and back), H and F (head and feet); two letters where a slice lies askew; {} where the
        file does not say how the patient lies.
        """
        said = not self.fields or any(self.fields[code] for code in ("qform_code", "sform_code"))
        down, across = (self.display_affine()[:3, axis] for axis in (1, 2))
        if not said or not np.isfinite([down, across]).all() or not (down.any() and across.any()):
            return {}
        edges = {"left": -across, "right": across, "top": -down, "bottom": down}
        return {edge: _letters(towards) for edge, towards in edges.items()}

    def _flipped(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(3) if self.flips[axis])


def _letters(towards: np.ndarray) -> str:
    """Where a direction (3,) in RAS+ points to: its main axis, and the second where that is at least half as much."""
    lengths = np.abs(towards)
    first, second = np.argsort(-lengths)[:2]
    axes = [first, second] if lengths[second] >= 0.5 * lengths[first] else [first]
    return "".join(("RL", "AP", "HF")[axis][int(towards[axis] < 0)] for axis in axes)


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
    origin: Origin | None = field(default=None, repr=False)  # of DICOM: how the images are identified

    @property
    def num_slices(self) -> int:
        return self.values.shape[0]

    @property
    def middle(self) -> int:
        """The slice shown where none was asked for."""
        return self.num_slices // 2

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of a displayed slice."""
        return self.values.shape[1:3]

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
        if form == "DICOM SEG":
            from emitdiff.dicom_seg import write_segmentation

            ids = [int(value) for value in np.unique(slices) if value] or [1]
            names = {value: label or "mask" if len(ids) == 1 else f"class {value}" for value in ids}
            return write_segmentation(slices, self.origin, self.geometry, folder / f"{stem}_mask.dcm", names)
        if self.geometry is not None:
            from emitdiff.nifti import write_nifti

            return write_nifti(slices, self.geometry, folder / f"{stem}_mask.nii.gz")
        first, *others = (Image.fromarray(page) for page in slices)
        path = folder / (f"{stem}_mask.tif" if others else f"{stem}_mask.png")
        if others:
            first.save(path, save_all=True, append_images=others, description=USE)
        else:
            text = PngImagePlugin.PngInfo()
            text.add_text("Comment", USE)
            first.save(path, pnginfo=text)
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
            stack[index] = _class_ids(mask, self.name)
        return stack


def read_scan(path: str | Path) -> Scan:
    """Read a file, a folder with a DICOM series, or a zip of one. EmitDiffError, a sentence, where it cannot be."""
    path = Path(path)
    kind = "folder" if path.is_dir() else _sniff(existing_file(path))
    if kind == "picture":
        from emitdiff.pictures import read_picture

        return read_picture(path)
    if kind == "nifti":
        from emitdiff.nifti import read_nifti

        return read_nifti(path)
    from emitdiff.dicom import read_dicom

    return read_dicom(path, kind)


def existing_file(path: str | Path) -> Path:
    """`path` if it is a file with something in it; EmitDiffError otherwise."""
    path = Path(path)
    if not path.is_file():
        raise EmitDiffError(f"There is no file '{path.name}' at that place. Check the path.")
    if path.stat().st_size == 0:
        raise EmitDiffError(f"'{path.name}' is empty (0 bytes). Copy or download it again.")
    return path


def read_mask(path: str | Path, size: tuple[int, int] | None = None, index: int | None = None) -> np.ndarray:
    """Class ids, uint8 (H, W), from any file `read_scan` reads; `size` is the (H, W) of the image it belongs to.

    `index` chooses the slice of a file with several. A mask of 0 and 255 becomes 0 and 1; a palette picture gives
    its indices. Raises EmitDiffError for colour, another size, or more than 32 distinct values (not a mask).
    """
    mask = _read_mask_file(path)
    if index is None and mask.num_slices > 1:
        raise EmitDiffError(f"The mask '{mask.name}' holds {mask.num_slices} slices. Give the mask of one slice.")
    if not 0 <= (index or 0) < mask.num_slices:
        raise EmitDiffError(f"The mask '{mask.name}' has slices 0 to {mask.num_slices - 1}; {index} was asked for.")
    return _labels(mask.values[index or 0], mask.name, size)


def read_slice_mask(path: str | Path, scan: Scan, index: int) -> np.ndarray:
    """Class ids, uint8 (H, W), of slice `index` of `scan`, from a mask of the whole scan or of that slice alone.

    Where both files say where they lie in the patient, every class id is taken from its place there. Raises
    EmitDiffError where the two do not cover the same voxels, and for everything that `read_mask` refuses.
    """
    mask = _read_mask_file(path)
    values = _laid_over(mask, scan)
    return _labels(values[index if len(values) > 1 else 0], mask.name, scan.size)


def read_scan_mask(path: str | Path, scan: Scan) -> np.ndarray:
    """Class ids, uint8 (S, H, W), of the whole of `scan`, laid over it as `read_slice_mask` does.

    Raises EmitDiffError for a mask of one slice where the scan has more, and for everything that function refuses.
    """
    mask = _read_mask_file(path)
    values = _laid_over(mask, scan)
    if len(values) != scan.num_slices:
        raise EmitDiffError(f"The mask '{mask.name}' is of one slice, '{scan.name}' has {scan.num_slices}.")
    if values.shape[1:3] != scan.size:
        return _labels(values[0], mask.name, scan.size)[None]  # which says what is wrong with it
    return _labels(values.reshape(-1, *values.shape[2:]), mask.name, None).reshape(values.shape[:3])


def _read_mask_file(path: str | Path) -> Scan:
    from emitdiff.pictures import read_picture

    path = existing_file(path)
    return read_picture(path, keep_indices=True) if _sniff(path) == "picture" else read_scan(path)


def _laid_over(mask: Scan, scan: Scan) -> np.ndarray:
    """The values of `mask` in the order in which the slices, rows and columns of `scan` are displayed."""
    if mask.geometry is None or scan.geometry is None:
        if mask.num_slices not in (1, scan.num_slices):
            raise EmitDiffError(
                f"The mask '{mask.name}' holds {mask.num_slices} slice(s), its image {scan.num_slices}. "
                "Give the mask of the whole scan, or of the one slice."
            )
        return mask.values
    from_scan, from_mask = scan.geometry.display_affine(), mask.geometry.display_affine()
    lengths = np.array(scan.values.shape[:3])
    if mask.values.shape[:3] == tuple(lengths) and np.allclose(from_scan, from_mask, atol=1e-3, equal_nan=True):
        return mask.values
    usable = np.isfinite([from_scan, from_mask]).all() and abs(np.linalg.det(from_mask)) > 1e-9
    turn = np.linalg.solve(from_mask, from_scan) if usable else np.zeros((4, 4))  # a place in the scan to the mask's
    whole = np.rint(turn)
    # One corner to the opposite one: both grids have the same voxels when it arrives and every step is one voxel long.
    corners = np.array([[0, 0, 0, 1], [*(lengths - 1), 1]]).T
    ends = (whole @ corners)[:3]
    apart = (np.abs(turn - whole) @ corners).max()
    steps = np.abs(whole[:3, :3])
    one_each = (steps.sum(0) == 1).all() and (steps.sum(1) == 1).all()
    covered = (ends.min(1) == 0).all() and (ends.max(1) == np.array(mask.values.shape[:3]) - 1).all()
    if apart > 0.25 or not one_each or not covered:
        raise EmitDiffError(
            f"The mask '{mask.name}' does not lie where '{scan.name}' lies: size, orientation or position differ. "
            "Save it with the geometry of its image, or give the mask of the one slice as PNG."
        )
    axes = steps.argmax(0)
    backwards = [axis for axis in range(3) if whole[axes[axis], axis] < 0]
    return np.flip(mask.values.transpose(*axes, *range(3, mask.values.ndim)), backwards)


def _labels(values: np.ndarray, name: str, size: tuple[int, int] | None) -> np.ndarray:
    """One slice of a mask file, (H, W) or grey (H, W, 3), as class ids; 0 and 255 become 0 and 1."""
    if values.shape[:2] != tuple(size or values.shape[:2]):
        raise EmitDiffError(
            f"The mask '{name}' is {values.shape[1]} x {values.shape[0]} pixels, its image {size[1]} x {size[0]}. "
            "Give the mask at the size of the image."
        )
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            raise EmitDiffError(f"The mask '{name}' is in colour. Save it as grey values: one id per class.")
        values = values[..., 0]
    values = _class_ids(values, name)
    return (values > 0).astype(np.uint8) if values.max() == 255 and np.isin(values, (0, 255)).all() else values


def _class_ids(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype != np.uint8:
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255 or (values % 1 != 0).any():
            raise EmitDiffError(f"The mask '{name}' holds values that are not class ids (whole numbers, 0 to 255).")
        values = values.astype(np.uint8)
    distinct = np.count_nonzero(np.bincount(values.ravel(), minlength=256))
    if distinct > MAX_MASK_CLASSES:
        raise EmitDiffError(
            f"'{name}' has {distinct} distinct values, so it looks like a picture and not like a mask. "
            f"A mask holds class ids (0 is background), at most {MAX_MASK_CLASSES} of them, saved without loss (PNG)."
        )
    return np.ascontiguousarray(values)


def _sniff(path: Path) -> str:
    """What the first bytes say: "dicom", "zip", "nifti", or "picture" for all the rest."""
    with path.open("rb") as file:
        head = file.read(352)
    if head[128:132] == b"DICM" or re.match(rb"[\x02\x08]\0[\0-\x18]\0([A-Z]{2}|.\0\0\0)", head, re.DOTALL):
        return "dicom"  # the second form has no preamble: straight into group 2 or 8
    if head[:4] in {b"PK\x03\x04", b"PK\x05\x06"}:
        return "zip"
    is_nifti = head[:2] == b"\x1f\x8b" or head[344:348] in {b"n+1\0", b"ni1\0"} or head[4:8] in {b"n+2\0", b"ni2\0"}
    return "nifti" if is_nifti else "picture"


def check_limits(name: str, height: int, width: int, slices: int = 1, samples: int = 1) -> None:
    """EmitDiffError when the size that a header announces is empty or over the limits; called before decoding."""
    if min(height, width, slices) < 1:
        raise EmitDiffError(
            f"'{name}' says that it is {width} x {height} pixels, {slices} slice(s): there is no image."
        )
    if height * width > MAX_PIXELS or height * width * slices * samples > MAX_VOXELS or slices > MAX_SLICES:
        raise EmitDiffError(
            f"'{name}' is too large: {width} x {height} pixels, {slices} slice(s). Limits: {MAX_PIXELS:,} pixels "
            f"a slice, {MAX_SLICES:,} slices and {MAX_VOXELS:,} values in all. Make it smaller or cut a part out."
        )


def damaged(name: str) -> EmitDiffError:
    return EmitDiffError(f"'{name}' is damaged or cut off, and cannot be decoded. Copy or download it again.")


def fill_non_finite(values: np.ndarray, name: str) -> list[str]:
    """Replace NaN and infinity by the lowest finite value, in place; the warning that says so, or nothing."""
    if values.dtype.kind != "f":
        return []
    finite = np.isfinite(values)
    if finite.all():
        return []
    if not finite.any():
        raise EmitDiffError(f"'{name}' holds no finite value: every one is NaN or infinite.")
    values[~finite] = values[finite].min()
    return [f"{(~finite).sum():,} values are NaN or infinite and are shown as the lowest value."]


def value_windows(values: np.ndarray) -> dict[str, Window]:
    """ "automatic", the 0.5 to 99.5 percentile of the whole volume, and "full range"."""
    flat = values.ravel()
    flat = flat[:: flat.size // 2**22 + 1]  # four million values place a percentile well enough
    ranges = {"automatic": np.percentile(flat, (0.5, 99.5)), "full range": (values.min(), values.max())}
    if ranges["automatic"][0] == ranges["automatic"][1]:  # nearly all of it is background
        ranges["automatic"] = ranges["full range"]
    pairs = {name: (float(low), float(high)) for name, (low, high) in ranges.items()}
    return {name: Window((low + high) / 2, max(high - low, 1e-6)) for name, (low, high) in pairs.items()}
