from __future__ import annotations

from types import SimpleNamespace

import cv2
import gradio as gr
import numpy as np
import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.ui.drawing import build_drawing, canvas_value, drawn_mask, save_drawing


def editor_value(painted: np.ndarray) -> dict:
    layer = np.zeros((*painted.shape, 4), np.uint8)
    layer[painted] = (0, 158, 115, 255)
    return {"background": None, "layers": [layer], "composite": None}


def test_the_ground_is_the_slice_enlarged_and_unpainted():
    value = canvas_value(np.zeros((96, 64, 3), np.uint8))
    assert value["background"].shape == (768, 512, 3) and value["layers"] == []


def test_strokes_become_class_ids_at_the_size_of_the_scan(tmp_path):
    painted = np.zeros((768, 512), bool)
    painted[:384] = True
    mask = drawn_mask(editor_value(painted), (96, 64))
    assert mask.dtype == np.uint8 and mask[:48].all() and not mask[48:].any()
    saved = cv2.imread(str(save_drawing(editor_value(painted), (96, 64), "scan")), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(saved, mask * 255)


@pytest.mark.parametrize("value", [None, {"layers": []}, editor_value(np.zeros((8, 8), bool))])
def test_an_empty_canvas_is_named(value):
    with pytest.raises(EmitDiffError, match="Nothing is drawn yet"):
        drawn_mask(value, (8, 8))


def test_a_drawing_makes_outdated_what_was_said_of_another_mask_and_an_empty_one_does_not():
    with gr.Blocks():
        drawing, file, beside, said = build_drawing(), gr.File(), gr.HTML(), gr.HTML()
    scan = SimpleNamespace(name="scan.png", size=(8, 8))
    updates = drawing.take(file, (beside, said), scan, editor_value(np.ones((8, 8), bool)))
    assert updates[file].endswith("scan_drawn_mask.png")
    assert updates[said] == updates[beside] == updates[drawing.note] == ""
    empty = drawing.take(file, (beside, said), scan, None)
    assert set(empty) == {drawing.note} and "Nothing is drawn yet" in empty[drawing.note]
