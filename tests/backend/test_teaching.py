"""Where trained heads are stored, and trainings that go on."""

from __future__ import annotations

import os

import numpy as np
import pytest

from emitdiff.backend import teaching
from emitdiff.backend.teaching import _head_folder, keep_teaching, teach_examples
from emitdiff.errors import EmitDiffError
from emitdiff.ui.interface import FewShotRequest


def test_old_heads_go_and_one_that_another_server_removes_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    old, gone = tmp_path / "emitdiff_head_old", tmp_path / "emitdiff_head_gone"
    old.mkdir()
    os.utime(old, (0, 0))
    gone.symlink_to(tmp_path / "nowhere")  # listed and then not there, as for whoever comes second
    new = _head_folder()
    assert new.is_dir() and not old.exists()


def drawn(seed):
    """An image with a bright square, its mask, and a name."""
    image, mask = (
        np.random.default_rng(seed).integers(60, 90, (64, 64, 3)).astype(np.uint8),
        np.zeros((64, 64), np.uint8),
    )
    mask[20 : 40 + seed, 16:48] = 1
    image[mask > 0] += 100
    return image, mask, f"{seed}.png"


def test_a_training_goes_on_by_the_file_of_its_last_head_and_only_while_it_is_kept(
    tiny_segmenter, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    asked, enough = FewShotRequest("square", "CT", "abdomen", seconds=600), iter([False] * 4 + [True] * 9)
    *_, first = teach_examples(tiny_segmenter, [drawn(k) for k in range(4)], asked, lambda: next(enough))
    assert first.file.name == "square.safetensors" and first.dice is not None and first.preview.shape == (64, 64, 3)
    *_, second = keep_teaching(str(first.file), 600, lambda: True)
    assert second.step > first.step and second.file != first.file and first.file.exists()
    with pytest.raises(EmitDiffError, match="Press Teach to begin anew"):
        next(keep_teaching(str(first.file), 60))
    for seed in range(teaching.MAX_TRAINERS):  # others push it out
        list(teach_examples(tiny_segmenter, [drawn(seed)], asked, lambda: True))
    with pytest.raises(EmitDiffError, match="cannot go on"):
        next(keep_teaching(str(second.file), 60))
