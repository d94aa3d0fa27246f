"""Medical files to slices, and masks back in the geometry of the file they belong to.

The content of a file decides what it is, never its suffix. Sizes are read from the header and checked before
anything is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from emitdiff.errors import EmitDiffError
from emitdiff.images import to_rgb

MAX_PIXELS = 2**26  # one picture or slice: 8192 x 8192
MAX_VOXELS = 2**28  # one volume, all samples of all slices: 1024 slices of 512 x 512, 1 GiB as float32
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
MAX_MASK_CLASSES = 32
_EIGHT_BIT_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}


@dataclass(frozen=True)
class Window:
    """The grey values shown: from `centre` - `width` / 2 (black) to `centre` + `width` / 2 (white)."""

    centre: float
    width: float


@dataclass(eq=False)
class Scan:
    """One decoded file, folder or archive.

    `size` is (H, W) as displayed, `spacing` is (slice, row, column) in millimetres, `windows` are the named choices
    that apply, the default first ({} where the values are already 8 bit).
    """

    name: str
    kind: str
    values: np.ndarray = field(repr=False)  # (S, H, W) or (S, H, W, 3), before windowing
    modality: str | None = None
    spacing: tuple[float, float, float] | None = None
    warnings: tuple[str, ...] = ()
    windows: dict[str, Window] = field(default_factory=dict)

    @property
    def num_slices(self) -> int:
        return self.values.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        return self.values.shape[1:3]

    def window_used(self, index: int = 0, window: str | Window | None = None) -> Window | None:
        """The window that `image(index, window)` applies; None where the values are shown as they are."""
        if isinstance(window, Window) or not self.windows:
            return window if isinstance(window, Window) else None
        if window is None:
            return next(iter(self.windows.values()))
        if window not in self.windows:
            raise EmitDiffError(f"'{self.name}' has no window '{window}'. Choose one of: {', '.join(self.windows)}.")
        return self.windows[window]

    def image(self, index: int = 0, window: str | Window | None = None) -> np.ndarray:
        """Slice `index` as uint8 (H, W, 3). `window` is a name from `windows` or a Window; None takes the default."""
        if not 0 <= index < self.num_slices:
            raise EmitDiffError(f"'{self.name}' has slices 0 to {self.num_slices - 1}; slice {index} was asked for.")
        used = self.window_used(index, window)
        values = self.values[index]
        if used is None:
            return to_rgb(values)
        scaled = (values.astype(np.float32) - (used.centre - used.width / 2)) * (255 / used.width)
        return to_rgb(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def read_scan(path: str | Path) -> Scan:
    """Read one file. Raises EmitDiffError, in a sentence, for anything that cannot be read."""
    path = existing_file(path)
    return _read_picture(path)


def existing_file(path: str | Path) -> Path:
    """`path` if it is a file with something in it; EmitDiffError otherwise."""
    path = Path(path)
    if not path.is_file():
        raise EmitDiffError(f"There is no file '{path}'. Check the path.")
    if path.stat().st_size == 0:
        raise EmitDiffError(f"'{path.name}' is empty (0 bytes). Copy or download it again.")
    return path


def read_mask(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Class ids, uint8 (H, W), from a PNG or another readable file; `size` is the (H, W) of the image it belongs to.

    A mask of 0 and 255 becomes 0 and 1; a palette image gives its indices. Raises EmitDiffError for colour, for more
    than 32 distinct values (a photograph, not a mask) and for another size.
    """
    path = existing_file(path)
    values = _mask_values(path)
    if size is not None and values.shape != tuple(size):
        raise EmitDiffError(
            f"The mask '{path.name}' is {values.shape[1]} x {values.shape[0]} pixels, its image {size[1]} x {size[0]}. "
            "Give the mask at the size of the image."
        )
    return _class_ids(values, path.name)


def _class_ids(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype != np.uint8:
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255 or (values % 1 != 0).any():
            raise EmitDiffError(f"The mask '{name}' holds values that are not class ids (whole numbers, 0 to 255).")
        values = values.astype(np.uint8)
    present = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    if len(present) > MAX_MASK_CLASSES:
        raise EmitDiffError(
            f"'{name}' has {len(present)} distinct values, so it looks like a picture and not like a mask. "
            f"A mask holds class ids (0 is background), at most {MAX_MASK_CLASSES} of them, saved without loss (PNG)."
        )
    if present[-1] == 255 and set(present) <= {0, 255}:
        return (values > 0).astype(np.uint8)
    return np.ascontiguousarray(values)


def _mask_values(path: Path) -> np.ndarray:
    picture = _open_picture(path)
    if picture.mode in {"P", "1"}:
        return np.asarray(_decode(picture, path), dtype=np.uint8)
    values = _read_picture(path).values[0]
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            raise EmitDiffError(f"The mask '{path.name}' is in colour. Save it as grey values: one id per class.")
        values = values[..., 0]
    return values


def _open_picture(path: Path) -> Image.Image:
    """Header only: format and size are known and within limits, no pixel has been decoded."""
    try:
        picture = Image.open(path, formats=PICTURE_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise EmitDiffError(f"'{path.name}' is far too large to open (limit: {MAX_PIXELS:,} pixels).") from None
    except (OSError, ValueError, SyntaxError, EOFError):
        raise EmitDiffError(
            f"'{path.name}' is not a picture or scan that can be read. Expected PNG, JPEG, WebP, TIFF, DICOM or NIfTI."
        ) from None
    if picture.width * picture.height > MAX_PIXELS:
        raise EmitDiffError(
            f"'{path.name}' is {picture.width} x {picture.height} pixels; the limit is {MAX_PIXELS:,}. Make it smaller."
        )
    return picture


def _decode(picture: Image.Image, path: Path) -> Image.Image:
    try:
        picture.load()
        return ImageOps.exif_transpose(picture)
    except (OSError, ValueError, SyntaxError, EOFError):
        raise EmitDiffError(f"'{path.name}' is damaged or cut off. Copy or download it again.") from None


def _read_picture(path: Path) -> Scan:
    picture = _decode(_open_picture(path), path)
    if picture.mode in _EIGHT_BIT_MODES:
        array = np.asarray(picture.convert("L" if picture.mode in {"1", "L", "LA"} else "RGB"))
        return Scan(path.name, "image", array[None])
    array = np.asarray(picture)
    return Scan(path.name, "image", array[None], windows={"automatic": _automatic_window(array)})


def _automatic_window(values: np.ndarray) -> Window:
    low, high = np.percentile(values, (0.5, 99.5))
    return Window(float(low + high) / 2, float(max(high - low, 1e-6)))
