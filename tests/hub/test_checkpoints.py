"""Whole checkpoints from a stand-in of the Hub, through huggingface_hub's and diffusers' own loaders."""

import shutil

import pytest
import torch
from huggingface_hub import constants

from emitdiff import checkpoints, devices
from emitdiff.checkpoints import checkpoint_status, fetch_weights, find_checkpoint, local_folder
from emitdiff.errors import EmitDiffError
from emitdiff.progress import Progress
from emitdiff.synthesis import loading
from emitdiff.synthesis.hed import weights as hed_weights
from emitdiff.synthesis.loading import fetch_synthesizer, load_synthesizer, read_pipeline


@pytest.fixture(scope="module")
def halves(tiny_synthesis_folder, tmp_path_factory):
    """The tiny weights, base and ControlNet apart and each in both precisions, as repositories have them."""
    from diffusers import StableDiffusionControlNetPipeline

    base, control = tmp_path_factory.mktemp("base") / "all", tmp_path_factory.mktemp("control") / "all"
    shutil.copytree(tiny_synthesis_folder, base)
    pipe = StableDiffusionControlNetPipeline.from_pretrained(tiny_synthesis_folder).to(dtype=torch.float16)
    pipe.save_pretrained(base, variant="fp16")
    shutil.copytree(base / "controlnet", control)
    shutil.rmtree(base / "controlnet")
    return base, control


@pytest.fixture
def sd15(hub, halves, monkeypatch, tmp_path):
    """`sd15-hed` on the stand-in, tiny; the ControlNet in full precision alone, as its repository has it."""
    monkeypatch.setenv("EMITDIFF_HED", str(tmp_path / "hed"))
    base, control = halves
    added = hub.add(checkpoints.BASE_SD15[0], base)
    monkeypatch.setattr(checkpoints, "BASE_SD15", (checkpoints.BASE_SD15[0], added.commit))
    control = hub.add(checkpoints.HED[0], control)
    control.files = {path: file for path, file in control.files.items() if "fp16" not in path}
    hed = hub.add(hed_weights.ANNOTATORS[0], {"ControlNetHED.pth": b"pickle", "other.pth": b"other"})
    monkeypatch.setattr(hed_weights, "ANNOTATORS", (hed_weights.ANNOTATORS[0], hed.commit))
    return find_checkpoint("sd15-hed", "synthesis")


@pytest.mark.parametrize(("half", "files"), [(True, "fp16"), (False, "plain")])
def test_a_named_checkpoint_is_fetched_in_the_precision_of_the_device(hub, sd15, monkeypatch, half, files):
    monkeypatch.setattr(loading, "paints_in_half", lambda device: half)
    assert checkpoint_status(sd15) == "not downloaded (5.7 GB)"
    loaded = load_synthesizer("sd15-hed", "cpu", Progress())
    fetched = {path.rsplit("/file/")[1] for _, path, _ in hub.asked("/store/")}
    unet = "unet/diffusion_pytorch_model.fp16.safetensors" if half else "unet/diffusion_pytorch_model.safetensors"
    assert unet in fetched and "diffusion_pytorch_model.safetensors" in fetched and "ControlNetHED.pth" in fetched
    assert all(("fp16" in path) == half for path in fetched if "/" in path) and "other.pth" not in fetched
    assert checkpoint_status(sd15) == "ready (downloaded)" and hed_weights.hed_network_name() == "original"
    assert loaded.name == "sd15-hed" and loaded.checkpoint_card.detector == "hed"


def test_half_precision_files_give_the_same_networks_rounded(sd15, monkeypatch):
    monkeypatch.setattr(loading, "paints_in_half", lambda device: True)
    fetch_synthesizer("sd15-hed", "cpu", Progress())
    rounded = read_pipeline(sd15, half=True).unet.state_dict()
    fetch_weights(sd15, half=False, progress=Progress())
    full = read_pipeline(sd15).unet.state_dict()
    assert all(value.dtype == torch.float32 for value in rounded.values())
    assert all(torch.equal(value, full[name].half().float()) for name, value in rounded.items())
    assert not all(torch.equal(value, full[name]) for name, value in rounded.items())


def test_nothing_is_asked_of_the_hub_once_a_pinned_checkpoint_is_here(hub, sd15, monkeypatch):
    fetch_weights(sd15, progress=Progress())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert load_synthesizer("sd15-hed", "cpu").name == "sd15-hed"
    assert hub.requests == []


def test_a_download_on_the_command_line_is_told_without_a_terminal(sd15, capsys):
    fetch_weights(sd15)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Downloading sd15-hed: 0.0 of ") and lines[-1].endswith(" MB")
    assert len(lines) < 10, "not one for every piece"


def test_what_is_there_is_taken_where_the_other_precision_was_wanted(sd15, hub):
    fetch_weights(sd15, half=True, progress=Progress())
    hub.requests.clear()
    assert local_folder(sd15).is_dir() and checkpoint_status(sd15) == "ready (downloaded)"
    assert hub.requests == []


def test_a_failing_hed_does_not_keep_the_weights_away(hub, sd15):
    hub.repositories.pop(hed_weights.ANNOTATORS[0])
    assert load_synthesizer("sd15-hed", "cpu", Progress()).name == "sd15-hed"
    assert hed_weights.hed_network_name() == "hed-mini"


def test_a_name_that_nobody_has_may_have_meant_a_folder(hub):
    with pytest.raises(EmitDiffError, match="no folder of the name weights/mine here either.*train-synthesis"):
        local_folder(find_checkpoint("weights/mine", "synthesis"))
    hub.add("weights/mine", {"a.json": b"{}"}, refused="gated")
    with pytest.raises(EmitDiffError, match="gated") as caught:
        local_folder(find_checkpoint("weights/mine", "synthesis"))
    assert "no folder" not in str(caught.value)


def test_devices_that_compute_in_half_precision_are_known(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert devices.paints_in_half(torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert not devices.paints_in_half(torch.device("cpu")) and not devices.paints_in_half(torch.device("mps"))
