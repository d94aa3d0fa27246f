from __future__ import annotations

import cv2
import numpy as np
import pytest

from emitdiff.synthesis.realism import (
    FOLDS,
    ImageSet,
    Realism,
    fold_of,
    kid,
    power_spectrum,
    spectrum_gap,
    textures,
    two_sample_accuracy,
)


def grain(seed: int, strength: float = 20.0, blur: float = 0.0) -> np.ndarray:
    """Grey with grain all over, uint8 (256, 256, 3)."""
    values = np.random.default_rng(seed).normal(0, strength, (256, 256))
    values = cv2.GaussianBlur(values, (0, 0), blur) if blur else values
    return np.repeat(np.clip(120 + values, 0, 255).astype(np.uint8)[..., None], 3, axis=-1)


def gathered(images, groups=None, extract=None) -> ImageSet:
    found = ImageSet(extract)
    for number, image in enumerate(images):
        found.add(image, str(number) if groups is None else groups[number])
    return found


def points(values: np.ndarray, groups) -> ImageSet:
    """A set that is nothing but features, (N, D)."""
    found = ImageSet()
    found.groups, found.features = [str(group) for group in groups], list(values)
    return found


def test_a_wave_is_found_at_its_frequency():
    wave = 127 + 80 * np.sin(2 * np.pi * 40 * np.arange(256) / 256)
    image = np.tile(wave.astype(np.uint8)[None, :, None], (256, 1, 3))
    assert power_spectrum(image).argmax() == 40


def test_half_the_contrast_is_six_decibels_less():
    image = grain(0, 40)
    flatter = (120 + (image.astype(float) - 120) / 2).astype(np.uint8)
    assert list(spectrum_gap(image, flatter).values()) == pytest.approx([-6.02, -6.02], abs=0.1)
    assert list(spectrum_gap(image, image).values()) == [0, 0]


def test_what_is_cut_away_is_told_in_its_band_alone():
    image = grain(0, 30)
    cycles = np.fft.fftfreq(256, 1 / 256)
    gain = np.where(np.hypot(cycles[:, None], cycles[None]) > 64, 0.1, 1)
    cut = np.fft.ifft2(np.fft.fft2(image[..., 0].astype(float)) * gain).real
    gap = spectrum_gap(image, np.repeat(np.clip(np.rint(cut), 0, 255).astype(np.uint8)[..., None], 3, axis=-1))
    assert gap["spectrum_high_db"] == pytest.approx(-20, abs=0.6) and abs(gap["spectrum_mid_db"]) < 0.2


def test_the_spectrum_of_one_grey_is_a_number():
    flat = np.full((40, 30, 3), 80, np.uint8)
    assert spectrum_gap(flat, flat) == {"spectrum_mid_db": 0, "spectrum_high_db": 0}


def test_the_distance_is_the_unbiased_one_of_gretton():
    rng = np.random.default_rng(0)
    real, other = rng.normal(0, 1, (6, 5)), rng.normal(0.5, 1, (6, 5))

    def kernel(one, two):
        return (one @ two / 5 + 1) ** 3

    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    each = [
        kernel(real[i], real[j]) + kernel(other[i], other[j]) - kernel(real[i], other[j]) - kernel(real[j], other[i])
        for i, j in pairs
    ]
    assert kid(points(real, range(6)), points(other, range(6)))[0] == pytest.approx(np.mean(each))


def test_the_distance_is_none_on_average_for_one_distribution_and_some_for_two():
    rng = np.random.default_rng(1)
    near, far = (
        [kid(points(rng.normal(0, 1, (20, 4)), range(20)), points(rng.normal(shift, 1, (40, 4)), list(range(20)) * 2))
         for _ in range(30)]
        for shift in (0, 1)
    )  # fmt: skip
    values = np.array([value for value, _ in near])
    assert abs(values.mean()) < 3 * values.std() / 30**0.5 and min(values) < 0
    assert np.mean([spread for _, spread in far]) == pytest.approx(np.std([value for value, _ in far]), rel=0.5)
    assert all(value > 2 * spread for value, spread in far)


def test_copies_are_at_no_distance_whatever_the_groups():
    values, groups = np.random.default_rng(0).normal(0, 1, (8, 3)), [0, 0, 0, 1, 1, 2, 3, 4]
    assert kid(points(values, groups), points(values, groups))[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("blur, lowest, highest", [(0.6, 0.95, 1.0), (0.0, 0.4, 0.6)])
def test_smoothed_grain_is_told_from_grain_and_grain_from_grain_is_not(blur, lowest, highest):
    real = gathered(grain(seed) for seed in range(12))
    other = gathered(grain(seed + 100, 20 + 20 * blur, blur) for seed in range(12))
    accuracy, spread = two_sample_accuracy(real, other)
    assert lowest <= accuracy <= highest and spread < 0.2
    assert two_sample_accuracy(real, other) == (accuracy, spread)


def test_neither_two_halves_of_varied_images_nor_two_of_a_kind_are_told_apart():
    rng = np.random.default_rng(5)
    kinds = [(rng.uniform(5, 25), rng.uniform(0.3, 0.9)) for _ in range(24)]
    images, again = ([grain(first + n, *kind) for n, kind in enumerate(kinds)] for first in (0, 1000))
    names = [str(number) for number in range(24)]
    halves = two_sample_accuracy(gathered(images[:12], names[:12]), gathered(images[12:], names[12:]))
    assert 0.3 < halves[0] < 0.7
    assert two_sample_accuracy(gathered(images), gathered(again))[0] == pytest.approx(0.5, abs=0.06)


def test_a_group_is_never_asked_about_after_it_was_learnt_from():
    names = [str(number) for number in range(9)]
    real, painted = fold_of(names, names), fold_of([name for name in names for _ in range(2)], names)
    assert (np.repeat(real, 2) == painted).all() and set(real) == set(range(FOLDS))
    assert np.bincount(real).min() >= 2


def test_textures_do_not_depend_on_the_size_kept_and_see_one_grey():
    assert textures(np.full((30, 50, 3), 9, np.uint8)).shape == textures(grain(0)).shape == (49, 100)
    assert np.isfinite(textures(np.zeros((64, 64, 3), np.uint8))).all()


def test_the_sets_are_compared_side_by_side():
    realism = Realism(extract=lambda image: np.array([image.std() / 10, image.mean() / 100]))
    for seed in range(6):
        realism.add(str(seed), grain(seed), [grain(seed + 50, 20, 1.0), grain(seed + 80, 20, 1.0)], grain(seed))
    scores = realism.scores()
    assert scores["two_sample_accuracy"][0] > 0.95 and scores["autoencoder_two_sample_accuracy"][0] == 0.5
    assert scores["kid"][0] > 0.1 and scores["autoencoder_kid"][0] == pytest.approx(0, abs=1e-9)


def test_one_group_is_too_few_and_without_features_there_is_no_distance():
    realism = Realism()
    realism.add("a", grain(0), [grain(1)], grain(0))
    assert set(realism.scores()) == {"two_sample_accuracy", "autoencoder_two_sample_accuracy"}
    assert np.isnan(realism.scores()["two_sample_accuracy"]).all()
    assert np.isnan(kid(points(np.ones((2, 3)), [0, 0]), points(np.ones((2, 3)), [0, 0]))).all()
