"""The field of view is what an image shows: not padding, and all of what has grain."""

import numpy as np
import pytest

from emitdiff.segmentation.field_of_view import MAX_SIDE, field_of_view

ROWS, COLUMNS = np.mgrid[:120, :160]


def grainy(shape=(120, 160), seed=0):
    return np.random.default_rng(seed).integers(60, 200, (*shape, 3), dtype=np.uint8)


def test_the_corners_beside_a_sector_are_outside():
    image = grainy()
    sector = np.abs(COLUMNS - 80) < 20 + ROWS / 2
    image[~sector] = np.random.default_rng(1).integers(0, 4, (*sector.shape, 1), dtype=np.uint8)[
        ~sector
    ]  # as JPEG leaves
    shown = field_of_view(image)
    assert shown[sector].mean() > 0.99 and shown[~sector].mean() < 0.03


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_padding_of_any_grey_is_outside(grey):
    image = grainy()
    image[:, :30] = image[:, 130:] = grey
    assert np.array_equal(field_of_view(image), (COLUMNS >= 30) & (COLUMNS < 130))


def test_letters_in_a_corner_do_not_bring_it_into_view():
    image = grainy()
    image[:40] = 0
    image[2:5, :3] = 230
    assert not field_of_view(image)[10:38].any()


def test_a_black_cyst_at_the_border_is_in_view():
    image = grainy()
    image[40:80, 90:] = 2
    assert field_of_view(image).all()


def test_a_faint_image_has_no_padding_by_mistake():
    """Dark fluorescence: nuclei a few grey levels above a background of as few."""
    nuclei = (ROWS - 60) ** 2 + (COLUMNS - 20) ** 2 < 400
    image = np.repeat((np.random.default_rng(0).integers(3, 6, (120, 160, 1)) + 4 * nuclei[..., None]), 3, 2)
    assert field_of_view(image.astype(np.uint8))[nuclei].all()


def test_a_large_image_is_looked_at_in_part_and_told_whole():
    image = grainy((MAX_SIDE + 300, MAX_SIDE + 101))
    image[:200] = 0
    shown = field_of_view(image)
    assert shown.shape == image.shape[:2] and not shown[:198].any() and shown[202:].all()
