"""NIfTI-1 and NIfTI-2, compressed or not: volumes to axial slices, and masks back to the voxels they came from."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.scans.decoding import (
    ValueRange,
    check_limits,
    damaged_file_error,
    no_finite_value_error,
    non_finite_warning,
    volumes_warning,
)
from emitdiff.scans.geometry import WINDOWS, Geometry
from emitdiff.scans.scan import Scan, Wanted, check_slice, check_time_point

MAX_HEADER_BYTES = 2**26  # header and extensions, before the first voxel
_GEOMETRY_FIELDS = [
    *("pixdim", "xyzt_units", "qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y"),
    *("qoffset_z", "sform_code", "srow_x", "srow_y", "srow_z"),
]
MAX_QUATERNION = 1.01  # of what is rounded; beyond, the header is damaged
_MILLIMETRES = {1: 1000.0, 3: 0.001}  # lower three bits of xyzt_units: metre, micron; the rest is taken for millimetres
# Patient axes of RAS+ (0 left to right, 1 back to front, 2 foot to head) as (slice, row, column) of each plane.
_PLANES = {
    "axial, patient's right on the left, front up": (2, 1, 0),
    "coronal, patient's right on the left, head up": (1, 2, 0),
    "sagittal, patient's front on the left, head up": (0, 2, 1),
}


class _Rounded:
    """A header whose rotation may be a quaternion a little longer than 1, by rounding: it is normalised, as by NIfTI's
    own library (nifti1_io, quatern_to_mat44). nibabel refuses it."""

    def get_qform_quaternion(self) -> np.ndarray:
        axis = np.array([self[f"quatern_{letter}"] for letter in "bcd"], np.float64)  # type: ignore[index]
        length = float(np.linalg.norm(axis))
        if 1 < length < MAX_QUATERNION:
            return np.array([0.0, *axis / length])
        quaternion: np.ndarray = super().get_qform_quaternion()  # type: ignore[misc]
        return quaternion


class _Nifti1Header(_Rounded, nibabel.Nifti1Header):
    pass


class _Nifti2Header(_Rounded, nibabel.Nifti2Header):
    pass


class _Nifti1Image(nibabel.Nifti1Image):
    header_class = _Nifti1Header


class _Nifti2Image(nibabel.Nifti2Image):
    header_class = _Nifti2Header


def read_nifti(path: Path, wanted: Wanted | None = None) -> Scan:
    """A volume as axial slices from foot to head, shown as radiologists do; a single slice in its own plane."""
    wanted = wanted or Wanted()
    header, shape, count = _checked_header(path, wanted)
    image_class = _Nifti2Image if isinstance(header, nibabel.Nifti2Header) else _Nifti1Image
    try:
        with _opened(path) as stream:
            image = image_class.from_stream(stream)
            geometry, orientation, warnings = _display_geometry(image, header, shape)
            slices = geometry.to_display(np.broadcast_to(0, _three(shape))).shape[0]
            if wanted.index is not None:
                check_slice(path.name, wanted.index, slices)
            values, found = _read_values(image.dataobj, shape, geometry, wanted)
            while stream.read(2**20):  # to the end, where what is compressed has its check sum
                pass
    except EmitDiffError:
        raise
    except Exception:  # whatever the parser stumbles over, the file is at fault
        raise damaged_file_error(path.name) from None
    if count > 1 and wanted.time_point is None:
        warnings.append(volumes_warning(count))
    if found.non_finite:
        if found.low > found.high:
            raise no_finite_value_error(path.name)
        chosen = values if wanted.index is None else values[wanted.index]
        chosen[~np.isfinite(chosen)] = found.low
        warnings.append(non_finite_warning(found.non_finite))
    colour = values.ndim == 4
    windows = {} if colour else found.windows()
    if not colour and _looks_like_hounsfield(found):
        warnings.append("The values look like Hounsfield units, so CT windows are available.")
        windows = {**WINDOWS, **windows}
    return Scan(
        path.name,
        "nifti",
        values,
        spacing=_spacing(geometry, header, warnings),
        warnings=tuple(warnings),
        windows=windows,
        orientation=orientation,
        geometry=geometry,
        only=wanted.index,
        volumes=count,
        volume=wanted.time_point or 0,
    )


def _read_values(
    stored: Any, shape: tuple[int, ...], geometry: Geometry, wanted: Wanted
) -> tuple[np.ndarray, ValueRange]:
    """The slices of the volume asked for, in the order in which they are shown, and the range of their values.

    One plane of the file is decoded at a time, so that no more than the result and a plane is in memory.
    """
    three = _three(shape)
    colour = stored.dtype.fields is not None
    planes = (_plane(stored, number, wanted.time_point or 0, three) for number in range(three[2]))
    kind, first = _value_type(stored), geometry.axes[0] == 2
    values: np.ndarray | None = None
    found = ValueRange(int(np.prod(three)))
    for number, plane in enumerate(planes):
        plane = np.stack([plane[name] for name in "RGB"], axis=-1) if colour else plane.astype(kind)
        if values is None:
            values = np.zeros((*three[:2], three[2], *([3] if colour else [])), plane.dtype, order="F")
            shown = geometry.to_display(values)
        place = three[2] - 1 - number if geometry.flips[0] else number
        if wanted.index is None or not first or place == wanted.index:
            values[:, :, number] = plane
        if not colour:
            found.add(plane)
    assert values is not None
    return shown, found


def _plane(stored: Any, number: int, time_point: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Plane `number` of the third file axis, scaled as the header says."""
    dimensions = len(stored.shape)
    place = (slice(None), slice(None), number, time_point, *[0] * dimensions)[:dimensions]
    return np.asarray(stored[place]).reshape(shape[:2], order="F")


