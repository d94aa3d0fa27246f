from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emitdiff.datasets.check import check_dataset
from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.splits import split_by_group
from emitdiff.errors import EmitDiffError
from emitdiff.progress import Progress
from emitdiff.provenance import DIGITAL_SOURCE_TYPE, read_synthetic_settings
from emitdiff.synthesis import augmentation
from emitdiff.synthesis.augmentation import Augment, augment, plan
from emitdiff.synthesis.presets import draw_phrase
from emitdiff.synthesis.prompts import APPEARANCES


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_synthesis_folder, tmp_path_factory) -> Path:
    """The tiny weights, told to generate 64 x 64 pixels in two steps."""
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    shutil.copytree(tiny_synthesis_folder, folder)
    card = {"area": 64 * 64, "multiple": 8, "defaults": {"num_inference_steps": 2}}
    (folder / "emitdiff.json").write_text(json.dumps(card))
    return folder


@pytest.fixture
def settings(dataset_folder, tiny_checkpoint, tmp_path) -> Augment:
    return Augment(dataset_folder, tmp_path / "out", ratio=2, checkpoint=str(tiny_checkpoint), limit=3)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(settings: Augment, *launcher: str) -> list[str]:
    """The command line of `settings`; the weights' own defaults stay."""
    words = [str(settings.dataset), str(settings.out), "--ratio", str(settings.ratio), "--limit", str(settings.limit)]
    return [sys.executable, "-m", *launcher, "emitdiff", "augment", *words, "--checkpoint", settings.checkpoint]


def test_an_image_with_two_masks_is_refused_before_anything_is_generated(settings, tmp_path):
    shutil.copytree(settings.dataset, tmp_path / "twice")
    with (tmp_path / "twice" / "metadata.csv").open("a", encoding="utf-8") as table:
        first = open_dataset(settings.dataset).rows[0]
        table.write(f"{first['file_name']},{open_dataset(settings.dataset).rows[1]['mask']},{first['group']}\n")
    with pytest.raises(EmitDiffError, match="name the same image"):
        augment(replace(settings, dataset=tmp_path / "twice"))
    assert not settings.out.exists()


def test_every_row_says_where_it_comes_from(settings):
    written = augment(replace(settings, include_real=True, appearance=True, edit=0.5))
    assert check_dataset(settings.out).ok and len(written) == 9
    source = open_dataset(settings.dataset)
    groups = {row["file_name"]: row["group"] for row in source.rows}
    real = [row for row in written.rows if not row["provenance"]]
    painted = [row for row in written.rows if row["provenance"] == "trainedAlgorithmicMedia"]
    assert len(real) == 3 and len(painted) == 6 and written.info == source.info
    assert len({row["seed"] for row in painted}) == 6
    for row in painted:
        assert row["group"] == groups[row["source"]] and Path(row["file_name"]).name.startswith("synthetic_")
        words = row["prompt"].removeprefix("Ultrasound, breast, benign, lesion, ").split(", ")
        assert 1 <= len(words) <= 2 and set(words) <= set(APPEARANCES)
        kept = read_synthetic_settings(settings.out / row["file_name"])
        assert str(kept["seed"]) == row["seed"] and kept["prompt"] == row["prompt"] and kept["row"] == row
        assert DIGITAL_SOURCE_TYPE in Image.open(settings.out / row["file_name"]).info["XML:com.adobe.xmp"]
        assert (row["steps"], row["preset"], row["structure"], row["text"]) == ("2", "default", "1", "")
        before = np.array(Image.open(settings.dataset / row["source"].replace("images", "masks")))
        assert json.loads(row["edit"]) and (np.array(Image.open(settings.out / row["mask"])) != before).any()
    assert "emitdiff" not in Image.open(settings.out / real[0]["file_name"]).info


def test_without_edits_the_mask_and_the_text_are_the_source_s(settings):
    source = {sample.name: sample for sample in open_dataset(settings.dataset)}
    for sample in augment(settings):
        assert (sample.mask == source[sample.row["source"]].mask).all() and sample.row["edit"] == ""
        assert sample.text == source[sample.row["source"]].text


def test_structure_is_handed_on(settings):
    (row,) = augment(replace(settings, ratio=1, limit=1, structure=0.5)).rows
    assert row["structure"] == "0.5" and read_synthetic_settings(settings.out / row["file_name"])["structure"] == 0.5


def test_the_phrase_that_a_preset_mixes_in_is_in_the_row(settings, monkeypatch):
    monkeypatch.setattr("emitdiff.synthesis.control.detect_edges", lambda image, *_: image[..., 0])  # for HED's weights
    (row,) = augment(replace(settings, ratio=1, limit=1, preset="paper", steps=1)).rows
    assert row["preset"] == "paper" and row["appearance"] == draw_phrase(int(row["seed"]))


