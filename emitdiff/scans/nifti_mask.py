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
        image.header.set_xyzt_units("mm")
    image.header["descrip"] = USE_NOTICE.encode()
    packed = gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)  # the same bytes for the same mask
    write_atomically(path, lambda partial: partial.write_bytes(packed))
    return path
