"""Datasets augmented in the background, on tiny weights of the real classes."""

from __future__ import annotations

import os
import shutil
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from job_steps import REQUEST, ended

from emitdiff.backend import dataset_job, dataset_jobs
from emitdiff.backend.dataset_jobs import DatasetJobs
from emitdiff.datasets.archive import pack_folder
from emitdiff.datasets.folder import open_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.ui.interface import AugmentRequest


def test_a_zip_becomes_an_augmented_dataset_with_a_report(jobs, packed):
    name = jobs.create(packed)
    state = jobs.status(name)
    assert state.usable and state.stage == "checked" and state.check.num_images == 10 and len(name) > 30
    jobs.start(name, replace(REQUEST, ratio=2))
    state = ended(jobs, name)
    assert (state.stage, state.error, state.generated) == ("done", None, 4)
    assert "worst first" in state.report.read_text() and state.scores.read_text().count("synthetic_") >= 4
    pairs = jobs.pairs(name, 3)
    assert len({pair.name for pair in pairs}) == 3
    for pair in pairs:
        assert pair.source.shape == pair.image.shape == (64, 64, 3)
        np.testing.assert_array_equal(pair.source_mask, pair.mask)
        assert not np.array_equal(pair.source, pair.image)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [("dataset", "metadata.csv"), ("nnunet", "splits_final.json"), ("coco", "annotations/instances.json")],
)
def test_what_was_generated_is_exported(jobs, packed, layout, expected):
    name = jobs.create(packed)
    jobs.start(name, REQUEST)
    ended(jobs, name)
    archive, notes = jobs.export(name, layout, only_kept=False)
    with zipfile.ZipFile(archive) as zipped:
        names = zipped.namelist()
    assert any(entry.endswith(f"/{expected}") for entry in names)
    assert sum("synthetic_" in entry and "mask" not in entry and "label" not in entry for entry in names) == 2
    assert sum(entry.endswith(".png") for entry in names) == (4 if layout == "coco" else 8)
    assert bool(notes) == (layout != "dataset")


def test_a_real_image_that_is_called_synthetic_is_no_pair(jobs, dataset_folder, tmp_path):
    renamed = Path(shutil.copytree(dataset_folder, tmp_path / "renamed"))
    (renamed / "images" / "0.png").rename(renamed / "images" / "synthetic_0.png")
    table = (renamed / "metadata.csv").read_text().replace("images/0.png", "images/synthetic_0.png")
    (renamed / "metadata.csv").write_text(table)
    name = jobs.create(pack_folder(renamed, tmp_path / "renamed.zip", "renamed"))
    jobs.start(name, AugmentRequest(limit=1))
    assert ended(jobs, name).stage == "done"
    assert [pair.name for pair in jobs.pairs(name, 4)] == ["synthetic_synthetic_0_0.png"]


def test_stopped_and_started_again_it_resumes(jobs, packed):
    name = jobs.create(packed)
    request = replace(REQUEST, limit=None)
    jobs.start(name, request)
    with pytest.raises(EmitDiffError, match="is being augmented"):
        jobs.start(name, request)
    while jobs.status(name).done < 2:
        time.sleep(0.01)
    jobs.stop(name)
    stopped = ended(jobs, name)
    assert stopped.stage == "stopped" and 2 <= stopped.generated < 10 and stopped.report is None
    folder = jobs.export(name, "dataset", only_kept=False)[0]
    assert folder.exists()
    with pytest.raises(EmitDiffError, match="No image passed the filter"):
        jobs.export(name, "dataset", only_kept=True)
    before = {pair.name: pair.image for pair in jobs.pairs(name, 10)}
    jobs.start(name, request)
    whole = ended(jobs, name)
    assert whole.stage == "done" and whole.generated == 10
    after = {pair.name: pair.image for pair in jobs.pairs(name, 10)}
    assert all(np.array_equal(after[key], image) for key, image in before.items())


@pytest.fixture
def while_packing(monkeypatch):
    """Has something done, by somebody else, once an export has begun and before its files are packed."""

    def arrange(do) -> threading.Thread:
        other = threading.Thread(target=do)

        def pack(*given):
            other.start()
            other.join(0.5)  # as long as it takes, where nothing makes it wait
            return pack_folder(*given)

        monkeypatch.setattr(dataset_job, "pack_folder", pack)
        return other

    return arrange


def test_what_is_exported_is_not_deleted_by_a_start_meanwhile(jobs, packed, while_packing):
    name = jobs.create(packed)
    jobs.start(name, REQUEST)
    ended(jobs, name)
    other = while_packing(lambda: jobs.start(name, replace(REQUEST, seed=7, limit=1)))
    with zipfile.ZipFile(jobs.export(name, "dataset", only_kept=False)[0]) as zipped:
        assert any("synthetic_" in entry for entry in zipped.namelist())
    other.join()
    assert ended(jobs, name).generated == 1


def test_what_is_removed_while_it_is_exported_is_said_and_leaves_nothing(jobs, packed, while_packing, tmp_path):
    name = jobs.create(packed)
    jobs.start(name, REQUEST)
    ended(jobs, name)
    other = while_packing(lambda: jobs.remove(name))
    with pytest.raises(EmitDiffError, match="no longer on the server"):
        jobs.export(name, "dataset", only_kept=False)
    other.join()
    assert not list((tmp_path / "server").iterdir())


