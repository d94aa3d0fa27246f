from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from PIL import Image

from docs.command_reference import build_parser, commands
from emitdiff import cli
from emitdiff.commands import studies
from emitdiff.provenance import read_synthetic_settings


def called(verb: type) -> str:
    """TrainHed is called train-hed."""
    return re.sub("(?<!^)(?=[A-Z])", "-", verb.__name__).lower()


PARSERS = dict(commands(build_parser()))
STUDIES = get_args(get_type_hints(studies.Study)["study"])
VERBS = {called(verb): verb for verb in cli.COMMANDS} | {f"study {called(study)}": study for study in STUDIES}


def run(monkeypatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["emitdiff", *map(str, arguments)])
    return cli.main()


def processor_seconds() -> float:
    """Spent by the processes that were started here and have ended: the same on a busy machine as on an idle one."""
    spent = os.times()
    return spent.children_user + spent.children_system


def test_help_is_there_at_once_and_without_torch():
    command, before = [sys.executable, "-X", "importtime", "-m", "emitdiff", "--help"], processor_seconds()
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert processor_seconds() - before < 1, "a fifth of a second on an idle machine"
    assert result.returncode == 0
    for verb in ("synthesize", "segment", "edges", "train-synthesis", "train-segmentation", "check-dataset"):
        assert verb in result.stdout
    assert not any(name in result.stderr for name in (" torch\n", " gradio\n", " diffusers\n"))


@pytest.mark.parametrize("words", PARSERS)
def test_every_field_of_every_verb_is_explained(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.parse([*words.split(), "--help"])
    assert stopped.value.code == 0
    printed, found = capsys.readouterr().out, {}
    for action in PARSERS[words]._actions:
        assert all(re.search(rf"(?<![\w-]){flag}(?![\w-])", printed) for flag in action.option_strings)
        found[action.dest.rpartition(".")[2].replace("-", "_")] = action
    for field in dataclasses.fields(VERBS[words]):
        action = found[{"study": "study (positional)"}.get(field.name, field.name)]
        assert field.name == "study" or re.sub(r"\((default: .*|required)\)", "", action.help).strip(), field.name


def test_no_verb_is_left_out_of_the_help():
    assert list(PARSERS) == list(VERBS)


def test_short_flags_and_defaults():
    verb = cli.parse(["synthesize", "scan.png", "--prompt", "MRI, prostate", "-n", "2", "-o", "out"])
    assert verb == cli.Synthesize(image=Path("scan.png"), prompt="MRI, prostate", out=Path("out"), num_images=2)
    assert verb.seed == 0 and verb.checkpoint == "emitdiff-mini"


def test_several_datasets_and_flags_for_json():
    verb = cli.parse(["train-synthesis", "a", "b", "--out", "weights", "--resolution", "128", "--minutes", "1.5"])
    assert verb.datasets == (Path("a"), Path("b")) and verb.minutes == 1.5
    verb = cli.parse(["evaluate-segmentation", "a", "--text", "shuffled", "--limit", "3", "--json"])
    assert (verb.text, verb.limit, verb.json) == ("shuffled", 3, True)


def test_training_goes_by_train_or_by_its_old_name_and_from_another_checkpoint():
    old = cli.parse(["train-synthesis", "a", "--out", "b", "--stage", "unet"])
    assert old == cli.parse(["train-synthesis", "a", "--out", "b", "--train", "unet"]) and old.start is None
    words = ["--from", "sd15-hed", "--train", "controlnet", "--steps", "5", "--no-ema", "--mixed-precision", "bf16"]
    verb = cli.parse(["train-synthesis", "a", "--out", "b", *words])
    assert (verb.start, verb.train, verb.steps, verb.ema) == ("sd15-hed", "controlnet", 5, False)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--steps", "5"], "--steps is for fine-tuning only"),
        (["--from", "emitdiff-mini", "--no-ema"], "--no-ema is for fine-tuning only"),
        (["--train", "controlnet", "--learning-rate", "1e-4"], "--learning-rate is for fine-tuning only"),
        (["--from", "sd15-hed"], "only the ControlNet can be trained"),
        (["--from", "emitdiff-mini", "--train", "unet"], "give --train all"),
        (["--from", "emitdiff-mini", "--train", "controlnet", "--steps", "5", "--minutes", "1"], "Both minutes and"),
        (["--from", "nobody", "--train", "controlnet"], "No synthesis weights are called 'nobody'"),
        (["--from", "emitdiff-mini", "--train", "controlnet", "--batch", "0"], "--batch 0 is invalid"),
    ],
)
def test_options_of_training_that_do_not_go_together(words, answer, dataset_folder, monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, "train-synthesis", dataset_folder, "--out", tmp_path / "out", *words) == 2
    assert answer in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_checkpoint_trained_further_keeps_aside_what_its_parent_did(monkeypatch, tmp_path, capsys):
    parent, asked = tmp_path / "parent", []
    parent.mkdir()
    (parent / "model.safetensors").touch()
    (parent / "model_index.json").write_text('{"vae": ["diffusers", "AutoencoderTiny"]}')
    (parent / "emitdiff.json").write_text('{"area": 16384, "training": {"held_out": 0.3}}')
    monkeypatch.setattr("emitdiff.synthesis.training.run.train_synthesis", lambda settings: asked.append(settings))
    words = ["train-synthesis", "a", "--out", tmp_path / "out", "--from", parent]
    assert run(monkeypatch, *words) == 0 and "kept only" not in capsys.readouterr().err
    assert run(monkeypatch, *words, "--held-out", "0.4") == 0
    assert [(one.held_out, one.resolution) for one in asked] == [(0.3, 128), (0.4, 128)]
    assert "kept only 0.3 of the groups aside" in capsys.readouterr().err


