"""Frames of DICOM files decoded, or the reason why one cannot be."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pydicom
from pydicom.dataelem import DataElement
from pydicom.encaps import get_frame
from pydicom.pixels import apply_color_lut, get_decoder, pixel_array
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGExtended12Bit,
)

from emitdiff.errors import EmitDiffError
from emitdiff.scans.dicom_frame import PIXEL_ELEMENTS, SLICE_ELEMENTS, Frame, Header

DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"  # of the standard since 2024; pydicom 3.0 does not know it
_PIXELS = {(0x7FE0, 0x0010): "PixelData", (0x7FE0, 0x0008): "FloatPixelData", (0x7FE0, 0x0009): "DoubleFloatPixelData"}
_COLOURS = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
_ONE_SAMPLE = {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"}
_NEEDED = ("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated")
_NEEDED_OF_WHOLE_NUMBERS = ("BitsStored", "HighBit", "PixelRepresentation")

get_decoder(JPEGExtended12Bit).add_plugin("gdcm 12 bit", ("emitdiff.scans.dicom_jpeg", "decode_frame"))


@dataclass
class PixelFile:
    """An open file. Of pixels that are not compressed, only the frame that is asked for is in memory: `begin` is where
    the first lies, and None for all others."""

    name: str
    file: BinaryIO
    elements: pydicom.Dataset
    keyword: str = "PixelData"
    begin: int | None = None
    length: int = 0

    def decode(self, frame: Frame) -> np.ndarray:
        """(H, W) as stored, before any look-up, or colours (H, W, 3) as uint8. EmitDiffError with the reason where it
        cannot be; any other exception means damage."""
        elements, index = self.elements, frame.index
        if self.begin is not None:
            size = _frame_bytes(elements)
            self.file.seek(self.begin + index * size)
            content = self.file.read(size)
            if len(content) < size:
                raise EOFError
            elements[self.keyword] = DataElement(self.keyword, "OF" if "Float" in self.keyword else "OW", content)
            elements.NumberOfFrames, index = 1, 0
        shift = 0
        if self.keyword == "PixelData":
            stored, high = int(frame.header.number("BitsStored", 0)), int(elements.HighBit)
            shift = high + 1 - stored
            # pydicom looks at BitsStored alone: it is to clear what is above, and to leave what is below.
            elements.BitsStored = high + 1
        if elements.file_meta.TransferSyntaxUID in JPEG2000TransferSyntaxes:
            _check_code_stream(self.name, elements, index)
        try:
            array = pixel_array(elements, index=index)
        except Exception:
            raise _decoding_error(self.name, elements) from None
        array = array >> shift if shift else array
        if self.begin is None and array.dtype.kind == "i":
            array = _with_sign(array, int(elements.BitsStored))
        return _as_bytes(array, elements, frame) if frame.colour else array


def _check_code_stream(name: str, elements: pydicom.Dataset, index: int) -> None:
    """EmitDiffError where JPEG 2000 contradicts the file around it: decoders go by the one or the other, in silence."""
    try:
        stream = get_frame(elements.PixelData, index, number_of_frames=int(elements.get("NumberOfFrames") or 1))
        stream = stream[stream.index(b"\xff\x4f\xff\x51") :]
        signed, coding = stream[42] >= 128, stream.index(b"\xff\x52")
        transformed = stream[coding + 8] == 1
    except (ValueError, IndexError, struct.error):
        return  # whether that is damage, the decoder says
    what = ""
    if signed and not elements.get("PixelRepresentation"):
        what = "stores values with a sign in its JPEG 2000, and says that they have none (PixelRepresentation)"
    elif transformed and str(elements.PhotometricInterpretation).startswith("YBR_FULL"):
        what = f"turns its colours in its JPEG 2000, and calls them {elements.PhotometricInterpretation}"
    if what:
        raise EmitDiffError(
            f"'{name}' {what}: which is right cannot be told. Correct that element, or export the image anew."
        )


def _with_sign(array: np.ndarray, bits: int) -> np.ndarray:
    """Values of `bits` bits that come without their sign from a codec that knows none, or of more bits."""
    without = array.min() >= 0 and 2 ** (bits - 1) <= array.max() < 2**bits
    return np.where(array >= 2 ** (bits - 1), array - 2**bits, array).astype(array.dtype) if without else array


@contextmanager
def open_pixels(name: str, header: Header) -> Iterator[PixelFile]:
    """A file with its pixels, checked. Raises EmitDiffError where it has none, or of a kind that is not read."""
    with header.source() as file:
        wanted = SLICE_ELEMENTS + PIXEL_ELEMENTS
        elements = pydicom.dcmread(file, force=True, specific_tags=wanted, stop_before_pixels=True)
        syntax = elements.file_meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian
        opened = PixelFile(name, file, elements)
        if syntax in {ImplicitVRLittleEndian, ExplicitVRLittleEndian}:
            opened = _find_pixels(opened)
        if opened.begin is None:
            file.seek(0)
            opened.elements = elements = pydicom.dcmread(file, force=True, specific_tags=wanted)
            opened.keyword = next((word for word in _PIXELS.values() if word in elements), "")
            if not opened.keyword:
                raise EmitDiffError(f"'{name}' is a DICOM file without an image in it.")
        elements.file_meta.TransferSyntaxUID = syntax
        check_syntax(name, elements)
        check_pixels(name, elements, opened.keyword)
        if opened.begin is not None:
            _check_length(opened, header.frames)
        yield opened


def _find_pixels(opened: PixelFile) -> PixelFile:
    """Where pixels begin that lie there byte by byte, behind what was read; as it was where they do not."""
    elements = opened.elements
    implicit, _ = elements.original_encoding
    head = opened.file.read(8 if implicit else 12)
    if len(head) < (8 if implicit else 12):
        return opened
    group, element = struct.unpack("<HH", head[:4])
    length = struct.unpack("<I", head[-4:])[0]
    keyword = _PIXELS.get((group, element))
    allocated = elements.get("BitsAllocated")
    odd = allocated not in {8, 16, 32, 64} or str(elements.get("PhotometricInterpretation")).startswith("YBR_FULL_4")
    if keyword is None or length == 2**32 - 1 or odd or not elements.get("SamplesPerPixel"):
        return opened
    return PixelFile(opened.name, opened.file, elements, keyword, opened.file.tell(), length)


def _frame_bytes(elements: pydicom.Dataset) -> int:
    return int(elements.Rows * elements.Columns * elements.SamplesPerPixel * elements.BitsAllocated // 8)


def _check_length(opened: PixelFile, frames: int) -> None:
    """Whether the pixels take as many bytes as the header says. A few more are padding, as old files have it."""
    size = _frame_bytes(opened.elements)
    if opened.length < size * frames:
        raise EOFError
    if opened.length >= size * (frames + 1):
        elements = opened.elements
        raise EmitDiffError(
            f"'{opened.name}' holds {opened.length:,} bytes of pixels; its header announces {size * frames:,} "
            f"({frames} x {elements.Columns} x {elements.Rows} pixels of {elements.BitsAllocated} bits). Correct "
            "NumberOfFrames, Rows, Columns or BitsAllocated, whichever is wrong."
        )


def check_syntax(name: str, elements: pydicom.Dataset) -> None:
    """EmitDiffError where the way in which the file is encoded is not known, as with those newer than pydicom."""
    syntax = elements.file_meta.TransferSyntaxUID
    try:
        syntax.is_compressed  # noqa: B018
    except ValueError:
        known = "deflated frame by frame" if syntax == DEFLATED_FRAMES else "in a way that is not known here"
        raise EmitDiffError(
            f"'{name}' is encoded {known} (transfer syntax {syntax[:64]}), which is not read. Decompress the file with "
            "other software first."
        ) from None


def check_pixels(name: str, elements: pydicom.Dataset, keyword: str) -> None:
    """EmitDiffError with the reason where the pixels cannot be read rightly."""
    real = keyword != "PixelData"
    for keyword in _NEEDED + (() if real else _NEEDED_OF_WHOLE_NUMBERS):
        if elements.get(keyword) in {None, ""}:
            raise EmitDiffError(f"'{name}' lacks the DICOM element {keyword}, without which its pixels mean nothing.")
    colours, samples = str(elements.PhotometricInterpretation).strip().upper(), int(elements.SamplesPerPixel)
    allocated = int(elements.BitsAllocated)
    compressed = elements.file_meta.TransferSyntaxUID.is_compressed
    what = ""
    if colours not in _COLOURS | _ONE_SAMPLE:
        what = f"gives its colours as {colours[:16]}"
    elif samples != (3 if colours in _COLOURS else 1):
        what = f"has {samples} sample(s) a pixel, which does not fit to {colours}"
    elif colours in {"YBR_ICT", "YBR_RCT"} and not compressed:
        what = f"gives its colours as {colours}, which is for JPEG 2000 alone, and is not compressed"
    elif samples > 1 and not compressed and elements.get("PlanarConfiguration") not in {0, 1}:
        what = "does not say whether its colours lie together or apart (PlanarConfiguration)"
    elif allocated not in ({32, 64} if real else {1, 8, 16, 32, 64}):
        what = f"takes {allocated} bits a pixel"
    elif not real:
        stored, high = int(elements.BitsStored), int(elements.HighBit)
        if not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
            what = f"stores {stored} bits of {allocated} up to bit {high}"
        elif compressed and high != stored - 1:
            what = f"is compressed and stores {stored} bits up to bit {high}"
        elif int(elements.PixelRepresentation) not in {0, 1}:
            what = "does not say whether its values have a sign (PixelRepresentation)"
    if what:
        raise EmitDiffError(f"'{name}' {what}, which is not read. Save it anew with other software, uncompressed.")


def _decoding_error(name: str, elements: pydicom.Dataset) -> Exception:
    syntax = elements.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return ValueError()  # which is to say: damaged
    try:
        known = get_decoder(syntax).is_available
    except NotImplementedError:
        known = False
    if known:
        reason = "and cannot be decoded: it is damaged, or of a rare kind"
    elif "MPEG" in syntax.name or "HEVC" in syntax.name:
        reason = "a video, which is not read"
    else:
        reason = "for which there is no decoder here"
    return EmitDiffError(
        f"'{name}' is compressed as {syntax.name}, {reason}. Decompress the file with other software first, for "
        "example `gdcmconv --raw`."
    )


def _as_bytes(array: np.ndarray, elements: pydicom.Dataset, frame: Frame) -> np.ndarray:
    """Colours of any depth as uint8."""
    bits = int(frame.header.number("BitsStored", 8))
    if frame.photometric == "PALETTE COLOR":
        array = apply_color_lut(array, elements)
        bits = 8 * array.dtype.itemsize
        if bits == 16 and array.max() < 256:  # tables of bytes that are said to have 16 bits
            bits = 8
    if bits == 8:
        return array.astype(np.uint8)
    return (array >> (bits - 8) if bits > 8 else array * 255 // (2**bits - 1)).astype(np.uint8)
