"""The frames of a series in order along the patient, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from emitdiff.scans.decoding import volumes_warning
from emitdiff.scans.dicom_frame import Frame, regions_differ
from emitdiff.scans.dicom_series import Series, split_volumes
from emitdiff.scans.geometry import Geometry, ImagePlane, SeriesReference, edge_letters
from emitdiff.scans.scan import check_time_point

Spacing = tuple[float, float, float]  # (slice, row, column) in millimetres
# Of the distance of slices, and of a pixel: slices that lie no farther than this from where they would if they were
# evenly spread, along the stack and beside it, are.
UNEVEN, UNEVEN_BESIDE = 0.1, 0.25
SAME_PLACE = 0.05  # of a pixel: slices that are nearer lie at the same place
_LATERALITY = {"L": "left", "R": "right", "B": "both"}
_SIDES = {"R": "L", "L": "R", "A": "P", "P": "A", "H": "F", "F": "H"}


@dataclass
class Order:
    """The frames as they are shown, with all that their places tell."""

    frames: list[Frame]
    warnings: list[str] = field(default_factory=list)
    geometry: Geometry | None = None
    spacing: Spacing | None = None
    sides: dict[str, str] = field(default_factory=dict)
    volumes: int = 1


def in_order(name: str, series: Series, time_point: int | None) -> Order:
    """Sorted along the normal of the slices; of several volumes at the same places number `time_point`, or the first.

    Raises EmitDiffError where there is no such volume.
    """
    frames = sorted(series.frames, key=lambda frame: (frame.number("InstanceNumber", 0), frame.index))
    first, warnings, count = frames[0], [], 1
    pixels, orientation = first.pixel_spacing, first.orientation
    if regions_differ(first):
        warnings.append("The regions of the ultrasound image have several scales, or none: it has no pixel size.")
    thickness = _thickness(first)
    plain = None if pixels is None else (thickness, float(pixels[0]), float(pixels[1]))
    if not series.aligned:
        check_time_point(name, time_point, 1)
        return Order(series.frames, warnings, None, None)
    placed = [position for position in (frame.position for frame in frames) if position is not None]
    if orientation is None or pixels is None or len(placed) < len(frames):
        check_time_point(name, time_point, 1)
        if len(frames) > 1 and orientation is not None:
            warnings.append("Slices have no position and are sorted by instance number.")
        return Order(frames, warnings, None, plain, _sides(first))
    normal = np.cross(orientation[:3], orientation[3:])
    positions = np.array([position @ normal for position in placed])
    near = SAME_PLACE * float(pixels.min())
    if len(frames) > 1 and np.diff(np.sort(positions)).min() < near:
        volumes = split_volumes(frames, positions, near)
        if not volumes:
            check_time_point(name, time_point, 1)
            warnings.append(
                "Several images share one position (time points or echoes); masks are saved without geometry."
            )
            ordered = [frames[place] for place in np.argsort(positions, kind="stable")]
            return Order(ordered, warnings, None, plain, _sides(first))
        count = len(volumes)
        check_time_point(name, time_point, count)
        chosen = volumes[time_point or 0]
        if time_point is None:
            warnings.append(volumes_warning(count))
        frames, placed, positions = [frames[i] for i in chosen], [placed[i] for i in chosen], positions[chosen]
    else:
        check_time_point(name, time_point, 1)
    return replace(_placed(frames, placed, positions, orientation, pixels, thickness, warnings), volumes=count)


def _thickness(frame: Frame) -> float:
    return abs(frame.number("SpacingBetweenSlices", 0)) or abs(frame.number("SliceThickness", 0)) or 1.0


def _placed(
    frames: list[Frame], placed: list[np.ndarray], positions: np.ndarray, orientation: np.ndarray, pixels: np.ndarray,
    thickness: float, warnings: list[str],
) -> Order:  # fmt: skip
    order = np.argsort(positions, kind="stable")
    frames, positions, placed = [frames[i] for i in order], positions[order], [placed[i] for i in order]
    gaps = np.diff(positions)
    normal = np.cross(orientation[:3], orientation[3:])
    step = normal * thickness if len(frames) == 1 else (placed[-1] - placed[0]) / (len(frames) - 1)
    distance = float(np.median(gaps)) if len(gaps) else thickness
    places = np.array(placed)
    away = places - (placed[0] + np.arange(len(frames))[:, None] * step)  # from where they would lie evenly spread
    beside = np.linalg.norm(away - (away @ normal)[:, None] * normal, axis=1).max()
    along = max(np.abs(away @ normal).max(), np.abs(gaps - distance).max() if len(gaps) else 0)
    even = along <= UNEVEN * distance and beside <= UNEVEN_BESIDE * pixels.min()
    shift = np.linalg.norm(step - (step @ normal) * normal) * (len(frames) - 1)
    if not even:
        warnings.append(
            "The slices are not evenly spaced: some may be missing. Their mask cannot be NIfTI, which would spread "
            "them evenly."
        )
    elif shift > 0.5 * pixels.min():
        warnings.append(
            f"The slices are shifted against each other, by {shift:.1f} mm in all (a tilted gantry). In a NIfTI mask "
            "the sform alone says so: ITK and what is built on it show mask and series straight. DICOM SEG has every "
            "place."
        )
    # File order is (column, row, slice), as converters to NIfTI have it; DICOM is LPS+, the affine RAS+.
    affine = np.eye(4)
    affine[:3] = np.column_stack([orientation[:3] * pixels[1], orientation[3:] * pixels[0], step, placed[0]])
    affine[:2] *= -1
    first = frames[0]
    shape = (int(first.header.number("Columns", 0)), int(first.header.number("Rows", 0)), len(frames))
    geometry = Geometry((2, 1, 0), (False, False, False), shape, affine, corners=None if even else places)
    return Order(frames, warnings, geometry, (distance, float(pixels[0]), float(pixels[1])))


def _sides(frame: Frame) -> dict[str, str]:
    """The patient's side at each edge, of an image without a place: where its rows and columns point to, in numbers or
    in letters (PatientOrientation, PS3.3 C.7.6.1.1.1)."""
    if (orientation := frame.orientation) is not None:
        return edge_letters(orientation[3:] * (-1, -1, 1), orientation[:3] * (-1, -1, 1))
    value = frame.get("PatientOrientation")
    towards = [str(word).strip().upper() for word in value] if isinstance(value, list | tuple) or _many(value) else []
    if len(towards) != 2 or not all(word and _is_direction(word) for word in towards):
        return {}
    right, bottom = (word[:2] for word in towards)
    if right[0] in {bottom[0], _SIDES[bottom[0]]}:  # rows and columns cannot point the same way
        return {}
    left, top = ("".join(_SIDES[letter] for letter in word) for word in (right, bottom))
    return {"left": left, "right": right, "top": top, "bottom": bottom}


def laterality(frames: list[Frame]) -> str | None:
    """Which part of a pair all frames show, "left", "right" or "both"; of the frame before the image and the series."""
    words = ("FrameLaterality", "ImageLaterality", "Laterality")
    said = {
        next((str(value).strip().upper() for word in words if (value := frame.get(word)) is not None), "")
        for frame in frames
    }
    return _LATERALITY.get(said.pop()) if len(said) == 1 else None


def _is_direction(word: str) -> bool:
    """Letters of sides, no side and its opposite among them."""
    return set(word) <= set(_SIDES) and len({min(letter, _SIDES[letter]) for letter in word}) == len(word)


def _many(value: object) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, str)


def series_reference(frames: list[Frame]) -> SeriesReference | None:
    """How the images are identified, in the order of `frames`; None where they are not."""

    def identity(frame: Frame, keyword: str) -> str:
        return str(frame.header.get(keyword) or "")

    images = tuple(
        (identity(frame, "SOPClassUID"), identity(frame, "SOPInstanceUID"),
         frame.index + 1 if frame.header.frames > 1 else 0)
        for frame in frames
    )  # fmt: skip
    study, series, space = (
        identity(frames[0], keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    )
    known = series and all(kind and instance for kind, instance, _ in images)
    planes = [plane for plane in map(_plane, frames) if plane is not None]
    placed = tuple(planes) if len(planes) == len(frames) else ()
    return SeriesReference(study, series, space, images, placed, _thickness(frames[0])) if known else None


def _plane(frame: Frame) -> ImagePlane | None:
    corner, orientation, spacing = frame.position, frame.orientation, frame.pixel_spacing
    if corner is None or orientation is None or spacing is None:
        return None
    return ImagePlane(tuple(corner.tolist()), tuple(orientation.tolist()), tuple(spacing.tolist()))