def test_studies_are_verbs_within_a_verb(monkeypatch, capsys):
    verb = cli.parse(["study", "utility", "a", "--out", "b", "--arms", "real", "real+synthetic", "--seeds", "2"])
    assert verb == cli.Study(studies.Utility(Path("a"), Path("b"), arms=("real", "real+synthetic"), seeds=2))
    verb = cli.parse(["study", "steps", "a", "b", "--out", "c", "--steps", "4", "8", "--schedulers", "unipc"])
    assert verb.study.datasets == (Path("a"), Path("b")) and verb.study.steps == (4, 8)
    words = ["--images", "5", "10", "--arms", "unet", "--split-column", "split", "--derived", "a"]
    verb = cli.parse(["study", "labels", "a", "--out", "c", *words]).study
    assert (verb.images, verb.arms, verb.split_column, verb.derived) == ((5, 10), ("unet",), "split", ("a",))
    assert run(monkeypatch, "study", "steps", "nowhere", "--out", "out", "--steps", "4", "0") == 2
    assert "--steps 4 0 is invalid" in capsys.readouterr().err


def test_several_datasets_are_measured_one_after_the_other(
    dataset_folder, tiny_synthesis_folder, monkeypatch, tmp_path, capsys
):
    small = shutil.copytree(tiny_synthesis_folder, tmp_path / "small")
    (small / "emitdiff.json").write_text('{"area": 4096}')
    words = ["--checkpoint", small, "--limit", "1", "--steps", "1", "--json"]
    assert run(monkeypatch, "evaluate-synthesis", dataset_folder, dataset_folder, *words) == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert len(results) == 2 and results[0]["n"] == 1 and results[0]["edge_f1"] == results[1]["edge_f1"]


