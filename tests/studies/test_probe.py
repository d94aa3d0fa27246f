import numpy as np
import pytest
import torch
from torch.nn import functional

from emitdiff.studies.probe import best_threshold, fit_probe, pixels_at


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, channels, side, side, generator=generator) for channels, side in ((6, 4), (3, 8))]


def every_place(height, width):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([(columns + 0.5) / width, (rows + 0.5) / height], dim=-1).reshape(-1, 2)


def test_pixels_are_those_of_the_map_upsampled_to_the_image(maps):
    upsampled = functional.interpolate(maps[0], (16, 24), mode="bilinear")
    assert torch.allclose(pixels_at(maps[0], every_place(16, 24)), upsampled[0].flatten(1).T, atol=1e-5)


def test_scores_of_small_maps_are_those_of_upsampled_features(maps):
    pixels = [pixels_at(part, every_place(16, 16)) for part in maps]
    labels = (pixels[0][:, :1] + 0.5 * pixels[1][:, 1:2]) > 0.3
    probe = fit_probe(pixels, labels)
    there = sum(part @ weight.T for part, weight in zip(pixels, probe.weights, strict=True)) + probe.bias
    assert torch.allclose(probe.scores(maps, (16, 16)).flatten(1).T, there - probe.threshold, atol=1e-4)
    assert ((there > probe.threshold) == labels).float().mean() > 0.95


def test_scaling_of_a_channel_changes_nothing(maps):
    pixels = pixels_at(maps[0], every_place(16, 16))
    labels = pixels[:, 2:3] > pixels[:, 3:4]
    found = [fit_probe([part], labels).scores([whole], (16, 16)) > 0
             for part, whole in ((pixels, maps[0]), (100 * pixels, 100 * maps[0]))]  # fmt: skip
    assert (found[0] == found[1]).float().mean() > 0.99


def test_the_threshold_has_the_best_dice_of_all():
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.3
    scores = labels + rng.normal(0, 0.7, 200)

    def dice(threshold):
        found = scores > threshold
        return 2 * (found & labels).sum() / (found.sum() + labels.sum())

    chosen = best_threshold(torch.from_numpy(scores), torch.from_numpy(labels)).item()
    assert dice(chosen) == pytest.approx(max(dice(score - 1e-9) for score in scores))


def test_what_was_never_seen_is_found_nowhere(maps):
    pixels = pixels_at(maps[0], every_place(8, 8))
    probe = fit_probe([pixels], torch.stack([pixels[:, 0] > 0, torch.zeros(64, dtype=torch.bool)], dim=1))
    found = probe.scores(maps[:1], (8, 8)) > 0
    assert found[0].any() and not found[1].any()
