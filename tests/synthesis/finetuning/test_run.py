import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from emitdiff.checkpoints import find_checkpoint
from emitdiff.datasets.folder import open_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.card import CheckpointCard
from emitdiff.synthesis.finetuning import run
from emitdiff.synthesis.finetuning.base import open_base_checkpoint
from emitdiff.synthesis.finetuning.checkpoint import LossLog
from emitdiff.synthesis.finetuning.run import FinetuneControlnet, finetune_controlnet
from emitdiff.synthesis.finetuning.views import FineTuningViews, appearance_scale, random_view_of, split_datasets
from emitdiff.synthesis.loading import load_synthesizer, read_pipeline

QUICK = {"resolution": 64, "batch": 2, "mixed_precision": "no"}


def settings_for(dataset: Path, out: Path, start, **changes) -> FinetuneControlnet:
    return FinetuneControlnet((dataset,), out, str(start), **{**QUICK, "steps": 2, **changes})


def views_of(dataset: Path, layout: str = "joined", side: int = 64) -> FineTuningViews:
    datasets = [open_dataset(dataset)]
    return FineTuningViews(datasets, side, CheckpointCard(layout), appearance_scale(datasets, {}), seed=0)


def logged(out: Path) -> list[dict]:
    with (out / "state" / "loss.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "controlnet" / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def one_image(tmp_path_factory, dataset_folder) -> Path:
    """The dataset's first row alone: one image, one group."""
    folder = tmp_path_factory.mktemp("one") / "single"
    shutil.copytree(dataset_folder, folder)
    lines = (folder / "metadata.csv").read_text().splitlines()
    (folder / "metadata.csv").write_text("\n".join(lines[:2]) + "\n")
    return folder


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, dataset_folder, tiny_synthesis_folder) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "out"
    return finetune_controlnet(settings_for(dataset_folder, out, tiny_synthesis_folder, steps=3, learning_rate=1e-3))


def test_only_the_controlnet_changes_and_the_rest_is_copied_bit_for_bit(tuned, tiny_synthesis_folder):
    for part in ("vae", "text_encoder", "tokenizer", "unet", "scheduler"):
        files = sorted(path.name for path in (tiny_synthesis_folder / part).iterdir())
        assert files == sorted(path.name for path in (tuned / part).iterdir())
        for name in files:
            assert (tuned / part / name).read_bytes() == (tiny_synthesis_folder / part / name).read_bytes()
    before, after = weights(tiny_synthesis_folder), weights(tuned)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert before.keys() == after.keys() and any("controlnet_down_blocks" in name for name in changed)


def test_the_result_is_loaded_by_its_folder_and_generates(tuned, disc):
    pipeline = load_synthesizer(str(tuned))
    made = pipeline(*disc, prompt="Ultrasound, breast", num_images=1, num_inference_steps=2)[0]
    assert made.image.shape == disc[0].shape
    card = pipeline.checkpoint_card
    assert (card.control_layout, card.area, card.base) == ("joined", 64 * 64, {})
    training = card.training
    assert training["datasets"][0] == {
        "name": "discs", "images": 8, "licence": "CC0", "citation": "drawn by a program", "kept_out": True
    }  # fmt: skip
    assert training["stages"]["controlnet"]["steps"] == 3 and training["held_out"] == 0.2
    assert training["recipe"]["prediction_type"] == "epsilon" and training["recipe"]["rotation"] == 20
    assert list((tuned / "state" / "samples").glob("*.png"))


