"""The temporary root: its own, nothing of killed runs in it, nothing left at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.temporary import AskedToEndError, TemporaryRoot, ending_in_order

HOLD = """
import sys, tempfile
from emitdiff.temporary import TemporaryRoot
root = TemporaryRoot()
(root.folder / "scan.dcm").write_text("somebody's")
print(root.folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def held(place):
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, Path(process.stdout.readline().strip())


def test_files_lie_in_a_folder_of_the_run_and_go_with_it(place):
    before = dict(os.environ)
    root = TemporaryRoot()
    assert Path(tempfile.mkdtemp()).parent == root.folder and os.environ["GRADIO_TEMP_DIR"].startswith(str(root.folder))
    assert root.folder.stat().st_mode & 0o077 == root.folder.parent.stat().st_mode & 0o077 == 0
    root.close()
    assert not [*root.folder.parent.iterdir()] and dict(os.environ) == before
    assert Path(tempfile.gettempdir()) == place


def test_what_a_killed_run_left_goes_with_the_next_start_and_what_another_has_stays(place):
    (killed, left), (alive, its) = held(place), held(place)
    killed.kill()
    killed.wait(10)
    assert (left / "scan.dcm").exists()
    root = TemporaryRoot()
    assert not left.exists() and not Path(f"{left}.lock").exists()
    assert (its / "scan.dcm").exists()
    alive.communicate("", 10)
    root.close()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners of files as POSIX has them")
def test_a_folder_that_others_can_open_is_not_used(place):
    (place / f"emitdiff-{os.getuid()}").mkdir(mode=0o755)
    with pytest.raises(EmitDiffError, match="others can open it"):
        TemporaryRoot()
    (place / f"emitdiff-{os.getuid()}").rmdir()
    (place / f"emitdiff-{os.getuid()}").symlink_to(place)
    with pytest.raises(EmitDiffError, match="TMPDIR"):
        TemporaryRoot()


def test_gradio_s_own_variable_says_where(place, monkeypatch):
    """Whoever has a larger disk for uploads keeps it."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(place / "large" / "disk"))
    root = TemporaryRoot()
    assert root.folder.is_relative_to(place / "large" / "disk")
    root.close()
    assert os.environ["GRADIO_TEMP_DIR"] == str(place / "large" / "disk")


def test_a_wish_to_end_comes_once_and_outside_signals_are_as_before():
    before = signal.getsignal(signal.SIGTERM)
    done = []
    with pytest.raises(AskedToEndError), ending_in_order():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait([], 1)  # until it arrives
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # somebody is impatient
            done.append(True)
    assert done and signal.getsignal(signal.SIGTERM) == before


def test_what_nohup_ignores_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_in_order():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
