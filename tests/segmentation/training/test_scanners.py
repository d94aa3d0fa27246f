"""Appearances of other scanners: other greys, the same anatomy."""

import numpy as np
import pytest

from emitdiff.segmentation.training import scanners

from ..conftest import disc


def drawn(colour: bool = False) -> np.ndarray:
    """Two grey levels of tissue on black, uint8 (64, 64, 3)."""
    levels = np.where(disc((64, 64), (32, 32), 26), 90, 0) + np.where(disc((64, 64), (32, 38), 8), 90, 0)
    image = levels.astype(np.uint8)[..., None].repeat(3, 2)
    return image * np.array([1, 0, 1], np.uint8) if colour else image


@pytest.mark.parametrize("kind", ["abdominal CT", "prostate MRI", "microscopy", "breast ultrasound", ""])
@pytest.mark.parametrize("colour", [False, True])
def test_every_kind_keeps_its_size_and_changes(kind, colour):
    image, other = drawn(colour), 255 - drawn(colour)
    views = [scanners.change_appearance(image, kind, other, np.random.default_rng(seed)) for seed in range(12)]
    assert all(view.shape == image.shape and view.dtype == np.uint8 for view in views)
    assert sum(not np.array_equal(view, image) for view in views) > 6
    assert len({view.tobytes() for view in views}) > 6


def test_the_same_seed_gives_the_same_view():
    first, second = (scanners.change_appearance(drawn(), "microscopy", drawn(), np.random.default_rng(3)) for _ in "ab")
    assert np.array_equal(first, second)


def test_grey_images_stay_grey_unless_they_are_stained():
    for kind in ("abdominal CT", "chest x-ray"):
        views = [scanners.change_appearance(drawn(), kind, None, np.random.default_rng(seed)) for seed in range(20)]
        assert all((view == view[..., :1]).all() for view in views)
    cells = [scanners.change_appearance(drawn(), "microscopy", None, np.random.default_rng(seed)) for seed in range(20)]
    assert 2 < sum(bool((view != view[..., :1]).any()) for view in cells) < 18


def test_nuclei_are_stained_dark_whatever_their_ground():
    nuclei, rng = disc((64, 64), (32, 32), 12), np.random.default_rng(0)
    for image in (np.where(nuclei, 0.8, 0.05), np.where(nuclei, 0.1, 0.9)):
        for _ in range(5):
            view = scanners.stained_tissue(image.astype(np.float32), rng).mean(axis=2)
            assert view[nuclei].mean() < view[~nuclei].mean() - 0.05


def test_a_histogram_is_lent_part_of_the_way():
    image, other = np.linspace(0, 0.5, 4096, dtype=np.float32).reshape(64, 64), np.full((64, 64, 3), 0.9, np.float32)
    other[:32] = 0.1
    half, whole = (scanners.match_histogram(image, other, strength) for strength in (0.5, 1))
    assert whole[0, 0] == pytest.approx(0.1, abs=0.02) and whole[-1, -1] == pytest.approx(0.9, abs=0.02)
    np.testing.assert_allclose(half, (image + whole) / 2, atol=0.01)
    assert (np.diff(whole.ravel()) >= -1e-6).all(), "what was brighter stays brighter"


def test_black_outside_stays_black_in_half_of_the_inversions():
    image = drawn()[..., 0].astype(np.float32) / 255
    views = [scanners.invert_tissue(image, np.random.default_rng(seed)) for seed in range(20)]
    assert all(view[32, 38] < view[32, 20] for view in views), "the bright part is the darker one now"
    assert 4 < sum(view[0, 0] == 0 for view in views) < 16


def test_windows_keep_the_order_of_greys_and_clip():
    image = np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)
    rng = np.random.default_rng(0)
    views = [scanners.change_window(image, rng) for _ in range(40)]
    assert all((np.diff(view.ravel()) >= 0).all() and view.min() >= 0 and view.max() <= 1 for view in views)
    assert any(view[0, 0] > 0.1 for view in views) and any((view == 1).mean() > 0.1 for view in views)


def test_sharpness_goes_both_ways():
    image, rng = drawn()[..., 0].astype(np.float32) / 255, np.random.default_rng(0)
    steepest = np.abs(np.diff(image, axis=1)).max()
    assert np.abs(np.diff(scanners.blur(image, rng), axis=1)).max() < steepest
    assert np.abs(np.diff(scanners.sharpen(image, rng), axis=1)).max() > steepest
    assert np.abs(np.diff(scanners.lower_resolution(image, rng), axis=1)).max() < steepest


def test_noise_is_of_several_kinds():
    flat = np.full((64, 64), 0.5, np.float32)
    dark = np.zeros((64, 64), np.float32)
    noises = [scanners.add_noise(flat, np.random.default_rng(seed)) - flat for seed in range(24)]
    assert all(0.003 < noise.std() < 0.2 for noise in noises)
    near = [float(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) for noise in noises]
    assert any(value > 0.4 for value in near) and any(abs(value) < 0.1 for value in near)
    silent = [bool((scanners.add_noise(dark, np.random.default_rng(seed)) == 0).all()) for seed in range(24)]
    assert any(silent) and not all(silent), "speckle and photons leave black as it is"


def test_a_bias_field_is_slow():
    flat = np.full((64, 64), 0.5, np.float32)
    field = scanners.add_bias_field(flat, np.random.default_rng(0))
    assert field.std() > 0.02 and np.abs(np.diff(field, axis=0)).max() < 0.05


def test_compression_leaves_blocks():
    rng = np.random.default_rng(0)
    image = rng.random((64, 64)).astype(np.float32)
    assert 0.01 < np.abs(scanners.compress(image, rng) - image).mean() < 0.3
