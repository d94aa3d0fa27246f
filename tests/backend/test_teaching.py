"""Where trained heads are stored."""

from __future__ import annotations

import os

from emitdiff.backend.teaching import _head_folder


def test_old_heads_go_and_one_that_another_server_removes_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    old, gone = tmp_path / "emitdiff_head_old", tmp_path / "emitdiff_head_gone"
    old.mkdir()
    os.utime(old, (0, 0))
    gone.symlink_to(tmp_path / "nowhere")  # listed and then not there, as for whoever comes second
    new = _head_folder()
    assert new.is_dir() and not old.exists()
