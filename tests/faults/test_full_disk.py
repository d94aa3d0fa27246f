"""A disk that is full or read-only at every single write of a command: a sentence, exit 2, nothing half-written, and
the same command done to its end once there is room."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from fault_tools import contents, failing_disk, run_verb

from emitdiff import cli

TIMES = ("seconds", "date")  # what differs between two runs of the same command


def run(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["emitdiff", *map(str, arguments)])
    return cli.main()


def without_times(folder: Path) -> dict[str, object]:
    """What is in a folder, but for how long it took."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {name: plain(part) for name, part in value.items() if name not in TIMES}
        return [plain(part) for part in value] if isinstance(value, list) else value

    found = contents(folder)
    return {name: plain(json.loads(data)) if name.endswith(".json") else data for name, data in found.items()}


def fail_at_every_write(monkeypatch, capsys, tmp_path: Path, *arguments: object, writes: Iterable[int] = ()) -> int:
    """Runs the command with -o FOLDER, or FOLDER in the place of "OUT", on disks that fail at one write after the
    other, or at the numbers `writes`; the number after the last."""

    def into(folder: Path) -> list[object]:
        given = [folder if word == "OUT" else word for word in arguments]
        return given if folder in given else [*given, "-o", folder]

    reference = tmp_path / "reference" / "out"
    assert run(monkeypatch, *into(reference)) == 0, capsys.readouterr().err
    expected = without_times(reference)
    at = -1
    for at in writes or count():
        place = tmp_path / f"disk_{at}"
        place.mkdir()
        out, number = place / "out", (errno.ENOSPC, errno.EROFS)[at % 2]
        capsys.readouterr()
        with failing_disk(place, at, number) as disk:
            code = run(monkeypatch, *into(out))
        said = capsys.readouterr().err
        if not disk.failed:
            assert code == 0
            return at
        assert code == 2, f"write {at} ({disk.failed}) went unnoticed"
        words = ("No space left on device", "no space left"), ("Read-only file system", "no permission")
        assert "emitdiff: " in said and any(word in said for word in words[at % 2]) and "Traceback" not in said, said
        for name, content in without_times(out).items() if out.exists() else ():
            whole = name.startswith(".") or "/." in name or name not in expected or content == expected[name]
            assert whole or name.endswith(".json"), f"{name} is half-written after write {at} ({disk.failed})"
        assert run(monkeypatch, *into(out)) == 0, capsys.readouterr().err
        assert without_times(out) == expected, f"another result after write {at} ({disk.failed}) failed"
    return at + 1


def test_edges(monkeypatch, capsys, tmp_path, disc_files):
    assert fail_at_every_write(monkeypatch, capsys, tmp_path, "edges", disc_files[0]) >= 3


@pytest.mark.parametrize("layout", ["nnunet", "monai", "coco", "paired"])
def test_export(monkeypatch, capsys, tmp_path, dataset_folder, layout):
    verb = ("export", dataset_folder, "OUT", "--format", layout, "--folds", "2")
    assert fail_at_every_write(monkeypatch, capsys, tmp_path, *verb) > 20


SYNTHESIZE = ("--prompt", "CT", "-n", "1", "--steps", "1")
AUGMENT = ("OUT", "--limit", "1", "--steps", "1")


@pytest.fixture
def small_pipeline(monkeypatch, tiny_synthesis_folder):
    """Loaded once for all runs of a test, and small images."""
    import emitdiff
    from emitdiff.synthesis import augmentation
    from emitdiff.synthesis.loading import load_synthesizer

    pipeline = load_synthesizer(str(tiny_synthesis_folder), "cpu")
    pipeline.checkpoint_card = replace(pipeline.checkpoint_card, area=64 * 64)
    monkeypatch.setattr(emitdiff, "load_synthesizer", lambda *_: pipeline, raising=False)
    monkeypatch.setattr(augmentation, "load_synthesizer", lambda *_: pipeline)


def test_synthesize(monkeypatch, capsys, tmp_path, disc_files, small_pipeline):
    verb = ("synthesize", disc_files[0], "--mask", disc_files[1], *SYNTHESIZE)
    assert fail_at_every_write(monkeypatch, capsys, tmp_path, *verb) > 5


def test_augment(monkeypatch, capsys, tmp_path, dataset_folder, small_pipeline):
    assert fail_at_every_write(monkeypatch, capsys, tmp_path, "augment", dataset_folder, *AUGMENT) > 8


def test_a_disk_that_fills_up_within_a_file(tmp_path, disc_files):
    """In the library itself, whatever its language."""
    for limit in (0, 500):
        answer = run_verb("edges", disc_files[0], "-o", tmp_path / "out", largest_file=limit)
        assert answer.returncode == 2 and "There is no space left to write" in answer.stderr
        assert not contents(tmp_path / "out")
    assert run_verb("edges", disc_files[0], "-o", tmp_path / "out").returncode == 0


def test_a_folder_that_may_not_be_written_is_found_before_the_work(tmp_path, dataset_folder):
    """No weights are loaded, nothing is taught."""
    (tmp_path / "shut").mkdir(mode=0o555)
    answer = run_verb("teach", dataset_folder, "--out", tmp_path / "shut" / "head.safetensors", obeys=True)
    assert answer.returncode == 2
    assert "Nothing can be written into" in answer.stderr and "Loading" not in answer.stderr


def test_whoever_has_read_enough_may_leave(dataset_folder):
    import subprocess

    from fault_tools import ROOT

    command = f"{sys.executable} -m emitdiff check-dataset {dataset_folder} | true"
    answer = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in answer.stderr and "Exception" not in answer.stderr
