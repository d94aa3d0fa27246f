from pathlib import Path

import pytest

from emitdiff.checkpoints import (
    checkpoint_status,
    checkpoints_folder,
    controlnet_folder,
    find_checkpoint,
    known_checkpoints,
    local_folder,
)
from emitdiff.errors import EmitDiffError


def test_names_are_unique_and_filtered_by_kind():
    names = [checkpoint.name for checkpoint in known_checkpoints()]
    assert names == ["emitdiff-mini", "textdiff-mini", "sd15-softedge", "sd15-hed", "sd15-canny"]
    assert [checkpoint.name for checkpoint in known_checkpoints("segmentation")] == ["textdiff-mini"]


def test_every_hub_part_is_pinned_and_sized():
    for checkpoint in known_checkpoints("synthesis"):
        if not checkpoint.embedded:
            assert len(checkpoint.revision) == 40, "the base is pinned to a commit"
            assert checkpoint.controlnet_revision == "main" or len(checkpoint.controlnet_revision) == 40
            assert checkpoint.size_mb and checkpoint.licence and checkpoint.defaults


def test_embedded_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("EMITDIFF_CHECKPOINTS", str(tmp_path))
    assert checkpoints_folder() == tmp_path
    assert checkpoint_status(known_checkpoints()[0]) == "missing"
    with pytest.raises(EmitDiffError, match="train-synthesis"):
        find_checkpoint("emitdiff-mini", "synthesis")
    (tmp_path / "emitdiff-mini").mkdir()
    (tmp_path / "emitdiff-mini" / "model.safetensors").touch()
    assert checkpoint_status(find_checkpoint("emitdiff-mini", "synthesis")) == "ready (embedded)"


def test_weights_of_the_other_kind_are_refused():
    with pytest.raises(EmitDiffError, match="holds segmentation weights"):
        find_checkpoint("textdiff-mini", "synthesis")


@pytest.mark.parametrize("name", ["", "emitdiff_mini", "../nowhere/at/all", "a b/c", "owner/repo+", "a/b+c/d+e/f"])
def test_unknown_names_are_answered_with_what_to_run(name):
    with pytest.raises(EmitDiffError, match="train-synthesis DATASET --out FOLDER"):
        find_checkpoint(name, "synthesis")


def test_hub_repository_and_added_controlnet():
    plain = find_checkpoint("owner/repo", "synthesis")
    assert (plain.base, plain.revision, plain.controlnet) == ("owner/repo", "main", None)
    both = find_checkpoint("owner/base+owner/control", "synthesis")
    assert (both.base, both.controlnet, both.controlnet_revision) == ("owner/base", "owner/control", "main")
    assert checkpoint_status(both) == "not downloaded"


def test_local_folder_holds_base_and_controlnet(tiny_synthesis_folder):
    checkpoint = find_checkpoint(str(tiny_synthesis_folder), "synthesis")
    assert checkpoint_status(checkpoint) == "ready (local folder)"
    assert local_folder(checkpoint) == tiny_synthesis_folder.resolve()
    assert (controlnet_folder(checkpoint) / "config.json").is_file()


def test_folder_without_controlnet_says_how_to_add_one(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(EmitDiffError, match=r"\+lllyasviel/control_v11p_sd15_softedge"):
        controlnet_folder(find_checkpoint(str(tmp_path), "synthesis"))


def test_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(EmitDiffError, match="no .safetensors weights"):
        local_folder(find_checkpoint(str(tmp_path), "synthesis"))


@pytest.mark.parametrize("name", ["sd15-softedge", "sd15-hed", "sd15-canny"])
def test_offline_machine_is_told_what_to_run(name, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    checkpoint = find_checkpoint(name, "synthesis")
    assert checkpoint_status(checkpoint) == "not downloaded (5.7 GB)"
    with pytest.raises(EmitDiffError) as caught:
        local_folder(checkpoint)
    assert f"hf download {checkpoint.base} --revision {checkpoint.revision}" in str(caught.value)
    assert f"hf download {checkpoint.controlnet} --revision" in str(caught.value)


def test_a_mistyped_folder_is_not_only_taken_for_a_repository(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EmitDiffError, match="no folder of the name weights/mine here.*train-segmentation DATASET"):
        local_folder(find_checkpoint("weights/mine", "segmentation"))


def test_table_of_weights_names_every_revision():
    table = (Path(__file__).parents[1] / "checkpoints" / "README.md").read_text(encoding="utf-8")
    for checkpoint in known_checkpoints():
        assert f"`{checkpoint.name}`" in table
        for revision in (checkpoint.revision, checkpoint.controlnet_revision):
            assert revision is None or revision in table
