"""DICOM: one file, a folder or a zip of a series, to slices in order along the patient.

Only the elements listed here are read from a file, and none of them names a user, a place or a date; identifiers
are read so that a mask can say which images it belongs to. Nothing in
them is printed, logged or quoted in an error.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from emitdiff.errors import EmitDiffError
from emitdiff.scans.decoding import check_limits, damaged_file_error, fill_non_finite, value_windows
from emitdiff.scans.geometry import WINDOWS, Geometry, SeriesReference, Window
from emitdiff.scans.scan import Scan
from emitdiff.zips import open_zip

MAX_FILES = 4096
MAX_ARCHIVE_BYTES = 2**30  # of a zip, unpacked
MODALITIES = {"CT": "CT", "MR": "MRI", "US": "Ultrasound", "IVUS": "Ultrasound"} | dict.fromkeys(
    ("CR", "DX", "MG", "XA", "RF", "PX", "IO", "RG"), "X-ray"
)
# fmt: off
_SLICE_ELEMENTS = [
    "Modality", "SeriesInstanceUID", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "ImagerPixelSpacing", "SpacingBetweenSlices", "SliceThickness", "BurnedInAnnotation", "Rows",
    "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "SOPClassUID", "SOPInstanceUID",
    "StudyInstanceUID", "FrameOfReferenceUID",
]
_PIXEL_ELEMENTS = [
    "PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData", "SegmentedBluePaletteColorLookupTableData",
]
# fmt: on
# Elements of an enhanced multi-frame file stand in a sequence of this name, per frame or shared by all.
_FUNCTIONAL_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
    "WindowCenterWidthExplanation": "FrameVOILUTSequence",
    "VOILUTFunction": "FrameVOILUTSequence",
}
Source = Callable[[], BinaryIO]
Spacing = tuple[float, float, float]  # (slice, row, column) in millimetres


@dataclass
class _Frame:
    """One slice: frame number `index` of the file that `source` opens, with that file's elements."""

    source: Source
    elements: pydicom.Dataset
    index: int

    def get(self, keyword: str, default: Any = None) -> Any:
        """An element of this frame, of all frames, or of the file; `default` where it is absent or empty."""
        groups = self.elements.get("PerFrameFunctionalGroupsSequence") or []
        shared = self.elements.get("SharedFunctionalGroupsSequence") or []
        items = [*groups[self.index : self.index + 1], *shared[:1]] if keyword in _FUNCTIONAL_GROUPS else []
        nested = [item for place in items for item in (place.get(_FUNCTIONAL_GROUPS[keyword]) or [])[:1]]
        values = (holder.get(keyword) for holder in (*nested, self.elements))
        return next((value for value in values if value is not None and value != ""), default)

    def vector(self, keyword: str, length: int) -> np.ndarray | None:
        """An element of `length` finite numbers, or None."""
        value = self.get(keyword)
        try:
            vector = np.array([float(number) for number in value])
        except (TypeError, ValueError):
            return None
        return vector if vector.shape == (length,) and np.isfinite(vector).all() else None

    @property
    def colour(self) -> bool:
        several = self.elements.get("SamplesPerPixel", 1) > 1
        return bool(several or self.elements.PhotometricInterpretation == "PALETTE COLOR")


def read_dicom(path: Path, kind: str) -> Scan:
    """`kind` is "dicom" (a file), "folder" or "zip". Raises EmitDiffError; nothing is ever unpacked to disk."""
    try:
        opened = open_zip(path, MAX_FILES) if kind == "zip" else nullcontext()
        with opened as archive, disable_value_validation():
            if archive is not None:
                sources = _archive_sources(path, archive)
            else:
                sources = _folder_sources(path) if kind == "folder" else _file_sources([path])
            name = path.name or path.resolve().name
            frames, warnings = _frames_of_one_series(name, sources, alone=kind == "dicom")
            return _read_frames(name, frames, warnings)
    except EmitDiffError:
        raise
    except NotImplementedError:  # zipfile and pydicom say so of a compression that they do not know
        raise EmitDiffError(f"'{path.name}' is compressed in a way that cannot be read. Decompress it first.") from None
    except Exception:  # whatever a parser stumbles over, the file is at fault; its text could quote the file
        raise damaged_file_error(path.name) from None


