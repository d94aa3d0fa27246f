import json

import numpy as np
import pytest
import torch

from emitdiff.datasets import split_by_group
from emitdiff.errors import EmitDiffError
from emitdiff.segmentation import backbone, examples, training
from emitdiff.segmentation.targets import BY_PHRASE, asked_for
from emitdiff.segmentation.training import TrainSegmentation, train_segmentation

from .conftest import CHANNELS, disc


def test_images_are_read_at_the_training_resolution(lesions):
    (images,) = examples.read_labelled([lesions], 128)
    assert len(images) == 6
    assert images[0].image.shape == (128, 144, 3) and images[0].masks["breast lesion"].shape == (128, 144)
    assert not images[-1].masks["breast lesion"].any()


def test_image_and_mask_are_altered_together(lesions):
    (images,) = examples.read_labelled([lesions], 64)
    for seed in range(8):
        image, masks, _ = examples.altered(images[0], 64, np.random.default_rng(seed))
        mask = masks["breast lesion"]
        assert image.shape == (64, 64, 3) and mask.shape == (64, 64) and mask.any()
        grey = image.mean(-1)
        assert grey[mask].mean() < grey[~mask & (grey > 0)].mean()


def test_lungs_are_never_mirrored():
    info = examples.DatasetInfo("x", "X-ray", "chest", {"background": 0, "lung": 1})
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 40:] = 250
    labelled = examples.LabelledImage(image, {"lung": disc((64, 64), (32, 50), 8)}, info)
    for seed in range(30):
        altered = examples.altered(labelled, 64, np.random.default_rng(seed))[0]
        assert altered[:, 44:].mean() > altered[:, :20].mean()


def test_questions_about_what_is_and_what_is_not_there(lesions):
    sets = examples.read_labelled([lesions], 64)
    images, questions = examples.draw_batch(sets, 20, 64, np.random.default_rng(0))
    assert images.shape == (20, 3, 64, 64) and images.min() >= -1 and images.max() <= 1
    assert [question.index for question in questions] == [i for i in range(20) for _ in range(3)]
    assert any(question.text == "" for question in questions)
    elsewhere = [q for q in questions if asked_for(q.text) not in (None, BY_PHRASE["breast lesion"])]
    assert elsewhere and not any(question.mask.any() for question in elsewhere)


def test_windows_lie_inside_and_mostly_hold_the_target():
    rng, mask = np.random.default_rng(0), disc((64, 64), (50, 8), 5)
    hits = 0
    for _ in range(100):
        row, column = examples.window_of(mask, 8, rng)
        assert 0 <= row <= 4 and 0 <= column <= 4
        hits += mask[row * 8 : row * 8 + 32, column * 8 : column * 8 + 32].any()
    assert hits > 70


def test_windows_cut_the_same_part_of_every_scale():
    image = torch.arange(16.0).view(1, 1, 1, 16).expand(1, 1, 16, 16)
    parts = [torch.nn.functional.avg_pool2d(image, 4), image]
    question = examples.Question(0, "", np.zeros((16, 16), bool))
    coarse, fine = training.cropped(parts, [question], [(0, 2)])
    assert coarse.shape[-1] == 2 and fine.shape[-1] == 8
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(fine, 4), coarse)


def test_loss_falls_towards_the_truth_and_forgives_nothing_on_empty_masks():
    mask = torch.zeros(1, 8, 8)
    mask[:, 2:5, 2:5] = 1
    right = torch.stack([-8 * (2 * mask - 1), 8 * (2 * mask - 1)], 1)
    assert training.segmentation_loss(right, mask) < 0.05 < training.segmentation_loss(-right, mask)
    empty = torch.zeros(1, 8, 8)
    assert training.segmentation_loss(right, empty) > 1


def test_all_stages_resume_and_load(lesions, tmp_path, monkeypatch):
    from emitdiff.segmentation.pipeline import load_segmenter

    build = backbone.build_backbone
    monkeypatch.setattr(backbone, "build_backbone", lambda sample_size: build(CHANNELS, sample_size))
    settings = {"datasets": (lesions.folder,), "out": tmp_path / "out", "resolution": 64, "batch": 1}
    folder = train_segmentation(TrainSegmentation(**settings, minutes=0.002))
    first = torch.load(tmp_path / "out" / "head" / "state.pt", weights_only=True)
    train_segmentation(TrainSegmentation(**settings, minutes=first["seconds"] / 60 + 0.002, stage="head"))
    assert torch.load(tmp_path / "out" / "head" / "state.pt", weights_only=True)["step"] > first["step"]
    record = json.loads((folder / "training.json").read_text())
    assert record["datasets"][0]["images"] == len(split_by_group(lesions, 0.2, 0)[0])
    assert str(tmp_path) not in json.dumps(record)
    segment = load_segmenter(str(folder))
    assert segment(lesions[0].image, "breast lesion").mask.shape == (64, 72)
    assert segment.card == record


@pytest.mark.parametrize(
    "change, answer", [({"resolution": 100}, "multiple of 64"), ({"stage": "head"}, "--stage backbone")]
)
def test_what_cannot_be_trained_is_said(lesions, tmp_path, change, answer):
    with pytest.raises(EmitDiffError, match=answer):
        train_segmentation(TrainSegmentation((lesions.folder,), tmp_path, 0.01, **change))


def test_scaling_is_folded_into_the_saved_head(features, head):
    maps = features(torch.rand(3, 3, 64, 64))
    scaling = training.ChannelScaling(maps)
    scaled = scaling(maps)
    torch.testing.assert_close(scaled[0].std(dim=(0, 2, 3)), torch.ones(scaled[0].shape[1]), atol=1e-2, rtol=1e-2)
    plain = scaling.folded(head).project(maps)
    for one, other in zip(plain, head.project(scaled), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