def _value_type(stored: Any) -> np.dtype:
    """Whole numbers stay as they are; scaled ones, and real numbers, become real with the digits that they have."""
    scaled = (stored.slope, stored.inter) != (1, 0)
    if stored.dtype.kind in "iu" and not scaled:
        whole: np.dtype[Any] = stored.dtype.newbyteorder("=")
        return whole
    return np.dtype(np.float64 if stored.dtype.itemsize > (2 if stored.dtype.kind in "iu" else 4) else np.float32)


def _opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else path.open("rb")


def _checked_header(path: Path, wanted: Wanted) -> tuple[nibabel.Nifti1Header, tuple[int, ...], int]:
    """The header alone, with everything refused that must not or cannot be read further; the shape of a volume as in
    the file, and how many volumes it has."""
    try:
        with _opened(path) as stream:
            head = stream.read(540)
    except (OSError, EOFError, zlib.error):
        raise damaged_file_error(path.name) from None
    two = head[4:8] == b"n+2\0"
    if head[344:348] != b"n+1\0" and not two:
        pair = head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0"
        analyze = head[:4] in {b"\x5c\x01\0\0", b"\0\0\x01\x5c"}  # 348, the length of its header
        what = (
            "half of a NIfTI pair (.hdr, .img)" if pair
            else "an Analyze file, which does not tell left from right" if analyze
            else "compressed, but not a NIfTI file"
        )  # fmt: skip
        raise EmitDiffError(f"'{path.name}' is {what}. Expected NIfTI in one file (.nii or .nii.gz).")
    if len(head) < (540 if two else 348):
        raise damaged_file_error(path.name)
    kind: type[Any] = _Nifti2Header if two else _Nifti1Header
    header: nibabel.Nifti1Header = kind(head[: 540 if two else 348], check=False)
    shape, count = _volume_shape(path.name, header)
    check_time_point(path.name, wanted.time_point, count)
    first, second, third = _three(shape)
    check_limits(path.name, first, second, third if wanted.index is None else 1)
    check_limits(path.name, 1, 1, third)
    _check_numbers(path.name, header)
    return header, shape, count


def _volume_shape(name: str, header: nibabel.Nifti1Header) -> tuple[tuple[int, ...], int]:
    number, *lengths = (int(length) for length in header["dim"])
    whole = tuple(lengths[: max(0, min(number, 7))])
    shape = whole
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 4:
        raise EmitDiffError(
            f"'{name}' has {len(shape)} dimensions ({' x '.join(map(str, shape))}): vectors, or volumes in several "
            "series. Expected one volume, or several in one series; save what is wanted as a file of its own."
        )
    if len(shape) < 2:
        raise EmitDiffError(f"'{name}' has {len(shape)} dimension(s). Expected a slice or a volume.")
    if len(shape) == 4:
        if shape[3] < 1:
            raise damaged_file_error(name)
        return shape[:3], shape[3]
    return whole, 1


