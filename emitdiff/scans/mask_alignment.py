"""A mask of voxels laid over the scan that it belongs to."""

from __future__ import annotations

import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.scans.geometry import Geometry
from emitdiff.scans.scan import Scan


class MaskMisfitError(EmitDiffError):
    """A mask that does not fit its image; `kind` says in what: "size mismatch" or "other grid"."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


def check_size(name: str, found: tuple[int, int], size: tuple[int, int]) -> None:
    """Raises MaskMisfitError where a mask of `found` = (H, W) belongs to an image of another size."""
    if found != tuple(size):
        raise MaskMisfitError(
            "size mismatch",
            f"The mask '{name}' is {found[1]} x {found[0]} pixels, its image {size[1]} x {size[0]}. "
            "Give a mask of the same size as the image.",
        )


def other_grid(name: str, scan: Scan) -> MaskMisfitError:
    return MaskMisfitError(
        "other grid",
        f"The mask '{name}' does not match '{scan.name}': size, orientation or position differ. "
        "Save it with the geometry of its image, or give the mask of the one slice as PNG.",
    )


def aligned(name: str, ids: np.ndarray, geometry: Geometry | None, scan: Scan) -> np.ndarray:
    """Class ids (S, H, W) in the order in which the slices, rows and columns of `scan` are displayed; of one slice
    where neither says where it lies and the mask has only one.

    Raises:
        MaskMisfitError: the two do not cover the same voxels.
        EmitDiffError: another number of slices, or the mask lies somewhere in the patient and the scan does not say.
    """
    if geometry is None:
        if len(ids) not in (1, scan.num_slices):
            raise EmitDiffError(
                f"The mask '{name}' holds {len(ids)} slice(s), its image {scan.num_slices}. "
                "Give the mask of the whole scan, or of the one slice."
            )
        check_size(name, (ids.shape[1], ids.shape[2]), scan.size)
        return ids
    if scan.geometry is None:
        raise MaskMisfitError(
            "other grid",
            f"The mask '{name}' says where it lies in the patient, '{scan.name}' does not: nobody can tell which way "
            "round the mask belongs. Give it as PNG or TIFF, drawn over the image as it is shown.",
        )
    shape = scan.values.shape[:3]
    from_scan, from_mask = scan.geometry.display_affine(), geometry.display_affine()
    if ids.shape == shape and np.allclose(from_scan, from_mask, atol=1e-3, equal_nan=True):
        return ids
    turned = same_voxels(from_scan, from_mask, shape, ids.shape)
    if turned is None:
        raise other_grid(name, scan)
    axes, backwards = turned
    return np.flip(ids.transpose(axes), backwards)


def same_voxels(
    from_scan: np.ndarray, from_mask: np.ndarray, shape: tuple[int, ...], mask_shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """How to transpose and then flip a grid so that it lies over another one; None where they are not of the same
    voxels. Each grid is given by its affine (4, 4) and the numbers of its voxels."""
    lengths = np.array(shape)
    usable = np.isfinite([from_scan, from_mask]).all() and abs(np.linalg.det(from_mask)) > 1e-9
    turn = np.linalg.solve(from_mask, from_scan) if usable else np.zeros((4, 4))  # a place in the scan to the mask's
    whole = np.rint(turn)
    # One corner to the opposite one: both grids have the same voxels when it arrives and every step is one voxel long.
    corners = np.array([[0, 0, 0, 1], [*(lengths - 1), 1]]).T
    ends = (whole @ corners)[:3]
    apart = (np.abs(turn - whole) @ corners).max()
    steps = np.abs(whole[:3, :3])
    one_each = (steps.sum(0) == 1).all() and (steps.sum(1) == 1).all()
    covered = (ends.min(1) == 0).all() and (ends.max(1) == np.array(mask_shape) - 1).all()
    if apart > 0.25 or not one_each or not covered:
        return None
    axes = steps.argmax(0)
    return tuple(axes.tolist()), tuple(axis for axis in range(3) if whole[axes[axis], axis] < 0)
