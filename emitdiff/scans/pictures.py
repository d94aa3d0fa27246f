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
    SUPPORTED_FORMATS,
    check_limits,
    damaged_file_error,
    fill_non_finite,
    value_windows,
)
from emitdiff.scans.scan import Scan
from emitdiff.scans.tiff import REMEDY, TRANSPARENT, check_page, decode_page, read_pages, split_channels, upright

FORMATS = ("PNG", "JPEG", "WEBP")
_NUMBER_MODES = {"I;16", "I;16B", "I;16L", "I", "F"}
ORIENTATION = 0x0112  # EXIF, and the TIFF tag of the same name


def read_picture(path: Path, keep_indices: bool = False) -> Scan:
    """One picture as a Scan, turned upright as its EXIF orientation says.

    `keep_indices` leaves palette pictures as indices and 1-bit pictures as 0 and 1, which is what masks mean by them.
    """
    # An open file, not its name: Pillow would map the file into memory, and scramble a TIFF that lies on its side.
    with path.open("rb") as file:
        tiff = file.read(4) in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}
        file.seek(0)
        try:
            pages, warnings = (_tiff if tiff else _picture)(path, file, keep_indices)
        except EmitDiffError:
            raise
        except Exception:  # whatever a decoder stumbles over, the file is at fault
            raise damaged_file_error(path.name) from None
    if len({page.ndim for page in pages}) > 1:  # grey and coloured pages
        pages = [page if page.ndim == 3 else np.repeat(page[..., None], 3, axis=-1) for page in pages]
    values = np.stack(pages)
    warnings += fill_non_finite(values, path.name)
    windows = {} if values.dtype == np.uint8 else value_windows(values)
    return Scan(path.name, "image", values, warnings=tuple(dict.fromkeys(warnings)), windows=windows)


def _picture(path: Path, file: BinaryIO, keep_indices: bool) -> tuple[list[np.ndarray], list[str]]:
    """PNG, JPEG, WebP: the one picture, and warnings."""
    picture = _open(path, file)
    # The second picture of a telephone (MPO) is a preview of the first.
    others = 0 if picture.format == "MPO" else getattr(picture, "n_frames", 1) - 1
    check_limits(path.name, picture.height, picture.width, 1, len(picture.getbands()))
    warnings = [f"{others} further picture(s) in the file are not shown."] if others else []
    if picture.getexif().get(ORIENTATION, 1) not in {0, 1}:
        warnings.append("Turned upright, as its EXIF orientation says.")
    pixels = _decode_deep_colour(picture, path) if _has_deep_colour(picture, path) else _decode(picture, keep_indices)
    if _is_transparent(picture):
        warnings.append(TRANSPARENT)
    return [pixels], warnings


def _tiff(path: Path, file: BinaryIO, keep_indices: bool) -> tuple[list[np.ndarray], list[str]]:
    """The pages that have the first one's size, and warnings."""
    every = read_pages(path.name, file)
    shown = [page for page in every if not page.secondary] or every
    pages = [page for page in shown if (page.width, page.height) == (shown[0].width, shown[0].height)]
    channels = sum(page.samples for page in pages)
    check_limits(path.name, pages[0].height, pages[0].width)
    check_limits(path.name, pages[0].height, pages[0].width, len(pages), -(-channels // len(pages)))
    others = len(every) - len(pages)
    warnings = [f"{others} further picture(s) in the file are not shown."] if others else []
    if any(page.orientation not in {0, 1} for page in pages):
        warnings.append("Turned upright, as its EXIF orientation says.")
    pillow = None
    arrays: list[np.ndarray] = []
    for page in pages:
        check_page(path.name, page)
        if page.by_pillow:
            pillow = pillow or _open_page(path, file)
            pillow.seek(page.index)
            arrays.append(_decode(pillow, keep_indices))
            warnings += [TRANSPARENT] if _is_transparent(pillow) else []
        else:
            found, said = split_channels(decode_page(file, page), page)
            arrays += found
            warnings += said
    return arrays, warnings


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


def _open_page(path: Path, file: BinaryIO) -> Image.Image:
    """A TIFF that Pillow is to decode; its own check of the size would count pages that are not looked at."""
    file.seek(0)
    try:
        return TiffImagePlugin.TiffImageFile(file)
    except SyntaxError:
        raise EmitDiffError(f"'{path.name}' holds pixels of a kind that is not read. {REMEDY}") from None


def _decode(picture: Image.Image, keep_indices: bool) -> np.ndarray:
    turned = ImageOps.exif_transpose(picture)
    if turned.mode in _NUMBER_MODES:
        array = np.asarray(turned)
        return array.astype(array.dtype.newbyteorder("="))
    if keep_indices and turned.mode in {"P", "1"}:
        return np.asarray(turned, dtype=np.uint8)
    return np.asarray(turned.convert("L" if turned.mode in {"1", "L", "LA"} else "RGB"))


def _has_deep_colour(picture: Image.Image, path: Path) -> bool:
    """Several samples of more than 8 bits, which Pillow would cut down to their upper 8."""
    if picture.format != "PNG":
        return False
    with path.open("rb") as file:
        depth, colour_type = file.read(26)[24:]
    return depth == 16 and colour_type != 0


def _decode_deep_colour(picture: Image.Image, path: Path) -> np.ndarray:
    picture.load()  # OpenCV fills what is truncated with black; Pillow refuses
    array = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise damaged_file_error(path.name)
    colour = cv2.cvtColor(array, cv2.COLOR_GRAY2BGR) if array.ndim == 2 else array
    orientation = int(picture.getexif().get(ORIENTATION, 1))  # which OpenCV leaves alone
    return np.ascontiguousarray(upright(colour[..., 2::-1], orientation))


def _is_transparent(picture: Image.Image) -> bool:
    if "A" in picture.getbands():
        return picture.getchannel("A").getextrema() != (255, 255)
    return "transparency" in picture.info