def test_groups_held_out_of_the_source_are_those_held_out_of_the_copy(settings):
    written = augment(replace(settings, ratio=1, limit=None, include_real=True, steps=1))
    for one, other in zip(split_by_group(written), split_by_group(open_dataset(settings.dataset)), strict=True):
        assert set(one.groups) == set(other.groups)


def test_every_variant_is_another_image_and_a_larger_ratio_keeps_them(settings):
    augment(settings)
    augment(replace(settings, ratio=1, out=settings.out / "fewer"))
    pictures = {path.name: path.read_bytes() for path in (settings.out / "images").iterdir()}
    assert len(set(pictures.values())) == 6
    fewer = {path.name: path.read_bytes() for path in (settings.out / "fewer" / "images").iterdir()}
    assert len(fewer) == 3 and fewer.items() <= pictures.items()


@pytest.mark.parametrize(("ratio", "counts"), [(0.5, {1: 5}), (1.3, {1: 7, 2: 3}), (2, {2: 10})])
def test_a_ratio_may_have_a_fraction(ratio, counts, settings):
    jobs = plan(open_dataset(settings.dataset), replace(settings, ratio=ratio))
    assert Counter(Counter(job.index for job in jobs).values()) == counts
    assert len({job.image for job in jobs}) == len(jobs)


def test_names_that_collide_are_told_apart(dataset_folder, settings):
    dataset = open_dataset(dataset_folder)
    names = ["images/a.png", "images/A.webp", "images/b/a.png", "images/b_a.png", "c.png"]
    rows = [{**dataset.rows[0], "file_name": name} for name in names]
    jobs = plan(replace(dataset, rows=rows), replace(settings, ratio=1))
    assert len({job.image.lower() for job in jobs}) == 5 and jobs[-1].image == "images/synthetic_c_0.png"


def test_what_is_missing_is_generated_again_and_nothing_else(settings):
    augment(replace(settings, edit=0.5))
    whole = contents(settings.out)
    pictures = sorted(settings.out.glob("images/*.png"))
    for path in (settings.out / "metadata.csv", pictures[1], pictures[4], settings.out / "masks" / pictures[4].name):
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in settings.out.glob("images/*.png")}
    augment(replace(settings, edit=0.5))
    assert contents(settings.out) == whole and len(kept) == 4
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())