def test_locked_networks_stay_the_same_in_memory_while_the_loss_on_one_image_falls(one_image, tmp_path, capsys):
    """The embedded kind: v-prediction, AutoencoderTiny, layered control."""
    start = open_base_checkpoint("emitdiff-mini", 64)
    item = views_of(one_image, "layered")[0]
    batch = {name: value[None] for name, value in item.items() if torch.is_tensor(value)}
    batch = {name: value.repeat(6, 1, 1, 1) for name, value in batch.items()}
    batch |= {"caption": [item["caption"]] * 6, "seed": torch.arange(6)}
    with torch.no_grad():
        before = start.loss(start.pipe.controlnet, batch).item()
    from emitdiff.synthesis.finetuning.run import FineTuning, _new_accelerator

    settings = settings_for(
        one_image, tmp_path / "out", "emitdiff-mini", steps=25, learning_rate=3e-4, held_out=0.2, ema=False
    )
    run = FineTuning(settings, _new_accelerator(settings), start)
    frozen = {
        name: [tensor.clone() for tensor in (*getattr(start.pipe, name).parameters(),)]
        for name in ("vae", "text_encoder", "unet")
    }
    run.run()
    for name, tensors in frozen.items():
        network = getattr(start.pipe, name)
        assert all(torch.equal(*pair) for pair in zip(tensors, network.parameters(), strict=True))
        assert all(parameter.grad is None for parameter in network.parameters())
    with torch.no_grad():
        after = start.loss(run.network.eval(), batch).item()
    assert after < 0.9 * before
    assert "'discs' has only one group" in capsys.readouterr().err
    pipeline = load_synthesizer(str(tmp_path / "out"))
    assert pipeline.checkpoint_card.control_layout == "layered"
    assert "busi" in {row["name"] for row in pipeline.checkpoint_card.training["datasets"] if row.get("by") == "parent"}


def test_views_keep_image_mask_and_matrix_together(disc):
    image, mask = disc
    for seed in range(8):
        seen, labels, inside, matrix = random_view_of(image, mask, 96, np.random.default_rng(seed))
        bright = cv2.GaussianBlur(seen[..., 0], (0, 0), 2) > 120
        shown = inside > 0
        overlap = 2 * (bright & (labels > 0) & shown).sum() / ((bright & shown).sum() + ((labels > 0) & shown).sum())
        assert overlap > 0.93 and inside.mean() > 0.4
        enlarged = cv2.resize(image, (96, 96), interpolation=cv2.INTER_CUBIC)
        moved = cv2.warpAffine(enlarged, matrix, (96, 96), borderMode=cv2.BORDER_REFLECT_101)
        assert np.abs(cv2.blur(moved, (5, 5)).astype(int) - cv2.blur(seen, (5, 5)))[shown].mean() < 6


def test_view_number_k_is_always_the_same_and_every_image_comes_once_an_epoch(dataset_folder):
    views, again = views_of(dataset_folder), views_of(dataset_folder)
    first, second = views[13], again[13]
    assert torch.equal(first["image"], second["image"]) and torch.equal(first["control"], second["control"])
    assert (first["caption"], first["seed"]) == (second["caption"], second["seed"])
    assert first["seed"] != views[14]["seed"]
    for epoch in (0, 1):
        assert sorted(views._order(epoch)) == list(range(10))
    assert list(views._order(0)) != list(views._order(1))


def test_control_is_laid_out_as_the_checkpoint_was_trained(dataset_folder):
    joined = torch.stack([views_of(dataset_folder)[k]["control"] for k in range(12)])
    layered = torch.stack([views_of(dataset_folder, "layered")[k]["control"] for k in range(12)])
    assert torch.equal(joined[:, 0], joined[:, 1]) and torch.equal(joined[:, 0], joined[:, 2])
    assert torch.equal(joined[:, 0], layered[:, :2].amax(1))
    assert set(layered[:, 2].unique().tolist()) == {0.0, 1.0}


def test_a_dataset_of_one_group_is_trained_on_whole(one_image, dataset_folder):
    train, kept, whole = split_datasets([one_image], 0.2, 0)
    assert (len(train[0]), kept, whole) == (1, [], ["discs"])
    train, kept, whole = split_datasets([dataset_folder], 0.2, 0)
    assert (len(train[0]), len(kept[0]), whole) == (8, 2, [])
    assert len(split_datasets([dataset_folder], 0, 0)[0][0]) == 10


