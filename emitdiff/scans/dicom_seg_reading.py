"""DICOM Segmentations as masks (PS3.3 A.51, A.94): every segment, wherever its frames lie.

The frames of a file come in any order, leave out what is empty, and say themselves where they lie: each by its place in
the patient, or by the image that it was drawn on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.pixels import pixel_array

from emitdiff.errors import EmitDiffError
from emitdiff.scans.decoding import check_limits, damaged_file_error
from emitdiff.scans.dicom_decoding import check_syntax
from emitdiff.scans.mask_alignment import MaskMisfitError, check_size, other_grid, same_voxels
from emitdiff.scans.mask_values import MAX_CLASS_ID
from emitdiff.scans.scan import Scan

SEGMENTATION, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
BACKGROUND = ("DCM", "125040")
CLASS_ID = re.compile(r"class id (\d{1,3})")  # how dicom_seg.py notes what a segment is called in the mask
NEAR = 0.25  # of the distance of slices: a frame that lies no farther from one belongs to it
AWAY = ("NO", "REORIENTED_ONLY")  # of SpatialLocationsPreserved: the pixels of frame and image are not the same


Turn = tuple[tuple[int, ...], tuple[int, ...]] | None  # how to transpose and flip a frame


@dataclass(frozen=True, eq=False)
class Plane:
    """Where a frame lies, LPS+ in millimetres: the middle of its first pixel, and a step along columns and rows."""

    corner: np.ndarray
    down: np.ndarray
    across: np.ndarray


@dataclass(frozen=True, eq=False)
class SegFrame:
    """Frame `number`, counted from 0, of a file: of one `segment`, or None where the pixels say of which."""

    number: int
    segment: int | None
    plane: Plane | None
    sources: tuple[tuple[str, int], ...]  # the images it was drawn on: SOP instance, and frame counted from 1, else 0


@dataclass(eq=False)
class SegFile:
    """A DICOM Segmentation: its frames, and `ids`, the class id of each segment number."""

    name: str
    elements: pydicom.Dataset = field(repr=False)
    frames: list[SegFrame] = field(repr=False)
    ids: dict[int, int]
    size: tuple[int, int]

    def pixels(self, frame: SegFrame) -> np.ndarray:
        """Class ids uint8 (H, W) of a frame, 0 outside its segment."""
        values = self._decode(frame.number)
        if frame.segment is not None:
            highest = int(self.elements.get("MaximumFractionalValue") or 1) if self._fractional else 1
            if not np.isin(values, (0, highest)).all():
                raise EmitDiffError(
                    f"The mask '{self.name}' says how much of each pixel a segment covers, or how probable it is "
                    "(a fractional Segmentation), not yes or no. Save it after a threshold, as a binary one."
                )
            return np.where(values > 0, self.ids[frame.segment], 0).astype(np.uint8)
        table = np.zeros(max(int(values.max()), *self.ids, 0) + 1, np.uint8)
        for number, label in self.ids.items():
            table[number] = label
        unknown = set(np.unique(values).tolist()) - {0, int(self.elements.get("PixelPaddingValue") or 0), *self.ids}
        if unknown:
            raise EmitDiffError(f"The mask '{self.name}' holds the segment {min(unknown)}, which it does not describe.")
        ids: np.ndarray = table[values]
        return ids

    def stacked(self) -> np.ndarray:
        """Class ids uint8 (S, H, W) of the file alone: a slice for each place in the patient, or image, that has a
        frame."""
        normal = next((np.cross(frame.plane.across, frame.plane.down) for frame in self.frames if frame.plane), None)
        places: dict[Any, list[SegFrame]] = {}
        for frame in self.frames:
            key: Any = frame.sources or frame.number
            if normal is not None and frame.plane is not None:
                key = round(float(frame.plane.corner @ normal / np.linalg.norm(normal)), 3)
            places.setdefault(key, []).append(frame)
        order = sorted(places) if all(isinstance(key, float) for key in places) else list(places)
        check_limits(self.name, *self.size, len(order))
        return np.stack([_united(self, [(frame, None) for frame in places[key]]) for key in order])

    def placed(self, scan: Scan, index: int | None = None) -> np.ndarray:
        """Class ids uint8 (S, H, W) laid over `scan`, or (H, W) over its slice `index`; where no frame lies there is
        background.

        Raises:
            MaskMisfitError: a frame lies on none of the slices, or the pixels are others.
            EmitDiffError: two segments claim the same pixel, or nothing says where the frames belong.
        """
        at: dict[int, list[tuple[SegFrame, Turn]]] = {}
        astray = []
        for frame in self.frames:
            found = _place(self, frame, scan)
            if found is None:
                astray.append(frame)
            else:
                at.setdefault(found[0], []).append((frame, found[1]))
        drawn_on = [frame for frame in astray if self.pixels(frame).any()]
        if drawn_on and not (at and scan.num_slices == 1) and not _of_absent_images(self, drawn_on, scan):
            raise other_grid(self.name, scan)
        empty = np.zeros(scan.size, np.uint8)
        slices = range(scan.num_slices) if index is None else [index]
        found_ids = [_united(self, at[place]) if place in at else empty for place in slices]
        return np.stack(found_ids) if index is None else found_ids[0]

    @property
    def _fractional(self) -> bool:
        return str(self.elements.get("SegmentationType")) == "FRACTIONAL"

    def _decode(self, number: int) -> np.ndarray:
        rows, columns = self.size
        compressed = self.elements.file_meta.TransferSyntaxUID.is_compressed
        if self.elements.get("BitsAllocated") != 1 or compressed:
            try:
                return np.asarray(pixel_array(self.elements, index=number, raw=True)).reshape(self.size)
            except Exception:  # whatever a decoder stumbles over
                raise damaged_file_error(self.name) from None
        # Frames of bits follow each other without gaps: a frame may begin within a byte.
        first, count = number * rows * columns, rows * columns
        packed = np.frombuffer(self.elements.PixelData, np.uint8)[first // 8 : -(-(first + count) // 8)]
        bits = np.unpackbits(packed, bitorder="little")[first % 8 :][:count]
        if bits.size < count:
            raise damaged_file_error(self.name)
        return bits.reshape(rows, columns)


def is_segmentation(elements: pydicom.Dataset) -> bool:
    return str(elements.get("SOPClassUID", "")) in {SEGMENTATION, LABEL_MAP}


def read_segmentation(path: Path) -> SegFile:
    """The file with its frames, none decoded yet. Raises EmitDiffError where it cannot be read."""
    try:
        with disable_value_validation():
            elements = pydicom.dcmread(path, force=True)
            return _checked(path.name, elements)
    except EmitDiffError:
        raise
    except Exception:  # whatever the parser stumbles over, the file is at fault
        raise damaged_file_error(path.name) from None


def _checked(name: str, elements: pydicom.Dataset) -> SegFile:
    size = (int(elements.Rows), int(elements.Columns))
    check_limits(name, *size)
    if "PixelData" not in elements:
        raise damaged_file_error(name)
    if "TransferSyntaxUID" in elements.file_meta:
        check_syntax(name, elements)
    groups = elements.get("PerFrameFunctionalGroupsSequence")
    count = int(elements.get("NumberOfFrames") or 1)
    if elements.get("DimensionOrganizationType") in {"TILED_FULL", "TILED_SPARSE"} or not groups:
        raise EmitDiffError(
            f"The mask '{name}' is a Segmentation in tiles, of a whole slide; those of images and volumes are read. "
            "Save the part that you need as PNG."
        )
    if len(groups) != count:
        raise damaged_file_error(name)
    shared = (elements.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    label_map = str(elements.get("SegmentationType")) == "LABELMAP" or str(elements.SOPClassUID) == LABEL_MAP
    ids = _class_ids(name, elements, label_map)
    frames = [_frame(number, group, shared, None if label_map else ids) for number, group in enumerate(groups)]
    return SegFile(name, elements, frames, ids, size)


def _class_ids(name: str, elements: pydicom.Dataset, label_map: bool) -> dict[int, int]:
    """The class id of each segment: that which this program noted when it wrote the file, else the segment's number."""
    segments = elements.get("SegmentSequence") or []
    numbers = [int(segment.SegmentNumber) for segment in segments]
    noted = [CLASS_ID.fullmatch(str(segment.get("SegmentDescription", ""))) for segment in segments]
    own = [int(match[1]) for match in noted if match]
    ids = dict(zip(numbers, own if len(own) == len(numbers) else numbers, strict=True))
    if label_map:  # the background is described too, whatever its number
        ids |= {number: 0 for number, segment in zip(numbers, segments, strict=True)
                if number == 0 or _property(segment) == BACKGROUND}  # fmt: skip
    if not any(ids.values()):
        raise EmitDiffError(f"The mask '{name}' is a Segmentation that describes no segment.")
    if not all((0 if label_map else 1) <= label <= MAX_CLASS_ID for label in ids.values()):
        raise EmitDiffError(
            f"The mask '{name}' has segments numbered up to {max(ids.values())}; class ids go from 1 to "
            f"{MAX_CLASS_ID}. Save the segments that you need alone."
        )
    return ids


