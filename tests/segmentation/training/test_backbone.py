import numpy as np
import pytest
import torch

from emitdiff.segmentation.model import features
from emitdiff.segmentation.training import backbone, schedule

from ..conftest import CHANNELS


def test_folding_loses_nothing():
    image = torch.randn(2, 3, 8, 6)
    folded = features.fold(image, 2)
    assert folded.shape == (2, 12, 4, 3)
    assert torch.equal(torch.nn.functional.pixel_shuffle(folded, 2), image)
    assert features.fold(image, 1) is image


def test_fold_factor_follows_the_input_channels():
    assert features.fold_factor(backbone.build_backbone(CHANNELS, 64)) == 4
    assert features.fold_factor(backbone.build_backbone(CHANNELS, 64, 1)) == 1


def test_crops_are_square_and_of_the_size_asked():
    rng = np.random.default_rng(0)
    for shape in ((40, 90, 3), (90, 40, 3), (32, 32, 3), (20, 20, 3)):
        for _ in range(4):
            assert backbone.square_crop(np.zeros(shape, np.uint8), 32, rng).shape == (32, 32, 3)


def test_small_squares_come_first_then_mostly_large_ones():
    assert backbone.batch_plan(0.1, 1, 256) == (128, 16)
    sides = [backbone.batch_plan(0.9, step, 256)[0] for step in range(5)]
    assert sides.count(256) == 4


def test_learning_rate_warms_up_and_falls():
    assert schedule.learning_rate(1.0, 0, 0.0) == pytest.approx(0.01)
    assert schedule.learning_rate(1.0, 500, 0.0) == pytest.approx(1.0)
    assert schedule.learning_rate(1.0, 500, 1.0) == pytest.approx(0.02)


def test_training_stops_resumes_and_leaves_a_stock_model(tmp_path, monkeypatch):
    from diffusers import UNet2DModel

    monkeypatch.setattr(backbone, "build_backbone", lambda sample_size: _tiny(sample_size))
    images = [np.full((70, 80, 3), value, np.uint8) for value in (10, 200)]
    backbone.train_backbone(images, tmp_path, minutes=0.001, resolution=64)
    first = torch.load(tmp_path / "state.pt", weights_only=True)
    average = backbone.train_backbone(images, tmp_path, minutes=first["seconds"] / 60 + 0.001, resolution=64)
    second = torch.load(tmp_path / "state.pt", weights_only=True)
    assert second["steps"] > first["steps"] and second["seconds"] > first["seconds"]
    loaded = UNet2DModel.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), average.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in average.parameters())


_build = backbone.build_backbone


def _tiny(sample_size):
    return _build(CHANNELS, sample_size)
