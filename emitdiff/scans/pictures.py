"""PNG, JPEG, WebP and TIFF, 8 and 16 bit, grey and colour; the pages of a TIFF are slices."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from emitdiff.errors import EmitDiffError
from emitdiff.scans.decoding import (
    MAX_PIXELS,
    MAX_SLICES,
    SUPPORTED_FORMATS,
    check_limits,
    damaged_file_error,
    fill_non_finite,
    value_windows,
)
from emitdiff.scans.scan import Scan

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
_NUMBER_MODES = {"I;16", "I;16B", "I;16L", "I", "F"}
_ORIENTATION = 0x0112  # EXIF, and the TIFF tag of the same name
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL = 258, 277  # TIFF tags


def read_picture(path: Path, keep_indices: bool = False) -> Scan:
    """One picture as a Scan, turned upright as its EXIF orientation says.

    `keep_indices` leaves palette pictures as indices and 1-bit pictures as 0 and 1, which is what masks mean by them.
    """
    # An open file, not its name: Pillow would map the file into memory, and scramble a TIFF that lies on its side.
    with path.open("rb") as file:
        return _read_picture(_open(path, file), path, keep_indices)


def _read_picture(picture: Image.Image, path: Path, keep_indices: bool) -> Scan:
    try:
        pages, others = _pages_of_one_size(picture)
    except Exception:
        raise damaged_file_error(path.name) from None
    check_limits(path.name, picture.height, picture.width, len(pages), len(picture.getbands()))
    warnings = [f"{others} further picture(s) in the file are not shown."] if others else []
    try:
        if picture.getexif().get(_ORIENTATION, 1) not in {0, 1}:
            warnings.append("Turned upright, as its EXIF orientation says.")
        deep = _has_deep_colour(picture, path)
        values = _decode_deep_colour(picture, path, pages) if deep else _decode(picture, pages, keep_indices)
    except EmitDiffError:
        raise
    except Exception:  # whatever a decoder stumbles over, the file is at fault
        raise damaged_file_error(path.name) from None
    if _is_transparent(picture):
        warnings.append("Transparency is ignored: every pixel is shown in its stored colour.")
    warnings += fill_non_finite(values, path.name)
    windows = {} if values.dtype == np.uint8 else value_windows(values)
    return Scan(path.name, "image", values, warnings=tuple(warnings), windows=windows)


def _open(path: Path, file: BinaryIO) -> Image.Image:
    """Header only: format and size are known and within limits, no pixel has been decoded."""
    try:
        picture = Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise EmitDiffError(
            f"'{path.name}' is too large: the limit is {MAX_PIXELS:,} pixels. Make it smaller."
        ) from None
    except Exception:
        file.seek(0)
        known = file.read(4) in {b"\x89PNG", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1", b"II*\0", b"MM\0*"}
        if known:
            raise damaged_file_error(path.name) from None
        raise EmitDiffError(f"'{path.name}' is not a picture or scan that can be read. {SUPPORTED_FORMATS}") from None
    check_limits(path.name, picture.height, picture.width)
    return picture


def _pages_of_one_size(picture: Image.Image) -> tuple[list[int], int]:
    """The pages of a TIFF that have the first one's size, and how many others there are (thumbnails, animations)."""
    if picture.format == "MPO":
        return [0], 0  # the second picture of a telephone is a preview of the first
    if picture.format != "TIFF":
        return [0], getattr(picture, "n_frames", 1) - 1
    sizes: list[tuple[int, int]] = []
    while len(sizes) <= MAX_SLICES:
        try:
            picture.seek(len(sizes))
        except EOFError:
            break
        sizes.append(picture.size)
    picture.seek(0)
    pages = [index for index, size in enumerate(sizes) if size == sizes[0]]
    return pages, len(sizes) - len(pages)


def _decode(picture: Image.Image, pages: list[int], keep_indices: bool) -> np.ndarray:
    arrays: list[np.ndarray] = []
    for page in pages:
        picture.seek(page)
        upright = ImageOps.exif_transpose(picture)
        if upright.mode in _NUMBER_MODES:
            array = np.asarray(upright)
            arrays.append(array.astype(array.dtype.newbyteorder("=")))
        elif keep_indices and upright.mode in {"P", "1"}:
            arrays.append(np.asarray(upright, dtype=np.uint8))
        else:
            arrays.append(np.asarray(upright.convert("L" if upright.mode in {"1", "L", "LA"} else "RGB")))
    if len({array.ndim for array in arrays}) > 1:  # grey and coloured pages
        arrays = [array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=-1) for array in arrays]
    return np.stack(arrays)


def _has_deep_colour(picture: Image.Image, path: Path) -> bool:
    """Several samples of more than 8 bits, which Pillow would cut down to their upper 8."""
    if picture.format == "PNG":
        with path.open("rb") as file:
            depth, colour_type = file.read(26)[24:]
        return depth == 16 and colour_type != 0
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        tags = picture.tag_v2
        return bool(max(tags.get(_BITS_PER_SAMPLE, (1,))) > 8 and tags.get(_SAMPLES_PER_PIXEL, 1) > 1)
    return False


def _decode_deep_colour(picture: Image.Image, path: Path, pages: list[int]) -> np.ndarray:
    """One page at a time: OpenCV would also decode those of another size, whose limits nobody has looked at."""
    content, wanted = np.fromfile(path, np.uint8), set(pages)
    arrays: list[np.ndarray] = []
    for page in range(pages[-1] + 1):
        picture.seek(page)
        if page in wanted:
            picture.load()  # OpenCV fills what is truncated with black; Pillow refuses
            decoded, found = cv2.imdecodemulti(content, cv2.IMREAD_UNCHANGED, range=(0, 1))
            if not decoded:
                raise damaged_file_error(path.name)
            arrays += found
        if page < pages[-1] and isinstance(picture, TiffImagePlugin.TiffImageFile):
            _begin_at(content, picture.tag_v2.next)
    grey = [cv2.cvtColor(array, cv2.COLOR_GRAY2BGR) if array.ndim == 2 else array for array in arrays]
    return np.stack([np.ascontiguousarray(array[..., 2::-1]) for array in grey])


def _begin_at(content: np.ndarray, offset: int) -> None:
    """Makes the page at `offset` of a TIFF its first: to skip the pages before it takes OpenCV long."""
    place = slice(8, 16) if 43 in content[2:4] else slice(4, 8)  # BigTIFF, or not
    size = place.stop - place.start
    number = offset.to_bytes(size, "little") if content[0] == ord("I") else offset.to_bytes(size, "big")
    content[place] = np.frombuffer(number, np.uint8)


def _is_transparent(picture: Image.Image) -> bool:
    return "A" in picture.getbands() and picture.getchannel("A").getextrema() != (255, 255)
