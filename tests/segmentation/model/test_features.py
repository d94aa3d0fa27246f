import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel, UNet2DModel

from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.evaluation import feature_statistics
from emitdiff.segmentation.model.features import DiffusionFeatures, are_valid_sizes, decoder_blocks, sizes_around
from emitdiff.segmentation.training.backbone import build_backbone, build_scheduler

from ..conftest import CHANNELS


def test_one_map_per_block_steps_side_by_side():
    read = DiffusionFeatures(build_backbone(CHANNELS, 64), build_scheduler(), (0, 7), (20, 200, 900))
    coarse, fine = read(torch.rand(2, 3, 64, 96))
    assert coarse.shape[:2] == (2, 32 * 3) and coarse.shape[2:] == (2, 3)
    assert fine.shape[:2] == (2, 8 * 3) and fine.shape[2:] == (16, 24)
    single = DiffusionFeatures(read.unet, read.scheduler, (7,), (200,))(torch.rand(2, 3, 64, 96))
    assert single[0].shape == (2, 8, 16, 24)


def test_coordinates_follow_where_they_are_asked_for(features):
    placed = DiffusionFeatures(features.unet, features.scheduler, features.blocks, (20,), with_coordinates=True)
    image = torch.rand(2, 3, 64, 128)
    for part, plain in zip(placed(image), features(image), strict=True):
        assert torch.equal(part[:, :-5], plain)
        x, y = part[0, -5], part[0, -4]
        assert (x[0].diff() > 0).all() and (y[:, 0].diff() > 0).all()
        assert -1 < x.min() < 0 < x.max() < 1 and x.mean().abs() < 1e-5
        torch.testing.assert_close(part[0, -1], x * y)


def test_maps_are_what_a_plain_forward_computes_there(features):
    image = torch.rand(1, 3, 64, 64)
    seen = {}
    names = dict(features.unet.named_modules())
    hooks = [
        names[block].register_forward_hook(lambda m, i, o, b=block: seen.update({b: o})) for block in features.blocks
    ]
    noise = torch.randn((1, 48, 16, 16), generator=torch.Generator().manual_seed(0))
    step = torch.tensor([20])
    clean = torch.nn.functional.pixel_unshuffle(image, 4)
    with torch.no_grad():
        features.unet(features.scheduler.add_noise(clean, noise, step), step)
    for hook in hooks:
        hook.remove()
    for found, block in zip(features(image), features.blocks, strict=True):
        torch.testing.assert_close(found, seen[block], atol=1e-5, rtol=1e-5)


def test_nothing_is_computed_past_the_last_block_and_no_hook_stays():
    unet = build_backbone(CHANNELS, 64)
    read = DiffusionFeatures(unet, build_scheduler(), ("up_blocks.1.resnets.0",), (20,))
    ran = []
    for name in ("up_blocks.1.resnets.0", "up_blocks.1.resnets.1", "up_blocks.3.resnets.1", "conv_out"):
        unet.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: ran.append(name))
    read(torch.rand(1, 3, 64, 64))
    assert ran == ["up_blocks.1.resnets.0"]
    ran.clear()
    unet(torch.rand(1, 48, 16, 16), 5)
    assert ran[-1] == "conv_out"


def test_the_noise_is_shared_by_all_images_and_fixed_by_the_seed():
    read = DiffusionFeatures(build_backbone(CHANNELS, 64), build_scheduler(), (3,), (500,), seed=1)
    image = torch.rand(1, 3, 64, 64)
    alone = read(image)[0]
    in_batch = read(torch.cat([torch.rand(1, 3, 64, 64), image]))[0][1:]
    torch.testing.assert_close(alone, in_batch, atol=1e-5, rtol=1e-5)
    assert torch.equal(alone, read(image)[0])
    other = DiffusionFeatures(read.unet, read.scheduler, (3,), (500,), seed=2)(image)[0]
    assert not torch.allclose(alone, other)


def test_frozen_bit_for_bit_through_training_of_the_rest(features, head, text_encoder):
    before = {name: value.clone() for name, value in features.state_dict().items()}
    model = torch.nn.ModuleDict({"features": features, "head": head}).train()
    assert not features.unet.training
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        tokens, mask = text_encoder(["liver", "left lung"])
        head(features(torch.rand(2, 3, 64, 64)), tokens, mask).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(value, features.state_dict()[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in features.parameters())


def test_works_on_a_conditional_unet_of_latents():
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=12, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    )  # fmt: skip
    read = DiffusionFeatures(unet, DDPMScheduler(), (0, "up_blocks.1.resnets.0"), (50, 150))
    maps = read(torch.rand(2, 4, 16, 16), encoder_hidden_states=torch.rand(2, 5, 12))
    assert [tuple(part.shape) for part in maps] == [(2, 32, 8, 8), (2, 16, 16, 16)]


def test_decoder_blocks_are_numbered_as_in_the_paper():
    unet = UNet2DModel(
        sample_size=64, in_channels=3, out_channels=6, layers_per_block=2, block_out_channels=[8, 8, 16, 16, 16, 16],
        attention_head_dim=8, norm_num_groups=4, down_block_types=["ResnetDownsampleBlock2D"] * 3
        + ["AttnDownBlock2D"] * 3, up_block_types=["AttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"] * 3,
        resnet_time_scale_shift="scale_shift", upsample_type="resnet", downsample_type="resnet",
    )  # fmt: skip
    blocks = decoder_blocks(unet)
    assert len(blocks) == 18
    assert (blocks[6], blocks[8]) == ("up_blocks.2.attentions.0", "up_blocks.2.upsamplers.0")
    assert (blocks[12], blocks[16]) == ("up_blocks.4.resnets.0", "up_blocks.5.resnets.1")
    parts = DiffusionFeatures(unet, build_scheduler(), (6, 8, 12, 16), (50,))(torch.rand(1, 3, 64, 64))
    assert [part.shape[-1] for part in parts] == [8, 16, 32, 64]


@pytest.mark.parametrize(
    "resolution, sizes",
    [(256, [256, 192, 320]), (192, [192, 128, 256]), (64, [64]), (1024, [1024, 768]), (2048, [2048])],
)
def test_sizes_are_those_the_backbone_takes_each_once(resolution, sizes):
    assert sizes_around(resolution, (1, 0.75, 1.25)) == sizes and are_valid_sizes(sizes, resolution)


@pytest.mark.parametrize("sizes", [None, 256, "256", ["256"], [0], [192, 256], [256, 100], [256, 2048], [256] * 9])
def test_sizes_of_a_damaged_record_are_told(sizes):
    assert not are_valid_sizes(sizes, 256) and are_valid_sizes([], 256)


@pytest.mark.parametrize("blocks, steps", [((99,), (20,)), (("nowhere",), (20,)), ((0,), ()), ((0,), (1000,))])
def test_bad_choices_are_answered_with_a_sentence(blocks, steps):
    with pytest.raises(EmitDiffError, match="from 0 to"):
        DiffusionFeatures(build_backbone(CHANNELS, 64), build_scheduler(), blocks, steps)


def test_statistics_of_features_weigh_every_block_by_its_channels_alone(features):
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    look, channels = feature_statistics(features), [part.shape[1] for part in features(torch.rand(1, 3, 64, 96))]
    found = look(image)
    assert found.shape == (2 * sum(channels),) and (look(image) == found).all()
    for block, count in zip(np.split(found, np.cumsum([2 * count for count in channels])[:-1]), channels, strict=True):
        assert np.square(block).sum() == pytest.approx(count, rel=0.1)
    assert np.abs(look(255 - image) - found).max() > 0.01
