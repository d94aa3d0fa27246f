"""import-dataset as it is typed, also at a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from command_line import run
from import_files import draw
from PIL import Image

from emitdiff.datasets.folder import open_dataset

ROOT = Path(__file__).resolve().parents[2]


def write_pairs(folder: Path, count: int = 3, shown: int = 255) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        image, mask = draw(number)
        Image.fromarray(image).save(folder / f"{number}.png")
        Image.fromarray(mask * shown).save(folder / f"{number}_mask.png")
    return folder


def test_what_is_given_is_written_and_counted(tmp_path, monkeypatch, capsys):
    source = write_pairs(tmp_path / "mine", shown=1)
    flags = ["--modality", "Ultrasound", "--organ", "breast", "--label", "lesion=1", "--label", "cyst=2"]
    flags += ["--slices", "every", "5", "--name", "My data", "--licence", "CC0"]
    assert run(monkeypatch, "import-dataset", source, "--out", tmp_path / "out", *flags) == 0
    said = capsys.readouterr()
    assert f"3 images in 3 groups are in {tmp_path / 'out'}; lesion in 3, cyst in 0" in said.out
    assert "pairs by name, 3 case(s)" in said.err
    info = open_dataset(tmp_path / "out").info
    assert (info.name, info.licence, info.labels) == ("My data", "CC0", {"background": 0, "lesion": 1, "cyst": 2})
    assert run(monkeypatch, "import-dataset", source, "--out", tmp_path / "out", *flags) == 2
    assert "contains other files" in capsys.readouterr().err


def test_what_is_left_out_is_named_and_the_status_tells(tmp_path, monkeypatch, capsys):
    source = write_pairs(tmp_path / "mine")
    (source / "1_mask.png").unlink()
    flags = ["--modality", "Ultrasound", "--organ", "breast", "--label", "lesion=255"]
    assert run(monkeypatch, "import-dataset", source, "-o", tmp_path / "out", *flags) == 1
    said = capsys.readouterr()
    assert "image without a mask: 1\n  1.png" in said.err and said.out.startswith("2 images in 2 groups")


def test_without_a_terminal_the_flags_are_named(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "import-dataset", write_pairs(tmp_path / "mine"), "--out", tmp_path / "out") == 2
    assert "give --modality, --organ and --label NAME=1." in capsys.readouterr().err
    wrong = ["--label", "lesion"]
    assert run(monkeypatch, "import-dataset", tmp_path / "mine", "--out", tmp_path / "out", *wrong) == 2
    assert "NAME=ID" in capsys.readouterr().err and not (tmp_path / "out").exists()


def at_a_terminal(arguments: list[str], answers: list[str]) -> tuple[int, str]:
    """The exit status and all that is shown; an answer is typed after each question."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "emitdiff", *arguments]
    shown = b""
    with subprocess.Popen(command, cwd=ROOT, stdin=slave, stdout=slave, stderr=slave, close_fds=True) as process:
        os.close(slave)
        deadline = time.monotonic() + 60
        waiting, seen = list(answers), 0
        while time.monotonic() < deadline:
            try:
                shown += os.read(master, 4096)
            except OSError:  # the other end is closed
                break
            if waiting and shown[seen:].endswith(b": "):
                os.write(master, waiting.pop(0).encode() + b"\n")
                seen = len(shown)
        status = process.wait(30)
    os.close(master)
    return status, shown.decode()


def test_at_a_terminal_what_is_missing_is_asked_for(tmp_path):
    source = write_pairs(tmp_path / "mine", shown=1)
    Image.fromarray(np.asarray(Image.open(source / "2_mask.png")) * 2).save(source / "2_mask.png")
    answers = ["", "Ultrasound", "brust", "lesion", "cyst"]  # nothing is no answer
    status, shown = at_a_terminal(["import-dataset", str(source), "--out", str(tmp_path / "out")], answers)
    assert status == 0, shown
    assert shown.count("Modality (Ultrasound, MRI") == 2 and "What is class 2, shown by 1 mask(s)" in shown
    info = open_dataset(tmp_path / "out").info
    assert (info.modality, info.organ, info.labels) == (
        "Ultrasound",
        "brust",
        {"background": 0, "lesion": 1, "cyst": 2},
    )
