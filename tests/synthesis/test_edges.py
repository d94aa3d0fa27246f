import numpy as np
import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.edges import boundary_of, control_image, detect_edges, edge_f1, edge_ridges


@pytest.mark.parametrize("detector", ["soft", "canny"])
def test_edges_lie_on_the_disc(disc, detector):
    image, mask = disc
    edges = detect_edges(image, detector)
    assert edges.shape == mask.shape and edges.dtype == np.uint8
    rim = boundary_of(mask) > 0
    assert edges[rim].mean() > 3 * edges[:8].mean()


def test_soft_edges_of_an_empty_image_are_black():
    assert detect_edges(np.full((40, 50, 3), 90, np.uint8)).max() == 0


def test_low_noise_stays_dim_beside_a_real_edge():
    rng = np.random.default_rng(0)
    noise = np.clip(100 + rng.normal(0, 1, (64, 64, 1)), 0, 255).astype(np.uint8).repeat(3, 2)
    step = noise.copy()
    step[:, 32:] = 200
    assert detect_edges(noise).mean() < 0.5 * detect_edges(step).max()


def test_higher_low_threshold_hides_weak_edges(disc):
    image, _ = disc
    assert detect_edges(image, low=100, high=200).mean() < detect_edges(image).mean()


def test_joined_layout_is_the_papers_formula(disc):
    image, mask = disc
    edges = detect_edges(image)
    joined = control_image(edges, mask, True, "joined")
    expected = np.clip(edges.astype(int) + boundary_of(mask), 0, 255)
    outside = boundary_of(mask) == 0
    assert np.array_equal(joined[outside][:, 0], edges[outside])
    assert np.array_equal(joined[..., 0], expected) and np.array_equal(joined[..., 0], joined[..., 2])


def test_layered_layout_keeps_edges_rim_and_inside_apart(disc):
    image, mask = disc
    layered = control_image(detect_edges(image), mask, True, "layered")
    assert np.array_equal(layered[..., 2] > 0, mask > 0)
    assert np.array_equal(layered[..., 1], boundary_of(mask))
    assert control_image(detect_edges(image), mask, False, "layered")[..., 1:].max() == 0


def test_edge_f1_meets_a_shift_within_tolerance_only(disc):
    image, _ = disc
    asked = edge_ridges(image)
    assert edge_f1(asked, asked) == 1.0
    line = np.zeros((64, 64), bool)
    line[:, 20] = True
    assert edge_f1(line, np.roll(line, 2, 1), tolerance=2) == 1.0
    assert edge_f1(line, np.roll(line, 6, 1), tolerance=2) == 0.0
    assert edge_f1(np.zeros_like(line), np.zeros_like(line)) == 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"detector": "sobel"}, "choose one of soft, canny, hed, hed-mini"),
        ({"low": 120, "high": 50}, "expected 0 <= low < high <= 255"),
    ],
)
def test_bad_settings_are_answered_with_a_sentence(disc, arguments, words):
    with pytest.raises(EmitDiffError, match=words):
        detect_edges(disc[0], **arguments)


def test_mask_of_another_size_is_refused(disc):
    with pytest.raises(EmitDiffError, match="export the mask at the size of its image"):
        control_image(detect_edges(disc[0]), np.zeros((10, 12), np.uint8), True, "joined")
