"""The published backbone's file becomes a diffusers folder that computes the same, or a sentence."""

import hashlib
import json
import pickle

import pytest
import torch
from safetensors import SafetensorError

from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.model.features import DiffusionFeatures, load_features
from emitdiff.segmentation.published.adm import ADM_256, ConvertAdm, adm_scheduler, convert_adm, to_diffusers

from .adm_reference import CLASSES, TINY, PublishedAdm, random_weights

TINY_CONFIG = ADM_256 | {"sample_size": 64, "block_out_channels": list(TINY["channels"]), "attention_head_dim": 16}
BLOCKS = (4, 6, 8, 12, 16)  # those of both of the paper's presets


@pytest.fixture(scope="module")
def tiny_weights():
    return random_weights(TINY)


def converted(weights, folder, config=TINY_CONFIG):
    torch.save(weights, folder / "adm.pt")
    return convert_adm(ConvertAdm(folder / "adm.pt", folder / "out"), config)


def agree(folder, weights, size, side, steps):
    """Largest difference, relative to the spread, between features read and those computed plainly."""
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    read = load_features(folder, BLOCKS, steps, with_coordinates=False)
    found = read(image)
    noise = torch.randn((1, 3, side, side), generator=torch.Generator().manual_seed(0))
    decay = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    worst = 0.0
    for index, step in enumerate(steps):
        noisy = decay[step] ** 0.5 * image + (1 - decay[step]) ** 0.5 * noise
        published = PublishedAdm(weights, size).blocks(noisy, step, max(BLOCKS))
        for part, block in zip(found, BLOCKS, strict=True):
            own, truth = part.chunk(len(steps), dim=1)[index], published[block]
            assert own.shape == truth.shape and truth.std() > 0.05
            worst = max(worst, ((own - truth).abs().max() / truth.std()).item())
    return worst


def test_same_activations_as_the_published_definition(tiny_weights, tmp_path):
    folder = converted(tiny_weights, tmp_path)
    assert agree(folder, tiny_weights, TINY, 64, (50, 150, 250)) < 1e-4


@pytest.mark.slow
def test_same_activations_at_full_size(tmp_path):
    weights = random_weights(CLASSES)
    assert sum(value.numel() for value in weights.values()) == 552_814_086
    folder = converted(weights, tmp_path, ADM_256)
    record = json.loads((folder / "conversion.json").read_text())
    assert record["parameters"] == 552_814_086
    worst = agree(folder, weights, CLASSES, 256, (150,))
    print(f"largest difference {worst:.1e}")
    assert worst < 1e-4


def test_a_plain_cut_of_queries_keys_and_values_would_be_wrong(tiny_weights):
    right = to_diffusers(tiny_weights, TINY_CONFIG).state_dict()
    name = "mid_block.attentions.0.to_k.weight"
    whole = tiny_weights["middle_block.1.qkv.weight"].squeeze(-1)
    assert not torch.equal(right[name], whole.chunk(3)[1])
    assert torch.equal(right[name][:16], whole[16:32]) and torch.equal(right[name][16:32], whole[64:80])


def test_every_weight_moves_once_and_the_source_is_recorded(tiny_weights, tmp_path):
    folder = converted(tiny_weights, tmp_path)
    record = json.loads((folder / "conversion.json").read_text())
    assert record["sha256"] == hashlib.sha256((tmp_path / "adm.pt").read_bytes()).hexdigest()
    assert record["source"] == "adm.pt"
    assert record["parameters"] == sum(value.numel() for value in tiny_weights.values())
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adm.pt", "out"]


def test_half_precision_is_widened_and_the_noise_is_adms(tiny_weights, tmp_path):
    folder = converted({name: value.half() for name, value in tiny_weights.items()}, tmp_path)
    read = load_features(folder, (8,), (50,), with_coordinates=False)
    assert next(read.unet.parameters()).dtype == torch.float32
    torch.testing.assert_close(read.scheduler.betas, torch.linspace(1e-4, 0.02, 1000))
    assert isinstance(read, DiffusionFeatures) and adm_scheduler().config.prediction_type == "epsilon"


def without(weights, name):
    return {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (lambda w: without(w, "out.2.bias"), "1 weights missing"),
        (lambda w: w | {"extra.weight": torch.zeros(1)}, "1 left over"),
        (lambda w: w | {"label_emb.weight": torch.zeros(1)}, "class labels"),
        (lambda w: w | {"out.2.weight": torch.zeros(3, 32, 3, 3)}, "has the shape"),
        (lambda w: w | {"middle_block.1.qkv.weight": torch.zeros(100, 64, 1)}, "has the shape"),
        (lambda w: {"state_dict": w}, "no plain table of weights"),
        (lambda w: list(w.values()), "no plain table of weights"),
    ],
)
def test_wrong_files_are_answered_with_a_sentence(tiny_weights, tmp_path, change, answer):
    with pytest.raises(EmitDiffError, match=answer):
        converted(change(tiny_weights), tmp_path)
    assert not (tmp_path / "out").exists()


class Dangerous:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize("content", [b"", b"not a model", pickle.dumps(Dangerous())])
def test_nothing_in_a_file_is_run(tmp_path, content, capsys):
    (tmp_path / "bad.pt").write_bytes(content)
    with pytest.raises(EmitDiffError, match="bad.pt"):
        convert_adm(ConvertAdm(tmp_path / "bad.pt", tmp_path / "out"))
    torch.save({"a": Dangerous()}, tmp_path / "bad.pt")
    with pytest.raises(EmitDiffError, match="more than plain tensors"):
        convert_adm(ConvertAdm(tmp_path / "bad.pt", tmp_path / "out"))
    assert capsys.readouterr().out == ""


def test_a_cut_file_a_missing_one_and_a_full_folder(tiny_weights, tmp_path):
    torch.save(tiny_weights, tmp_path / "adm.pt")
    data = (tmp_path / "adm.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(EmitDiffError, match="cut.pt"):
        convert_adm(ConvertAdm(tmp_path / "cut.pt", tmp_path / "out"), TINY_CONFIG)
    with pytest.raises(EmitDiffError, match="There is no file"):
        convert_adm(ConvertAdm(tmp_path / "nowhere.pt", tmp_path / "out"))
    with pytest.raises(EmitDiffError, match="already exists"):
        convert_adm(ConvertAdm(tmp_path / "adm.pt", tmp_path), TINY_CONFIG)


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tiny_weights, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("diffusers.UNet2DModel.save_pretrained", fail)
    with pytest.raises(EmitDiffError, match="No space left on device"):
        converted(tiny_weights, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["adm.pt"]