def test_full_size_weights_on_a_cpu_get_a_warning_the_papers_rate_and_no_sheets(
    dataset_folder, tiny_synthesis_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("emitdiff.synthesis.finetuning.base.FULL_SIZE", 1)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    out = finetune_controlnet(settings_for(dataset_folder, tmp_path / "out", tiny_synthesis_folder, steps=1))
    assert "There is no GPU here" in capsys.readouterr().err
    assert json.loads((out / "emitdiff.json").read_text())["training"]["recipe"]["learning_rate"] == 1e-6
    assert not list((out / "state" / "samples").iterdir())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_with_checkpointing_and_accumulation(
    precision, dataset_folder, tiny_synthesis_folder, tmp_path
):
    settings = settings_for(
        dataset_folder, tmp_path / "out", tiny_synthesis_folder, steps=3, gradient_accumulation=2,
        mixed_precision=precision, gradient_checkpointing=True, learning_rate=1e-3, ema=False,
    )  # fmt: skip
    out = finetune_controlnet(settings)
    assert [row["images"] for row in logged(out)] == ["4", "8", "12"]
    before, after = weights(tiny_synthesis_folder), weights(out)
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in after.values())
    assert not torch.equal(before["controlnet_mid_block.weight"], after["controlnet_mid_block.weight"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"minutes": 1.0}, "Both minutes and steps"),
        ({"mixed_precision": "fp8"}, "choose one of no, fp16, bf16"),
        ({"resolution": 96}, "multiples of 64"),
        ({"held_out": 1.0}, "from 0 to below 1"),
        ({"learning_rate": -1.0}, "learning rate was -1"),
    ],
)
def test_settings_that_cannot_be_used(changes, words, dataset_folder, tiny_synthesis_folder, tmp_path):
    with pytest.raises(EmitDiffError, match=words):
        finetune_controlnet(settings_for(dataset_folder, tmp_path / "out", tiny_synthesis_folder, **changes))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made(dataset_folder, tiny_synthesis_folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EmitDiffError, match="file cannot be made .*give another one"):
        finetune_controlnet(settings_for(dataset_folder, tmp_path / "file", tiny_synthesis_folder))


def test_nothing_is_written_over(dataset_folder, tiny_synthesis_folder, tuned):
    for out, words in (
        (tiny_synthesis_folder, "is the folder of tiny or inside it"),
        (dataset_folder / "weights", "is the folder of discs or inside it"),
    ):
        with pytest.raises(EmitDiffError, match=words):
            finetune_controlnet(settings_for(dataset_folder, out, tiny_synthesis_folder))
    with pytest.raises(EmitDiffError, match="contains other files: model_index.json"):
        finetune_controlnet(settings_for(dataset_folder, tiny_synthesis_folder, tuned))
    with pytest.raises(EmitDiffError, match="was started with batch 2, now 4; learning_rate 0.001, now 5e-05"):
        finetune_controlnet(settings_for(dataset_folder, tuned, tiny_synthesis_folder, batch=4))