def test_nobody_else_waits_while_a_start_reads_and_deletes(jobs, packed, monkeypatch):
    name, held, check = jobs.create(packed), [], dataset_jobs._check_size
    monkeypatch.setattr(
        dataset_jobs, "_check_size", lambda *given: held.append(jobs._registry_lock.locked()) or check(*given)
    )
    jobs.start(name, REQUEST)
    assert held == [False] and ended(jobs, name).stage == "done"


def test_other_settings_begin_again(jobs, packed):
    name = jobs.create(packed)
    jobs.start(name, REQUEST)
    ended(jobs, name)
    jobs.start(name, replace(REQUEST, seed=7, limit=1))
    assert ended(jobs, name).generated == 1 and len(jobs.pairs(name, 9)) == 1


def test_one_generates_while_another_waits_and_may_be_stopped(jobs, packed):
    first, second = jobs.create(packed), jobs.create(packed)
    jobs.start(first, replace(REQUEST, limit=None))
    while jobs.status(first).stage != "generating":
        time.sleep(0.01)
    jobs.start(second, REQUEST)
    assert jobs.status(second).stage == "waiting"
    jobs.stop(second)
    assert ended(jobs, second).stage == "stopped"
    jobs.stop(first)
    ended(jobs, first)


def test_what_cannot_be_generated_from_is_said(jobs, dataset_folder, tmp_path):
    broken = Path(shutil.copytree(dataset_folder, tmp_path / "broken"))
    (broken / "masks" / "3.png").unlink()
    name = jobs.create(pack_folder(broken, tmp_path / "broken.zip", "broken"))
    state = jobs.status(name)
    assert not state.usable and [found.kind for found in state.check.defects] == ["missing file"]
    with pytest.raises(EmitDiffError, match="defects"):
        jobs.start(name, REQUEST)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ratio": 900.0}, "9,000 images would be generated"),
        ({"structure": 0.2}, "structure was"),
        ({"edit": 2}, "edits"),
    ],
)
def test_settings_that_cannot_be_used_are_said_at_once(jobs, packed, change, said):
    name = jobs.create(packed)
    with pytest.raises(EmitDiffError, match=said):
        jobs.start(name, AugmentRequest(**change))
    assert jobs.status(name).stage == "checked"


def test_of_very_many_defects_only_some_are_kept(jobs, dataset_folder, tmp_path):
    many = shutil.copytree(dataset_folder, tmp_path / "many")
    (many / "images" / "unlisted.png").write_bytes(b"x")
    with (many / "metadata.csv").open("a") as table:
        table.writelines(f"images/gone {number}.png,masks/gone {number}.png,a,,\n" for number in range(1200))
    name = jobs.create(pack_folder(many, tmp_path / "many.zip", "many"))
    state = jobs.status(name)
    assert not state.usable and {found.kind for found in state.check.defects} == {"missing file", "not listed"}
    assert len(state.check.defects) == 1002 and state.check.defects[-1].what.startswith("and 1,400 more")


def test_a_failure_says_why_and_not_where(jobs, packed, monkeypatch):
    def fail(*given):
        raise EmitDiffError(f"{given[0].folder}/discs/images/0.png is no picture")

    name = jobs.create(packed)
    folder = jobs._jobs[name].source.parent.parent
    monkeypatch.setattr(jobs, "_generate", lambda job, settings: fail(job))
    jobs.start(name, REQUEST)
    state = ended(jobs, name)
    assert state.stage == "failed" and "is no picture" in str(state.error) and str(folder) not in str(state.error)


def test_a_day_later_a_job_and_its_files_are_gone(jobs, packed, tmp_path, monkeypatch):
    name = jobs.create(packed)
    stray, fresh = (tmp_path / "server" / f"{dataset_jobs.PREFIX}{kind}" for kind in ("stray", "fresh"))
    stray.mkdir()
    fresh.mkdir()
    os.utime(stray, (0, 0))
    jobs._jobs[name].last_used -= dataset_jobs.JOB_LIFETIME + 1
    other = jobs.create(packed)
    assert jobs.status(name) is None and jobs.status(other) and fresh.exists() and not stray.exists()
    with pytest.raises(EmitDiffError, match="kept for a day"):
        jobs.start(name, REQUEST)
    jobs.remove(other)
    jobs.remove(other)
    assert list((tmp_path / "server").iterdir()) == [fresh]


def test_a_job_removed_while_it_generates_leaves_nothing(jobs, packed, tmp_path):
    name = jobs.create(packed)
    jobs.start(name, replace(REQUEST, limit=None))
    while jobs.status(name).stage != "generating":
        time.sleep(0.01)
    jobs.remove(name)
    for _ in range(200):
        if not list((tmp_path / "server").iterdir()):
            return
        time.sleep(0.05)
    pytest.fail("its folder is still there")


def test_labels_are_checked_by_a_segmenter_where_one_is_named(painter, packed, tmp_path, monkeypatch):
    class Bright:
        """Finds what is bright, whatever the text."""

        def encode(self, image):
            self.mask = (image[..., 0] > 120).astype(np.uint8)
            return self

        def segment(self, encoded, text):
            asked.append(text)
            return encoded

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    asked = []
    jobs = DatasetJobs(lambda name: painter, lambda name: Bright())
    name = jobs.create(packed)
    jobs.start(name, replace(REQUEST, segmenter="textdiff-mini"))
    assert ended(jobs, name).stage == "done" and len(asked) == 4 and "breast lesion" in asked
    assert open_dataset(jobs._jobs[name].source).info.name == "discs"
