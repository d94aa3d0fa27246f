"""What the readers have in common: limits, sentences about damage, values made fit to be shown, class ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.scans.geometry import Window

MAX_PIXELS = 2**26  # one slice: 8192 x 8192
MAX_VOXELS = 2**27  # all samples of all slices: 512 slices of 512 x 512, which is 512 MiB as float32
MAX_SLICES = 4096
MAX_MASK_CLASSES = 32
SUPPORTED_FORMATS = "Expected PNG, JPEG, WebP, TIFF, DICOM (file, folder or zip) or NIfTI (.nii, .nii.gz)."


def existing_file(path: str | Path) -> Path:
    """`path` if it is a file with something in it; EmitDiffError otherwise."""
    path = Path(path)
    if not path.is_file():
        raise EmitDiffError(f"There is no file '{path.name}'. Check the path.")
    if path.stat().st_size == 0:
        raise EmitDiffError(f"'{path.name}' is empty (0 bytes). Copy or download it again.")
    return path


def check_limits(name: str, height: int, width: int, slices: int = 1, samples: int = 1) -> None:
    """EmitDiffError when the size that a header announces is empty or over the limits; called before decoding."""
    if min(height, width, slices) < 1:
        raise EmitDiffError(
            f"'{name}' says that it is {width} x {height} pixels, {slices} slice(s): there is no image."
        )
    if height * width > MAX_PIXELS or height * width * slices * samples > MAX_VOXELS or slices > MAX_SLICES:
        raise EmitDiffError(
            f"'{name}' is too large: {width} x {height} pixels, {slices} slice(s). Limits: {MAX_PIXELS:,} pixels "
            f"a slice, {MAX_SLICES:,} slices and {MAX_VOXELS:,} values in all. Downsample or crop it."
        )


def damaged_file_error(name: str) -> EmitDiffError:
    return EmitDiffError(f"'{name}' is damaged or truncated and cannot be decoded. Copy or download it again.")


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
    return [f"{(~finite).sum():,} values are NaN or infinite; they are shown as the minimum."]


def value_windows(values: np.ndarray) -> dict[str, Window]:
    """ "automatic", the 0.5 to 99.5 percentile of the whole volume, and "full range"."""
    flat = values.ravel()
    flat = flat[:: flat.size // 2**22 + 1]  # four million values place a percentile well enough
    ranges = {"automatic": np.percentile(flat, (0.5, 99.5)), "full range": (values.min(), values.max())}
    if ranges["automatic"][0] == ranges["automatic"][1]:  # nearly all of it is background
        ranges["automatic"] = ranges["full range"]
    pairs = {name: (float(low), float(high)) for name, (low, high) in ranges.items()}
    return {name: Window((low + high) / 2, max(high - low, 1e-6)) for name, (low, high) in pairs.items()}


def checked_class_ids(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype != np.uint8:
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255 or (values % 1 != 0).any():
            raise EmitDiffError(f"The mask '{name}' holds values that are not class ids (whole numbers, 0 to 255).")
        values = values.astype(np.uint8)
    distinct = np.count_nonzero(np.bincount(values.ravel(), minlength=256))
    if distinct > MAX_MASK_CLASSES:
        raise EmitDiffError(
            f"'{name}' has {distinct} distinct values, so it looks like an image rather than a mask. "
            f"A mask holds class ids (0 is background), at most {MAX_MASK_CLASSES} of them, saved without loss (PNG)."
        )
    return np.ascontiguousarray(values)
