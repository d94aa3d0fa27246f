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
from pydicom.pixels import pack_bits
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage, generate_uid

from emitdiff.files import write_atomically
from emitdiff.scans.geometry import Geometry, SeriesReference

# Coding scheme, value and meaning of what the standard wants said in codes.
TISSUE = ("SCT", "85756007", "Tissue")  # the general word: a sentence is no code
SEGMENTED = ("DCM", "113076", "Segmentation")
SOURCE = ("DCM", "121322", "Source image for image processing operation")
# What tells frames apart: an element, and the functional group that it stands in.
SEGMENT = (0x0062000B, 0x0062000A)
POSITION = (0x00200032, 0x00209113)
STACK_POSITION = (0x00209057, 0x00209111)


def write_segmentation(
    slices: np.ndarray, series: SeriesReference, geometry: Geometry | None, path: Path, labels: dict[int, str]
) -> Path:
    """uint8 class ids (S, H, W) in displayed order to a DICOM SEG file; returns its path.

    Every class id of `labels` becomes a segment of that name with a frame for each slice, empty ones too, so that the
    file is read like any volume. Without a `geometry` the frames are tied to their images alone.
    """
    seg = _header(series, labels, SEGMENT, STACK_POSITION if geometry is None else POSITION)
    shared, corners = Dataset(), None
    if geometry is not None:
        corners = _corners(series, geometry)
        seg.FrameOfReferenceUID = series.space or generate_uid()
        seg.PositionReferenceIndicator = ""
        shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = _plane(geometry, corners)
    seg.SharedFunctionalGroupsSequence = Sequence([shared])
    seg.PerFrameFunctionalGroupsSequence = Sequence(
        _frame(series, corners, number, place)
        for number in range(1, len(labels) + 1)
        for place in range(len(slices))
    )  # fmt: skip
    seg.NumberOfFrames = len(labels) * len(slices)
    seg.Rows, seg.Columns = slices.shape[1:]
    seg.PixelData = pack_bits(np.stack([slices == label for label in labels]).astype(np.uint8).ravel())
    write_atomically(path, lambda partial: seg.save_as(partial, enforce_file_format=True))
    return path


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
    seg.SegmentSequence = Sequence(_segment(number, name) for number, name in enumerate(labels.values(), 1))
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


def _segment(number: int, name: str) -> Dataset:
    return _item(
        SegmentNumber=number,
        SegmentLabel=(name or f"class {number}")[:64],
        SegmentAlgorithmType="AUTOMATIC",
        SegmentAlgorithmName="emitdiff",
        SegmentedPropertyCategoryCodeSequence=_code(TISSUE),
        SegmentedPropertyTypeCodeSequence=_code(TISSUE),
    )


def _corners(series: SeriesReference, geometry: Geometry) -> np.ndarray:
    """(S, 3), where the first pixel of each slice lies, LPS+: as its own image says, else evenly spread."""
    return np.array(series.corners) if series.corners else _even_corners(geometry, len(series.images))


def _even_corners(geometry: Geometry, count: int) -> np.ndarray:
    """(count, 3); DICOM is LPS+, the affine RAS+."""
    affine = geometry.display_affine()
    corners: np.ndarray = (affine[:3, 3] + np.arange(count)[:, None] * affine[:3, 0]) * (-1, -1, 1)
    return corners


def _plane(geometry: Geometry, corners: np.ndarray) -> tuple[Sequence, Sequence]:
    """Orientation and spacing of all frames; DICOM is LPS+, the affine RAS+."""
    slice_step, down, across = (geometry.display_affine()[:3, axis] * (-1, -1, 1) for axis in range(3))
    rows, columns, apart = (float(np.linalg.norm(step)) for step in (down, across, slice_step))
    orientation = [f"{number:.9g}" for number in (*(across / columns), *(down / rows))]
    spacing = [f"{rows:.9g}", f"{columns:.9g}"]
    measures = _items(PixelSpacing=spacing, SliceThickness=f"{apart:.9g}")
    if np.allclose(corners, _even_corners(geometry, len(corners)), atol=1e-2 * apart):
        measures[0].SpacingBetweenSlices = f"{apart:.9g}"
    return _items(ImageOrientationPatient=orientation), measures


def _frame(series: SeriesReference, corners: np.ndarray | None, number: int, place: int) -> Dataset:
    """What belongs to the frame of segment `number` at slice `place`, counted from 1 and from 0."""
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
    if corners is None:
        groups.FrameContentSequence[0].update(_item(StackID="1", InStackPositionNumber=place + 1))
    else:
        groups.PlanePositionSequence = _items(ImagePositionPatient=[f"{number:.9g}" for number in corners[place]])
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
