import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel

from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.evaluation import EvaluateSynthesis, evaluate_synthesis, image_similarity
from emitdiff.synthesis.loading import load_synthesizer
from emitdiff.synthesis.training.corpus import load_corpus
from emitdiff.synthesis.training.denoiser import new_scheduler, new_tokenizer, new_unet
from emitdiff.synthesis.training.run import HALF_SIZE_SHARE, TrainingRun, TrainSynthesis, train_synthesis
from emitdiff.synthesis.training.views import CONDITIONS, drop_conditions
from emitdiff.synthesis.training.warm_start import copy_weights
from emitdiff.training_state import StageState, time_spent

MINUTES = 0.1


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset_folder) -> Path:
    """A whole checkpoint trained for seconds at 64 x 64 with the very command that trains the embedded one."""
    out = tmp_path_factory.mktemp("trained") / "checkpoint"
    return train_synthesis(TrainSynthesis((dataset_folder,), out, resolution=64, minutes=MINUTES))


def test_training_leaves_a_pipeline_that_generates(trained, disc):
    pipeline = load_synthesizer(str(trained))
    made = pipeline(*disc, prompt="Ultrasound, breast", num_images=1, num_inference_steps=2)[0]
    assert made.image.shape == disc[0].shape
    assert pipeline.card["training"]["datasets"][0]["name"] == "discs"
    assert pipeline.checkpoint_card.area == 64 * 64


def test_weights_are_half_precision_safetensors_and_nothing_else(trained):
    from safetensors.torch import load_file

    files = list(trained.rglob("*.safetensors"))
    assert {path.parent.name for path in files} == {"vae", "grain", "text_encoder", "unet", "controlnet"}
    for path in files:
        assert all(value.dtype in (torch.float16, torch.int64) for value in load_file(path).values())
    assert not list(trained.rglob("*.bin"))


def test_started_again_it_resumes_where_it_was(trained, dataset_folder):
    def stages():
        return {path.stem: time_spent(path) for path in (trained / "state").glob("*.pt")}

    def weights():
        return {path: path.read_bytes() for name in ("vae", "unet", "tokenizer") for path in (trained / name).iterdir()}

    before, files = stages(), weights()
    train_synthesis(TrainSynthesis((dataset_folder,), trained, resolution=64, minutes=MINUTES))
    assert stages() == before and weights() == files

    longer = 1.2 * before["controlnet-64"][0] / (1 - HALF_SIZE_SHARE) / 60  # a first step may take its time
    train_synthesis(TrainSynthesis((dataset_folder,), trained, resolution=64, minutes=longer, stage="controlnet"))
    for name, (seconds, steps) in before.items():
        grown = stages()[name]
        last = name == "controlnet-64"  # more of the stage before it would be lost
        assert grown[1] > steps and grown[0] > seconds if last else grown == (seconds, steps)


def test_a_finished_stage_is_not_trained_further_beneath_later_ones(trained, dataset_folder):
    with pytest.raises(EmitDiffError, match="later stages that rest on its unet"):
        train_synthesis(TrainSynthesis((dataset_folder,), trained, resolution=64, minutes=5, stage="unet"))


def test_a_damaged_record_of_the_settings_is_a_sentence(dataset_folder, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "settings.json").write_text('{"seed": ')
    with pytest.raises(EmitDiffError, match="is damaged .*; remove"):
        train_synthesis(TrainSynthesis((dataset_folder,), tmp_path, resolution=64, minutes=MINUTES))


def test_other_settings_in_the_same_folder_are_refused(trained, dataset_folder):
    with pytest.raises(EmitDiffError, match="was started with seed 0"):
        train_synthesis(TrainSynthesis((dataset_folder,), trained, resolution=64, minutes=MINUTES, seed=1))


def test_nothing_is_written_among_the_images_or_beside_other_files(trained, dataset_folder, tmp_path):
    settings = TrainSynthesis((dataset_folder,), tmp_path / "out", resolution=64, minutes=MINUTES)
    before = sorted(dataset_folder.rglob("*"))
    for out in (dataset_folder, dataset_folder / "weights"):
        with pytest.raises(EmitDiffError, match="is the folder of discs or inside it"):
            train_synthesis(replace(settings, out=out))
    with pytest.raises(EmitDiffError, match="is the folder of checkpoint or inside it"):
        train_synthesis(replace(settings, out=trained, start=trained))
    assert sorted(dataset_folder.rglob("*")) == before
    settings.out.mkdir()
    (settings.out / "model_index.json").write_text("{}")
    with pytest.raises(EmitDiffError, match="contains other files: model_index.json. Give another folder"):
        train_synthesis(settings)
    assert [path.name for path in settings.out.iterdir()] == ["model_index.json"]


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"workers": -1}])
def test_a_batch_of_nothing_is_refused(wrong, dataset_folder, tmp_path):
    with pytest.raises(EmitDiffError, match="give at least 1 image and 0 processes"):
        train_synthesis(TrainSynthesis((dataset_folder,), tmp_path / "out", **wrong))


