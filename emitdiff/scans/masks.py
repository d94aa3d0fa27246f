"""Masks read as class ids, and laid over the scan that they belong to.

What a mask file can mean one thing by is taken; for everything else there is a sentence that says why not, and what to
do. A label that is wrong without a word would be learnt.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.scans.decoding import existing_file
from emitdiff.scans.mask_alignment import MaskMisfitError, check_size
from emitdiff.scans.mask_volumes import MaskVolume, read_mask_volume
from emitdiff.scans.reading import read_scan, sniff
from emitdiff.scans.scan import Scan

if TYPE_CHECKING:
    from emitdiff.scans.dicom_seg_reading import SegFile

__all__ = [
    "MaskMisfitError",
    "is_black_and_white",
    "read_mask",
    "read_mask_slices",
    "read_scan_mask",
    "read_slice_mask",
]


def read_mask(path: str | Path, size: tuple[int, int] | None = None, index: int | None = None) -> np.ndarray:
    """Class ids, uint8 (H, W), from any file `read_scan` reads; `size` is the (H, W) of the image it belongs to.

    `index` chooses the slice of a file with several. A mask of 0 and 255, or of black and white, becomes 0 and 1; other
    palettes give their indices, and a DICOM Segmentation the numbers of its segments. Raises EmitDiffError for colour,
    another size, values that are no class ids from 0 to 254, and pictures.
    """
    mask = _read_mask_file(path)
    ids = mask.stacked()
    if index is None and len(ids) > 1:
        raise EmitDiffError(f"The mask '{mask.name}' holds {len(ids)} slices. Give the mask of a single slice.")
    if not 0 <= (index or 0) < len(ids):
        raise EmitDiffError(f"The mask '{mask.name}' has slices 0 to {len(ids) - 1}; {index} was asked for.")
    if size is not None:
        check_size(mask.name, (ids.shape[1], ids.shape[2]), size)
    chosen: np.ndarray = ids[index or 0]
    return chosen


def read_mask_slices(path: str | Path) -> np.ndarray:
    """Class ids, uint8 (S, H, W), of a mask by itself, in its own order. Raises EmitDiffError as `read_mask` does for
    what is no mask."""
    return _read_mask_file(path).stacked()


def is_black_and_white(path: str | Path) -> bool:
    """Whether class 1 of a mask is white, or another bright value, and not the number 1 that the file holds. Raises
    EmitDiffError as `read_mask_slices` does."""
    mask = _read_mask_file(path)
    if not isinstance(mask, MaskVolume) or int(mask.ids.max()) != 1:
        return False
    return bool(np.rint(read_scan(path).values.max()) > 1)


def read_slice_mask(path: str | Path, scan: Scan, index: int) -> np.ndarray:
    """Class ids, uint8 (H, W), of slice `index` of `scan`, from a mask of the whole scan or of that slice alone.

    Where both files say where they lie in the patient, every class id is taken from its place there. Raises
    EmitDiffError where the two do not cover the same voxels, and for everything that `read_mask` refuses.
    """
    return _read_mask_file(path).placed(scan, index)


def read_scan_mask(path: str | Path, scan: Scan) -> np.ndarray:
    """Class ids, uint8 (S, H, W), of the whole of `scan`, laid over it as `read_slice_mask` does.

    Raises EmitDiffError for a mask of one slice where the scan has more, and for everything that function refuses.
    """
    return _read_mask_file(path).placed(scan)


def _read_mask_file(path: str | Path) -> MaskVolume | SegFile:
    path = existing_file(path)
    kind = sniff(path)
    if kind == "picture":
        from emitdiff.scans.mask_pictures import read_mask_picture

        return MaskVolume(path.name, read_mask_picture(path))
    if kind == "dicom":
        from emitdiff.scans.dicom_mask import read_dicom_mask

        return read_dicom_mask(path)
    return read_mask_volume(path)