def _check_numbers(name: str, header: nibabel.Nifti1Header) -> None:
    """EmitDiffError where the voxels are of a kind that is not read."""
    if int(header["datatype"]) == 1:
        raise EmitDiffError(f"'{name}' holds single bits, which is not read. Save it with 8 bits a voxel.")
    try:
        data_type = header.get_data_dtype()
    except Exception:
        raise damaged_file_error(name) from None
    if data_type.fields is None and (data_type.kind not in "iuf" or data_type.itemsize > 8):
        raise EmitDiffError(
            f"'{name}' holds {data_type} values. Expected whole or real numbers of up to 64 bits, or RGB."
        )
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if np.isfinite(slope) and slope and not np.isfinite(intercept):
        raise EmitDiffError(f"'{name}' scales its values by a number that is none (scl_inter). Correct its header.")
    if not 0 <= float(header["vox_offset"]) <= MAX_HEADER_BYTES:
        raise damaged_file_error(name)


def _three(shape: Sequence[int]) -> tuple[int, int, int]:
    first, second, third = (*shape, 1)[:3]
    return first, second, third


def _display_geometry(
    image: nibabel.Nifti1Image, header: nibabel.Nifti1Header, file_shape: tuple[int, ...]
) -> tuple[Geometry, str, list[str]]:
    warnings = _two_orientations(header)
    if header["qform_code"] == 0 and header["sform_code"] == 0:
        warnings.append("The file has no orientation; left and right may be swapped.")
    # Of every file axis: the RAS+ axis it is closest to, and the direction.
    usable = np.isfinite(image.affine).all()
    nearest = nibabel.io_orientation(image.affine if usable else np.zeros((4, 4)))
    if np.isnan(nearest).any():
        nearest = nibabel.io_orientation(np.eye(4))
        warnings = ["The orientation stored in the file is invalid; left and right may be swapped."]
    shape = _three(file_shape)
    thin = [int(nearest[axis, 0]) for axis in range(3) if shape[axis] == 1]
    orientation, plane = next(
        ((name, axes) for name, axes in _PLANES.items() if len(thin) == 1 and axes[0] == thin[0]),
        next(iter(_PLANES.items())),
    )
    axes = _three([int(np.flatnonzero(nearest[:, 0] == axis)[0]) for axis in plane])
    # Rows run from head or front, columns from the patient's right or front: against RAS+. Slices run along it.
    flips = tuple((nearest[axis, 1] < 0) != (place > 0) for place, axis in enumerate(axes))
    fields = {name: header[name].copy() for name in _GEOMETRY_FIELDS}
    return Geometry(axes, flips, file_shape, image.affine, fields), orientation, warnings


def _two_orientations(header: nibabel.Nifti1Header) -> list[str]:
    """A warning where the file says in two ways how it lies, and they turn it differently."""
    if header["qform_code"] <= 0 or header["sform_code"] <= 0:
        return []
    try:
        axes = [nibabel.aff2axcodes(form) for form in (header.get_qform(), header.get_sform())]
    except Exception:  # one of them is no orientation at all; which is used is looked at by itself
        return []
    if axes[0] == axes[1] or None in (*axes[0], *axes[1]):
        return []
    return [
        "The file gives two orientations that differ (qform and sform): left and right may be swapped. sform is used."
    ]


def _spacing(
    geometry: Geometry, header: nibabel.Nifti1Header, warnings: list[str]
) -> tuple[float, float, float] | None:
    """Of the orientation, where there is one: other programs go by it, and the sizes beside it may be stale."""
    sides = [float(abs(header["pixdim"][axis + 1])) for axis in geometry.axes]
    lengths = np.linalg.norm(geometry.affine[:3, :3], axis=0)[list(geometry.axes)]
    if np.isfinite(lengths).all() and lengths.min() > 0:
        if not np.allclose(lengths, sides, rtol=0.01):
            warnings.append(
                "The voxel sizes in the header and in its orientation differ; those of the orientation count."
            )
        sides = lengths.tolist()
    scale = _MILLIMETRES.get(int(header["xyzt_units"]) % 8, 1.0)
    if not np.isfinite(sides).all() or min(sides) <= 0:
        return None
    slices, rows, columns = (side * scale for side in sides)
    return slices, rows, columns


def _looks_like_hounsfield(found: ValueRange) -> bool:
    """Air near -1000 and tissue near 0, in whole numbers: no other modality is stored like this."""
    flat = np.concatenate(found.sample).astype(np.float64)
    return bool(
        flat.size
        and flat.min() <= -900
        and -300 < np.percentile(flat, 99.5) < 4100
        and (flat == np.rint(flat)).all()
    )  # fmt: skip