def test_a_folder_started_by_an_older_version_resumes(dataset_folder, tmp_path):
    settings = TrainSynthesis((dataset_folder,), tmp_path, resolution=64, stage="unet")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "autoencoder.pt").touch()  # before there was a record of the settings
    with pytest.raises(EmitDiffError, match="--stage autoencoder"):
        train_synthesis(settings)
    begun = {"datasets": ["discs"], "seed": 0, "held_out": 0.2, "resolution": 64}  # before there was --from
    (tmp_path / "state" / "settings.json").write_text(json.dumps(begun))
    with pytest.raises(EmitDiffError, match="--stage autoencoder"):
        train_synthesis(settings)


def test_held_out_groups_are_not_trained_on(dataset_folder):
    train = {item.name for item in load_corpus([dataset_folder], 0.2, 0).items}
    kept = {item.name for item in load_corpus([dataset_folder], 0.2, 0, "held-out").items}
    assert train and kept and not train & kept and len(train | kept) == 10


def test_a_later_stage_names_the_one_it_needs(tmp_path, dataset_folder):
    for stage, words in (("unet", "--stage autoencoder"), ("controlnet", "--stage unet")):
        with pytest.raises(EmitDiffError, match=words):
            train_synthesis(TrainSynthesis((dataset_folder,), tmp_path, resolution=64, minutes=0.01, stage=stage))
    with pytest.raises(EmitDiffError, match="multiple of 64"):
        train_synthesis(TrainSynthesis((dataset_folder,), tmp_path, resolution=100))


def test_evaluation_measures_the_held_out_split(trained, dataset_folder, capsys):
    result = evaluate_synthesis(
        EvaluateSynthesis(dataset_folder, str(trained), split="held-out", limit=1, steps=2, json=True)
    )
    assert result["n"] == 1 and 0 <= result["edge_f1"] <= 1 and result["images_per_second"] > 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["edge_f1"] == result["edge_f1"] and printed["settings"]["split"] == "held-out"
    with pytest.raises(EmitDiffError, match="choose all, held-out or train"):
        evaluate_synthesis(EvaluateSynthesis(dataset_folder, str(trained), split="test"))


