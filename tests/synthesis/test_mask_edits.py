import dataclasses

import cv2
import numpy as np
import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.edges import boundary_of, detect_edges
from emitdiff.synthesis.mask_edits import MaskEdit, edit_edges, edit_mask, random_edit


def draw_disc(side, radius=0.25):
    """A bright disc on black, uint8 (side, side, 3), and its mask."""
    rows, columns = np.mgrid[0:side, 0:side] / side
    mask = ((rows - 0.5) ** 2 + (columns - 0.5) ** 2 <= radius**2).astype(np.uint8)
    return np.repeat(200 * mask[..., None], 3, -1), mask


@pytest.fixture
def two_classes():
    """Class 1 a rectangle, class 5 a square inside it, uint8 (80, 120)."""
    mask = np.zeros((80, 120), np.uint8)
    mask[30:50, 40:80] = 1
    mask[36:44, 50:58] = 5
    return mask


def test_a_move_by_whole_pixels_is_exact(two_classes):
    moved = edit_mask(two_classes, MaskEdit(move_x=12 / 120, move_y=-8 / 80))
    assert np.array_equal(moved, np.roll(two_classes, (-8, 12), (0, 1)))


def test_rotation_is_anticlockwise_about_the_middle_of_the_target(two_classes):
    turned = edit_mask(two_classes, MaskEdit(rotate=90))
    rows, columns = np.nonzero(turned)
    assert np.ptp(rows) == 39 and np.ptp(columns) == 19
    assert abs(rows.mean() - 39.5) < 0.6 and abs(columns.mean() - 59.5) < 0.6
    inner = np.argwhere(turned == 5).mean(0)
    assert inner[0] > 40  # what was left of the middle is now below it


def test_scale_is_a_factor_of_both_sides(two_classes):
    larger = edit_mask(two_classes, MaskEdit(scale=1.5))
    assert (larger > 0).sum() == pytest.approx(1.5**2 * (two_classes > 0).sum(), rel=0.05)


@pytest.mark.parametrize("edit", [MaskEdit(scale=1.37, rotate=31, deform=1.0, seed=4), MaskEdit(deform=0.6, seed=1)])
def test_no_class_is_invented_or_lost_and_the_seed_decides(two_classes, edit):
    wide = (two_classes.astype(np.int64)) * 100
    edited = edit_mask(wide, edit)
    assert edited.dtype == wide.dtype and set(np.unique(edited)) == {0, 100, 500}
    assert np.array_equal(edited, edit_mask(wide, edit))
    assert not np.array_equal(edited, edit_mask(wide, dataclasses.replace(edit, seed=edit.seed + 1)))


def test_a_deformation_moves_the_outline_but_tears_nothing():
    mask = draw_disc(128)[1]
    deformed = edit_mask(mask, MaskEdit(deform=1.0, seed=3))
    assert 0.7 < (mask & deformed).sum() / (mask | deformed).sum() < 0.97
    assert cv2.connectedComponents(deformed)[0] == 2


def test_an_edit_is_the_same_at_every_resolution():
    edit = MaskEdit(move_x=0.1, scale=0.8, rotate=20, deform=0.8, seed=5)
    small, large = edit_mask(draw_disc(128)[1], edit), edit_mask(draw_disc(512)[1], edit)
    shrunk = large[2::4, 2::4]
    assert (small & shrunk).sum() / (small | shrunk).sum() > 0.95


def test_the_identity_changes_nothing(two_classes):
    edges = np.random.default_rng(0).integers(0, 256, two_classes.shape, dtype=np.uint8)
    edited = edit_mask(two_classes, MaskEdit(seed=9))
    assert np.array_equal(edited, two_classes) and edited is not two_classes
    assert np.array_equal(edit_edges(edges, two_classes, edited, MaskEdit(seed=9)), edges)


def test_the_edges_of_the_target_go_along_and_leave_none_behind():
    image, mask = draw_disc(128, radius=0.15)
    image[100:104] = 255  # a line that is none of the target's
    edges = detect_edges(image, "canny")
    edit = MaskEdit(move_x=0.2, move_y=-0.15)
    edited = edit_mask(mask, edit)
    moved = edit_edges(edges, mask, edited, edit)
    old, new = boundary_of(mask) > 0, boundary_of(edited) > 0
    alone = old & (cv2.dilate(edited, np.ones((15, 15))) == 0)
    assert (moved[alone] > 0).sum() == 0 and (edges[alone] > 0).sum() > 20
    assert (moved[new] > 0).sum() >= 0.9 * (edges[old] > 0).sum()
    assert np.array_equal(moved[98:106], edges[98:106])


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (MaskEdit(move_x=2), "move to the right"),
        (MaskEdit(scale=0), "scale was 0"),
        (MaskEdit(deform=1.5), "deformation was 1.5"),
        (MaskEdit(rotate=float("nan")), "rotation"),
        (MaskEdit(move_x=0.9), "the whole mask out of the image"),
    ],
)
def test_edits_that_cannot_be_are_said_in_a_sentence(two_classes, edit, words):
    with pytest.raises(EmitDiffError, match=words):
        edit_mask(two_classes, edit)


def test_random_edits_grow_with_their_strength_and_repeat_with_their_generator():
    drawn = [random_edit(np.random.default_rng(seed), 1.0) for seed in range(50)]
    assert drawn == [random_edit(np.random.default_rng(seed), 1.0) for seed in range(50)]
    assert max(abs(edit.move_x) for edit in drawn) <= 0.1 and max(edit.scale for edit in drawn) <= 1.36
    assert len({edit.seed for edit in drawn}) == 50
    assert random_edit(np.random.default_rng(0), 0.0).changes_nothing
    for edit in drawn:
        edit.check()
