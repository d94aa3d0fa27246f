"""New anatomy, not only new texture: a mask is moved, scaled, rotated and smoothly deformed before an image is
generated from it, and the edges of what it covers go along."""

from __future__ import annotations

import math

import cv2
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.synthesis_settings import MaskEdit

MARGIN = 0.03  # of the shorter side: how far around the target an edge counts as its own
NODES = 6  # of the deforming field, a side; it spans REACH times the target's half extent in every direction
REACH = 2.0
LARGEST_SHIFT = 0.25  # of the half extent, at deform = 1: small against the distance of the nodes, so nothing folds
FIELD_SIDE = 240


def random_edit(rng: np.random.Generator, strength: float = 0.5) -> MaskEdit:
    """An edit for augmentation; at `strength` 1 (of [0, 1]) moves reach a tenth of the image, rotations 25 degrees,
    scales 0.74 to 1.35, deformations 1."""
    move_x, move_y, turn, size = rng.uniform(-strength, strength, 4)
    return MaskEdit(
        move_x=round(0.1 * move_x, 4),
        move_y=round(0.1 * move_y, 4),
        scale=round(math.exp(0.3 * size), 4),
        rotate=round(25 * turn, 2),
        deform=round(float(rng.uniform(0, strength)), 4),
        seed=int(rng.integers(2**31)),
    )


def edit_mask(mask: np.ndarray, edit: MaskEdit) -> np.ndarray:
    """Class ids (H, W) after the edit: the same ids (nearest neighbour), the same dtype; always a new array.

    Raises:
        EmitDiffError: numbers out of range, or an edit that leaves nothing of the mask in the picture.
    """
    edit.check()
    if edit.changes_nothing or not mask.any():
        return np.array(mask)
    columns, rows = _origins(mask, edit)
    rows, columns = np.rint(rows).astype(np.int64), np.rint(columns).astype(np.int64)
    height, width = mask.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    edited = np.where(inside, mask[rows.clip(0, height - 1), columns.clip(0, width - 1)], 0).astype(mask.dtype)
    if not edited.any():
        raise EmitDiffError("The edit moves the whole mask out of the image; shift it less or scale it up.")
    return edited


def edit_edges(edges: np.ndarray, mask: np.ndarray, edited: np.ndarray, edit: MaskEdit) -> np.ndarray:
    """uint8 (H, W) edges that suit the edited mask: those of the target move with it, those around its old and its new
    place go, all others stay.

    Args:
        mask, edited: class ids (H, W) before and after `edit_mask`, at the edges' size.
    """
    if edit.changes_nothing or not mask.any():
        return edges
    columns, rows = (field.astype(np.float32) for field in _origins(mask, edit))
    own = _around(mask)
    moved = cv2.remap(edges, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    arrived = cv2.remap(own, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT) > 0
    left = np.where((own > 0) | (_around(edited) > 0), 0, edges)
    return np.where(arrived, moved, left).astype(np.uint8)


def _around(mask: np.ndarray) -> np.ndarray:
    """uint8 (H, W): 1 inside the mask and within the margin around it."""
    reach = max(2, round(MARGIN * min(mask.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.dilate((mask > 0).astype(np.uint8), disc)


def _origins(mask: np.ndarray, edit: MaskEdit) -> tuple[np.ndarray, np.ndarray]:
    """For every pixel of the edited mask the (column, row) it comes from, float (H, W) each.

    The deformation is laid out in the target's own measure, so that a small lesion is deformed as much as a liver, and
    the same at every resolution.
    """
    height, width = mask.shape
    columns, rows = _extent(np.asarray(mask.any(0))), _extent(np.asarray(mask.any(1)))
    middle = np.array([sum(columns) / 2, sum(rows) / 2])
    half = max(columns[1] - columns[0], rows[1] - rows[0], 1) / 2
    row, column = np.mgrid[0:height, 0:width].astype(np.float64)
    across = (column - middle[0] - edit.move_x * width) / edit.scale
    down = (row - middle[1] - edit.move_y * height) / edit.scale
    turn = math.radians(edit.rotate)
    x, y = across * math.cos(turn) - down * math.sin(turn), across * math.sin(turn) + down * math.cos(turn)
    if edit.deform:
        shift = _shift(x / half, y / half, edit) * half
        x, y = x + shift[..., 0], y + shift[..., 1]
    return x + middle[0], y + middle[1]


def _extent(taken: np.ndarray) -> tuple[int, int]:
    """First and last index of the True values."""
    places = np.flatnonzero(taken)
    return int(places[0]), int(places[-1])


def _shift(x: np.ndarray, y: np.ndarray, edit: MaskEdit) -> np.ndarray:
    """The deforming field (H, W, 2) at points in units of the target's half extent, in that unit."""
    nodes = np.random.default_rng(edit.seed).uniform(-1, 1, (NODES, NODES, 2)).astype(np.float32)
    field = cv2.resize(nodes, (FIELD_SIDE, FIELD_SIDE), interpolation=cv2.INTER_CUBIC)
    to_field = FIELD_SIDE / (2 * REACH)
    across, down = (((values + REACH) * to_field - 0.5).astype(np.float32) for values in (x, y))
    found = cv2.remap(field, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return found * (LARGEST_SHIFT * edit.deform)