def test_unknown_verb_exits_2():
    with pytest.raises(SystemExit) as stopped:
        cli.parse(["paint"])
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["synthesize", "nowhere.png", "--prompt", "CT, liver", "-o", "out"],
        ["segment", "nowhere.png", "--text", "liver", "-o", "out"],
        ["edges", "nowhere.png", "-o", "out"],
        ["check-dataset", "nowhere"],
        ["train-synthesis", "nowhere", "--out", "out"],
        ["train-synthesis", "--out", "out"],
        ["train-segmentation", "nowhere", "--out", "out"],
        ["evaluate-synthesis", "nowhere"],
        ["evaluate-segmentation", "nowhere"],
        ["teach", "nowhere", "-o", "head.safetensors"],
        ["evaluate-segmentation"],
        ["augment", "nowhere", "out"],
        ["export", "nowhere", "out", "--format", "coco"],
        ["filter", "nowhere", "nowhere-else", "out"],
        ["study", "copies", "nowhere", "--out", "out"],
        ["study", "utility", "nowhere", "--out", "out"],
        ["study", "steps", "nowhere", "--out", "out"],
        ["study", "steps", "--out", "out"],
        ["study", "blocks", "nowhere", "--out", "out"],
        ["study", "labels", "nowhere", "--out", "out"],
        ["study", "labels", "--out", "out"],
        ["evaluate-synthesis", "nowhere", "elsewhere", "--prompts"],
        ["evaluate-synthesis"],
    ],
)
def test_what_is_not_there_gets_a_sentence_and_2(arguments, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("emitdiff: ") and printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate-synthesis", "nowhere", "--limit", "0"],
        ["evaluate-segmentation", "nowhere", "--limit", "-1"],
        ["train-synthesis", "nowhere", "--out", "out", "--minutes", "0"],
        ["train-segmentation", "nowhere", "--out", "out", "--minutes", "-5"],
        ["train-segmentation", "nowhere", "--out", "out", "--minutes", "nan"],
        ["train-synthesis", "nowhere", "--out", "out", "--threads", "0"],
        ["synthesize", "nowhere.png", "--prompt", "CT", "-o", "out", "-n", "0"],
        ["synthesize", "nowhere.png", "--prompt", "CT", "-o", "out", "--seed", "-1"],
        ["segment", "nowhere.png", "--text", "liver", "-o", "out", "--threshold", "1"],
        ["segment", "nowhere.png", "--text", "liver", "-o", "out", "--threshold", "nan"],
    ],
)
def test_numbers_that_cannot_be_used_are_refused_before_anything_is_read(arguments, monkeypatch, capsys):
    assert run(monkeypatch, *arguments) == 2
    flag = arguments[-2] if arguments[-2] != "-n" else "--num-images"
    assert capsys.readouterr().err.startswith(f"emitdiff: {flag} {arguments[-1]}")


@pytest.mark.parametrize("verb", [["synthesize", "--prompt", "CT"], ["segment", "--text", "liver"]])
@pytest.mark.parametrize("name", ["no-such-weights", "owner/no-such-repository"])
def test_missing_weights_get_a_sentence_and_2(verb, name, disc_files, monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, *verb, disc_files[0], "--checkpoint", name, "-o", tmp_path / "out") == 2
    assert name in capsys.readouterr().err.splitlines()[-1]


def test_slice_outside_the_volume(disc_files, monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, "edges", disc_files[0], "--slice", "3", "-o", tmp_path) == 2
    assert "it has one, 0, which need not be named" in capsys.readouterr().err


def test_sources_are_never_written_over(disc_files, monkeypatch, capsys):
    assert run(monkeypatch, "edges", disc_files[0], "-o", disc_files[0].parent) == 2
    assert "is where the source lies" in capsys.readouterr().err


def test_output_that_cannot_be_made(disc_files, monkeypatch, capsys):
    assert run(monkeypatch, "edges", disc_files[0], "-o", disc_files[0] / "inside") == 2
    assert "cannot be made" in capsys.readouterr().err


def test_check_dataset_counts_and_finds_defects(dataset_folder, monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, "check-dataset", dataset_folder) == 0
    assert "lesion" in capsys.readouterr().out
    broken = shutil.copytree(dataset_folder, tmp_path / "broken")
    (broken / "masks" / "3.png").unlink()
    assert run(monkeypatch, "check-dataset", broken) == 1
    assert "masks/3.png" in capsys.readouterr().out


def test_edges_of_hed_say_which_network_drew_them(disc_files, monkeypatch, tmp_path, capsys):
    from emitdiff.synthesis.hed.mini import MiniNetwork, save_hed_mini

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("EMITDIFF_HED", str(tmp_path / "hed"))
    monkeypatch.setenv("EMITDIFF_CHECKPOINTS", str(tmp_path))
    (tmp_path / "hed-mini").mkdir()
    save_hed_mini(MiniNetwork(), tmp_path / "hed-mini", {})
    for detector in ("hed", "hed-mini"):
        assert run(monkeypatch, "edges", disc_files[0], "--detector", detector, "-o", tmp_path / detector) == 0
        assert "drawn by HED: hed-mini" in capsys.readouterr().err
    assert run(monkeypatch, "edges", disc_files[0], "-o", tmp_path / "soft") == 0
    assert "drawn by" not in capsys.readouterr().err
    made = [(tmp_path / name / "edges_disc.png").read_bytes() for name in ("hed", "hed-mini", "soft")]
    assert made[0] == made[1] != made[2]