def _folder_sources(folder: Path) -> list[Source]:
    files = (path for path in folder.rglob("[!.]*") if path.is_file())
    paths = sorted(islice(files, MAX_FILES + 1))
    if len(paths) > MAX_FILES:
        raise EmitDiffError(f"The folder '{folder.name}' holds more than {MAX_FILES} files. Give one series alone.")
    return _file_sources(paths)


def _file_sources(paths: Iterable[Path]) -> list[Source]:
    def opener(path: Path) -> Source:
        return lambda: path.open("rb")

    return [opener(path) for path in paths]


def _archive_sources(path: Path, archive: zipfile.ZipFile) -> list[Source]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir() and "__MACOSX" not in entry.filename]
    size = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_FILES or size > MAX_ARCHIVE_BYTES:
        raise EmitDiffError(
            f"'{path.name}' unpacks to {len(entries)} files and {size / 2**20:,.0f} MiB. Limits: {MAX_FILES} files and "
            f"{MAX_ARCHIVE_BYTES / 2**20:,.0f} MiB. Give one series alone."
        )
    if any(entry.flag_bits & 1 for entry in entries):
        raise EmitDiffError(f"'{path.name}' is protected by a password. Give it without one.")
    open_entry = cast(Callable[[zipfile.ZipInfo], BinaryIO], archive.open)  # its own type does not say that it seeks
    return [partial(open_entry, entry) for entry in entries]


def _frames_of_one_series(name: str, sources: list[Source], alone: bool) -> tuple[list[_Frame], list[str]]:
    """The frames of the largest series that has one size and one orientation; a warning where others are left out."""
    series: dict[tuple[Any, ...], list[_Frame]] = {}
    skipped = 0
    for source in sources:
        elements = _read_elements(name, source, alone)
        if elements is None or "Rows" not in elements:
            skipped += 1
            continue
        count = int(elements.get("NumberOfFrames") or 1)
        check_limits(name, int(elements.Rows), int(elements.Columns), count, int(elements.get("SamplesPerPixel", 1)))
        frames = [_Frame(source, elements, index) for index in range(count)]
        orientation = frames[0].vector("ImageOrientationPatient", 6)
        direction = () if orientation is None else tuple(np.round(orientation, 2) + 0.0)
        size = (elements.Rows, elements.Columns, frames[0].colour)
        series.setdefault((str(elements.get("SeriesInstanceUID")), *size, direction), []).extend(frames)
    if not series:
        raise EmitDiffError(f"'{name}' holds no DICOM image. Expected a DICOM file, or a folder or zip of one series.")
    chosen = max(series.values(), key=len)
    warnings = []
    if len(series) > 1:
        warnings.append(f"The largest of {len(series)} series or orientations is shown: {len(chosen)} slices.")
    if skipped:
        warnings.append(f"{skipped} file(s) without a DICOM image were left out.")
    return chosen, warnings


def _read_elements(name: str, source: Source, alone: bool) -> pydicom.Dataset | None:
    """The listed elements before the pixels; None for a file among others that is not DICOM."""
    with source() as file:
        head = file.read(132)
        if not alone and head[128:] != b"DICM":
            return None
        file.seek(0)
        read_preamble(file, force=True)
        # Deflated files would be inflated whole, whatever their size, before their header could be looked at.
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise EmitDiffError(f"'{name}' is a deflated DICOM file, which is not read. Convert it without deflation.")
        file.seek(0)
        return pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=_SLICE_ELEMENTS)