def _property(segment: pydicom.Dataset) -> tuple[str, str]:
    """The code of what a segment shows."""
    codes = segment.get("SegmentedPropertyTypeCodeSequence") or [pydicom.Dataset()]
    return str(codes[0].get("CodingSchemeDesignator")), str(codes[0].get("CodeValue"))


def _frame(number: int, group: pydicom.Dataset, shared: pydicom.Dataset, ids: dict[int, int] | None) -> SegFrame:
    def item(sequence: str) -> pydicom.Dataset:
        """The one item of a functional group, the frame's own or that of all frames; empty where there is none."""
        found: list[pydicom.Dataset] = group.get(sequence) or shared.get(sequence) or [pydicom.Dataset()]
        return found[0]

    segment = None
    if ids is not None:
        said = item("SegmentIdentificationSequence").get("ReferencedSegmentNumber")
        segment = next(iter(ids)) if said is None and len(ids) == 1 else int(said)
        if segment not in ids:
            raise KeyError(segment)
    orientation = _numbers(item("PlaneOrientationSequence").get("ImageOrientationPatient"), 6)
    corner = _numbers(item("PlanePositionSequence").get("ImagePositionPatient"), 3)
    spacing = _numbers(item("PixelMeasuresSequence").get("PixelSpacing"), 2)
    plane = None
    if orientation is not None and corner is not None and spacing is not None and spacing.min() > 0:
        plane = Plane(corner, orientation[3:] * spacing[0], orientation[:3] * spacing[1])
    sources = tuple(_sources(item_ for item_ in (group.get("DerivationImageSequence") or [])))
    return SegFrame(number, segment, plane, sources)


