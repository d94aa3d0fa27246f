"""Dataset jobs share the room of a server: how many, how many bytes, and which go first."""

from __future__ import annotations

import contextlib
import threading
import zipfile
from dataclasses import replace

import pytest
from job_steps import REQUEST, ended

from emitdiff.backend import dataset_job, dataset_jobs
from emitdiff.errors import EmitDiffError


def folders(tmp_path) -> int:
    return len(list((tmp_path / "server").iterdir()))


def test_where_a_server_is_full_the_oldest_that_nothing_was_made_of_goes(jobs, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_jobs, "MAX_JOBS", 3)
    painted, first, second = jobs.create(packed), jobs.create(packed), jobs.create(packed)
    jobs.start(painted, replace(REQUEST, limit=1))
    ended(jobs, painted)
    third, fourth = jobs.create(packed), jobs.create(packed)
    assert [bool(jobs.status(name)) for name in (first, second)] == [False, False]
    assert [bool(jobs.status(name)) for name in (painted, third, fourth)] == [True, True, True]
    assert folders(tmp_path) == 3
    jobs._jobs[painted].last_used -= dataset_job.RECENT_SECONDS + 1
    jobs.create(packed)  # what somebody just gave stays longer than what was left for a while
    assert not jobs.status(painted) and jobs.status(third) and folders(tmp_path) == 3


def test_a_server_that_is_really_full_says_so_and_removes_nothing(jobs, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_jobs, "MAX_JOBS", 2)
    painted, painting = jobs.create(packed), jobs.create(packed)
    jobs.start(painted, replace(REQUEST, limit=1))
    ended(jobs, painted)
    jobs.start(painting, replace(REQUEST, limit=None))
    with pytest.raises(EmitDiffError, match="in use. Try again in ten minutes"):
        jobs.create(packed)
    assert jobs.status(painted) and jobs.status(painting) and folders(tmp_path) == 2
    jobs.stop(painting)
    ended(jobs, painting)


def test_what_is_no_dataset_takes_nobodys_place(jobs, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_jobs, "MAX_JOBS", 1)
    name = jobs.create(packed)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as zipped:
        zipped.writestr("a.txt", "x")
    with pytest.raises(EmitDiffError, match="it holds none"):
        jobs.create(tmp_path / "other.zip")
    assert jobs.status(name) and folders(tmp_path) == 1


def test_a_job_removed_while_it_makes_room_does_not_come_back(jobs, packed, tmp_path, monkeypatch):
    name, check = jobs.create(packed), dataset_jobs._check_size
    monkeypatch.setattr(dataset_jobs, "_check_size", lambda *given: jobs.remove(name) or check(*given))
    with pytest.raises(EmitDiffError, match="no longer on the server"):
        jobs.start(name, REQUEST)
    assert jobs.status(name) is None and folders(tmp_path) == 0


def test_all_jobs_together_have_only_so_many_bytes(jobs, packed, dataset_folder, tmp_path, monkeypatch):
    each = sum(path.stat().st_size for path in dataset_folder.rglob("*") if path.is_file())
    monkeypatch.setattr(dataset_jobs, "MAX_TOTAL_BYTES", int(2.5 * each))
    monkeypatch.setattr(dataset_jobs, "BYTES_PER_IMAGE", 0)
    first, second, third = jobs.create(packed), jobs.create(packed), jobs.create(packed)
    assert [bool(jobs.status(name)) for name in (first, second, third)] == [False, True, True]
    with pytest.raises(EmitDiffError, match="server has no space left"):
        jobs.start(third, REQUEST)
    assert jobs.status(second) and jobs.status(third).stage == "checked"
    monkeypatch.setattr(dataset_jobs, "MAX_TOTAL_BYTES", int(3.5 * each))
    jobs.start(third, REQUEST)
    assert ended(jobs, third).stage == "done" and not jobs.status(second), "it made room for what is generated"
    jobs.export(third, "dataset", only_kept=False)
    job = jobs._jobs[third]
    assert job.size == sum(path.stat().st_size for path in job.folder.rglob("*") if path.is_file())
    monkeypatch.setattr(dataset_jobs, "MAX_TOTAL_BYTES", each)
    with pytest.raises(EmitDiffError, match="server has no space left"):
        jobs.create(packed)
    assert folders(tmp_path) == 1


def test_many_who_come_at_once_do_not_fill_more_than_there_is(jobs, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_jobs, "MAX_JOBS", 2)
    most, stop = [0], threading.Event()

    def watch():
        while not stop.wait(0.001):
            most[0] = max(most[0], len(jobs._jobs))

    def take():
        with contextlib.suppress(EmitDiffError):
            jobs.create(packed)

    watching, comers = threading.Thread(target=watch), [threading.Thread(target=take) for _ in range(8)]
    for thread in (watching, *comers):
        thread.start()
    for thread in comers:
        thread.join()
    stop.set()
    watching.join()
    assert 1 <= most[0] <= 2 and folders(tmp_path) == len(jobs._jobs) <= 2