def test_hed_is_converted_from_the_command_line(monkeypatch, tmp_path, capsys):
    import torch

    from emitdiff.synthesis.hed.network import HedNetwork

    torch.save(HedNetwork().state_dict(), tmp_path / "ControlNetHED.pth")
    monkeypatch.setenv("EMITDIFF_HED", str(tmp_path / "hed"))
    assert run(monkeypatch, "convert-hed", tmp_path / "ControlNetHED.pth") == 0
    assert str(tmp_path / "hed") in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "hed").iterdir()) == ["config.json", "model.safetensors"]
    assert run(monkeypatch, "convert-hed", tmp_path / "nothing.whl") == 2
    assert "There is no file" in capsys.readouterr().err


def test_edges_with_and_without_the_boundary_of_a_mask(disc_files, monkeypatch, tmp_path):
    image, mask = disc_files
    assert run(monkeypatch, "edges", image, "-o", tmp_path / "plain") == 0
    assert run(monkeypatch, "edges", image, "--mask", mask, "-o", tmp_path / "joined") == 0
    plain, joined = (np.asarray(Image.open(tmp_path / name / "edges_disc.png")) for name in ("plain", "joined"))
    assert plain.shape == joined.shape == (64, 64, 3)
    assert (joined >= plain).all() and (joined > plain).any()


def test_the_mask_of_a_volume_is_taken_at_the_slice(monkeypatch, tmp_path):
    import nibabel

    values = np.zeros((32, 32, 3), np.int16)
    values[8:24, 8:24] = 200
    mask = np.zeros((32, 32, 3), np.uint8)
    mask[4:28, 4:28, 2] = 1
    for name, array in (("volume", values), ("volume_mask", mask)):
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii.gz")
    volume = [tmp_path / "volume.nii.gz", "--mask", tmp_path / "volume_mask.nii.gz"]
    drawn = []
    for index in ("1", "2"):
        assert run(monkeypatch, "edges", *volume, "--slice", index, "-o", tmp_path / index) == 0
        drawn.append(np.asarray(Image.open(tmp_path / index / "edges_volume.png")))
    assert (drawn[1] > drawn[0]).any()


def test_synthesize_writes_images_mask_and_manifest(tiny_synthesis_folder, disc_files, monkeypatch, tmp_path):
    image, mask = disc_files
    flags = ["--prompt", "ct", "-n", "2", "--seed", "5", "--steps", "2", "--checkpoint", tiny_synthesis_folder]
    assert run(monkeypatch, "synthesize", image, "--mask", mask, *flags, "-o", tmp_path / "out") == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert [entry["file"] for entry in manifest["images"]] == ["synthetic_disc_5.png", "synthetic_disc_6.png"]
    settings = read_synthetic_settings(tmp_path / "out" / "synthetic_disc_6.png")
    assert settings["synthetic"] is True and settings["seed"] == 6 and settings["prompt"] == "ct"
    assert Image.open(tmp_path / "out" / "synthetic_disc_5.png").size == (64, 64)
    entry = manifest["images"][1]
    assert entry["settings"] | {"synthetic": True} == settings and entry["seed"] == 6
    assert np.unique(np.asarray(Image.open(tmp_path / "out" / entry["mask"]))).tolist() == [0, 1]
    assert manifest["source"] == "disc" and manifest["digital_source_type"]


def test_what_was_generated_before_keeps_its_label_and_its_record(
    tiny_synthesis_folder, disc_files, monkeypatch, tmp_path, capsys
):
    (image, mask), out = disc_files, tmp_path / "out"
    flags = ["--prompt", "ct", "-n", "1", "--steps", "1", "--checkpoint", tiny_synthesis_folder, "-o", out]
    source = ["synthesize", image, "--mask", mask, *flags]
    for more in (["--seed", "1"], ["--seed", "2", "--rotate", "40", "--move", "0.2", "0"], ["--seed", "3"]):
        assert run(monkeypatch, *source, *more) == 0
    assert run(monkeypatch, *source, "--seed", "1", "--guidance", "2") == 0
    entries = json.loads((out / "manifest.json").read_text())["images"]
    assert [entry["file"] for entry in entries] == [f"synthetic_disc_{name}.png" for name in ("1", "2", "3", "1_2")]
    assert [entry["settings"]["guidance_scale"] for entry in entries[::3]] != [2, 2] and entries[3]["seed"] == 1
    labels = [np.asarray(Image.open(out / entry["mask"])) for entry in entries]
    assert np.array_equal(labels[0], labels[2]) and not np.array_equal(labels[0], labels[1])
    assert run(monkeypatch, *source, "--seed", "3") == 0, "the same again, in its place"
    (out / "mask_disc.png").write_bytes(b"half a picture")
    assert run(monkeypatch, "synthesize", *flags, "--structure", "0") == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert len(manifest["images"]) == 5 and manifest["source"] == "disc, text"
    assert run(monkeypatch, *source, "--seed", "9") == 0 and (out / "mask_disc_3.png").exists()
    for foreign in ('{"name": "an app"}', '{"images": ["a.png"]}', "[1, 2]", "[]", '{"images": []}', '{"images'):
        (out / "manifest.json").write_text(foreign)
        assert run(monkeypatch, *source) == 2
        assert "give another folder" in capsys.readouterr().err and (out / "manifest.json").read_text() == foreign


