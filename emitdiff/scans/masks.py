"""Masks read as class ids, and laid over the scan that they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.scans.decoding import checked_class_ids, existing_file
from emitdiff.scans.reading import read_scan, sniff
from emitdiff.scans.scan import Scan


class MaskMisfitError(EmitDiffError):
    """A mask that does not fit its image; `kind` says in what: "size mismatch" or "other grid"."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


def read_mask(path: str | Path, size: tuple[int, int] | None = None, index: int | None = None) -> np.ndarray:
    """Class ids, uint8 (H, W), from any file `read_scan` reads; `size` is the (H, W) of the image it belongs to.

    `index` chooses the slice of a file with several. A mask of 0 and 255 becomes 0 and 1; a palette picture gives
    its indices. Raises EmitDiffError for colour, another size, or more than 32 distinct values (not a mask).
    """
    mask = _read_mask_file(path)
    if index is None and mask.num_slices > 1:
        raise EmitDiffError(f"The mask '{mask.name}' holds {mask.num_slices} slices. Give the mask of a single slice.")
    if not 0 <= (index or 0) < mask.num_slices:
        raise EmitDiffError(f"The mask '{mask.name}' has slices 0 to {mask.num_slices - 1}; {index} was asked for.")
    return _labels(mask.values[index or 0], mask.name, size)


def read_slice_mask(path: str | Path, scan: Scan, index: int) -> np.ndarray:
    """Class ids, uint8 (H, W), of slice `index` of `scan`, from a mask of the whole scan or of that slice alone.

    Where both files say where they lie in the patient, every class id is taken from its place there. Raises
    EmitDiffError where the two do not cover the same voxels, and for everything that `read_mask` refuses.
    """
    mask = _read_mask_file(path)
    values = _aligned(mask, scan)
    return _labels(values[index if len(values) > 1 else 0], mask.name, scan.size)


def read_scan_mask(path: str | Path, scan: Scan) -> np.ndarray:
    """Class ids, uint8 (S, H, W), of the whole of `scan`, laid over it as `read_slice_mask` does.

    Raises EmitDiffError for a mask of one slice where the scan has more, and for everything that function refuses.
    """
    mask = _read_mask_file(path)
    values = _aligned(mask, scan)
    if len(values) != scan.num_slices:
        raise EmitDiffError(f"The mask '{mask.name}' is of one slice, '{scan.name}' has {scan.num_slices}.")
    if values.shape[1:3] != scan.size:
        return _labels(values[0], mask.name, scan.size)[None]  # which says what is wrong with it
    return _labels(values.reshape(-1, *values.shape[2:]), mask.name, None).reshape(values.shape[:3])


def _read_mask_file(path: str | Path) -> Scan:
    from emitdiff.scans.pictures import read_picture

    path = existing_file(path)
    return read_picture(path, keep_indices=True) if sniff(path) == "picture" else read_scan(path)


def _aligned(mask: Scan, scan: Scan) -> np.ndarray:
    """The values of `mask` in the order in which the slices, rows and columns of `scan` are displayed."""
    if mask.geometry is None or scan.geometry is None:
        if mask.num_slices not in (1, scan.num_slices):
            raise EmitDiffError(
                f"The mask '{mask.name}' holds {mask.num_slices} slice(s), its image {scan.num_slices}. "
                "Give the mask of the whole scan, or of the one slice."
            )
        return mask.values
    from_scan, from_mask = scan.geometry.display_affine(), mask.geometry.display_affine()
    lengths = np.array(scan.values.shape[:3])
    if mask.values.shape[:3] == tuple(lengths) and np.allclose(from_scan, from_mask, atol=1e-3, equal_nan=True):
        return mask.values
    usable = np.isfinite([from_scan, from_mask]).all() and abs(np.linalg.det(from_mask)) > 1e-9
    turn = np.linalg.solve(from_mask, from_scan) if usable else np.zeros((4, 4))  # a place in the scan to the mask's
    whole = np.rint(turn)
    # One corner to the opposite one: both grids have the same voxels when it arrives and every step is one voxel long.
    corners = np.array([[0, 0, 0, 1], [*(lengths - 1), 1]]).T
    ends = (whole @ corners)[:3]
    apart = (np.abs(turn - whole) @ corners).max()
    steps = np.abs(whole[:3, :3])
    one_each = (steps.sum(0) == 1).all() and (steps.sum(1) == 1).all()
    covered = (ends.min(1) == 0).all() and (ends.max(1) == np.array(mask.values.shape[:3]) - 1).all()
    if apart > 0.25 or not one_each or not covered:
        raise MaskMisfitError(
            "other grid",
            f"The mask '{mask.name}' does not match '{scan.name}': size, orientation or position differ. "
            "Save it with the geometry of its image, or give the mask of the one slice as PNG.",
        )
    axes = steps.argmax(0)
    backwards = tuple(axis for axis in range(3) if whole[axes[axis], axis] < 0)
    return np.flip(mask.values.transpose(*axes, *range(3, mask.values.ndim)), backwards)


def _labels(values: np.ndarray, name: str, size: tuple[int, int] | None) -> np.ndarray:
    """One slice of a mask file, (H, W) or grey (H, W, 3), as class ids; 0 and 255 become 0 and 1."""
    if size is not None and values.shape[:2] != tuple(size):
        raise MaskMisfitError(
            "size mismatch",
            f"The mask '{name}' is {values.shape[1]} x {values.shape[0]} pixels, its image {size[1]} x {size[0]}. "
            "Give a mask of the same size as the image.",
        )
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            raise EmitDiffError(f"The mask '{name}' is in colour. Save it as grey values: one id per class.")
        values = values[..., 0]
    values = checked_class_ids(values, name)
    return (values > 0).astype(np.uint8) if values.max() == 255 and np.isin(values, (0, 255)).all() else values