def test_a_hub_base_is_named_instead_of_copied(
    tuned, tiny_synthesis_folder, dataset_folder, tmp_path, monkeypatch, disc
):
    """A cache as the Hub client lays it out stands for the Hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache" / "models--owner--tiny"
    shutil.copytree(tiny_synthesis_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    first = finetune_controlnet(settings_for(dataset_folder, tmp_path / "first", "owner/tiny", steps=1))
    assert sorted(path.name for path in first.iterdir()) == ["checksums.json", "controlnet", "emitdiff.json", "state"]
    pipeline = load_synthesizer(str(first))
    assert pipeline.checkpoint_card.base == {"repository": "owner/tiny", "revision": commit}
    assert pipeline.checkpoint_card.area == 64 * 64
    assert pipeline(*disc, num_images=1, num_inference_steps=1)[0].image.shape == disc[0].shape
    second = finetune_controlnet(settings_for(dataset_folder, tmp_path / "second", first, steps=1))
    card = json.loads((second / "emitdiff.json").read_text())
    assert card["base"] == {"repository": "owner/tiny", "revision": commit}
    assert card["training"]["parent"]["name"] == "first"
    both = read_pipeline(find_checkpoint(f"owner/tiny+{second}", "synthesis"))
    ours = dict(both.controlnet.named_parameters())
    assert all(torch.equal(value, ours[name].detach()) for name, value in weights(second).items())


def test_the_log_forgets_steps_that_were_not_saved(tmp_path):
    log = LossLog(tmp_path / "loss.csv", 0)
    for step in (1, 2, 3):
        log.add(step, 2 * step, 0.5, 1.0)
    log.write()
    LossLog(tmp_path / "loss.csv", 2)
    with (tmp_path / "loss.csv").open() as file:
        assert file.read().splitlines() == ["step,images,loss,seconds", "1,2,0.500000,1.0", "2,4,0.500000,1.0"]


def command(*arguments) -> list[str]:
    return [str(argument) for argument in arguments]


def environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[3])
    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


EAGER = "import sys; from emitdiff.synthesis.finetuning import run as f; from emitdiff.cli import main; "
EAGER += "f.SAVE_EVERY_SECONDS = 0; sys.exit(main())"  # a state every twenty times as long as one takes to be saved


def arguments_for(dataset: Path, start: Path, out: Path, steps: int) -> list[str]:
    return command(
        "train-synthesis", dataset, "--from", start, "--train", "controlnet", "--out", out, "--steps", steps,
        "--batch", 2, "--resolution", 64, "--mixed-precision", "no", "--learning-rate", 1e-3, "--threads", 1,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_a_kill_it_resumes_and_ends_bit_for_bit_like_one_that_was_not_killed(
    dataset_folder, tiny_synthesis_folder, tmp_path
):
    out, straight, steps = tmp_path / "killed", tmp_path / "straight", 60
    start = command(sys.executable, "-c", EAGER) + arguments_for(dataset_folder, tiny_synthesis_folder, out, steps)
    running = subprocess.Popen(start, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    waited = time.monotonic() + 300
    while not (out / "state" / "finetuning.pt").exists() and time.monotonic() < waited and running.poll() is None:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    saved = torch.load(out / "state" / "finetuning.pt", weights_only=True)["steps"]
    assert running.returncode == -signal.SIGKILL and 0 < saved < steps and not (out / "emitdiff.json").exists()

    for folder in (out, straight):
        again = command(sys.executable, "-c", EAGER) + arguments_for(
            dataset_folder, tiny_synthesis_folder, folder, steps
        )
        subprocess.run(again, env=environment(), check=True, capture_output=True, timeout=400)
    assert [int(row["step"]) for row in logged(out)] == list(range(1, steps + 1))
    assert [row["loss"] for row in logged(out)] == [row["loss"] for row in logged(straight)]
    ours, theirs = weights(out), weights(straight)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_processes_that_do_not_work_together_are_refused(dataset_folder, tiny_synthesis_folder, tmp_path, monkeypatch):
    """As a launcher starts them whose processes accelerate does not see: each would write into the same folder."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(run, "Accelerator", lambda **named: SimpleNamespace(num_processes=1))
    with pytest.raises(EmitDiffError, match="2 processes were started and 1 work together.*torchrun"):
        finetune_controlnet(settings_for(dataset_folder, tmp_path / "out", tiny_synthesis_folder))
    assert not (tmp_path / "out").exists()


ACCELERATE = (
    "accelerate.commands.launch", "--multi_gpu", "--num_processes", 2, "--num_machines", 1, "--dynamo_backend", "no",
    "--mixed_precision", "no",
)  # fmt: skip
TORCHRUN = ("torch.distributed.run", "--nproc_per_node", 2)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("launcher", "more"), [(ACCELERATE, {"ACCELERATE_USE_CPU": "true"}), (TORCHRUN, {})])
def test_two_processes_do_what_one_does_with_twice_the_accumulation(
    dataset_folder, tiny_synthesis_folder, tmp_path, launcher, more
):
    launched = command(sys.executable, "-m", *launcher, "-m", "emitdiff")
    on_cpu = {**environment(), "CUDA_VISIBLE_DEVICES": "", **more}  # two processes with gloo, whatever the machine has
    for steps in (2, 3):  # the second time it goes on
        both = launched + arguments_for(dataset_folder, tiny_synthesis_folder, tmp_path / "both", steps)
        done = subprocess.run(both, env=on_cpu, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("The checkpoint is in") == 1
    alone = settings_for(
        dataset_folder, tmp_path / "alone", tiny_synthesis_folder, steps=3, learning_rate=1e-3, gradient_accumulation=2
    )
    finetune_controlnet(alone)
    assert [row["images"] for row in logged(tmp_path / "both")] == ["4", "8", "12"]
    for ours, theirs in zip(logged(tmp_path / "both"), logged(tmp_path / "alone"), strict=True):
        assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), rel=1e-4)
    ours, theirs = weights(tmp_path / "both"), weights(tmp_path / "alone")
    assert all(torch.allclose(ours[name], theirs[name], atol=2e-4) for name in theirs)
    assert json.loads((tmp_path / "both" / "emitdiff.json").read_text())["training"]["recipe"]["processes"] == 2
