"""Where a displayed slice lies in the file and in the patient."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from emitdiff.scans.geometry import Geometry

# A file with voxels (x, y, z) to the right, front and head, shown as radiologists do: slice z, patient's right on the
# left.
AXIAL = Geometry((2, 1, 0), (False, True, True), (4, 5, 6), np.diag([2.0, 3.0, 4.0, 1.0]))


def turned(degrees: float) -> Geometry:
    """AXIAL of a patient who is turned about the long axis."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    affine = np.eye(4)
    affine[:2, :2] = [[cos, -sin], [sin, cos]]
    return replace(AXIAL, affine=affine)


@pytest.mark.parametrize("axes", itertools.permutations(range(3)))
@pytest.mark.parametrize("flips", itertools.product((False, True), repeat=3))
def test_what_is_displayed_lies_where_its_voxel_does_and_goes_back_to_it(axes, flips):
    affine = np.array([[0, 2.0, 0.5, -7], [3, 0, 0, 5], [0.25, 0, -4, 11], [0, 0, 0, 1]])
    geometry = Geometry(axes, flips, (2, 3, 4), affine)
    voxels = np.arange(24).reshape(2, 3, 4)
    shown = geometry.to_display(voxels)
    np.testing.assert_array_equal(geometry.to_file(shown), voxels)
    for place in np.ndindex(shown.shape):
        voxel = np.unravel_index(shown[place], voxels.shape)
        np.testing.assert_allclose(geometry.display_affine() @ (*place, 1), affine @ (*voxel, 1))


def test_edges_are_called_by_the_side_of_the_patient():
    assert AXIAL.edge_letters() == {"left": "R", "right": "L", "top": "A", "bottom": "P"}
    coronal = replace(AXIAL, axes=(1, 2, 0))
    assert coronal.edge_letters() == {"left": "R", "right": "L", "top": "H", "bottom": "F"}


def test_an_askew_slice_has_two_letters_where_the_second_counts():
    assert turned(20).edge_letters()["left"] == "R"
    assert turned(30).edge_letters() == {"left": "RA", "right": "LP", "top": "AL", "bottom": "PR"}
    assert turned(60).edge_letters()["left"] == "AR", "the main axis comes first"


@pytest.mark.parametrize(
    "changes",
    [
        {"fields": {"qform_code": np.int16(0), "sform_code": np.int16(0)}},
        {"affine": np.full((4, 4), np.nan)},
        {"affine": np.diag([0.0, 1.0, 1.0, 1.0])},
    ],
)
def test_no_letter_is_better_than_a_guessed_one(changes):
    assert replace(AXIAL, **changes).edge_letters() == {}


def test_one_form_that_is_known_is_enough():
    fields = {"qform_code": np.int16(0), "sform_code": np.int16(1)}
    assert replace(AXIAL, fields=fields).edge_letters()["top"] == "A"
