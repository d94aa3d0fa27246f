"""The handlers of the Synthesis tab, called as Gradio calls them."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr
import pytest
from fakes import failing, fake_callables, scan_that_saves

from emitdiff.ui.callables import SynthesisRequest
from emitdiff.ui.examples import read_examples
from emitdiff.ui.synthesis_tab import SynthesisTab

BROWSER = SimpleNamespace(session_hash="someone")
FORM = dict(vars(SynthesisRequest("X-ray, chest", num_images=2, seed=5)))


def build(**changes):
    with gr.Blocks():
        return SynthesisTab(fake_callables(**changes), read_examples())


@pytest.fixture(scope="module")
def tab():
    return build()


def test_the_form_is_the_request(tab):
    assert set(tab.form) == set(SynthesisRequest.__dataclass_fields__)


def test_structure_and_edits_reach_the_run_and_the_preview(tab, example):
    changes = {"structure": 0.3, "move_x": 0.25, "preset": "paper"}
    arguments = {"previous": None, "scan": scan_that_saves(example.image), "slice_number": 1, "window": None}
    first = next(tab.results.generate(BROWSER, **arguments, mask_file=str(example.mask), **{**FORM, **changes}))
    request = first[tab.results.run].request
    assert (request.structure, request.move_x, request.preset) == (0.3, 0.25, "paper")
    form = {**FORM, "scan": scan_that_saves(example.image), "slice_number": 1, "window": None, "structure": 0}
    *_, last = tab.preview.look(mask_file=None, **form)
    assert "painted freely" in last[tab.preview.control_note]


def test_the_preview_says_what_is_missing(tab, example):
    shown, control = tab.preview.look(None, 1, None, str(example.mask), **FORM)
    assert "mask alone" in shown[tab.mask_note] and control[tab.preview.control_view].any()
    (nothing,) = tab.preview.look(None, 1, None, None, **FORM)
    assert nothing[tab.preview.control_view] is None


def test_a_preset_sets_the_fields_it_names(tab):
    steps, guidance, _, detector, thresholds, words = tab.take_defaults("emitdiff-mini", "paper")
    assert "Preset paper: as published." in words
    assert (steps, guidance, detector, thresholds.visible) == (4, 9.0, "hed", False)


def test_a_mask_of_another_size_is_named_beside_it(tab, example, tmp_path):
    import cv2

    small = tmp_path / "small.png"
    cv2.imwrite(str(small), cv2.resize(cv2.imread(str(example.mask)), (64, 64), interpolation=cv2.INTER_NEAREST))
    form = {**FORM, "scan": scan_that_saves(example.image), "slice_number": 1, "window": None}
    first, second = tab.preview.look(mask_file=str(small), **form)
    assert "small.png" in first[tab.mask_note] and "64 x 64" in first[tab.mask_note]
    assert tab.preview.source_view in first and second[tab.preview.control_view].shape == (256, 256, 3)


def test_a_preview_that_fails_is_named_below_it(example):
    tab = build(control_image=failing)
    form = {**FORM, "scan": scan_that_saves(example.image), "slice_number": 1, "window": None}
    _, second = tab.preview.look(mask_file=None, **form)
    assert second[tab.preview.control_view] is None and "The weights are not here" in second[tab.preview.control_note]


def test_a_bad_file_leaves_what_was_there(tab, tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("no image")
    updates = tab.take_file(str(path), BROWSER)
    assert set(updates) == {tab.source.message, tab.source.file}
    assert "notes.png" in updates[tab.source.message] and "Traceback" not in updates[tab.source.message]


def test_an_example_brings_its_mask_and_words(tab):
    updates = tab.take_example(SimpleNamespace(index=1), BROWSER)
    assert updates[tab.prompt] == "CT, abdomen, liver" and updates[tab.modality] == "CT"
    assert updates[tab.mask_file].endswith("drawn_abdominal_ct_mask.png")


def test_other_weights_bring_their_defaults(tab):
    steps, guidance, strength, detector, thresholds, text = tab.take_defaults("sd15-canny")
    assert (steps, guidance, strength, detector) == (20, 7.5, 1.0, "canny")
    assert "not downloaded" in text


def test_a_long_prompt_is_warned_about(tab):
    assert tab.warn("short", "emitdiff-mini") == ""
    assert "Cut after 77 tokens" in tab.warn("word " * 60, "emitdiff-mini")
