"""The handlers of the Synthesis tab, called as Gradio calls them."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace

import gradio as gr
import pytest
from fakes import fake_callables, filled_form, scan_that_saves

from emitdiff.synthesis_settings import MaskEdit, SynthesisSettings
from emitdiff.ui.examples import read_examples
from emitdiff.ui.synthesis.tab import SynthesisTab

BROWSER = SimpleNamespace(session_hash="someone")
FORM = filled_form("X-ray, chest", num_images=2, seed=5)


@pytest.fixture(scope="module")
def tab():
    with gr.Blocks():
        return SynthesisTab(fake_callables(), read_examples())


def test_the_form_is_the_request(tab):
    settings, edit = ({field.name for field in fields(each)} for each in (SynthesisSettings, MaskEdit))
    edit = edit - {"seed"} | {"edit_seed"}
    assert set(tab.form) == settings - {"edit", "appearance", "size"} | edit | {"checkpoint"}


def test_structure_and_edits_reach_the_run_and_the_preview(tab, example):
    changes = {"structure": 0.3, "move_x": 0.25, "preset": "paper"}
    arguments = {"previous": None, "scan": scan_that_saves(example.image), "slice_number": 1, "window": None}
    first = next(
        tab.generation.generate(
            BROWSER, outlines=False, large=None, **arguments, mask_file=str(example.mask), **{**FORM, **changes}
        )
    )
    request = first[tab.results.run].request
    settings = request.settings
    assert (settings.structure, settings.edit.move_x, settings.preset) == (0.3, 0.25, "paper")
    form = {**FORM, "scan": scan_that_saves(example.image), "slice_number": 1, "window": None, "structure": 0}
    *_, last = tab.input.preview.update(mask_file=None, **form)
    assert "prompt alone" in last[tab.input.preview.control_note]


def test_what_is_said_of_a_scan_reaches_the_run(tab, example):
    scan = scan_that_saves(example.image)
    scan.warnings = ("The file has no orientation.",)
    arguments = {"previous": None, "scan": scan, "slice_number": 1, "window": None, "mask_file": None, **FORM}
    first = next(tab.generation.generate(BROWSER, outlines=False, large=None, **arguments))
    assert first[tab.results.run].warnings == scan.warnings


def test_the_settings_of_an_image_come_back_into_the_form(tab, example):
    form = {**FORM, "num_images": 3, "guidance_scale": 2.5, "move_x": 0.1, "detector": "hed"}
    arguments = {"previous": None, "scan": scan_that_saves(example.image), "slice_number": 1, "window": None}
    painting = tab.generation.generate(BROWSER, outlines=False, large=None, **arguments, mask_file=None, **form)
    run = list(painting)[0][tab.results.run]
    updates = tab.take_settings(run, 2)
    values = {name: updates[field] for name, field in tab.form.items() if field in updates}
    assert {**values, "num_images": 3} == {**form, "seed": 7} and "num_images" not in values
    assert updates[tab.input.structure.thresholds].visible is False
    assert list(tab.take_settings(None, 0)) == [tab.form["seed"]]
