"""TIFF 6.0 and BigTIFF: the pages with the values that are stored, or the reason why one cannot be read.

Pillow knows few kinds of numbers, so it only unpacks here: a page of numbers is given to it as a picture of bytes, and
the bytes are put together again. Palettes, line art, CMYK and JPEG stay with Pillow.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin

from emitdiff.errors import EmitDiffError
from emitdiff.scans.decoding import MAX_SLICES, damaged_file_error

GREY_WHITE_IS_ZERO, GREY, RGB, PALETTE, MASK, CMYK, YCBCR = range(7)
COLOURS = {8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "the raw form of a camera", 32844: "LogL", 32845: "LogLuv",
           34892: "the raw form of a camera"}  # fmt: skip
UNPACKED = {1, 5, 8, 32773, 32946, 34925, 50000}  # not at all, LZW, Deflate, PackBits, Deflate, LZMA, Zstandard
BY_PILLOW = {2, 3, 4, 6, 7}  # fax and JPEG
# fmt: off
COMPRESSIONS = {33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC",
                34934: "JPEG XR", 22610: "JPEG XR", 34892: "JPEG", 50001: "WebP", 50002: "JPEG XL",
                52546: "JPEG XL"}
# fmt: on
TRANSPARENT = "Transparency is ignored: every pixel is shown in its stored colour."
REMEDY = "Save it as TIFF without compression, with grey values or RGB of 8 or 16 bits."


_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # those of the tags below, as in `struct`
_TAGS = {254, 256, 257, 258, 259, 262, 266, 270, 273, 274, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339, 530}


@dataclass(frozen=True)
class Page:
    """What the tags of one page say of its pixels; `places` has (offset, size) of each strip or tile."""

    width: int
    height: int
    samples: int
    bits: int
    format: int  # SampleFormat: 1 unsigned, 2 signed, 3 float
    photometric: int
    compression: int
    apart: bool  # PlanarConfiguration 2
    extra: tuple[int, ...]
    predictor: int
    orientation: int
    fill_order: int
    rows: int  # of a strip or tile
    columns: int  # of a tile; 0 for strips
    subsampled: bool
    secondary: bool  # a thumbnail or a transparency mask, and no picture
    description: str
    places: tuple[tuple[int, int], ...]
    index: int  # which of the file
    order: str  # of the bytes: "<" or ">"

    @property
    def by_pillow(self) -> bool:
        """What is no row of numbers: palettes, line art, grey of 2 and 4 bits, CMYK, fax and JPEG."""
        few = self.format == 1 and self.samples == 1 and self.bits in {1, 2, 4}
        return few or self.compression in BY_PILLOW or self.photometric in {PALETTE, CMYK}

    @property
    def dtype(self) -> np.dtype:
        whole = next(size for size in (8, 16, 32, 64) if size >= self.bits)
        return np.dtype(f"{self.order}{'?uif'[self.format]}{whole // 8}")

    @property
    def alpha(self) -> int | None:
        """The number of the sample that says how opaque a pixel is."""
        plain = self.samples - len(self.extra)
        return next((plain + place for place, kind in enumerate(self.extra) if kind in {1, 2}), None)


def read_pages(name: str, file: BinaryIO) -> list[Page]:
    """The pages of a TIFF, from their tags alone. Raises EmitDiffError where the tags are damaged."""
    file_size = file.seek(0, io.SEEK_END)
    pages: list[Page] = []
    try:
        for tags, order in _directories(file, file_size):
            pages.append(_page(tags, len(pages), order, file_size))
    except (TypeError, ValueError, IndexError, KeyError, struct.error):
        raise damaged_file_error(name) from None
    if not pages:
        raise damaged_file_error(name)
    return _hyperstack(name, pages, file_size)


def _directories(file: BinaryIO, file_size: int) -> Iterator[tuple[dict[int, tuple[Any, ...]], str]]:
    """The tags of each page with their values, and the byte order. (Pillow's reader takes no big-endian BigTIFF.)"""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = 43 in head[2:4]
    place = struct.unpack(order + "Q", head[8:16])[0] if big else struct.unpack(order + "I", head[4:8])[0]
    entry, counted, word = (
        (order + "HHQ8s", order + "Q", order + "Q") if big else (order + "HHI4s", order + "H", order + "I")
    )
    for _ in range(MAX_SLICES + 1):
        if not place:
            return
        file.seek(place)
        count = struct.unpack(counted, file.read(struct.calcsize(counted)))[0]
        if count > 4096:  # of a page with everything there are some 60
            raise ValueError
        size = struct.calcsize(entry)
        content = file.read(count * size)
        place = struct.unpack(word, file.read(struct.calcsize(word)))[0]
        tags = {}
        for tag, kind, length, value in struct.iter_unpack(entry, content):
            letter = _TYPES.get(kind)
            if tag in _TAGS and letter:
                form = f"{order}{length}{letter}"
                if length > file_size:
                    raise ValueError
                if struct.calcsize(form) > len(value):
                    file.seek(struct.unpack(word, value)[0])
                    value = file.read(struct.calcsize(form))
                tags[tag] = struct.unpack(form, value[: struct.calcsize(form)])
        yield tags, order


def _page(tags: dict[int, tuple[Any, ...]], index: int, order: str, file_size: int) -> Page:
    def one(tag: int, default: int) -> int:
        return int(tags.get(tag, (default,))[0])

    bits, formats, tiled = set(tags.get(258, (1,))), set(tags.get(339, (1,))), 322 in tags
    width, height, samples, apart = one(256, 0), one(257, 0), one(277, 1), one(284, 1) == 2
    offsets, sizes = tags[324 if tiled else 273], tags.get(325 if tiled else 279)
    rows = one(323, 0) if tiled else min(one(278, height), height) or height
    if sizes is None:  # allowed in old files: each reaches to the next
        sizes = tuple(np.diff([*offsets, file_size]).tolist())
    alike = len(bits) == len(formats) == 1
    return Page(
        width, height, samples, bits.pop(), {1: 1, 2: 2, 3: 3, 4: 1}.get(formats.pop(), 0) if alike else 0,
        one(262, GREY), one(259, 1), apart, tags.get(338, ()), one(317, 1), one(274, 1), one(266, 1), rows, one(322, 0),
        tags.get(530, (2, 2)) != (1, 1), bool(one(254, 0) & 5), tags.get(270, (b"",))[0].decode("latin1"),
        tuple(zip(offsets, sizes, strict=True)), index, order,
    )  # fmt: skip


def _hyperstack(name: str, pages: list[Page], file_size: int) -> list[Page]:
    """ImageJ writes large stacks with the tags of the first image alone; the others follow its pixels."""
    first = pages[0]
    found = re.match(r"ImageJ=.*?^images=(\d+)", first.description, re.DOTALL | re.MULTILINE)
    count = min(int(found[1]), MAX_SLICES + 1) if found else 1
    if len(pages) > 1 or count < 2 or first.compression != 1:
        return pages
    size = sum(length for _, length in first.places)
    together = all(start + length == after for (start, length), (after, _) in zip(first.places, first.places[1:]))  # noqa: B905
    if not together or first.places[0][0] + count * size > file_size:
        raise damaged_file_error(name)
    return [
        replace(first, places=tuple((start + image * size, length) for start, length in first.places))
        for image in range(count)
    ]


def check_page(name: str, page: Page) -> None:
    """EmitDiffError with the reason where a page is of a kind that is not read."""
    if page.compression not in UNPACKED | BY_PILLOW:
        what = f"is compressed with {COMPRESSIONS.get(page.compression, f'method {page.compression}')}"
    elif page.photometric in COLOURS:
        what = f"has its colours in {COLOURS[page.photometric]}"
    elif page.photometric == YCBCR and page.compression not in BY_PILLOW and (page.subsampled or page.bits != 8):
        what = "has its colours in YCbCr, at a lower resolution"
    elif page.format == 0:
        what = "holds complex numbers, or samples that are not alike"
    elif page.format == 3 and page.bits not in {16, 32, 64}:
        what = f"holds real numbers of {page.bits} bits"
    elif page.bits > 64 or (page.bits % 8 and not page.by_pillow and (page.columns or page.predictor != 1)):
        what = f"holds numbers of {page.bits} bits"
    elif page.by_pillow and page.bits > 8 and page.photometric != CMYK:
        what = f"holds {page.bits} bits a value, compressed as JPEG or with a palette"
    else:
        return
    raise EmitDiffError(f"'{name}' {what}, which is not read. {REMEDY}")


def decode_page(file: BinaryIO, page: Page) -> np.ndarray:
    """(H, W, samples) as stored, in the machine's byte order and turned upright; whatever is raised means damage."""
    planes = [page]
    if page.apart and page.samples > 1:
        each = len(page.places) // page.samples
        planes = [
            replace(page, samples=1, places=page.places[each * place : each * (place + 1)])
            for place in range(page.samples)
        ]
    values = np.concatenate([_decode_plane(file, plane) for plane in planes], axis=-1)
    if page.photometric == GREY_WHITE_IS_ZERO:
        values = _from_white(values, page)
    return np.ascontiguousarray(upright(values, page.orientation))


def _from_white(values: np.ndarray, page: Page) -> np.ndarray:
    if page.dtype.kind == "f":
        return -values
    return (~values & ((1 << page.bits) - 1)).astype(values.dtype) if page.dtype.kind == "u" else ~values


def _decode_plane(file: BinaryIO, page: Page) -> np.ndarray:
    """(H, W, samples) of the strips or tiles of one plane."""
    row_values = page.columns or page.width  # of a strip or tile
    across = -(-page.width // row_values)
    row_bytes = -(-row_values * page.samples * page.bits // 8)
    stored = _unpacked(file, page, across * row_bytes, row_bytes if page.columns else 0)
    stored = stored.reshape(page.height * across, row_bytes)
    if page.compression == 1 or page.predictor not in {2, 3}:
        values = _numbers(stored, page)
    else:
        values = _from_differences(stored, page)
    values = values[:, : row_values * page.samples].reshape(page.height, across * row_values, page.samples)
    return values[:, : page.width]


def _unpacked(file: BinaryIO, page: Page, width: int, tile_width: int) -> np.ndarray:
    """The bytes of a plane, (H, width): its strips or tiles as a TIFF of bytes, which libtiff unpacks."""
    parts = []
    for offset, size in page.places:
        file.seek(offset)
        parts.append(file.read(size))
        if len(parts[-1]) < size:
            raise EOFError
    sizes = [len(part) for part in parts]
    tags = {256: width, 257: page.height, 258: 8, 259: page.compression, 262: 1, 266: page.fill_order, 277: 1}
    tags |= {322: tile_width, 323: page.rows} if tile_width else {278: page.rows}
    lists = 8 + 2 + 12 * (len(tags) + 2) + 4  # where the lists of places and sizes begin, behind the tags
    starts = [lists + 8 * len(parts) + place for place in np.cumsum([0, *sizes[:-1]]).tolist()]
    entries = {tag: (1, value) for tag, value in tags.items()}
    entries[324 if tile_width else 273] = (len(parts), starts[0] if len(parts) == 1 else lists)
    entries[325 if tile_width else 279] = (len(parts), sizes[0] if len(parts) == 1 else lists + 4 * len(parts))
    directory = b"".join(struct.pack("<HHII", tag, 4, *entries[tag]) for tag in sorted(entries))
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    content = head + struct.pack(f"<{2 * len(parts)}I", *starts, *sizes) + b"".join(parts)
    # Not by Image.open, which counts the bytes as pixels and fears a bomb: the size was looked at before.
    return np.asarray(TiffImagePlugin.TiffImageFile(io.BytesIO(content)))


def _numbers(stored: np.ndarray, page: Page) -> np.ndarray:
    """Rows of bytes to rows of numbers."""
    if page.bits in {8, 16, 32, 64}:
        return stored.view(page.dtype).astype(page.dtype.newbyteorder("="))
    count = stored.shape[1] * 8 // page.bits
    powers = 1 << np.arange(page.bits - 1, -1, -1, dtype=np.uint64)
    values = np.empty((len(stored), count), page.dtype.newbyteorder("="))
    for row, content in enumerate(stored):  # one by one: every bit takes a byte meanwhile
        bits = np.unpackbits(content)[: count * page.bits].reshape(count, page.bits)
        whole = bits.astype(np.uint64) @ powers
        if page.format == 2:
            whole = whole.astype(np.int64) - ((bits[:, 0].astype(np.int64)) << page.bits)
        values[row] = whole
    return values


def _from_differences(stored: np.ndarray, page: Page) -> np.ndarray:
    """Predictor 2 stores the step from the pixel before, 3 that of bytes, those of a float standing apart (TIFF 6.0,
    section 14; Adobe's technical note 3)."""
    if page.predictor == 2:
        values = _numbers(stored, page).reshape(len(stored), -1, page.samples)
        whole = values.view(f"u{values.dtype.itemsize}")
        return np.cumsum(whole, axis=1, dtype=whole.dtype).view(values.dtype).reshape(len(stored), -1)
    size = page.bits // 8
    steps = stored.reshape(len(stored), -1, page.samples)
    content = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(len(stored), size, -1)
    return (
        np.ascontiguousarray(content.transpose(0, 2, 1)).reshape(len(stored), -1).view(f">f{size}").astype(f"f{size}")
    )


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Rows and columns as the tag Orientation, 1 to 8, says."""
    if orientation in {5, 6, 7, 8}:
        values = values.swapaxes(0, 1)
    down = orientation in {3, 4, 7, 8}
    right = orientation in {2, 3, 6, 7}
    return values[:: -1 if down else 1, :: -1 if right else 1]


def split_channels(values: np.ndarray, page: Page) -> tuple[list[np.ndarray], list[str]]:
    """(H, W, samples) to pictures, grey (H, W) or colour (H, W, 3), and warnings of what is left out.

    Samples that are neither colours nor opacity are pictures of their own.
    """
    colours = 3 if page.photometric in {RGB, YCBCR} and page.samples >= 3 else 1
    if page.samples > colours == 1 and page.alpha != 1:
        return [values[..., channel] for channel in range(page.samples)], [
            f"The {page.samples} channels of the file are shown as slices."
        ]
    picture, warnings = values[..., :colours], []
    if page.photometric == YCBCR:
        picture = np.asarray(Image.fromarray(picture, "YCbCr").convert("RGB"))
    # A fourth sample of which nothing is said is taken for opacity by everybody.
    alpha = 3 if colours == 3 and page.samples == 4 and not page.extra else page.alpha
    if alpha is not None:
        opaque = values[..., alpha]
        full = np.iinfo(opaque.dtype).max if opaque.dtype.kind in "iu" else 1
        warnings = [] if (opaque == full).all() else [TRANSPARENT]
        if page.extra[:1] == (1,):
            picture = _unmultiplied(picture, opaque, full)
    others = page.samples - colours - (alpha is not None)
    if others:
        warnings.append(f"{others} further channel(s) of the file are not shown.")
    return [picture[..., 0] if colours == 1 else picture], warnings


def _unmultiplied(picture: np.ndarray, opaque: np.ndarray, full: float) -> np.ndarray:
    """The colours before they were multiplied by their opacity."""
    scaled = picture * (full / np.maximum(opaque.astype(np.float64), full / 2**20))[..., None]
    whole = np.rint(np.minimum(scaled, full)) if picture.dtype.kind in "iu" else scaled
    return whole.astype(picture.dtype)