def test_synthesize_from_an_edited_mask_alone_and_from_text_alone(
    tiny_synthesis_folder, disc_files, monkeypatch, tmp_path
):
    words = ["--prompt", "CT", "--checkpoint", tiny_synthesis_folder, "-n", "1", "--steps", "1"]
    moves = ["--move", "-0.1", "0.2", "--scale", "0.7", "--rotate", "-15", "--deform", "0.5", "--deform-seed", "2"]
    out = tmp_path / "mask"
    assert run(monkeypatch, "synthesize", "--mask", disc_files[1], *moves, *words, "--structure", "0.6", "-o", out) == 0
    edited, mask = (np.asarray(Image.open(path)) > 0 for path in (out / "mask_disc_mask.png", disc_files[1]))
    rows, columns = (np.subtract(*(np.nonzero(one)[axis].mean() for one in (edited, mask))) for axis in (0, 1))
    assert 8 < rows < 18 and -11 < columns < -2 and edited.sum() < 0.7 * mask.sum()
    kept = json.loads((out / "manifest.json").read_text())["images"][0]["settings"]
    assert kept["structure"] == 0.6 and kept["edit"]["move_x"] == -0.1 and kept["edit"]["seed"] == 2
    free = ["--structure", "0", "--size", "48x80", "--preset", "released", "-o", tmp_path / "free"]
    assert run(monkeypatch, "synthesize", *words, *free) == 0
    assert Image.open(tmp_path / "free" / "synthetic_text_0.png").size == (80, 48)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--structure", "0", "--size", "big"], "like 256x384"),
        (["--window", "lung"], "--window lung is for an image"),
        (["--mask", "mask.png", "--size", "64x64"], "--size 64x64 is for text-only generation"),
        ([], "set structure to 0"),
        (["--structure", "0", "--move", "0.1", "0"], "A mask edit needs a mask"),
    ],
)
def test_sources_of_synthesis_that_cannot_be(words, answer, tiny_synthesis_folder, monkeypatch, tmp_path, capsys):
    given = ["--prompt", "CT", "--checkpoint", tiny_synthesis_folder, "-o", tmp_path / "out"]
    assert run(monkeypatch, "synthesize", *given, *words) == 2
    assert answer in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_synthesize_says_what_of_a_prompt_is_not_read(tiny_synthesis_folder, disc_files, monkeypatch, tmp_path, capsys):
    flags = ["-n", "1", "--steps", "1", "--checkpoint", tiny_synthesis_folder, "-o", tmp_path / "out"]
    assert run(monkeypatch, "synthesize", disc_files[0], "--prompt", "letters " * 20, *flags) == 0
    assert "truncated" in capsys.readouterr().err


def test_evaluate_synthesis_ends_with_one_json_object(tiny_synthesis_folder, dataset_folder, monkeypatch, capsys):
    flags = [
        "--checkpoint",
        tiny_synthesis_folder,
        "--limit",
        "1",
        "--steps",
        "1",
        "--json",
        "--segmenter",
        "textdiff-mini",
    ]
    assert run(monkeypatch, "evaluate-synthesis", dataset_folder, *flags) == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    names = {"edge_f1", "ssim", "ms_ssim", "mae", "pairwise_ms_ssim", "n", "images_per_second"}
    names |= {"autoencoder_psnr", "autoencoder_ssim", "autoencoder_edge_f1"}
    names |= {"segmenter_dice", "segmenter_dice_source"}
    realism = {"spectrum_mid_db", "spectrum_high_db", "kid", "two_sample_accuracy"}
    names |= realism | {f"autoencoder_{name}" for name in realism}
    assert names <= set(measured) and names - {"n", "images_per_second"} <= set(measured["sd"]) and measured["n"] == 1


