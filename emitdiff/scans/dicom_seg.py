"""Masks as DICOM Segmentation (DICOM PS3.3 A.51): a binary segment for each class id, tied to the images it belongs to.

What ties it are the identifiers of study, series and images, which are numbers that name nobody. Everything about the
patient is left empty, as `dicom.py` never reads it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage, generate_uid

from emitdiff.files import write_atomically
from emitdiff.scans.geometry import SeriesReference

# Coding scheme, value and meaning of what the standard wants said in codes.
TISSUE = ("SCT", "85756007", "Tissue")  # the general word: a sentence is no code
SEGMENTED = ("DCM", "113076", "Segmentation")
SOURCE = ("DCM", "121322", "Source image for image processing operation")
MAX_BITS = 2**31  # of all frames
ALIKE = 1e-5  # as cosines or millimetres: what is nearer is one direction or distance
# What tells frames apart: an element, and the functional group that it stands in.
SEGMENT = (0x0062000B, 0x0062000A)
POSITION = (0x00200032, 0x00209113)
STACK_POSITION = (0x00209057, 0x00209111)


def write_segmentation(slices: np.ndarray, series: SeriesReference, path: Path, labels: dict[int, str]) -> Path:
    """uint8 class ids (S, H, W) in displayed order to a DICOM SEG file; returns its path.

    Every class id of `labels` becomes a segment of that name with a frame for each slice, empty ones too, so that the
    file is read like any volume; only where that would take more than 256 MiB, these are left out. A frame lies where
    its image lies; where the images do not say, it is tied to them alone.
    """
    seg = _header(series, labels, SEGMENT, POSITION if series.planes else STACK_POSITION)
    shared, own = Dataset(), [Dataset() for _ in slices]
    if series.planes:
        seg.FrameOfReferenceUID = series.space or generate_uid()
        seg.PositionReferenceIndicator = ""
        _add_planes(series, shared, own)
    else:
        seg.PatientOrientation = ""  # it is that of the images, whatever it may be
    seg.SharedFunctionalGroupsSequence = Sequence([shared])
    numbered = list(enumerate(labels, start=1))
    frames = [(number, label, place) for number, label in numbered for place in range(len(slices))]
    if len(labels) * slices.size > MAX_BITS:
        frames = [frame for frame in frames if (slices[frame[2]] == frame[1]).any()] or frames[:1]
    seg.PerFrameFunctionalGroupsSequence = Sequence(
        _frame(series, number, place, own[place]) for number, _, place in frames
    )
    seg.NumberOfFrames = len(frames)
    seg.Rows, seg.Columns = slices.shape[1:]
    seg.PixelData = _packed([(slices[place], label) for _, label, place in frames])
    write_atomically(path, lambda partial: seg.save_as(partial, enforce_file_format=True))
    return path


def _packed(frames: list[tuple[np.ndarray, int]]) -> bytes:
    """One bit for each pixel of each frame, (H, W) with the class id that it is of; frames follow without a gap."""
    parts = []
    for first in range(0, len(frames), 8):  # eight of them end with a byte
        bits = np.stack([ids == label for ids, label in frames[first : first + 8]])
        parts.append(np.packbits(bits.ravel(), bitorder="little").tobytes())
    packed = b"".join(parts)
    return packed + b"\0" * (len(packed) % 2)


def _header(series: SeriesReference, labels: dict[int, str], *dimensions: tuple[int, int]) -> Dataset:
    """Everything about the file as a whole."""
    seg, now = Dataset(), datetime.now(UTC)
    seg.file_meta = FileMetaDataset()
    seg.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    seg.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: labels in any script
    seg.SOPClassUID, seg.SOPInstanceUID = SegmentationStorage, generate_uid()
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
                    "ReferringPhysicianName", "AccessionNumber", "ContentCreatorName"):  # fmt: skip
        setattr(seg, keyword, "")
    seg.StudyInstanceUID, seg.SeriesInstanceUID = series.study or generate_uid(), generate_uid()
    seg.Modality, seg.SeriesNumber, seg.InstanceNumber = "SEG", 1, 1
    seg.SeriesDescription = "Research use only, not a medical device"
    seg.Manufacturer = seg.ManufacturerModelName = seg.DeviceSerialNumber = seg.SoftwareVersions = "emitdiff"
    seg.ContentDate, seg.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    seg.ContentLabel, seg.ContentDescription = "SEGMENTATION", "Research use only, not a medical device"
    seg.ImageType, seg.SegmentationType, seg.LossyImageCompression = ["DERIVED", "PRIMARY"], "BINARY", "00"
    seg.SamplesPerPixel, seg.PhotometricInterpretation, seg.PixelRepresentation = 1, "MONOCHROME2", 0
    seg.BitsAllocated, seg.BitsStored, seg.HighBit = 1, 1, 0
    seg.SegmentSequence = Sequence(_segment(number, *one) for number, one in enumerate(labels.items(), 1))
    seg.ReferencedSeriesSequence = _items(
        SeriesInstanceUID=series.series,
        ReferencedInstanceSequence=Sequence(
            _item(ReferencedSOPClassUID=kind, ReferencedSOPInstanceUID=instance)
            for kind, instance in dict.fromkeys(image[:2] for image in series.images)
        ),
    )
    organised = generate_uid()
    seg.DimensionOrganizationSequence = _items(DimensionOrganizationUID=organised)
    seg.DimensionIndexSequence = Sequence(
        _item(DimensionOrganizationUID=organised, DimensionIndexPointer=index, FunctionalGroupPointer=group)
        for index, group in dimensions
    )
    return seg


def _segment(number: int, label: int, name: str) -> Dataset:
    return _item(
        SegmentNumber=number,
        SegmentLabel=_text(name) or f"class {label}",
        SegmentDescription=f"class id {label}",
        SegmentAlgorithmType="AUTOMATIC",
        SegmentAlgorithmName="emitdiff",
        SegmentedPropertyCategoryCodeSequence=_code(TISSUE),
        SegmentedPropertyTypeCodeSequence=_code(TISSUE),
    )


def _text(name: str) -> str:
    """As the standard has it for a label: 64 characters in one line, and no backslash, which would part two values."""
    return " ".join(name.replace("\\", "/").split())[:64].strip()


def _add_planes(series: SeriesReference, shared: Dataset, own: list[Dataset]) -> None:
    """Position, orientation and spacing of the slices, in the groups of each or, where they are alike, of all."""
    planes = series.planes
    corners = np.array([plane.corner for plane in planes])
    orientations = np.array([plane.orientation for plane in planes])
    spacings = np.array([plane.spacing for plane in planes])
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    gaps = np.abs(np.diff(corners @ normal))
    alike = np.ptp(orientations, axis=0).max() < ALIKE
    even = alike and len(gaps) and np.ptp(gaps) < 1e-2 * gaps.mean()
    apart = float(np.median(gaps)) if alike and len(gaps) and gaps.min() > 0 else series.thickness
    for group, corner in zip(own, corners, strict=True):
        group.PlanePositionSequence = _items(ImagePositionPatient=[f"{number:.9g}" for number in corner])
    for place, group in enumerate([shared] if alike else own):
        group.PlaneOrientationSequence = _items(
            ImageOrientationPatient=[f"{number:.9g}" for number in orientations[place]]
        )
    for place, group in enumerate([shared] if np.ptp(spacings, axis=0).max() < ALIKE else own):
        group.PixelMeasuresSequence = _items(
            PixelSpacing=[f"{number:.9g}" for number in spacings[place]], SliceThickness=f"{apart:.9g}"
        )
        if even:
            group.PixelMeasuresSequence[0].SpacingBetweenSlices = f"{apart:.9g}"


def _frame(series: SeriesReference, number: int, place: int, plane: Dataset) -> Dataset:
    """What belongs to the frame of segment `number` at slice `place`, counted from 1 and from 0; `plane` has the groups
    that say where it lies."""
    kind, instance, frame = series.images[place]
    source = _item(
        ReferencedSOPClassUID=kind,
        ReferencedSOPInstanceUID=instance,
        PurposeOfReferenceCodeSequence=_code(SOURCE),
        SpatialLocationsPreserved="YES",
    )
    if frame:
        source.ReferencedFrameNumber = frame
    groups = _item(
        FrameContentSequence=_items(DimensionIndexValues=[number, place + 1]),
        SegmentIdentificationSequence=_items(ReferencedSegmentNumber=number),
        DerivationImageSequence=_items(
            DerivationCodeSequence=_code(SEGMENTED), SourceImageSequence=Sequence([source])
        ),
    )  # fmt: skip
    if not series.planes:
        groups.FrameContentSequence[0].update(_item(StackID="1", InStackPositionNumber=place + 1))
    groups.update(plane)
    return groups


def _code(code: tuple[str, str, str]) -> Sequence:
    scheme, value, meaning = code
    return _items(CodingSchemeDesignator=scheme, CodeValue=value, CodeMeaning=meaning)


def _items(**elements: Any) -> Sequence:
    return Sequence([_item(**elements)])


def _item(**elements: Any) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item
