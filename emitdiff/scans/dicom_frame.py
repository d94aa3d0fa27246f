"""What is read from DICOM files, and one frame of one of them.

Only the elements listed here are read from a file, and none of them names a user, a place or a date; identifiers
are read so that a mask can say which images it belongs to. Nothing in them is printed, logged or quoted in an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import pydicom

# fmt: off
SLICE_ELEMENTS = [
    "Modality", "SeriesInstanceUID", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "SpacingBetweenSlices", "SliceThickness",
    "EstimatedRadiographicMagnificationFactor", "SequenceOfUltrasoundRegions", "PatientOrientation", "ImageType",
    "BurnedInAnnotation", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "PresentationLUTShape", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "SOPClassUID", "SOPInstanceUID",
    "StudyInstanceUID", "FrameOfReferenceUID", "GridFrameOffsetVector", "DoseGridScaling",
    "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoNumbers", "EchoTime", "DiffusionBValue", "TriggerTime",
    "AcquisitionNumber", "InversionTime", "ImageLaterality", "Laterality",
]
PIXEL_ELEMENTS = [
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
    "VOILUTSequence": "FrameVOILUTSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "NominalCardiacTriggerDelayTime": "CardiacSynchronizationSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "FrameLaterality": "FrameAnatomySequence",
}
Source = Callable[[], BinaryIO]


@dataclass
class Header:
    """The elements before the pixels of the file that `source` opens; `unusable` collects those that hold nonsense."""

    source: Source
    elements: pydicom.Dataset
    unusable: set[str] = field(default_factory=set)

    def get(self, keyword: str, default: Any = None) -> Any:
        """An element of the file; `default` where it is absent, empty or not of its type."""
        return self.element(self.elements, keyword, default)

    def element(self, holder: pydicom.Dataset, keyword: str, default: Any = None) -> Any:
        """The same of an item of one of its sequences."""
        try:
            value = holder.get(keyword)
        except (ValueError, TypeError, OverflowError, ArithmeticError):  # a number with a decimal comma, for example
            self.unusable.add(keyword)
            return default
        return default if value is None or value == "" else value

    def number(self, keyword: str, default: float) -> float:
        """An element as a finite number."""
        return self.as_number(keyword, self.get(keyword), default)

    def as_number(self, keyword: str, value: Any, default: float) -> float:
        try:
            number = default if value is None else float(value)
        except (TypeError, ValueError):
            number = np.nan
        if np.isfinite(number):
            return number
        self.unusable.add(keyword)
        return default

    @property
    def frames(self) -> int:
        return max(int(self.number("NumberOfFrames", 1)), 0) if "NumberOfFrames" in self.elements else 1


@dataclass
class Frame:
    """One slice: frame number `index` of a file."""

    header: Header
    index: int

    def get(self, keyword: str, default: Any = None) -> Any:
        """An element of this frame, of all frames, or of the file; `default` where it is absent or empty."""
        header = self.header
        group = _FUNCTIONAL_GROUPS.get(keyword)
        if group:
            own = header.get("PerFrameFunctionalGroupsSequence") or []
            shared = header.get("SharedFunctionalGroupsSequence") or []
            for place in (*own[self.index : self.index + 1], *shared[:1]):
                for item in (place.get(group) or [])[:1]:
                    if (value := header.element(item, keyword)) is not None:
                        return value
        return header.get(keyword, default)

    def number(self, keyword: str, default: float) -> float:
        """An element as a finite number."""
        return self.header.as_number(keyword, self.get(keyword), default)

    def vector(self, keyword: str, length: int) -> np.ndarray | None:
        """An element of `length` finite numbers, or None."""
        value = self.get(keyword)
        if value is None:
            return None
        try:
            vector = np.array([float(number) for number in value])
        except (TypeError, ValueError):
            vector = np.zeros(0)
        if vector.shape == (length,) and np.isfinite(vector).all():
            return vector
        self.header.unusable.add(keyword)
        return None

    @property
    def orientation(self) -> np.ndarray | None:
        """The directions of a row and of a column (6,), or None where they are not given or not at a right angle."""
        vector = self.vector("ImageOrientationPatient", 6)
        if vector is None:
            return None
        lengths = np.linalg.norm(vector.reshape(2, 3), axis=1)
        if np.abs(lengths - 1).max() > 0.01 or abs(vector[:3] @ vector[3:]) > 0.01:
            self.header.unusable.add("ImageOrientationPatient")
            return None
        return vector

    @property
    def position(self) -> np.ndarray | None:
        """Where the middle of the first pixel lies (3,), in millimetres, LPS+."""
        corner = self.vector("ImagePositionPatient", 3)
        offsets, orientation = self.get("GridFrameOffsetVector"), self.orientation
        if corner is None or offsets is None or orientation is None or self.header.frames < 2:
            return corner
        # Of a dose: PS3.3 C.8.8.3.2. The first offset is 0, or the place of the first plane itself.
        away = float(offsets[self.index]) - float(offsets[0])
        return corner + away * np.cross(orientation[:3], orientation[3:])

    @property
    def pixel_spacing(self) -> np.ndarray | None:
        """The distance of rows and of columns (2,) in millimetres, as the file gives it for its kind of image."""
        for keyword in ("PixelSpacing", "regions", "NominalScannedPixelSpacing", "ImagerPixelSpacing"):
            found = self._regions() if keyword == "regions" else self.vector(keyword, 2)
            if found is not None and found.min() > 0:
                if keyword == "ImagerPixelSpacing":  # at the detector
                    found = found / max(self.number("EstimatedRadiographicMagnificationFactor", 1), 1)
                return found
        return None

    def _regions(self) -> np.ndarray | None:
        """Of ultrasound: the pixel size that its flat regions share (PS3.3 C.8.5.5), given in centimetres."""
        sizes = []
        for region in self.header.get("SequenceOfUltrasoundRegions") or []:
            part = {name: self.header.element(region, name) for name in (
                "RegionSpatialFormat", "PhysicalUnitsXDirection", "PhysicalUnitsYDirection")}  # fmt: skip
            if list(part.values()) == [1, 3, 3]:
                sizes.append([abs(self.header.as_number(name, self.header.element(region, name), 0)) * 10
                              for name in ("PhysicalDeltaY", "PhysicalDeltaX")])  # fmt: skip
        same = sizes and np.allclose(sizes, sizes[0], rtol=1e-3)
        return np.array(sizes[0]) if same else None

    @property
    def colour(self) -> bool:
        return bool(self.header.number("SamplesPerPixel", 1) > 1 or self.photometric == "PALETTE COLOR")

    @property
    def photometric(self) -> str:
        return str(self.header.get("PhotometricInterpretation", "")).strip().upper()


def regions_differ(frame: Frame) -> bool:
    """Whether an ultrasound image has two-dimensional regions of several scales, and so no pixel size of its own."""
    return bool(frame.header.get("SequenceOfUltrasoundRegions")) and frame.pixel_spacing is None
