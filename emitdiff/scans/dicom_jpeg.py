"""JPEG with 12 bits (DICOM's JPEG Extended) through GDCM, for pydicom, which asks GDCM for the other kinds alone."""

from __future__ import annotations

from typing import Any

import gdcm  # type: ignore[import-untyped]  # it comes without types
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import UID, JPEGExtended12Bit

DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("numpy", "gdcm>=3.0.10")}  # pydicom lists what is missing


def is_available(uid: str) -> bool:
    """Whether the plugin decodes this transfer syntax; pydicom asks."""
    return UID(uid) in DECODER_DEPENDENCIES


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """One frame of grey values, as bytes. Raises ValueError where GDCM cannot decode it."""
    if runner.samples_per_pixel != 1:
        raise ValueError("colours")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(src)
    fragments: Any = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    pixels = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    pixels.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(pixels)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    bits = runner.bits_stored
    image.SetPixelFormat(
        gdcm.PixelFormat(1, runner.bits_allocated, bits, bits - 1, runner.pixel_representation)
    )  # fmt: skip
    decoded = image.GetBuffer()
    if decoded is None:
        raise ValueError("GDCM cannot decode it")
    return bytes(decoded.encode("utf-8", "surrogateescape"))