def _read_frames(name: str, frames: list[_Frame], warnings: list[str]) -> Scan:
    frames, order_warnings, geometry, spacing = _in_order(frames)
    first, middle = frames[0], frames[len(frames) // 2]
    rows, columns, colour = int(first.elements.Rows), int(first.elements.Columns), first.colour
    check_limits(name, rows, columns, len(frames), 3 if colour else 1)
    kept = not colour and all(_shown_as_stored(frame) for frame in frames)
    shape = (len(frames), rows, columns, 3) if colour else (len(frames), rows, columns)
    values = np.empty(shape, np.uint8 if colour or kept else np.float32)
    _decode(name, frames, values)
    warnings += order_warnings + fill_non_finite(values, name)
    if any(str(frame.elements.get("BurnedInAnnotation", "")).upper() == "YES" for frame in frames):
        warnings.append("The file has burned-in annotations, which may identify the patient.")
    modality = MODALITIES.get(first.elements.get("Modality"))
    windows = {} if values.dtype == np.uint8 else _windows(middle, modality, values)
    inverted = first.elements.PhotometricInterpretation == "MONOCHROME1"
    return Scan(
        name,
        "dicom",
        values,
        modality,
        spacing,
        tuple(warnings),
        windows,
        inverted=inverted,
        geometry=geometry,
        origin=_series_reference(frames),
    )


def _series_reference(frames: list[_Frame]) -> SeriesReference | None:
    """How the images are identified, in the order of `frames`; None where they are not."""

    def identity(frame: _Frame, keyword: str) -> str:
        return str(frame.elements.get(keyword) or "")

    images = tuple(
        (identity(frame, "SOPClassUID"), identity(frame, "SOPInstanceUID"),
         frame.index + 1 if int(frame.elements.get("NumberOfFrames") or 1) > 1 else 0)
        for frame in frames
    )  # fmt: skip
    study, series, space = (
        identity(frames[0], keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    )
    known = series and all(kind and instance for kind, instance, _ in images)
    corners = [frame.vector("ImagePositionPatient", 3) for frame in frames]
    placed = tuple(tuple(corner.tolist()) for corner in corners if corner is not None)
    corners_known = placed if len(placed) == len(frames) else ()
    return SeriesReference(study, series, space, images, corners_known) if known else None


def _in_order(frames: list[_Frame]) -> tuple[list[_Frame], list[str], Geometry | None, Spacing | None]:
    """Frames sorted along the slice normal, warnings, and the geometry and spacing where the files give them."""
    frames = sorted(frames, key=lambda frame: (int(frame.get("InstanceNumber", 0)), frame.index))
    pixels = frames[0].vector("PixelSpacing", 2)
    if pixels is None:
        pixels = frames[0].vector("ImagerPixelSpacing", 2)
    if pixels is not None and pixels.min() <= 0:
        pixels = None
    thickness = float(frames[0].get("SpacingBetweenSlices") or frames[0].get("SliceThickness") or 1.0)
    orientation = frames[0].vector("ImageOrientationPatient", 6)
    origins = [frame.vector("ImagePositionPatient", 3) for frame in frames]
    plain = None if pixels is None else (abs(thickness), float(pixels[0]), float(pixels[1]))
    placed = [origin for origin in origins if origin is not None]
    if orientation is None or pixels is None or len(placed) < len(frames):
        unplaced = len(frames) > 1 and orientation is not None
        warnings = ["Slices have no position and are sorted by instance number."] if unplaced else []
        return frames, warnings, None, plain
    normal = np.cross(orientation[:3], orientation[3:])
    positions = np.array([origin @ normal for origin in placed])
    order = np.argsort(positions, kind="stable")
    frames, positions, placed = [frames[i] for i in order], positions[order], [placed[i] for i in order]
    gaps = np.diff(positions)
    if len(gaps) and gaps.min() < 1e-3:
        return (
            frames,
            ["Several images share one position (time points or echoes); masks are saved without geometry."],
            None,
            plain,
        )
    step = normal * thickness if len(frames) == 1 else (placed[-1] - placed[0]) / (len(frames) - 1)
    distance = float(np.median(gaps)) if len(gaps) else abs(thickness)
    uneven = len(gaps) and np.abs(gaps - distance).max() > 0.1 * distance
    warnings = ["The slices are not evenly spaced: some may be missing."] if uneven else []
    geometry = _geometry(frames[0], orientation, pixels, step, placed[0], len(frames))
    return frames, warnings, geometry, (distance, float(pixels[0]), float(pixels[1]))


def _geometry(
    first: _Frame, orientation: np.ndarray, pixels: np.ndarray, step: np.ndarray, origin: np.ndarray, count: int
) -> Geometry:
    """File order is (column, row, slice), as converters to NIfTI have it; DICOM is LPS+, the affine RAS+."""
    affine = np.eye(4)
    affine[:3] = np.column_stack([orientation[:3] * pixels[1], orientation[3:] * pixels[0], step, origin])
    affine[:2] *= -1
    shape = (int(first.elements.Columns), int(first.elements.Rows), count)
    return Geometry((2, 1, 0), (False, False, False), shape, affine)


def _decode(name: str, frames: list[_Frame], values: np.ndarray) -> None:
    """Fill `values` slice by slice; every file is opened once and dropped."""
    places: dict[int, list[int]] = {}
    for place, frame in enumerate(frames):
        places.setdefault(id(frame.elements), []).append(place)
    for same_file in places.values():
        with frames[same_file[0]].source() as file:
            elements = pydicom.dcmread(file, force=True, specific_tags=_SLICE_ELEMENTS + _PIXEL_ELEMENTS)
        if not any(keyword in elements for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
            raise EmitDiffError(f"'{name}' is a DICOM file without an image in it.")
        if not elements.file_meta.get("TransferSyntaxUID"):
            elements.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        for place in same_file:
            values[place] = _decode_frame(name, elements, frames[place], values.dtype)


def _decode_frame(name: str, elements: pydicom.Dataset, frame: _Frame, dtype: np.dtype) -> np.ndarray:
    try:
        array = pixel_array(elements, index=frame.index)
    except Exception:
        syntax = elements.file_meta.TransferSyntaxUID
        if not syntax.is_compressed:
            raise
        raise EmitDiffError(
            f"'{name}' is compressed as {syntax.name}, and cannot be decoded: it is damaged, or needs a decoder "
            "that this program lacks. Decompress the file with other software first, for example `gdcmconv --raw`."
        ) from None
    if frame.colour:
        palette = elements.PhotometricInterpretation == "PALETTE COLOR"
        array = apply_color_lut(array, elements) if palette else array
        deep = array.dtype != np.uint8
        return (array >> (8 if palette else max(int(elements.BitsStored) - 8, 0))).astype(np.uint8) if deep else array
    if dtype == np.uint8:
        return array
    return _presented(array, elements, frame)


def _presented(array: np.ndarray, elements: pydicom.Dataset, frame: _Frame) -> np.ndarray:
    """Modality look-up, then the VOI look-up table or curve where the file has one; windows are applied when shown."""
    if elements.get("ModalityLUTSequence"):
        array = apply_modality_lut(array, elements)
    else:
        array = array * float(frame.get("RescaleSlope", 1)) + float(frame.get("RescaleIntercept", 0))
    if _has_table(frame):
        return apply_voi(np.rint(array).astype(np.int64), elements)
    if _has_curve(frame):
        window = next(iter(_stored_windows(frame).values()))
        return 255 / (1 + np.exp(-4 * (array - window.centre) / window.width))
    return array


def _has_table(frame: _Frame) -> bool:
    return bool(frame.elements.get("VOILUTSequence")) and frame.elements.get("Modality") != "CT"


def _has_curve(frame: _Frame) -> bool:
    return str(frame.get("VOILUTFunction", "")).upper() == "SIGMOID" and bool(_stored_windows(frame))


def _shown_as_stored(frame: _Frame) -> bool:
    """8-bit pictures without any transformation: screen captures, ultrasound."""
    elements = frame.elements
    plain = elements.get("BitsAllocated") in {1, 8} and not elements.get("PixelRepresentation")
    tables = elements.get("ModalityLUTSequence") or elements.get("VOILUTSequence") or _stored_windows(frame)
    unscaled = float(frame.get("RescaleSlope", 1)) == 1 and float(frame.get("RescaleIntercept", 0)) == 0
    return bool(plain and elements.get("BitsStored") == 8 and not tables and unscaled)


def _stored_windows(frame: _Frame) -> dict[str, Window]:
    """The windows in the file, under the names it gives them."""

    def listed(keyword: str) -> list[Any]:
        value = frame.get(keyword)
        return [] if value is None else [value] if isinstance(value, str | int | float) else list(value)

    names = [str(name).strip().lower() for name in listed("WindowCenterWidthExplanation")]
    windows: dict[str, Window] = {}
    for place, (centre, width) in enumerate(zip(listed("WindowCenter"), listed("WindowWidth"), strict=False)):
        if np.isfinite([float(centre), float(width)]).all() and float(width) > 0:
            name = names[place] if place < len(names) and names[place] else f"as stored {place + 1}".removesuffix(" 1")
            windows.setdefault(name, Window(float(centre), float(width)))
    return windows


def _windows(frame: _Frame, modality: str | None, values: np.ndarray) -> dict[str, Window]:
    if _has_table(frame):
        bits = int(frame.elements.VOILUTSequence[0].LUTDescriptor[2])
        return {"as stored": Window(2 ** (bits - 1), 2**bits)}
    if _has_curve(frame):
        return {"as stored": Window(128, 256)}
    stored = _stored_windows(frame)
    named = {name: window for name, window in WINDOWS.items() if modality == "CT" and name not in stored}
    return {**stored, **named, **value_windows(values)}