@pytest.mark.slow
def test_teach_writes_a_head_that_segments(dataset_folder, disc_files, monkeypatch, tmp_path, capsys):
    out = tmp_path / "disc.safetensors"
    assert run(monkeypatch, "teach", dataset_folder, "-o", out, "--images", "2", "--seconds", "4") == 0
    told = capsys.readouterr()
    assert f"see {out}" in told.out and "Too few training steps" in told.err and out.with_suffix(".md").exists()
    asked = ["segment", disc_files[0], "--text", "anything", "--checkpoint", out, "-o", tmp_path / "found"]
    assert run(monkeypatch, *asked) == 0
    written = out.read_bytes()
    assert run(monkeypatch, "teach", dataset_folder, "-o", out, "--images", "2", "--seconds", "4") == 2
    assert "is there already" in capsys.readouterr().err and out.read_bytes() == written


@pytest.mark.parametrize(
    "words, answer",
    [
        (["-o", "head.pt"], "ends in .safetensors"),
        (["-o", "head.safetensors", "--label", "kidney"], "no label 'kidney'"),
        (["-o", "head.safetensors", "--images", "1000"], "1000 were asked for"),
    ],
)
def test_what_cannot_be_trained_is_said_before_weights_are_loaded(words, answer, dataset_folder, monkeypatch, capsys):
    assert run(monkeypatch, "teach", dataset_folder, *words) == 2
    said = capsys.readouterr().err
    assert answer in said and "Loading" not in said


def test_segmenter_is_trained_evaluated_and_used(dataset_folder, disc_files, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("emitdiff.segmentation.training.head.TEXT_STEPS", 30)
    settings = ["--out", tmp_path / "run", "--resolution", "64", "--minutes", "0.02", "--threads", "1"]
    assert run(monkeypatch, "train-segmentation", dataset_folder, *settings) == 0
    weights = ["--checkpoint", tmp_path / "run" / "checkpoint"]
    assert str(weights[1]) in capsys.readouterr().out

    assert run(monkeypatch, "evaluate-segmentation", dataset_folder, *weights, "--limit", "2", "--json") == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    names = {"dice", "iou", "dice_pooled", "iou_pooled", "precision", "recall", "hd95", "assd", "n"}
    assert names <= set(measured) and measured["n"] == 2
    two = ["evaluate-segmentation", dataset_folder, dataset_folder, *weights, "--limit", "2", "--text", "all", "--json"]
    assert run(monkeypatch, *two) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert len(found) == 2 and found[0]["texts"]["own"]["dice"] == measured["dice"]

    assert run(monkeypatch, "segment", disc_files[0], "--text", "breast lesion", *weights, "-o", tmp_path / "out") == 0
    record = json.loads((tmp_path / "out" / "disc_segmentation.json").read_text(encoding="utf-8"))
    for name in ("mask", "overlay", "probability"):
        assert Image.open(tmp_path / "out" / record["files"][name]).size == (64, 64)
    mask = np.asarray(Image.open(tmp_path / "out" / record["files"]["mask"]))
    assert record["pixels"] == np.count_nonzero(mask)


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (["train-segmentation", "a", "--out", "b"], "emitdiff.segmentation.training.run"),
    ],
)
def test_settings_take_every_field_of_their_verb(arguments, module):
    from importlib import import_module

    verb = cli.parse(arguments)
    settings = getattr(import_module(module), type(verb).__name__)(**vars(verb))
    assert dataclasses.asdict(settings).items() >= dataclasses.asdict(verb).items()


def test_filter_drops_what_is_a_copy_and_leaves_a_report(dataset_folder, monkeypatch, tmp_path, capsys):
    import shutil

    copies = shutil.copytree(dataset_folder, tmp_path / "copies")
    lines = (copies / "metadata.csv").read_text().splitlines()
    rows = [f"{line},{line.split(',')[0]}" for line in lines[1:]]
    (copies / "metadata.csv").write_text("\n".join([f"{lines[0]},source", *rows]))
    flags = ["filter", copies, dataset_folder, tmp_path / "out", "--segmenter", "none"]
    assert run(monkeypatch, *flags) == 0
    assert "No image passes the filter" in capsys.readouterr().out and (tmp_path / "out" / "report.html").exists()
    assert run(monkeypatch, *flags, "--max-copy", "1", "--max-twin", "1", "--min-edges", "2") == 2
    assert run(monkeypatch, *flags, "--max-copy", "1") == 0
    assert "10 synthetic images are kept" in capsys.readouterr().out
