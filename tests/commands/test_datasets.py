"""The commands of dataset folders."""

import shutil

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
