"""The commands of segmenting."""

import json

import nibabel
import numpy as np
import pytest
from command_line import run
from PIL import Image


@pytest.mark.slow
def test_teach_writes_a_head_that_segments(dataset_folder, disc_files, monkeypatch, tmp_path, capsys):
    out = tmp_path / "disc.safetensors"
    assert run(monkeypatch, "teach", dataset_folder, "-o", out, "--images", "2", "--seconds", "4") == 0
    told = capsys.readouterr()
    assert f"see {out}" in told.out and "(at least 100 are needed)" in told.err and out.with_suffix(".md").exists()
    asked = ["segment", disc_files[0], "--text", "lesion", "--checkpoint", out, "-o", tmp_path / "found"]
    assert run(monkeypatch, *asked) == 0
    written = out.read_bytes()
    assert run(monkeypatch, "teach", dataset_folder, "-o", out, "--images", "2", "--seconds", "4") == 2
    assert "already exists" in capsys.readouterr().err and out.read_bytes() == written


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

    unknown = ["segment", disc_files[0], "--text", "pneumonia", *weights, "-o", tmp_path / "none"]
    assert run(monkeypatch, *unknown) == 2
    said = capsys.readouterr().err
    assert "not taught “pneumonia”" in said and "--untaught try" in said and not (tmp_path / "none").exists()
    assert run(monkeypatch, *unknown, "--untaught", "try") == 0
    told, record = capsys.readouterr(), json.loads((tmp_path / "none" / "disc_segmentation.json").read_text())
    assert "pneumonia: not taught, looked for all the same: " in told.out and "means little" in told.err
    assert record["untaught"] and not record["found"] and record["target"] is None

    lost = nibabel.Nifti1Image(np.random.default_rng(0).integers(0, 99, (64, 64, 3, 2)).astype(np.int16), None)
    nibabel.save(lost, tmp_path / "lost.nii")  # neither an orientation nor one volume
    asked = [
        "segment",
        tmp_path / "lost.nii",
        "--text",
        "breast lesion",
        *weights,
        "--slice",
        "2",
        "-o",
        tmp_path / "out",
    ]
    capsys.readouterr()
    assert run(monkeypatch, *asked) == 0
    record, said = json.loads((tmp_path / "out" / "lost_segmentation.json").read_text()), capsys.readouterr().err
    for words in ("has no orientation", "holds 2 volumes"):
        assert words in said and any(words in warning for warning in record["warnings"])
    assert run(monkeypatch, *asked, "--time-point", "1") == 0
    record = json.loads((tmp_path / "out" / "lost_segmentation.json").read_text())
    assert record["time_point"] == 1 and not any("volumes" in warning for warning in record["warnings"])
    assert run(monkeypatch, *asked, "--time-point", "2") == 2
    assert "time point 2 was asked for" in capsys.readouterr().err
