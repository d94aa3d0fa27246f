"""The commands of generating."""

import json
import shutil

import numpy as np
import pytest
from command_line import run
from PIL import Image

from emitdiff import load_segmenter
from emitdiff.provenance import read_synthetic_settings
from emitdiff.ui.examples import FOLDER as EXAMPLES


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--steps", "5"], "--steps is for fine-tuning only"),
        (["--from", "emitdiff-mini", "--train", "controlnet", "--workers", "2"], "--workers does not go with"),
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


def test_several_datasets_are_measured_one_after_the_other(
    dataset_folder, tiny_synthesis_folder, monkeypatch, tmp_path, capsys
):
    small = shutil.copytree(tiny_synthesis_folder, tmp_path / "small")
    (small / "emitdiff.json").write_text('{"area": 4096}')
    words = ["--checkpoint", small, "--limit", "1", "--steps", "1", "--json"]
    assert run(monkeypatch, "evaluate-synthesis", dataset_folder, dataset_folder, *words) == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert len(results) == 2 and results[0]["n"] == 1 and results[0]["edge_f1"] == results[1]["edge_f1"]


def test_slice_outside_the_volume(disc_files, monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, "edges", disc_files[0], "--slice", "3", "-o", tmp_path) == 2
    assert "it has one, 0, which need not be named" in capsys.readouterr().err


def test_sources_are_never_written_over(disc_files, monkeypatch, capsys):
    assert run(monkeypatch, "edges", disc_files[0], "-o", disc_files[0].parent) == 2
    assert "is where the source lies" in capsys.readouterr().err


def test_output_that_cannot_be_made(disc_files, monkeypatch, capsys):
    assert run(monkeypatch, "edges", disc_files[0], "-o", disc_files[0] / "inside") == 2
    assert "cannot be made" in capsys.readouterr().err


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


def test_synthesize_warns_where_the_prompt_says_another_kind_of_image(
    tiny_synthesis_folder, monkeypatch, tmp_path, capsys
):
    wrong = "This looks like a prostate MRI; the prompt says X-ray, chest."
    flags = ["-n", "1", "--steps", "1", "--checkpoint", tiny_synthesis_folder]
    for prompt, expected in (("X-ray, chest", [wrong]), ("MRI, prostate", []), ("dark", [])):
        out = tmp_path / prompt
        assert (
            run(monkeypatch, "synthesize", EXAMPLES / "painted_prostate_mri.png", "--prompt", prompt, *flags, "-o", out)
            == 0
        )
        assert (wrong in capsys.readouterr().err) == bool(expected)
        (entry,) = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["images"]
        assert entry["settings"]["warnings"] == expected


def test_in_python_a_segmenter_says_what_kind_an_image_is_and_where_a_prompt_contradicts_it():
    segment, image = load_segmenter(), np.array(Image.open(EXAMPLES / "painted_prostate_mri.png").convert("RGB"))
    assert segment.image_kind(image) == ("prostate MRI", "MRI", "prostate")
    assert "the prompt says CT" in segment.prompt_warning("CT, noisy", image)
    assert segment.prompt_warning("X-ray", image, modality="X-ray") == "", "the file knows best"
    assert segment.prompt_warning("noisy", image) == ""
