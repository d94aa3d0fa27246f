"""The paper's model to the parameter, the slips of its released code, and their mending."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.published.model import (
    CORRECTED,
    PAPER,
    PublishedSettings,
    ViewTransform,
    build_published_head,
    find_head_preset,
    head_config,
    load_published_features,
    prepare_image,
    prepare_mask,
    published_loss,
    read_sentences,
    sample_transform,
    transform_example,
    view_transforms,
)

from .adm_reference import TINY, random_weights
from .test_adm import converted


def test_monuseg_has_the_papers_number_of_trainable_parameters():
    head = build_published_head("monuseg")
    assert sum(p.numel() for p in head.parameters() if p.requires_grad) == 9_683_234


def test_qata_has_the_papers_number_of_trainable_parameters():
    head = build_published_head("qata")
    assert sum(p.numel() for p in head.parameters() if p.requires_grad) == 10_862_882


def test_initial_values_are_the_papers_and_follow_the_seed():
    head = build_published_head("monuseg", seed=3)
    for layer in head.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.weight.numel() > 5000:
            assert abs(layer.weight.std().item() - 0.02) < 0.001 and abs(layer.weight.mean().item()) < 0.001
        if isinstance(layer, nn.BatchNorm2d):
            assert 0 < layer.weight.std() < 0.04 and abs(layer.weight.mean() - 1) < 0.02
    again, other = build_published_head("monuseg", seed=3), build_published_head("monuseg", seed=4)
    assert torch.equal(again.attention.linear.weight, head.attention.linear.weight)
    assert not torch.equal(other.attention.linear.weight, head.attention.linear.weight)


def test_a_converted_backbone_is_read_at_the_presets_blocks(tmp_path):
    features = load_published_features(converted(random_weights(TINY), tmp_path), "qata")
    assert find_head_preset("qata").blocks == (4, 6, 8, 12) and features.timesteps == (50, 150, 250)
    assert features.blocks == (
        "up_blocks.1.attentions.1", "up_blocks.2.attentions.0", "up_blocks.2.upsamplers.0", "up_blocks.4.resnets.0"
    )  # fmt: skip
    assert not features.with_coordinates and not any(parameter.requires_grad for parameter in features.parameters())
    with pytest.raises(EmitDiffError, match="monuseg, qata"):
        find_head_preset("kvasir")


def test_sentences_as_published_and_as_meant(text_encoder):
    texts = ["left lung", "a longer sentence about the left lung and the upper part of the right lung"]
    tokens, mask = read_sentences(text_encoder, texts, PAPER)
    assert tokens.shape[:2] == (2, 10) and mask is None
    tokens, mask = read_sentences(text_encoder, texts)
    assert 10 < tokens.shape[1] <= 32 and mask[0].sum() < mask[1].sum()
    torch.testing.assert_close(tokens[:1, : mask[0].sum()], read_sentences(text_encoder, texts[:1])[0])


def test_channels_are_reversed_only_as_published():
    image = np.zeros((40, 60, 3), np.uint8)
    image[..., 0] = 255
    assert prepare_image(image, PAPER)[0, :, 0, 0].tolist() == [-1, -1, 1]
    assert prepare_image(image)[0, :, 0, 0].tolist() == [1, -1, -1]
    assert prepare_image(image, PublishedSettings(size=(64, 96))).shape == (1, 3, 64, 96)
    with pytest.raises(EmitDiffError, match="multiples of 32"):
        prepare_image(image, PublishedSettings(size=(100, 64)))


def test_bilinear_masks_dilate_and_nearest_ones_do_not():
    rows, columns = np.mgrid[:512, :512]
    centres = np.random.default_rng(0).uniform(0, 512, (150, 2))
    mask = sum((rows - y) ** 2 + (columns - x) ** 2 < 100 for y, x in centres).clip(max=1).astype(np.uint8)
    dilated, nearest = prepare_mask(mask, PAPER), prepare_mask(mask)
    assert (dilated >= nearest).all() and dilated.dtype == torch.int64
    assert dilated.float().mean() > 1.04 * mask.mean()
    assert abs(nearest.float().mean() - mask.mean()) < 0.01 * mask.mean()


def test_sentences_are_rewritten_unless_as_published():
    image, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    image[0, 0], mask[0, 0] = 9, 1
    for settings, said in ((CORRECTED, "upper right"), (PAPER, "upper left")):
        seen, labels, text = transform_example(image, mask, "upper left", ViewTransform(mirror=True), settings)
        assert seen[0, -1, 0] == 9 and labels[0, -1] == 1 and text == said


def test_small_rotations_are_drawn_once_and_leave_the_sentence_alone():
    settings = PublishedSettings(views=3, turns=(0,))
    turns, tilts = view_transforms("images/a.png", settings)
    assert turns == [ViewTransform(), ViewTransform(mirror=True)] and len({way.degrees for way in tilts}) == 3
    assert all(-20 <= way.degrees <= 20 for way in tilts) and view_transforms("images/a.png", settings)[1] == tilts
    assert view_transforms("images/b.png", settings)[1] != tilts and view_transforms("images/a.png", CORRECTED)[1] == []
    rng = np.random.default_rng(0)
    drawn = [sample_transform("images/a.png", settings, rng) for _ in range(400)]
    assert set(drawn) == {*turns, *tilts} and 60 < sum(way in tilts for way in drawn) < 140


def test_a_tilted_mask_stays_on_its_picture():
    rows, columns = np.mgrid[:96, :128]
    mask = 3 * ((abs(rows - 30) < 12) & (abs(columns - 90) < 20)).astype(np.uint8)
    image = np.repeat(60 * mask[..., None], 3, axis=2)
    seen, labels, text = transform_example(image, mask, "upper right", ViewTransform(degrees=15.0))
    assert set(np.unique(labels)) == {0, 3} and text == "upper right" and labels.shape == mask.shape
    assert ((seen[..., 0] > 90) == (labels == 3)).mean() > 0.99
    assert (labels == 3)[:20].sum() > (mask == 3)[:20].sum()  # to the left: what is on the right goes up


def test_a_head_takes_its_widths_from_the_backbone():
    assert head_config("monuseg", (1536, 1536, 768, 768)) == find_head_preset("monuseg").head
    assert head_config("qata", (3072, 1536, 1536, 768)) == find_head_preset("qata").head
    assert head_config("qata", (96, 48, 48, 24), 32).dim == 24
    with pytest.raises(EmitDiffError, match="bring 96, 48, 40, 24 channels"):
        head_config("qata", (96, 48, 40, 24))


def test_the_loss_is_cross_entropy_and_dice():
    truth = torch.zeros(1, 8, 8, dtype=torch.long)
    truth[:, 2:5, 2:6] = 1
    perfect = 40 * torch.stack([1 - truth, truth], dim=1).float() - 20
    assert published_loss(perfect, truth).item() < 1e-4
    assert published_loss(-perfect, truth).item() > 10
    logits = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    raw = published_loss(logits, truth, PAPER) - functional.cross_entropy(logits, truth)
    classes = [(logits[:, k], (truth == k).float()) for k in (0, 1)]
    dice = [1 - 2 * (s * t).sum() / ((s * s).sum() + (t * t).sum()) for s, t in classes]
    torch.testing.assert_close(raw, 1.5 * sum(dice) / 2, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(published_loss(logits, truth), published_loss(logits, truth, PAPER))
