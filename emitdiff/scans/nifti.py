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
from emitdiff.scans.decoding import check_limits, damaged_file_error, fill_non_finite, value_windows
from emitdiff.scans.geometry import WINDOWS, Geometry
from emitdiff.scans.scan import Scan

MAX_HEADER_BYTES = 2**26  # header and extensions, before the first voxel
_GEOMETRY_FIELDS = [
    *("pixdim", "xyzt_units", "qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y"),
    *("qoffset_z", "sform_code", "srow_x", "srow_y", "srow_z"),
]
_MILLIMETRES = {1: 1000.0, 3: 0.001}  # lower three bits of xyzt_units: metre, micron; the rest is taken for millimetres
# Patient axes of RAS+ (0 left to right, 1 back to front, 2 foot to head) as (slice, row, column) of each plane.
_PLANES = {
    "axial, patient's right on the left, front up": (2, 1, 0),
    "coronal, patient's right on the left, head up": (1, 2, 0),
    "sagittal, patient's front on the left, head up": (0, 2, 1),
}


def read_nifti(path: Path) -> Scan:
    """A volume as axial slices from foot to head, shown as radiologists do; a single slice in its own plane."""
    header = _checked_header(path)
    image_class = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    try:
        with _opened(path) as stream:
            image = image_class.from_stream(stream)
            values = image.get_fdata(dtype=np.float32, caching="unchanged")
    except Exception:  # whatever the parser stumbles over, the file is at fault
        raise damaged_file_error(path.name) from None
    geometry, orientation, warnings = _display_geometry(image, header)
    values = np.ascontiguousarray(geometry.to_display(values.reshape(_three(values.shape))))
    warnings += fill_non_finite(values, path.name)
    windows = value_windows(values)
    if _looks_like_hounsfield(values):
        warnings.append("The values look like Hounsfield units, so CT windows are available.")
        windows = {**WINDOWS, **windows}
    return Scan(
        path.name,
        "nifti",
        values,
        spacing=_spacing(geometry, header),
        warnings=tuple(warnings),
        windows=windows,
        orientation=orientation,
        geometry=geometry,
    )


def _opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else path.open("rb")


def _checked_header(path: Path) -> nibabel.Nifti1Header:
    """The header alone, with everything refused that must not or cannot be read further."""
    try:
        with _opened(path) as stream:
            head = stream.read(540)
    except (OSError, EOFError, zlib.error):
        raise damaged_file_error(path.name) from None
    two = head[4:8] == b"n+2\0"
    if head[344:348] != b"n+1\0" and not two:
        pair = head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0"
        what = "half of a NIfTI pair (.hdr, .img)" if pair else "compressed, but not a NIfTI file"
        raise EmitDiffError(f"'{path.name}' is {what}. Expected NIfTI in one file (.nii or .nii.gz).")
    if len(head) < (540 if two else 348):
        raise damaged_file_error(path.name)
    kind: type[Any] = nibabel.Nifti2Header if two else nibabel.Nifti1Header
    header: nibabel.Nifti1Header = kind(head[: 540 if two else 348], check=False)
    _check_shape(path.name, header)
    return header


def _check_shape(name: str, header: nibabel.Nifti1Header) -> None:
    number, *lengths = (int(length) for length in header["dim"])
    shape = lengths[: max(0, min(number, 7))]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) > 3:
        raise EmitDiffError(
            f"'{name}' has {len(shape)} dimensions ({' x '.join(map(str, shape))}): several volumes. "
            "Expected one volume; save one of them as a file of its own."
        )
    if len(shape) < 2:
        raise EmitDiffError(f"'{name}' has {len(shape)} dimension(s). Expected a slice or a volume.")
    try:
        data_type = header.get_data_dtype()
    except Exception:
        raise damaged_file_error(name) from None
    if data_type.kind not in "iuf" or data_type.itemsize > 8:
        raise EmitDiffError(f"'{name}' holds {data_type} values. Expected whole or real numbers of up to 64 bits.")
    if not 0 <= float(header["vox_offset"]) <= MAX_HEADER_BYTES:
        raise damaged_file_error(name)
    check_limits(name, *_three(shape))


def _three(shape: Sequence[int]) -> tuple[int, int, int]:
    first, second, third = (*shape, 1)[:3]
    return first, second, third


def _display_geometry(image: nibabel.Nifti1Image, header: nibabel.Nifti1Header) -> tuple[Geometry, str, list[str]]:
    warnings = []
    if header["qform_code"] == 0 and header["sform_code"] == 0:
        warnings.append("The file has no orientation; left and right may be swapped.")
    # Of every file axis: the RAS+ axis it is closest to, and the direction.
    usable = np.isfinite(image.affine).all()
    nearest = nibabel.io_orientation(image.affine if usable else np.zeros((4, 4)))
    if np.isnan(nearest).any():
        nearest = nibabel.io_orientation(np.eye(4))
        warnings = ["The orientation stored in the file is invalid; left and right may be swapped."]
    shape = _three(image.shape)
    thin = [int(nearest[axis, 0]) for axis in range(3) if shape[axis] == 1]
    orientation, plane = next(
        ((name, axes) for name, axes in _PLANES.items() if len(thin) == 1 and axes[0] == thin[0]),
        next(iter(_PLANES.items())),
    )
    axes = _three([int(np.flatnonzero(nearest[:, 0] == axis)[0]) for axis in plane])
    # Rows run from head or front, columns from the patient's right or front: against RAS+. Slices run along it.
    flips = tuple((nearest[axis, 1] < 0) != (place > 0) for place, axis in enumerate(axes))
    fields = {name: header[name].copy() for name in _GEOMETRY_FIELDS}
    return Geometry(axes, flips, image.shape, image.affine, fields), orientation, warnings


def _spacing(geometry: Geometry, header: nibabel.Nifti1Header) -> tuple[float, float, float] | None:
    sides = [float(abs(header["pixdim"][axis + 1])) for axis in geometry.axes]
    scale = _MILLIMETRES.get(int(header["xyzt_units"]) % 8, 1.0)
    if not np.isfinite(sides).all() or min(sides) <= 0:
        return None
    slices, rows, columns = (side * scale for side in sides)
    return slices, rows, columns


def _looks_like_hounsfield(values: np.ndarray) -> bool:
    """Air near -1000 and tissue near 0, in whole numbers: no other modality is stored like this."""
    flat = values.ravel()[:: values.size // 2**20 + 1]
    return flat.min() <= -900 and -300 < np.percentile(flat, 99.5) < 4100 and bool((flat == np.rint(flat)).all())
