"""What the readers have in common: limits, sentences about damage, values made fit to be shown, class ids."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.scans.geometry import Window

MAX_PIXELS = 2**26  # one slice: 8192 x 8192
MAX_VOXELS = 2**28  # all samples of all slices: 1024 slices of 512 x 512, which is 512 MiB as 16 bit
MAX_SLICES = 4096
SUPPORTED_FORMATS = "Expected PNG, JPEG, WebP, TIFF, DICOM (file, folder or zip) or NIfTI (.nii, .nii.gz)."


def is_dicom(head: bytes) -> bool:
    """Whether a file begins like DICOM: with the preamble, or without it straight into group 2 or 8."""
    without = re.match(rb"[\x02\x08]\0[\0-\x18]\0([A-Z]{2}|.\0\0\0)", head, re.DOTALL)
    return head[128:132] == b"DICM" or without is not None


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


class ValueRange:
    """Collects the values of a scan of `total` values piece by piece, to tell which range to show.

    Four million of them, evenly spread, place a percentile well enough. Values that are NaN, infinite or padding do not
    count.
    """

    def __init__(self, total: int) -> None:
        self.step = total // 2**22 + 1
        self.seen = 0
        self.low, self.high = np.inf, -np.inf
        self.non_finite = 0
        self.sample: list[np.ndarray] = []

    def add(self, values: np.ndarray, padding: np.ndarray | None = None) -> None:
        """The next values, of any shape; `padding` is true where they only fill up the picture."""
        wanted = None if padding is None else ~padding
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            self.non_finite += values.size - int(np.count_nonzero(finite))
            wanted = finite if wanted is None else finite & wanted
        if wanted is not None and wanted.all():
            wanted = None
        first = -self.seen % self.step
        self.seen += values.size
        if wanted is None:
            self.sample.append(values.reshape(-1)[first :: self.step].copy())
            counted = values
        else:
            flat, chosen = values.reshape(-1), wanted.reshape(-1)
            self.sample.append(flat[first :: self.step][chosen[first :: self.step]])
            counted = flat[chosen]
        if counted.size:
            self.low, self.high = min(self.low, counted.min()), max(self.high, counted.max())

    def windows(self) -> dict[str, Window]:
        """ "automatic", the 0.5 to 99.5 percentile of all that was added, and "full range"."""
        full = (float(self.low), float(self.high)) if self.low <= self.high else (0.0, 0.0)
        flat = np.concatenate(self.sample).astype(np.float64) if self.sample else np.zeros(0)
        automatic = tuple(np.percentile(flat, (0.5, 99.5)).tolist()) if flat.size else full
        if automatic[0] == automatic[1]:  # nearly all of it is background
            automatic = full
        pairs = {"automatic": automatic, "full range": full}
        return {name: Window((low + high) / 2, high - low or 1e-6) for name, (low, high) in pairs.items()}


def value_windows(values: np.ndarray) -> dict[str, Window]:
    """The windows of `ValueRange` for an array."""
    found = ValueRange(values.size)
    found.add(values)
    return found.windows()


def fill_non_finite(values: np.ndarray, name: str) -> list[str]:
    """Replace NaN and infinity by the lowest finite value, in place; the warning that says so, or nothing."""
    if values.dtype.kind != "f":
        return []
    finite = np.isfinite(values)
    if finite.all():
        return []
    if not finite.any():
        raise no_finite_value_error(name)
    values[~finite] = values[finite].min()
    return [non_finite_warning(int((~finite).sum()))]


def no_finite_value_error(name: str) -> EmitDiffError:
    return EmitDiffError(f"'{name}' holds no finite value: every one is NaN or infinite.")


def non_finite_warning(count: int) -> str:
    return f"{count:,} values are NaN or infinite; they are shown as the minimum."


def volumes_warning(count: int) -> str:
    return f"It holds {count} volumes (time points, echoes or the like); the first is shown."


def checked_ids(values: np.ndarray, name: str) -> np.ndarray:
    """Class ids of any type as uint8, to be written. EmitDiffError for numbers that are not whole, or not 0 to 255."""
    if values.dtype == np.uint8:
        return values
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255 or (values % 1 != 0).any():
        raise EmitDiffError(f"The mask for '{name}' holds values that are not class ids (whole numbers, 0 to 255).")
    return values.astype(np.uint8)
