import numpy as np
import pytest
import torch

from emitdiff.datasets.folder import open_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.studies.networks import NETWORKS, build_network
from emitdiff.studies.unet_baseline import (
    ImageSet,
    Mixture,
    TrainSegmenter,
    augment_batch,
    class_labels,
    measure_segmenter,
    read_pictures,
    shuffled_batches,
    standardised,
    summary,
    train_segmenter,
)

SMALL = {"batch": 4, "resolution": 64}


@pytest.fixture(scope="module")
def few(dataset_folder):
    return open_dataset(dataset_folder).subset([0, 3, 6, 9])


@pytest.fixture(scope="module")
def pictures(few):
    return read_pictures(few, 64)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "swin-unetr"])  # SLOWER has that one
def test_every_network_gives_logits_of_the_image_s_size_from_its_seed(name):
    images = torch.zeros(2, 3, 64, 96)
    same, other = (build_network(name, 3, seed).eval() for seed in (0, 1))
    assert same(images).shape == (2, 3, 64, 96)
    assert torch.equal(same(images + 1), build_network(name, 3, 0).eval()(images + 1))
    assert not torch.equal(same(images + 1), other(images + 1))


def test_a_network_that_needs_what_is_not_installed_says_what(monkeypatch):
    monkeypatch.setattr("emitdiff.studies.networks.find_spec", lambda name: None)
    with pytest.raises(EmitDiffError, match=r"pip install 'emitdiff\[study\]'"):
        build_network("swin-unetr", 2)


SLOW = [("attention-unet", 40), ("residual-unet", 200), ("swin-unetr", 60)]
SLOWER = [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]


@pytest.mark.parametrize("network, steps", [("unet", 40), *SLOWER])
def test_four_images_are_learnt_by_heart(few, pictures, network, steps):
    model = train_segmenter(TrainSegmenter(network, steps=steps, **SMALL), 2, pictures)
    measured, rows = measure_segmenter(model, few, pictures)
    assert measured["dice"] > 0.9 and measured["dice_pooled"] > 0.9 and measured["n"] == len(rows) == 4


def test_the_same_seed_gives_the_same_segmenter(pictures):
    settings = TrainSegmenter(steps=3, **SMALL)
    first, second = (train_segmenter(settings, 2, pictures).state_dict() for _ in range(2))
    other = train_segmenter(TrainSegmenter(steps=3, seed=1, **SMALL), 2, pictures).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("mix", ["inputs", "logits", "pool"])
def test_real_and_synthetic_images_are_learnt_together(few, pictures, mix):
    noise = torch.randint(-20, 20, pictures.images.shape, generator=torch.Generator().manual_seed(0))
    painted = ImageSet((pictures.images + noise).clamp(0, 255).byte(), pictures.classes, pictures.names)
    model = train_segmenter(TrainSegmenter(steps=20, mix=mix, **SMALL), 2, pictures, painted)
    assert measure_segmenter(model, few, pictures)[0]["dice"] > 0.7


def test_merged_patches_take_image_and_class_from_the_same_side(pictures):
    painted = ImageSet(255 - pictures.images, 1 - pictures.classes, pictures.names)
    merged = Mixture(pictures, painted, TrainSegmenter(alpha=0.5, patch=16, **SMALL))
    (real, synthetic, mask), classes = merged.batch(np.arange(4), np.random.default_rng(0))
    assert 0.2 < mask.float().mean() < 0.8
    assert torch.equal(real, pictures.images) and torch.equal(synthetic, painted.images)
    assert torch.equal(classes, torch.where(mask[:, 0], pictures.classes, painted.classes))


def test_a_real_image_without_a_synthetic_one_cannot_be_merged(pictures):
    painted = ImageSet(pictures.images[:3], pictures.classes[:3], pictures.names[:3])
    with pytest.raises(EmitDiffError, match="mix as a pool"):
        train_segmenter(TrainSegmenter(steps=1, **SMALL), 2, pictures, painted)


def test_classes_are_channels_in_the_order_of_their_ids(few):
    assert class_labels({"liver": 7, "background": 0, "spleen": 2}) == {"spleen": 1, "liver": 2}
    assert set(read_pictures(few, 64).classes.unique().tolist()) == {0, 1}


def test_every_image_comes_once_before_any_comes_again():
    batches = list(shuffled_batches(10, 4, 5, np.random.default_rng(0)))
    assert [len(batch) for batch in batches] == [4] * 5
    order = np.concatenate(batches)
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10)) and (order[:10] != order[10:]).any()


def test_classical_variation_moves_image_and_mask_together(pictures):
    classes = pictures.classes
    images = classes[:, None].expand(-1, 3, -1, -1).float()
    varied, turned = augment_batch(images, classes, np.random.default_rng(0))
    assert turned.dtype == classes.dtype and not torch.equal(turned, classes)
    inside = varied[:, 0] > varied.mean(dim=(1, 2, 3))[:, None, None]
    assert (inside == turned.bool()).float().mean() > 0.97


def test_brightness_and_contrast_do_not_reach_the_network(pictures):
    images = pictures.images.float()
    assert torch.allclose(standardised(images), standardised(images * 0.5 + 30), atol=1e-3)


def test_images_without_the_label_are_counted_apart():
    with_label = {"empty": False, "dice": 0.5, "precision": 1.0, "recall": 0.4, "hd95": 2.0, "assd": 1.0}
    rows = [with_label | {"overlap": 10, "total": 40}]
    rows += [{"empty": True, "drawn": drawn, "overlap": 0, "total": 10 * drawn} for drawn in (True, False, False)]
    measured = summary(rows)
    assert (measured["n"], measured["n_empty"]) == (1, 3)
    assert measured["dice"] == 0.5 and measured["dice_all"] == pytest.approx(2.5 / 4)
    assert measured["dice_pooled"] == pytest.approx(20 / 50) and measured["false_mask_rate"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("resolution", [0, 32, 100])
def test_a_resolution_no_network_takes(pictures, resolution):
    with pytest.raises(EmitDiffError, match="multiple of 32"):
        train_segmenter(TrainSegmenter(resolution=resolution), 2, pictures)


def test_a_label_that_fills_the_picture_fills_it_after_variation():
    full = torch.ones(4, 32, 32, dtype=torch.uint8)
    assert bool(augment_batch(torch.rand(4, 3, 32, 32), full, np.random.default_rng(0))[1].all())