@pytest.mark.slow
def test_killed_and_started_again_it_ends_as_if_never_stopped(settings, tmp_path):
    settings = replace(settings, ratio=4, limit=5)
    whole = contents(augment(replace(settings, out=tmp_path / "whole")).folder)
    threads = str(torch.get_num_threads())  # sums in another order may round otherwise
    process = subprocess.Popen(run(settings), env={**os.environ, "OMP_NUM_THREADS": threads}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(settings.out.glob("images/*.png"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = {path: path.stat().st_mtime_ns for path in settings.out.glob("images/*.png")}
    assert 3 <= len(there) < 20 and not (settings.out / "metadata.csv").exists()
    augment(settings)
    assert contents(settings.out) == whole
    assert all(path.stat().st_mtime_ns == before for path, before in there.items())


@pytest.mark.slow
def test_two_processes_make_what_one_makes(settings, tmp_path):
    whole = contents(augment(replace(settings, out=tmp_path / "whole")).folder)
    launcher = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")
    launcher += ("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m")
    result = subprocess.run(run(settings, *launcher), capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    assert contents(settings.out) == whole
    assert "(process 1 of 2)" in result.stderr


def test_a_share_alone_waits_for_the_others(settings, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert augment(settings) is None and not (settings.out / "metadata.csv").exists()
    assert len(list(settings.out.glob("images/*.png"))) == 3 and "3 of 6 images" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "0")
    assert len(augment(settings)) == 6


@pytest.mark.slow
def test_stopped_by_hand_it_says_how_to_go_on(settings):
    settings = replace(settings, ratio=40, limit=10)
    process = subprocess.Popen(run(settings), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(settings.out.glob("images/*.png")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "The same command resumes from there." in said and "Traceback" not in said


def test_other_settings_or_another_folder_s_content_are_refused(settings, dataset_folder, tmp_path):
    augment(settings)
    before = contents(settings.out)
    with pytest.raises(EmitDiffError, match="started with ratio 2.0, now 3.0; seed 0, now 1"):
        augment(replace(settings, ratio=3, seed=1))
    with pytest.raises(EmitDiffError, match="other rows of the dataset"):
        augment(replace(settings, split="train", limit=3))
    with pytest.raises(EmitDiffError, match="contains other files"):
        augment(replace(settings, out=dataset_folder))
    augment(settings)
    assert contents(settings.out) == before
    (settings.out / "augment.json").write_text('{"seed": ')
    with pytest.raises(EmitDiffError, match="is damaged .*; remove"):
        augment(settings)


def test_a_run_goes_on_with_the_same_images_and_weights_only_and_one_of_an_older_version_does_too(settings, tmp_path):
    settings = replace(
        settings, dataset=shutil.copytree(settings.dataset, tmp_path / "discs"),
        checkpoint=str(shutil.copytree(settings.checkpoint, tmp_path / "weights")),
    )  # fmt: skip
    augment(settings)
    record = json.loads((settings.out / "augment.json").read_text())
    older = {name: value for name, value in record.items() if name not in augmentation.LATER_FACTS}
    (settings.out / "augment.json").write_text(json.dumps(older))
    augment(settings)
    assert json.loads((settings.out / "augment.json").read_text()) == record
    (settings.dataset / "images" / "0.png").write_bytes((settings.dataset / "images" / "1.png").read_bytes())
    with pytest.raises(EmitDiffError, match="started with other images or masks"):
        augment(settings)
    (tmp_path / "weights" / "unet" / "config.json").write_text(
        (tmp_path / "weights" / "unet" / "config.json").read_text() + "\n"
    )
    with pytest.raises(EmitDiffError, match="weights of another content"):
        augment(settings)


@pytest.mark.parametrize(
    "name", ["report.html", "quality.csv", "augment.json", "dataset.json", "notes/mine.txt", "images/synthetic_7.png"]
)
def test_beside_a_file_of_somebody_else_nothing_is_generated(name, settings):
    (settings.out / name).parent.mkdir(parents=True)
    (settings.out / name).write_text("[]")
    with pytest.raises(EmitDiffError, match=f"contains other files: {name}. Give another folder"):
        augment(settings)
    assert contents(settings.out) == {name: b"[]"}


def test_a_stopped_run_is_not_mixed_with_what_others_put_there_meanwhile(settings):
    augment(settings)
    whole = contents(settings.out)
    (settings.out / "metadata.csv").unlink()
    next(settings.out.glob("images/*.png")).unlink()
    (settings.out / ".DS_Store").touch()
    for name in ("report.html", "images/synthetic_7_0.png"):
        (settings.out / name).write_text("mine")
        with pytest.raises(EmitDiffError, match=f"contains other files: {name}"):
            augment(settings)
        (settings.out / name).unlink()
    augment(settings)
    assert contents(settings.out) == {**whole, ".DS_Store": b""}


def test_what_another_process_generates_meanwhile_is_no_stranger_s(settings, monkeypatch):
    """The record is there before the first image, but not yet when this process looks for files."""
    look = augmentation.list_files

    def look_and_others_begin(folder):
        seen = look(folder)
        if not (settings.out / "augment.json").exists():
            with monkeypatch.context() as other:
                other.setattr(augmentation, "list_files", look)
                augment(settings)
        return seen

    monkeypatch.setattr(augmentation, "list_files", look_and_others_begin)
    assert len(augment(settings)) == 6


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"structure": 0.2}, "not be a valid label"),
        ({"edit": 2.0}, "strength of mask edits"),
        ({"ratio": 0.01}, "is none"),
        ({"ratio": -1.0}, "above 0"),
        ({"preset": "other"}, "preset"),
        ({"guidance": 99.0}, "guidance scale"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(change, sentence, settings):
    with pytest.raises(EmitDiffError, match=sentence):
        augment(replace(settings, **change))
    assert not list(settings.out.glob("images/*"))
    assert len(augment(replace(settings, ratio=1, limit=1))) == 1  # the mistake does not stand in the way


def test_nothing_is_generated_from_what_is_synthetic(settings, tmp_path, capsys):
    augment(replace(settings, ratio=1, include_real=True))
    again = augment(replace(settings, dataset=settings.out, out=tmp_path / "again", ratio=1, limit=None))
    assert len(again) == 3 and "3 images" in capsys.readouterr().err
    with (tmp_path / "again" / "metadata.csv").open() as file:
        assert all("synthetic" not in row["source"] for row in csv.DictReader(file))
    with pytest.raises(EmitDiffError, match="are synthetic"):
        augment(replace(settings, dataset=tmp_path / "again", out=tmp_path / "third"))


def test_whoever_watches_hears_how_far_it_is_and_may_end_it(settings):
    told = []
    watch = Progress(lambda done, total: told.append((done, total)), lambda: (3, 6) in told)
    written = augment(replace(settings, include_real=True), progress=watch)
    assert told == [(0, 6), (1, 6), (2, 6), (3, 6)]
    painted = [row["file_name"] for row in written.rows if row["provenance"]]
    assert len(painted) == 3 and len(written) == 6 and check_dataset(settings.out).ok
    before = contents(settings.out / "images")
    whole = augment(replace(settings, include_real=True), progress=Progress(lambda *counts: told.append(counts)))
    assert told[4:] == [(3, 6), (4, 6), (5, 6)] and len(whole) == 9
    assert before.items() <= contents(settings.out / "images").items()


def test_nothing_is_written_where_nothing_was_generated(settings):
    assert augment(settings, progress=Progress(cancelled=lambda: True)) is None
    assert not (settings.out / "metadata.csv").exists()
