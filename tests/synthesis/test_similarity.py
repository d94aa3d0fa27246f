from __future__ import annotations

import cv2
import numpy as np
import pytest

from emitdiff.synthesis.similarity import (
    Gallery,
    comparison_view,
    edge_agreement,
    grey_quantiles,
    histogram_distance,
    similarity,
)


def draw_patches(seed: int, side: int = 160) -> np.ndarray:
    """Smooth patches of grey, other ones for every seed: uint8 (side, side, 3)."""
    coarse = np.random.default_rng(seed).normal(0, 1, (9, 9)).astype(np.float32)
    smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    grey = np.clip(110 + 45 * smooth, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return Gallery(np.stack([comparison_view(draw_patches(seed)) for seed in range(20)]))


@pytest.mark.parametrize("change", ["none", "darker", "flatter", "mirrored", "larger"])
def test_a_copy_is_found_whatever_was_done_to_it(gallery, change):
    image = draw_patches(7)
    changed = {
        "none": image,
        "darker": (image * 0.6).astype(np.uint8),
        "flatter": (image * 0.4 + 120).astype(np.uint8),
        "mirrored": image[:, ::-1],
        "larger": cv2.resize(image, (300, 340)),
    }[change]
    match = gallery.nearest(comparison_view(changed))
    assert match.index == 7 and match.similarity > 0.98
    assert match.mirrored == (change == "mirrored")


def test_another_image_is_no_copy(gallery):
    assert gallery.nearest(comparison_view(draw_patches(99))).similarity < 0.7


def test_the_second_stage_agrees_with_the_similarity_of_two(gallery):
    view, mixed = (
        comparison_view(draw_patches(3)),
        comparison_view((0.5 * draw_patches(3) + 0.5 * draw_patches(50)).astype(np.uint8)),
    )
    match = gallery.nearest(mixed)
    assert match.index == 3 and 0.3 < match.similarity < 0.95
    assert match.similarity == pytest.approx(similarity(view, mixed), abs=1e-5)


def test_similarity_falls_as_more_is_changed():
    image, other = draw_patches(3), draw_patches(50)
    shares = [
        similarity(comparison_view(image), comparison_view((image * (1 - s) + other * s).astype(np.uint8)))
        for s in (0, 0.2, 0.5)
    ]
    assert shares[0] > shares[1] > shares[2]


def test_an_image_of_one_grey_has_a_view():
    flat = np.full((40, 30, 3), 80, np.uint8)
    assert (comparison_view(flat) == 128).all() and similarity(
        comparison_view(flat), comparison_view(flat)
    ) == pytest.approx(1)


def test_the_histogram_distance_is_in_grey_levels():
    image = np.clip(draw_patches(0), 30, 200)
    near, far = grey_quantiles(image + 5), grey_quantiles(image + 40)
    assert histogram_distance(grey_quantiles(image), np.stack([near, far])) == pytest.approx([5, 40], abs=0.01)


def test_the_histogram_distance_is_wassersteins():
    from scipy.stats import wasserstein_distance

    first, second = draw_patches(0), (draw_patches(1) * 0.5 + 20).astype(np.uint8)
    expected = wasserstein_distance(first[..., 0].ravel(), second[..., 0].ravel())
    measured = histogram_distance(grey_quantiles(first), grey_quantiles(second)[None])[0]
    assert measured == pytest.approx(expected, rel=0.02)


def test_edges_agree_with_themselves_at_any_size_and_not_with_others():
    image = draw_patches(0)
    assert edge_agreement(image, cv2.resize(image, (320, 320))) > 0.9
    assert edge_agreement(image, draw_patches(1)) < 0.5
