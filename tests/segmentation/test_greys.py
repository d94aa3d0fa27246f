"""One scale of greys for each image kind."""

import numpy as np
import pytest

from emitdiff.segmentation.greys import GREY_LEVELS, GreyLevels, is_coloured, scale_greys
from emitdiff.segmentation.vocabulary import IMAGE_KINDS

from .conftest import disc

LEVELS = GreyLevels(30, 220)


def body() -> np.ndarray:
    """Tissue of 20 to 160 on black, uint8 (96, 96, 3)."""
    rng = np.random.default_rng(0)
    tissue = np.where(disc((96, 96), (48, 48), 36), rng.uniform(20, 160, (96, 96)), 0)
    return tissue.astype(np.uint8)[..., None].repeat(3, 2)


def test_the_tissue_comes_to_its_levels():
    scaled, tissue = scale_greys(body(), LEVELS), body()[..., 0] > 0
    assert np.percentile(scaled[tissue], (15, 99.5)).tolist() == pytest.approx(list(LEVELS), abs=3)
    assert scaled[0, 0, 0] == 0 and scaled.shape == (96, 96, 3) and scaled.dtype == np.uint8


@pytest.mark.parametrize("gain, offset", [(0.55, 50), (1.3, 0), (0.6, 0), (0.8, 20)])
def test_another_window_gives_the_same_picture(gain, offset):
    other = np.clip(np.rint(body() * gain + offset), 0, 255).astype(np.uint8)
    difference = np.abs(scale_greys(other, LEVELS).astype(int) - scale_greys(body(), LEVELS))
    assert difference[body() > 0].mean() < 4 < np.abs(other.astype(int) - body())[body() > 0].mean()


def test_borders_and_inscriptions_change_nothing():
    image = body()
    framed = np.pad(image, ((40, 40), (60, 60), (0, 0)))
    framed[2:5, 4:8] = 255
    inner = scale_greys(framed, LEVELS)[40:-40, 60:-60]
    assert np.abs(inner.astype(int) - scale_greys(image, LEVELS)).max() <= 4


def test_colours_and_flat_pictures_stay():
    stained = body().copy()
    stained[..., 1] //= 2
    for image in (stained, np.full((32, 32, 3), 90, np.uint8), np.zeros((32, 32, 3), np.uint8)):
        assert scale_greys(image, LEVELS) is image
    assert scale_greys(body(), None) is not None and scale_greys(image, None) is image
    assert is_coloured(stained) and not is_coloured(body())


def test_a_coloured_marker_makes_no_coloured_picture():
    image = body()
    image[:4, :4] = (255, 255, 0)
    assert not is_coloured(image) and scale_greys(image, LEVELS) is not image


def test_what_shows_hardly_any_contrast_is_not_blown_up():
    faint = (100 + np.arange(96) // 24).astype(np.uint8)[None, :, None].repeat(96, 0).repeat(3, 2)
    assert scale_greys(faint, LEVELS) is faint


def test_levels_are_of_known_kinds():
    assert set(GREY_LEVELS) <= set(IMAGE_KINDS)
    assert all(0 <= low < high <= 255 for low, high in GREY_LEVELS.values())