@pytest.mark.parametrize("size", [96, 256])
def test_an_image_is_most_like_itself(size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    same, other = (
        image_similarity(image, image),
        image_similarity(image, rng.permutation(image.ravel()).reshape(image.shape)),
    )
    assert same["ssim"] == pytest.approx(1, abs=1e-4) and same["ms_ssim"] == pytest.approx(1, abs=1e-4)
    assert same["mae"] == 0 and other["mae"] > 0.2 and other["ssim"] < 0.1


def test_stage_state_survives_a_kill(tmp_path):
    layer = torch.nn.Linear(2, 2)
    state = StageState(tmp_path / "s.pt", 1.0, {"layer": layer})
    state.seconds, state.steps = 30.0, 12
    state.save()
    fresh = torch.nn.Linear(2, 2)
    resumed = StageState(tmp_path / "s.pt", 1.0, {"layer": fresh})
    assert resumed.steps == 12 and resumed.progress == 0.5
    assert torch.equal(fresh.weight, layer.weight)


def test_conditions_are_dropped_at_their_rates():
    control = torch.ones(3000, 3, 8, 8)
    dropped = drop_conditions(control, np.random.default_rng(0))
    edges, mask = dropped[:, 0].flatten(1).sum(1) > 0, dropped[:, 1:].flatten(1).sum(1) > 0
    for kept, name in ((~edges & mask, "mask"), (edges & ~mask, "edges"), (~edges & ~mask, "nothing")):
        assert abs(kept.float().mean() - CONDITIONS[name]) < 0.025, name
    assert 0.03 < ((dropped[:, 0] == 0).any((1, 2)) & edges).float().mean() < 0.15  # patches alone


def test_a_wider_autoencoder_starts_by_answering_like_the_narrow_one():
    sizes = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    narrow, wide = AutoencoderTiny(**sizes, latent_channels=2), AutoencoderTiny(**sizes, latent_channels=5)
    copy_weights(wide, narrow)
    image = torch.rand(1, 3, 32, 32)
    assert torch.allclose(wide.encode(image).latents[:, :2], narrow.encode(image).latents, atol=1e-6)
    assert torch.allclose(wide(image).sample, narrow(image).sample, atol=1e-5)
    with pytest.raises(ValueError, match="does not fit"):
        copy_weights(narrow, wide)
    deeper = AutoencoderTiny(**sizes, latent_channels=5, num_decoder_blocks=(1, 1, 1, 1))
    with pytest.raises(EmitDiffError, match="other layers"):
        copy_weights(deeper, narrow)


def test_networks_without_pooled_text_go_on_as_they_are_and_learn_it():
    """Weights of before, from which training goes on."""
    unet = new_unet(4)
    older = UNet2DConditionModel.from_config(unet.config, addition_embed_type=None)
    copy_weights(unet, older)
    text, other = torch.randn(2, 1, 40, unet.config.cross_attention_dim)
    given = torch.randn(1, 4, 32, 32), torch.tensor([500])
    with torch.no_grad():
        assert torch.equal(unet(*given, text).sample, older(*given, text).sample)
    unet(*given, text).sample.square().mean().backward()
    assert unet.add_embedding.norm2.weight.grad.abs().max() > 0
    with torch.no_grad():
        unet.add_embedding.norm2.weight.fill_(1)
        emphasis = [unet.add_embedding(words) for words in (text, other)]
    assert not torch.allclose(*emphasis)


def test_a_folder_resumes_only_from_the_weights_it_was_started_from(dataset_folder, tmp_path):
    settings = TrainSynthesis((dataset_folder,), tmp_path, start=Path("one"))
    corpus = load_corpus((dataset_folder,), 0.2, 0)
    for _ in range(2):
        TrainingRun(settings, corpus)
    for other in (None, Path("two")):
        with pytest.raises(EmitDiffError, match="started with from one"):
            TrainingRun(replace(settings, start=other), corpus)


def test_what_a_parent_was_trained_on_is_recorded(dataset_folder, tmp_path):
    (parent := tmp_path / "parent").mkdir()
    datasets = [{"name": "discs", "images": 3}, {"name": "hearts", "images": 7, "licence": "CC0"}]
    (parent / "emitdiff.json").write_text(json.dumps({"training": {"datasets": datasets}}))
    settings = TrainSynthesis((dataset_folder,), tmp_path / "out", start=parent)
    TrainingRun(settings, load_corpus((dataset_folder,), 0.2, 0))._record()
    own, inherited = json.loads((tmp_path / "out" / "emitdiff.json").read_text())["training"]["datasets"]
    assert own["name"] == "discs" and inherited == {"name": "hearts", "images": 7, "licence": "CC0", "by": "parent"}


@pytest.mark.slow
def test_networks_alone_leave_autoencoder_and_grain_as_they_were(trained, dataset_folder, tmp_path):
    settings = TrainSynthesis(
        (dataset_folder,), tmp_path / "out", resolution=64, minutes=0.01, stage="networks", start=trained
    )
    train_synthesis(settings)

    def same(folder: str) -> bool:
        files = [path.relative_to(trained) for path in (trained / folder).iterdir()]
        assert files
        return all((trained / name).read_bytes() == (settings.out / name).read_bytes() for name in files)

    kept = [name for name in ("vae", "grain", "tokenizer", "unet", "text_encoder", "controlnet") if same(name)]
    assert kept == ["vae", "grain", "tokenizer"], "the words keep their numbers, the three networks learn"
    assert load_synthesizer(str(settings.out)).card["training"]["start"]["stages"].keys() >= {"autoencoder", "unet"}
    before = time_spent(settings.out / "state" / "controlnet-64.pt")
    train_synthesis(settings)
    assert time_spent(settings.out / "state" / "controlnet-64.pt") == before and same("vae"), "it had its time"


def test_networks_alone_need_a_checkpoint_and_a_folder_without_an_autoencoder(trained, dataset_folder, tmp_path):
    settings = TrainSynthesis((dataset_folder,), tmp_path / "out", resolution=64, minutes=0.01, stage="networks")
    with pytest.raises(EmitDiffError, match="with --from"):
        train_synthesis(settings)
    assert not settings.out.exists()
    own = shutil.copytree(trained, tmp_path / "own")
    begun = json.loads((own / "state" / "settings.json").read_text())
    (own / "state" / "settings.json").write_text(json.dumps({**begun, "from": trained.name}))
    before = (own / "vae" / "config.json").read_bytes()
    (own / "vae" / "config.json").write_bytes(before + b" ")
    with pytest.raises(EmitDiffError, match="has an autoencoder of its own"):
        train_synthesis(replace(settings, out=own, start=trained))
    assert (own / "vae" / "config.json").read_bytes() == before + b" "


def test_the_schedule_ends_in_pure_noise():
    assert new_scheduler().alphas_cumprod[-1] < 1e-6


def test_any_text_can_be_spelled_by_a_tokenizer_of_few_words():
    tokenizer = new_tokenizer(["CT, abdomen, liver", "MRI, prostate"])
    ids = tokenizer("Zebra § 肝臓 CT", truncation=True).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "").endswith("ct")
    assert tokenizer.unk_token_id not in ids[1:-1]
