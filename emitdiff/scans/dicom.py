"""DICOM: one file, a folder or a zip of a series, to slices in order along the patient."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from pydicom.config import disable_value_validation

from emitdiff.errors import EmitDiffError
from emitdiff.scans.decoding import (
    ValueRange,
    check_limits,
    damaged_file_error,
    no_finite_value_error,
    non_finite_warning,
)
from emitdiff.scans.dicom_decoding import open_pixels
from emitdiff.scans.dicom_files import MAX_FILES, archive_sources, file_sources, folder_sources, read_header
from emitdiff.scans.dicom_frame import Frame
from emitdiff.scans.dicom_order import in_order, laterality, series_reference
from emitdiff.scans.dicom_pixels import (
    check_rescale,
    is_inverted,
    is_padding,
    modality_values,
    shown_as_stored,
    stored_windows,
    value_type,
)
from emitdiff.scans.dicom_series import Series, find_series
from emitdiff.scans.geometry import WINDOWS, Window
from emitdiff.scans.scan import Scan, Wanted, check_slice
from emitdiff.zips import open_zip

MODALITIES = {"CT": "CT", "MR": "MRI", "US": "Ultrasound", "IVUS": "Ultrasound"} | dict.fromkeys(
    ("CR", "DX", "MG", "XA", "RF", "PX", "IO", "RG"), "X-ray"
)


def read_dicom(path: Path, kind: str, wanted: Wanted) -> Scan:
    """`kind` is "dicom" (a file), "folder" or "zip". Raises EmitDiffError; nothing is ever unpacked to disk."""
    try:
        opened = open_zip(path, MAX_FILES) if kind == "zip" else nullcontext()
        with opened as archive, disable_value_validation():
            if archive is not None:
                sources = archive_sources(path, archive)
            else:
                sources = folder_sources(path) if kind == "folder" else file_sources([path])
            name = path.name or path.resolve().name
            series = find_series(name, [read_header(name, source, kind == "dicom") for source in sources])
            return _read_series(name, series, wanted)
    except EmitDiffError:
        raise
    except NotImplementedError:  # zipfile says so of a compression that it does not know
        raise EmitDiffError(f"'{path.name}' is compressed in a way that cannot be read. Decompress it first.") from None
    except Exception:  # whatever a parser stumbles over, the file is at fault; its text could quote the file
        raise damaged_file_error(path.name) from None


def _read_series(name: str, series: Series, wanted: Wanted) -> Scan:
    order = in_order(name, series, wanted.time_point)
    frames = order.frames
    if wanted.index is not None:
        check_slice(name, wanted.index, len(frames))
    pixels = _Pixels(name, frames, wanted)
    warnings = [*series.warnings, *order.warnings, *pixels.warnings]
    if any(str(frame.header.get("BurnedInAnnotation", "")).upper() == "YES" for frame in frames):
        warnings.append("The file has burned-in annotations, which may identify the patient.")
    unusable = sorted(set().union(*(frame.header.unusable for frame in frames)))
    if unusable:
        warnings.append(f"DICOM elements that hold no usable value were left out: {', '.join(unusable)}.")
    return Scan(
        name,
        "dicom",
        pixels.values,
        MODALITIES.get(str(frames[0].header.get("Modality"))),
        order.spacing,
        tuple(dict.fromkeys(warnings)),
        pixels.windows,
        slice_windows=pixels.slice_windows,
        inverted=is_inverted(frames[0]),
        geometry=order.geometry,
        origin=series_reference(frames),
        sides=order.sides,
        only=wanted.index,
        volumes=order.volumes,
        volume=wanted.time_point or 0,
        laterality=laterality(frames),
    )


class _Pixels:
    """The decoded pixels of a series, their windows, and what is to be said of them."""

    def __init__(self, name: str, frames: list[Frame], wanted: Wanted) -> None:
        self.name, self.frames = name, frames
        self.warnings: list[str] = []
        self.windows: dict[str, Window] = {}
        self.slice_windows: tuple[dict[str, Window], ...] = ()
        header, colour = frames[0].header, frames[0].colour
        self.size = (int(header.number("Rows", 0)), int(header.number("Columns", 0)))
        check_limits(name, *self.size, 1 if wanted.index is not None else len(frames), 3 if colour else 1)
        for frame in frames:
            check_rescale(name, frame)
        plain = colour or all(map(shown_as_stored, frames))
        self.type = np.dtype(np.uint8) if plain else value_type(frames)
        # Zeros take no memory until they are written to: of one slice alone, the others never do. And what a file may
        # hold is more than what it holds: 16 bits are enough until a value says otherwise.
        shape = (len(frames), *self.size, *([3] if colour else []))
        self.values = np.zeros(shape, np.int16 if self.type == np.int32 else self.type)
        if not plain:
            self._find_windows()
        if wanted.index is not None and (plain or self._has(wanted.window)):
            self._decode([wanted.index], wanted.index, None)
            return
        found = ValueRange(self.values.size)
        self._decode(range(len(frames)), wanted.index, None if plain else found)
        if not plain:
            self._show(found, wanted.index)

    def _find_windows(self) -> None:
        """Those of the file and of its modality."""
        own = [stored_windows(frame) for frame in self.frames]
        middle = own[len(own) // 2]
        self.slice_windows = tuple(own) if any(windows != middle for windows in own) else ()
        ct = self.frames[0].header.get("Modality") == "CT"
        self.windows = {**middle, **{name: used for name, used in WINDOWS.items() if ct and name not in middle}}

    def _has(self, window: str | Window | None) -> bool:
        """Whether it is known without a look at all slices."""
        return isinstance(window, Window) or bool(self.windows if window is None else window in self.windows)

    def _decode(self, places: Iterable[int], only: int | None, found: ValueRange | None) -> None:
        """Fill `values`, with `only` that slice alone; every file is opened once and dropped."""
        files: dict[int, list[int]] = {}
        for place in places:
            files.setdefault(id(self.frames[place].header), []).append(place)
        for same_file in files.values():
            with open_pixels(self.name, self.frames[same_file[0]].header) as file:
                for place in same_file:
                    frame = self.frames[place]
                    array = file.decode(frame)
                    if array.shape[:2] != self.size:
                        raise ValueError
                    plain = self.type == np.uint8
                    values = array if plain else modality_values(array, file.elements, frame, self.type)
                    if found is not None:
                        found.add(values, is_padding(array, frame))
                    if only in {None, place}:
                        self._keep(place, values)

    def _keep(self, place: int, values: np.ndarray) -> None:
        if self.values.dtype != self.type:
            room = np.iinfo(self.values.dtype)
            if values.min() < room.min or values.max() > room.max:
                self.values = self.values.astype(self.type)
        self.values[place] = values

    def _show(self, found: ValueRange, only: int | None) -> None:
        self.windows |= found.windows()
        if found.non_finite:
            if found.low > found.high:
                raise no_finite_value_error(self.name)
            chosen = self.values if only is None else self.values[only]
            chosen[~np.isfinite(chosen)] = found.low
            self.warnings.append(non_finite_warning(found.non_finite))