def _sources(derivations: Iterable[pydicom.Dataset]) -> Iterator[tuple[str, int]]:
    for derivation in derivations:
        for source in derivation.get("SourceImageSequence") or []:
            if str(source.get("SpatialLocationsPreserved", "YES")) not in AWAY:
                numbers = source.get("ReferencedFrameNumber") or 0
                for number in [numbers] if isinstance(numbers, int) else numbers:
                    yield str(source.get("ReferencedSOPInstanceUID", "")), int(number)


def _numbers(value: Any, length: int) -> np.ndarray | None:
    try:
        vector = np.array([float(number) for number in value])
    except (TypeError, ValueError):
        return None
    return vector if vector.shape == (length,) and np.isfinite(vector).all() else None


def _united(seg: SegFile, frames: list[tuple[SegFrame, Turn]]) -> np.ndarray:
    """The frames of one slice, (H, W) as it is displayed."""
    ids: np.ndarray | None = None
    for frame, turn in frames:
        found = seg.pixels(frame)
        if turn is not None:
            found = np.flip(found.transpose(turn[0]), turn[1])
        if ids is None:
            ids = found.copy()
            continue
        both = (ids > 0) & (found > 0) & (ids != found)
        if both.any():
            pair = sorted((int(ids[both][0]), int(found[both][0])))
            raise EmitDiffError(
                f"In the mask '{seg.name}' the segments of class {pair[0]} and {pair[1]} overlap: a pixel of a mask "
                "has one class. Save the segments that you need alone."
            )
        ids = np.maximum(ids, found)
    assert ids is not None
    return ids


