"""The values that DICOM pixels stand for, and the windows that a file brings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydicom
from pydicom.pixels import apply_modality_lut

from emitdiff.errors import EmitDiffError
from emitdiff.scans.dicom_frame import Frame
from emitdiff.scans.geometry import Window

# What devices call windows and look-up tables, and menus may show.
WINDOW_NAMES = frozenset({
    "normal", "harder", "softer", "hard", "soft", "wide", "narrow", "sharp", "smooth", "default", "user", "algo1",
    "window1", "window2", "window3", "lung", "lungs", "mediastinum", "soft tissue", "bone", "bones", "brain", "abdomen",
    "liver", "spine", "angio", "head", "neck", "chest", "pelvis", "stroke", "subdural", "temporal bone", "breast",
    "linear", "sigmoid", "identity", "contrast", "high contrast", "low contrast",
})  # fmt: skip


def is_padding(array: np.ndarray, frame: Frame) -> np.ndarray | None:
    """Where pixels as stored only fill up the picture (PS3.3 C.7.5.1.1.2); None where none do."""
    value = frame.get("PixelPaddingValue")
    if value is None or frame.colour:
        return None
    low = high = _signed(value, array.dtype)
    if (limit := frame.get("PixelPaddingRangeLimit")) is not None:
        low, high = sorted((low, _signed(limit, array.dtype)))
    padding = (array >= low) & (array <= high)
    return padding if padding.any() and not padding.all() else None


def _signed(value: Any, dtype: np.dtype) -> float:
    """The element is US or SS, and written as either."""
    number: float = float(value)
    bits = 8 * dtype.itemsize
    if dtype.kind == "i" and number >= 2 ** (bits - 1):
        return number - 2.0**bits
    return number + 2.0**bits if dtype.kind == "u" and number < 0 else number


def value_type(frames: list[Frame]) -> np.dtype:
    """The smallest type that holds the values of all frames after the modality look-up."""
    ends, wide = [0.0], False
    for frame in frames:
        bits = int(frame.header.number("BitsStored", 0))
        if not holds_whole_numbers(frame):
            wide |= frame.header.number("BitsAllocated", 32) > 32 or bits > 24
            ends.append(np.inf)
        elif frame.get("ModalityLUTSequence"):
            ends += [0, 2**16 - 1]
        else:
            slope, intercept = rescale(frame)
            signed = frame.header.number("PixelRepresentation", 0)
            span = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
            ends += [end * slope + intercept for end in span]
    if np.isinf(ends).any():
        return np.dtype(np.float64 if wide else np.float32)
    types = (np.int16, np.uint16, np.int32)
    found = (kind for kind in types if np.iinfo(kind).min <= min(ends) and max(ends) <= np.iinfo(kind).max)
    return np.dtype(next(found, np.float64))


def holds_whole_numbers(frame: Frame) -> bool:
    """Whether the values are whole numbers after the modality look-up."""
    if frame.get("ModalityLUTSequence"):
        return True
    slope, intercept = rescale(frame)
    return "PixelRepresentation" in frame.header.elements and slope % 1 == intercept % 1 == 0


def rescale(frame: Frame) -> tuple[float, float]:
    """Slope and intercept of a frame, 1 and 0 where there are none."""
    if "DoseGridScaling" in frame.header.elements:
        return frame.number("DoseGridScaling", 1), 0.0
    return frame.number("RescaleSlope", 1), frame.number("RescaleIntercept", 0)


def check_rescale(name: str, frame: Frame) -> None:
    """EmitDiffError where the numbers with which the values are told cannot be used: every value would be wrong."""
    slope, _ = rescale(frame)
    bad = {"RescaleSlope", "RescaleIntercept", "DoseGridScaling"} & frame.header.unusable
    if bad or slope == 0:
        word = min(bad, default="RescaleSlope")
        raise EmitDiffError(
            f"'{name}' has a {word} that is no usable number, so its values are not known. Correct that element."
        )


def modality_values(array: np.ndarray, elements: pydicom.Dataset, frame: Frame, dtype: np.dtype) -> np.ndarray:
    """Values as stored to those that they stand for (Hounsfield units, for example): PS3.3 C.11.1."""
    if frame.get("ModalityLUTSequence"):
        return apply_modality_lut(array, elements).astype(dtype)
    slope, intercept = rescale(frame)
    if (slope, intercept) == (1, 0):
        return array.astype(dtype, copy=False)
    return (array * slope + intercept).astype(dtype)


def is_inverted(frame: Frame) -> bool:
    """Whether low values are bright: MONOCHROME1, or for X-ray images the look-up table INVERSE (PS3.3 C.11.6)."""
    return frame.photometric == "MONOCHROME1" or frame.get("PresentationLUTShape") == "INVERSE"


def shown_as_stored(frame: Frame) -> bool:
    """8-bit pictures without any transformation: screen captures, ultrasound."""
    get = frame.header.get
    plain = get("BitsAllocated") in {1, 8} and not get("PixelRepresentation") and get("PixelPaddingValue") is None
    tables = frame.get("ModalityLUTSequence") or frame.get("VOILUTSequence") or stored_windows(frame)
    unscaled = rescale(frame) == (1, 0)
    return bool(plain and get("BitsStored") == 8 and not tables and unscaled)


def stored_windows(frame: Frame) -> dict[str, Window]:
    """The tables and windows in the file, under the names it gives them where those are among `WINDOW_NAMES`.

    The standard's linear function counts whole numbers, so its width is taken exactly for all other values.
    """
    tables = [_table(item) for item in frame.get("VOILUTSequence") or []]
    windows = {_known(name, place): table for place, (name, table) in enumerate(tables) if table is not None}
    function = str(frame.get("VOILUTFunction", "LINEAR")).strip().upper()
    if function not in {"SIGMOID", "LINEAR_EXACT"}:
        function = "LINEAR" if holds_whole_numbers(frame) else "LINEAR_EXACT"
    names = [str(name) for name in _listed(frame, "WindowCenterWidthExplanation")]
    pairs = zip(_listed(frame, "WindowCenter"), _listed(frame, "WindowWidth"), strict=False)
    for place, (centre, width) in enumerate(pairs):
        middle = frame.header.as_number("WindowCenter", centre, np.inf)
        across = frame.header.as_number("WindowWidth", width, 0)
        if np.isfinite(middle) and across > 0:
            name = _known(names[place] if place < len(names) else "", place)
            windows.setdefault(name, Window(middle, across, function))
    return windows


def _known(name: str, place: int) -> str:
    """The name of window number `place`, from 0: free text of the file, which may say anything, is not shown."""
    plain = " ".join(name.lower().replace("_", " ").replace("-", " ").split())
    return plain if plain in WINDOW_NAMES else f"as stored {place + 1}".removesuffix(" 1")


def _listed(frame: Frame, keyword: str) -> list[Any]:
    value = frame.get(keyword)
    return [] if value is None else [value] if isinstance(value, str | int | float) else list(value)


def _table(item: pydicom.Dataset) -> tuple[str, Window | None]:
    """A VOI look-up table (PS3.3 C.11.2.1.1) under its name; None where it cannot be used."""
    name = str(item.get("LUTExplanation") or "")
    try:
        count, first, bits = (int(number) for number in item.LUTDescriptor)
        count = count or 2**16
        data = item.LUTData
        if isinstance(data, bytes):
            entries = np.frombuffer(data, "<u2" if len(data) >= 2 * count else "u1", count)
        else:
            entries = np.array(data)
        entries = entries.astype(np.float64) / (2**bits - 1)
    except (AttributeError, KeyError, TypeError, ValueError):
        return name, None
    if len(entries) != count or not 1 <= bits <= 16:
        return name, None
    return name, Window(first + count / 2, count, "TABLE", np.clip(entries, 0, 1), first)
