"""The same picture shown again while a browser still fetches it: its file must stay as it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import gradio as gr
import numpy as np
import pytest

from emitdiff.ui.views import picture_file, written_once

PICTURE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)


@pytest.fixture(params=[gr.Image, gr.Gallery])
def shown(request, tmp_path):
    """Shows a picture through the component; returns its file."""
    component = written_once(request.param(format="png"))
    component.GRADIO_CACHE = str(tmp_path)

    def show(picture):
        if request.param is gr.Image:
            return Path(component.postprocess(picture).path)
        return Path(component.postprocess([(picture, "seed 1 ...")]).root[0].image.path)

    return show


def test_a_picture_shown_again_is_not_written_again(shown):
    path = shown(PICTURE)
    assert np.array_equal(cv2.imread(str(path))[..., ::-1], PICTURE)
    with path.open("ab") as file:
        file.write(b"still here")
    assert shown(PICTURE.copy()) == path and path.read_bytes().endswith(b"still here")
    assert shown(255 - PICTURE) != path


def test_files_and_nothing_are_kept(shown, tmp_path):
    path = picture_file(PICTURE, tmp_path / "other")
    assert shown(path) == Path(path)
    assert picture_file(None, tmp_path) is None and written_once(gr.Gallery()).postprocess(None).root == []


def test_many_at_once_leave_one_whole_file(tmp_path):
    with ThreadPoolExecutor(8) as together:
        paths = set(together.map(lambda _: picture_file(PICTURE, tmp_path), range(40)))
    (path,) = paths
    assert [file.name for file in Path(path).parent.iterdir()] == ["image.png"]
    assert np.array_equal(cv2.imread(path)[..., ::-1], PICTURE)
