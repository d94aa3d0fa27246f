"""Files go by their age, whoever made them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import httpx
import pytest
from fakes import fake_callables

from emitdiff.ui.demo import build_demo, launch_settings
from emitdiff.ui.serving import housekeeping
from emitdiff.ui.serving.housekeeping import remove_old_files


def test_old_files_go_and_fresh_and_kept_ones_stay(tmp_path):
    for name in ("dated back", "example/kept.png", "a/b/old.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    time.sleep(0.05)
    before = time.time()
    time.sleep(0.05)  # a file system counts in coarser steps
    (tmp_path / "fresh").touch()
    os.utime(tmp_path / "dated back", (0, 0))  # a file may bring any date; it came now
    remove_old_files(tmp_path, {str(tmp_path / "example" / "kept.png")}, before)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left >= {"fresh", "dated back", "example", "example/kept.png"} and "a/b/old.png" not in left


def test_an_upload_that_gradio_does_not_know_goes_while_the_server_runs(tmp_path, monkeypatch, example):
    """As of a connection that was cut: Gradio makes the file before it has all of it, and forgets it then."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.setattr(housekeeping, "SWEEP_SECONDS", 0.2)
    monkeypatch.setattr(housekeeping, "SESSION_SECONDS", 1.0)
    tidied: list[bool] = []
    calls = fake_callables(tidy=lambda: tidied.append(True))
    demo = build_demo(calls)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_settings(calls, tmp_path))
    stored = Path(httpx.post(f"{url}gradio_api/upload", files={"files": example.image.read_bytes()}).json()[0])
    cut_off = tmp_path / "gradio" / "tmp_partial"
    cut_off.write_bytes(b"half a scan")
    assert stored.exists() and stored.is_relative_to(tmp_path)
    deadline = time.monotonic() + 10
    while (cut_off.exists() or stored.exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    demo.close()
    assert not cut_off.exists() and not stored.exists() and tidied


@pytest.mark.parametrize("foreign", [True, False])
def test_a_cache_that_is_not_our_own_is_left_alone(tmp_path, monkeypatch, foreign):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.setattr(housekeeping, "SESSION_SECONDS", 0.0)
    monkeypatch.setattr(housekeeping, "SWEEP_SECONDS", 0.1)
    (tmp_path / "gradio").mkdir()
    (tmp_path / "gradio" / "of somebody").touch()
    calls = fake_callables()
    demo = build_demo(calls)
    demo.launch(
        prevent_thread_lock=True, quiet=True,
        **launch_settings(calls, None if foreign else tmp_path),
    )  # fmt: skip
    time.sleep(0.5)
    demo.close()
    assert (tmp_path / "gradio" / "of somebody").exists() is foreign
