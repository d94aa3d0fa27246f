"""Masks as NIfTI, in the voxels of the volume that they belong to."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np

from emitdiff.files import write_atomically
from emitdiff.provenance import USE_NOTICE
from emitdiff.scans.geometry import Geometry


def write_nifti(slices: np.ndarray, geometry: Geometry, path: Path) -> Path:
    """uint8 (S, H, W) in display order to a compressed NIfTI in the order and geometry of the source."""
    array = geometry.to_file(slices)
    if geometry.fields:
        header = nibabel.Nifti1Header()
        header.set_data_dtype(np.uint8)
        for name, value in geometry.fields.items():
            header[name] = value
        image = nibabel.Nifti1Image(array, None, header)
    else:
        image = nibabel.Nifti1Image(array, geometry.affine)
        # Both, as converters write them: some programs read the one, some the other.
        image.set_qform(rigid(geometry.affine), code="scanner")
        image.set_sform(geometry.affine, code="scanner")
        image.header.set_xyzt_units("mm")
    image.header["descrip"] = USE_NOTICE.encode()
    packed = gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)  # the same bytes for the same mask
    write_atomically(path, lambda partial: partial.write_bytes(packed))
    return path


def rigid(affine: np.ndarray) -> np.ndarray:
    """(4, 4), `affine` as a qform can have it, with right angles and the same steps. The slices of a tilted gantry,
    which are shifted against each other, become a straight stack, as ITK reads such a series."""
    first, second, third = affine[:3, :3].T
    x = first / np.linalg.norm(first)
    y = second - (second @ x) * x
    y /= np.linalg.norm(y)
    z = np.cross(x, y) * (1 if np.cross(x, y) @ third > 0 else -1)
    straight = affine.copy()
    straight[:3, :3] = np.column_stack([first, np.linalg.norm(second) * y, np.linalg.norm(third) * z])
    return straight
