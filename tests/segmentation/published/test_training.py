"""The paper's head learns from features on disk, goes on after a stop, and leaves the backbone alone."""

from dataclasses import replace

import pytest
import torch

from emitdiff.datasets.folder import open_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.model.textdiff import HeadConfig, TextDiff
from emitdiff.segmentation.published.feature_cache import FeatureCache
from emitdiff.segmentation.published.model import CORRECTED, PAPER
from emitdiff.segmentation.published.training import best_epoch, train_published_head, validation_dice

SMALL = replace(CORRECTED, size=(64, 64), turns=(0,), batch=3, epochs=6, learning_rate=3e-3)


@pytest.fixture
def parts(features, text_encoder, lesions, tmp_path):
    """A fresh small head on each call, the cache of a tiny backbone, words, and five labelled images."""
    cache = FeatureCache(features, tmp_path / "cache")
    channels = tuple(part.shape[1] for part in cache(torch.zeros(1, 3, 64, 64)))
    config = HeadConfig(channels, tuple(range(len(channels))), 16, text_encoder.dim, 2, 8, (8, 4), 2)

    def fresh():
        torch.manual_seed(0)
        return TextDiff(config)

    return fresh, cache, text_encoder.requires_grad_(False), list(open_dataset(lesions.folder))[:5]


@pytest.mark.parametrize("settings", [SMALL, replace(PAPER, size=(64, 64), turns=(0,), epochs=6, learning_rate=3e-3)])
def test_the_loss_falls_and_later_epochs_do_not_touch_the_backbone(parts, tmp_path, settings):
    fresh, cache, encoder, samples = parts
    epochs = train_published_head(fresh(), cache, encoder, samples, tmp_path / "out", settings)
    losses = [epoch.loss for epoch in epochs]
    assert len(losses) == 6 and losses[-1] < losses[0] - 0.1
    assert cache.computed <= 1 + 2 * len(samples)  # the blank one of the fixture, then each image and its mirror
    assert TextDiff.load(tmp_path / "out" / "head").config == fresh().config


def test_a_stopped_training_ends_at_the_same_weights(parts, tmp_path):
    fresh, cache, encoder, samples = parts
    whole, stopped, resumed = fresh(), fresh(), fresh()
    one = train_published_head(whole, cache, encoder, samples, tmp_path / "whole", SMALL)
    train_published_head(stopped, cache, encoder, samples, tmp_path / "two", replace(SMALL, epochs=2))
    two = train_published_head(resumed, cache, encoder, samples, tmp_path / "two", SMALL)
    assert one == two
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_the_epoch_with_the_best_validation_dice_is_kept(parts, tmp_path):
    fresh, cache, encoder, samples = parts
    settings, head = replace(SMALL, epochs=5, learning_rate=0.03), fresh()
    epochs = train_published_head(head, cache, encoder, samples[:3], tmp_path / "out", settings, samples[3:])
    dices = [epoch.dice for epoch in epochs]
    assert best_epoch(epochs) == 1 + dices.index(max(dices)) < 5  # at this rate the last is not the best
    assert validation_dice(head, cache, encoder, samples[3:], settings) == max(dices)
    one = train_published_head(fresh(), cache, encoder, samples[:3], tmp_path / "no", replace(settings, epochs=1))
    assert one[0].dice is None and best_epoch(one) == 1 and one[0].loss == epochs[0].loss


def test_a_damaged_state_is_a_sentence(parts, tmp_path):
    fresh, cache, encoder, samples = parts
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "training.pt").write_bytes(b"half")
    with pytest.raises(EmitDiffError, match="is damaged"):
        train_published_head(fresh(), cache, encoder, samples, tmp_path, SMALL)


def test_unusable_images_are_answered_with_a_sentence(parts, tmp_path):
    fresh, cache, encoder, samples = parts
    with pytest.raises(EmitDiffError, match="No labelled images"):
        train_published_head(fresh(), cache, encoder, [], tmp_path / "out", SMALL)
    empty = [replace(samples[0], mask=samples[0].mask * 0)]
    with pytest.raises(EmitDiffError, match="No validation image shows the target"):
        train_published_head(fresh(), cache, encoder, samples, tmp_path / "out", SMALL, empty)
    with pytest.raises(EmitDiffError, match="class 7"):
        train_published_head(fresh(), cache, encoder, [replace(samples[0], mask=samples[0].mask * 7)], tmp_path, SMALL)
