"""The commands of dataset folders."""

import json
import shutil

import pytest
from command_line import run


def test_check_dataset_counts_and_finds_defects(dataset_folder, monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, "check-dataset", dataset_folder) == 0
    assert "lesion" in capsys.readouterr().out
    broken = shutil.copytree(dataset_folder, tmp_path / "broken")
    (broken / "masks" / "3.png").unlink()
    assert run(monkeypatch, "check-dataset", broken) == 1
    assert "masks/3.png" in capsys.readouterr().out


def test_filter_drops_what_is_a_copy_and_leaves_a_report(dataset_folder, monkeypatch, tmp_path, capsys):
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


def test_export_without_folds_cuts_none(dataset_folder, monkeypatch, tmp_path, capsys):
    flags = ["export", dataset_folder, "--format", "paired"]
    assert run(monkeypatch, *flags[:2], tmp_path / "none", *flags[2:], "--folds", "0") == 0
    assert run(monkeypatch, *flags[:2], tmp_path / "two", *flags[2:], "--folds", "2") == 0
    assert not (tmp_path / "none" / "folds.json").exists()
    assert len(json.loads((tmp_path / "two" / "folds.json").read_text())) == 2


@pytest.mark.parametrize("folds", ["-1", "1"])
def test_folds_that_cannot_be_cut_are_refused(folds, dataset_folder, monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, "export", dataset_folder, tmp_path / "out", "--format", "coco", "--folds", folds) == 2
    assert "at least 2, or 0 for none" in capsys.readouterr().err and not (tmp_path / "out").exists()
    labels = ["study", "labels", dataset_folder, "--out", tmp_path / "out", "--folds", folds]
    assert run(monkeypatch, *labels) == 2
    assert f"folds, not {folds}" in capsys.readouterr().err and not (tmp_path / "out").exists()
