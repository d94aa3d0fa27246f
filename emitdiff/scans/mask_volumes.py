"""Volumes of class ids: NIfTI, and DICOM images that hold them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.scans.geometry import Geometry
from emitdiff.scans.mask_alignment import aligned
from emitdiff.scans.mask_values import class_ids, non_finite, two_classes
from emitdiff.scans.reading import read_scan
from emitdiff.scans.scan import Scan


@dataclass(frozen=True, eq=False)
class MaskVolume:
    """Class ids uint8 (S, H, W) as they are displayed, and where they lie if the file says so."""

    name: str
    ids: np.ndarray = field(repr=False)
    geometry: Geometry | None = None

    def stacked(self) -> np.ndarray:
        return self.ids

    def placed(self, scan: Scan, index: int | None = None) -> np.ndarray:
        """Class ids (S, H, W) laid over `scan`, or (H, W) over its slice `index`, which may be all that the mask has.

        Raises:
            MaskMisfitError: the two do not cover the same voxels.
            EmitDiffError: the mask is of one slice, and all are asked for.
        """
        ids = aligned(self.name, self.ids, self.geometry, scan)
        if index is not None:
            return np.ascontiguousarray(ids[index if len(ids) > 1 else 0])
        if len(ids) != scan.num_slices:
            raise EmitDiffError(f"The mask '{self.name}' is of one slice, '{scan.name}' has {scan.num_slices}.")
        return np.ascontiguousarray(ids)


def read_mask_volume(path: Path, lossy: str = "") -> MaskVolume:
    """A mask as `read_scan` shows it; `lossy` names the compression, where one has changed the values.

    Raises:
        EmitDiffError: the values are no class ids, or several of them are given for a voxel.
    """
    scan = read_scan(path)
    values, name = scan.values, scan.name
    if values.ndim == 4:
        if (values != values[..., :1]).any():
            raise EmitDiffError(f"The mask '{name}' is in colour. Save it with one number, a class id, for each voxel.")
        values = values[..., 0]
    if any("NaN" in warning for warning in scan.warnings):
        raise non_finite(name)
    if any("volumes" in warning for warning in scan.warnings):
        raise EmitDiffError(
            f"The mask '{name}' holds several volumes: one for each class, or for each point in time. Save it as one, "
            "in which every voxel has one class id."
        )
    return MaskVolume(name, two_classes(values, name, lossy) if lossy else class_ids(values, name), scan.geometry)
