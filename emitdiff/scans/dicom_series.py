"""Which frames of the files given belong together, and what is left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.scans.decoding import check_limits
from emitdiff.scans.dicom_frame import Frame, Header

# What is made from images and lies beside them in archives.
DERIVED = {
    "SEG",
    "RTDOSE",
    "RTSTRUCT",
    "RTPLAN",
    "RTRECORD",
    "PR",
    "KO",
    "SR",
    "REG",
    "FID",
    "RWV",
    "DOC",
    "PLAN",
    "M3D",
}
CAPTURES = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture Image Storage, and with more behind it its multi-frame kinds
MAX_TURN = 0.005  # of two directions, as cosines: a quarter of a degree; what scanners and converters round is less
MAX_STRETCH = 1e-3  # of two pixel sizes, as a part of them
# What tells volumes at the same places apart, in the order in which it is asked.
VOLUME_ELEMENTS = (
    "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoNumbers", "EchoTime", "EffectiveEchoTime",
    "InversionTime", "DiffusionBValue", "TriggerTime", "NominalCardiacTriggerDelayTime", "AcquisitionNumber",
    "FrameAcquisitionNumber", "ImageType",
)  # fmt: skip


@dataclass
class Series:
    """Frames that belong together; without `aligned` they lie in several planes, and have no common geometry."""

    frames: list[Frame]
    warnings: list[str] = field(default_factory=list)
    aligned: bool = True


@dataclass
class _Stack:
    """Frames of one series, size, orientation and pixel size, as the first of them has them."""

    key: tuple[Any, ...]
    orientation: np.ndarray | None
    spacing: np.ndarray | None
    frames: list[Frame]

    def takes(self, key: tuple[Any, ...], orientation: np.ndarray | None, spacing: np.ndarray | None) -> bool:
        return (
            self.key == key
            and _near(self.orientation, orientation, MAX_TURN)
            and _near(self.spacing, spacing, MAX_STRETCH * (1 if spacing is None else float(spacing.min())))
        )

    @property
    def rank(self) -> tuple[bool, int]:
        """Images before pictures of a screen, then the most frames."""
        kind = str(self.frames[0].header.get("SOPClassUID", ""))
        return not kind.startswith(CAPTURES), len(self.frames)


def _near(one: np.ndarray | None, other: np.ndarray | None, most: float) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.abs(one - other).max() <= most)


def find_series(name: str, headers: list[Header | None]) -> Series:
    """The largest series of images that has one size, orientation and pixel size; warnings where others are left out.

    The frames of a single file stay together whatever their planes. None among `headers` is a file that is not DICOM.
    """
    found = [header for header in headers if header is not None and "Rows" in header.elements]
    skipped = len(headers) - len(found)
    warnings = [f"{skipped} file(s) without a DICOM image were left out."] if skipped else []
    images = [header for header in found if header.get("Modality") not in DERIVED]
    if images and len(images) < len(found):
        kinds = sorted({str(header.get("Modality")) for header in found} & DERIVED)
        warnings.append(f"{len(found) - len(images)} file(s) made from the images ({', '.join(kinds)}) were left out.")
    images, copies = _without_copies(images or found)
    if copies:
        warnings.append(f"{copies} file(s) are copies of others and were left out.")
    stacks = _stacks(name, images)
    if not stacks:
        raise EmitDiffError(f"'{name}' holds no DICOM image. Expected a DICOM file, or a folder or zip of one series.")
    if len(stacks) > 1 and len(images) == 1:
        warnings.append(f"The frames of the file lie in {len(stacks)} planes or sizes: they have no common geometry.")
        frames = sorted((frame for stack in stacks for frame in stack.frames), key=lambda frame: frame.index)
        return Series(frames, warnings, aligned=False)
    chosen = max(stacks, key=lambda stack: stack.rank).frames
    if len(stacks) > 1:
        warnings.append(f"The largest of {len(stacks)} series or orientations is shown: {len(chosen)} slices.")
    return Series(chosen, warnings)


def _without_copies(headers: list[Header]) -> tuple[list[Header], int]:
    """One file for each SOP instance; files that share it by mistake lie elsewhere or have another number."""
    kept: dict[tuple[str, ...], Header] = {}
    for place, header in enumerate(headers):
        instance = str(header.get("SOPInstanceUID") or place)
        same = (instance, *(str(header.get(word)) for word in ("ImagePositionPatient", "InstanceNumber")))
        kept.setdefault(same, header)
    return list(kept.values()), len(headers) - len(kept)


def _stacks(name: str, headers: list[Header]) -> list[_Stack]:
    stacks: list[_Stack] = []
    for header in headers:
        rows, columns = int(header.number("Rows", 0)), int(header.number("Columns", 0))
        check_limits(name, rows, columns, header.frames, int(header.number("SamplesPerPixel", 1)))
        for index in range(header.frames):
            frame = Frame(header, index)
            key = (str(header.get("SeriesInstanceUID")), rows, columns, frame.colour)
            orientation, spacing = frame.orientation, frame.pixel_spacing
            stack = next((stack for stack in stacks if stack.takes(key, orientation, spacing)), None)
            if stack is None:
                stack = _Stack(key, orientation, spacing, [])
                stacks.append(stack)
            stack.frames.append(frame)
    return stacks


def split_volumes(frames: list[Frame], positions: np.ndarray, near: float) -> list[list[int]]:
    """The volumes (time points, echoes) among frames that lie at the same places: the numbers of the frames of each.

    `positions` are those along the normal in millimetres; nearer than `near` is the same place. [] where they cannot be
    told apart or all lie in one place, as a film does.
    """

    def apart(members: list[int]) -> bool:
        return len(members) > 1 and bool(np.diff(np.sort(positions[members])).min() > near)

    for keyword in VOLUME_ELEMENTS:
        volumes: dict[Any, list[int]] = {}
        for place, frame in enumerate(frames):
            value = frame.get(keyword)
            number = value if isinstance(value, int | float) else str(value)
            volumes.setdefault(number, []).append(place)
        sizes = {len(members) for members in volumes.values()}
        if len(volumes) > 1 and len(sizes) == 1 and all(map(apart, volumes.values())):
            ordered = sorted(volumes, key=lambda number: (isinstance(number, str), number))
            return [volumes[number] for number in ordered]
    order = np.argsort(positions, kind="stable")
    places = np.split(order, np.flatnonzero(np.diff(positions[order]) > near) + 1)
    if len(places) > 1 and len({len(place) for place in places}) == 1:
        by_number = [sorted(place, key=lambda one: (frames[one].number("InstanceNumber", 0), one)) for place in places]
        return [[int(one) for one in volume] for volume in zip(*by_number, strict=True)]
    return []