def _place(seg: SegFile, frame: SegFrame, scan: Scan) -> tuple[int, Turn] | None:
    """The slice on which a frame lies, and how to turn it; None where it lies on none."""
    if frame.plane is not None and scan.geometry is not None:
        _check_space(seg, scan)
        return _by_place(seg, frame, scan)
    check_size(seg.name, seg.size, scan.size)
    if scan.origin is not None and frame.sources:
        images = {(instance, number): place for place, (_, instance, number) in enumerate(scan.origin.images)}
        places = {images[source] for source in frame.sources if source in images}
        places |= {images[instance, 1] for instance, number in frame.sources if not number and (instance, 1) in images
                   and scan.num_slices == 1}  # fmt: skip
        if len(places) > 1:
            raise EmitDiffError(
                f"The mask '{seg.name}' has a frame that was drawn on several images, and no place in the patient."
            )
        return (places.pop(), None) if places else None
    alone = scan.num_slices == 1 and len({f.segment for f in seg.frames}) == len(seg.frames)
    if alone and scan.geometry is None:
        return 0, None
    raise EmitDiffError(
        f"Nothing says where the mask '{seg.name}' lies on '{scan.name}'. Give the DICOM images that it was drawn on, "
        "or the mask of the one slice as PNG."
    )


def _of_absent_images(seg: SegFile, frames: list[SegFrame], scan: Scan) -> bool:
    """Whether frames that lie on no slice were drawn on images of the same series that are not here."""
    if scan.origin is None:
        return False
    here = {instance for _, instance, _ in scan.origin.images}
    series = {str(item.get("SeriesInstanceUID")) for item in seg.elements.get("ReferencedSeriesSequence") or []}
    named = [{instance for instance, _ in frame.sources} for frame in frames if frame.plane is not None]
    return scan.origin.series in series and len(named) == len(frames) and all(one and not one & here for one in named)


def _check_space(seg: SegFile, scan: Scan) -> None:
    """The places of two files can be compared where they count from the same point in the patient."""
    own, its = str(seg.elements.get("FrameOfReferenceUID") or ""), scan.origin.space if scan.origin is not None else ""
    if own and its and own != its:
        raise MaskMisfitError(
            "other grid",
            f"The mask '{seg.name}' belongs to other images than '{scan.name}': their frames of reference differ. Give "
            "the images that it was drawn on.",
        )


def _by_place(seg: SegFile, frame: SegFrame, scan: Scan) -> tuple[int, Turn] | None:
    assert frame.plane is not None and scan.geometry is not None
    corners, down, across = scan.geometry.planes()
    normal = np.cross(across, down)
    normal /= np.linalg.norm(normal)
    plane = frame.plane
    opposite = plane.corner + plane.down * (seg.size[0] - 1) + plane.across * (seg.size[1] - 1)
    away = np.abs(np.stack([(point - corners) @ normal for point in (plane.corner, opposite)])).max(0)
    gaps = np.abs(np.diff(corners @ normal))
    gap = float(gaps.min()) if len(gaps) else scan.spacing[0] if scan.spacing is not None else 1.0
    index = int(away.argmin())
    if away[index] > NEAR * gap:
        return None
    its, own = ((corners[index], down, across), (plane.corner, plane.down, plane.across))
    turn = same_voxels(_affine(*its, gap * normal), _affine(*own, gap * normal), (1, *scan.size), (1, *seg.size))
    if turn is None:
        raise other_grid(seg.name, scan)
    axes, backwards = turn
    return index, (tuple(axis - 1 for axis in axes[1:]), tuple(axis - 1 for axis in backwards if axis))


def _affine(corner: np.ndarray, down: np.ndarray, across: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """(4, 4), from (slice, row, column, 1) of one plane to millimetres."""
    affine = np.eye(4)
    affine[:3] = np.column_stack([normal, down, across, corner])
    return affine
