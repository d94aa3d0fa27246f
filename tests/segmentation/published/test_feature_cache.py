"""Features come from disk the second time, are never stale, and a stopped run goes on."""

import pytest
import torch

from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.model.features import DiffusionFeatures, weights_hash
from emitdiff.segmentation.published.feature_cache import FeatureCache, disk_size
from emitdiff.segmentation.training.backbone import build_backbone, build_scheduler

from ..conftest import CHANNELS


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return DiffusionFeatures(
        build_backbone(CHANNELS, 64), build_scheduler(), (0, 4, 7), (20, 200), with_coordinates=True
    )


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_same_maps_and_the_backbone_is_asked_once(backbone, images, tmp_path):
    cache = FeatureCache(backbone, tmp_path)
    for found, truth in zip(cache(images), backbone(images), strict=True):
        assert found.dtype == torch.float16 and found.shape == truth.shape
        torch.testing.assert_close(found.float(), truth, atol=1e-3, rtol=2e-3)
    assert cache.computed == 2 * 2
    again = FeatureCache(backbone, tmp_path)
    passes = []
    backbone.unet.register_forward_pre_hook(lambda *arguments: passes.append(1))
    for first, second in zip(cache(images), again(images.flip(0)), strict=True):
        assert torch.equal(first, second.flip(0))
    assert again.computed == 0 and cache.computed == 4 and not passes


def test_one_file_for_an_image_a_block_and_a_step(backbone, images, tmp_path):
    cache = FeatureCache(backbone, tmp_path)
    maps = cache(images)
    files = list(tmp_path.iterdir())
    assert len(files) == 2 * 3 * 2 and {path.suffix for path in files} == {".safetensors"}
    expected = disk_size([part.shape[1] - 5 for part in maps], [part.shape[-2:] for part in maps], 2)
    assert expected <= sum(path.stat().st_size for path in files) < expected + 200 * len(files)


@pytest.mark.parametrize("change", ["weights", "noise", "image", "step", "block"])
def test_nothing_stale_is_read(backbone, images, tmp_path, change):
    FeatureCache(backbone, tmp_path)(images[:1])
    choice = {"blocks": (0, 4, 7), "timesteps": (20, 200), "seed": 0}
    choice |= {"noise": {"seed": 1}, "step": {"timesteps": (20, 201)}, "block": {"blocks": (0, 4, 6)}}.get(change, {})
    if change == "weights":
        with torch.no_grad():
            backbone.unet.conv_in.bias[0] += 1e-3
    if change == "image":
        images[0, 0, 0, 0] += 1e-3
    other = DiffusionFeatures(backbone.unet, backbone.scheduler, with_coordinates=True, **choice)
    cache = FeatureCache(other, tmp_path)
    for found, truth in zip(cache(images[:1]), other(images[:1]), strict=True):
        torch.testing.assert_close(found.float(), truth, atol=1e-3, rtol=2e-3)
    assert cache.computed == (1 if change == "step" else 2)


def test_a_stopped_run_resumes_and_a_damaged_file_is_made_again(backbone, images, tmp_path):
    cache = FeatureCache(backbone, tmp_path)
    whole = cache(images)
    cache.paths(images[:1], 20)[1].unlink()
    damaged = cache.paths(images[1:], 200)[0]
    damaged.write_bytes(damaged.read_bytes()[:40])
    again = FeatureCache(backbone, tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(whole, again(images), strict=True))
    assert again.computed == 2 and not list(tmp_path.glob("*.partial"))


def test_weights_are_told_apart_by_value_and_by_name():
    torch.manual_seed(0)
    one, two = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    assert weights_hash(one) != weights_hash(two)
    two.load_state_dict(one.state_dict())
    assert weights_hash(one) == weights_hash(two)
    assert weights_hash(torch.nn.Sequential(one)) != weights_hash(one)


def test_a_folder_that_cannot_be_made_is_answered_with_a_sentence(backbone, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EmitDiffError, match="cannot be made"):
        FeatureCache(backbone, tmp_path / "file" / "cache")
