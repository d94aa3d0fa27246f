"""The handlers of the Synthesis tab, called as Gradio calls them."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from fakes import failing, fake_callables, scan_that_saves

from emitdiff.ui.callables import SynthesisRequest
from emitdiff.ui.examples import read_examples
from emitdiff.ui.source import at_view_size
from emitdiff.ui.synthesis_tab import SynthesisTab

BROWSER = SimpleNamespace(session_hash="someone")
FORM = dict(vars(SynthesisRequest("X-ray, chest", num_images=2, seed=5)))


def build(**changes):
    with gr.Blocks():
        return SynthesisTab(fake_callables(**changes), read_examples())


@pytest.fixture(scope="module")
def tab():
    return build()


def generate(tab, example, **changes):
    arguments = {"previous": None, "scan": scan_that_saves(example.image), "slice_number": 1, "window": None}
    return list(tab.generate(BROWSER, **{**arguments, "mask_file": str(example.mask), **FORM, **changes}))


def test_the_form_is_the_request(tab):
    assert set(tab.form) == set(SynthesisRequest.__dataclass_fields__)


def test_generate_fills_the_gallery_and_offers_the_archive(tab, example):
    updates = generate(tab, example)
    last = updates[-1]
    assert [caption for _, caption in last[tab.gallery]] == ["seed 5", "seed 6"]
    assert str(last[tab.download].value).count("synthetic_drawn_chest_xray.zip")
    assert "2 synthetic images" in last[tab.progress]
    assert sum("step 1 of 4" in update[tab.progress] for update in updates) == 2


def test_generate_without_an_image_says_so(tab, example):
    (update,) = generate(tab, example, scan=None, mask_file=None)
    assert "No image yet" in update[tab.progress] and 'role="alert"' in update[tab.progress]


def test_a_mask_alone_or_free_text_is_enough(tab, example):
    alone = generate(tab, example, scan=None)[-1]
    assert "drawn_chest_xray_mask" in alone[tab.gallery][0][0] and "2 synthetic images" in alone[tab.progress]
    free = generate(tab, example, scan=None, mask_file=None, structure=0)
    assert "synthetic_text_000" in free[-1][tab.gallery][0][0] and free[0][tab.run].label is None
    shown, control = tab.preview.look(None, 1, None, str(example.mask), **FORM)
    assert "mask alone" in shown[tab.mask_note] and control[tab.preview.control_view].any()
    (nothing,) = tab.preview.look(None, 1, None, None, **FORM)
    assert nothing[tab.preview.control_view] is None


def test_structure_and_edits_reach_the_run_and_the_preview(tab, example):
    changes = {"structure": 0.3, "move_x": 0.25, "preset": "paper"}
    run = generate(tab, example, **changes)[0][tab.run]
    assert (run.request.structure, run.request.move_x, run.request.preset) == (0.3, 0.25, "paper")
    form = {**FORM, "scan": scan_that_saves(example.image), "slice_number": 1, "window": None, "structure": 0}
    *_, last = tab.preview.look(mask_file=None, **form)
    assert "painted freely" in last[tab.preview.control_note]


def test_the_merging_panel_mixes_the_chosen_image_with_its_source(tab, example):
    panel, run = tab.merging, generate(tab, example)[0][tab.run]
    real = panel.look(run, 1, 1.0, 64, 0)
    np.testing.assert_array_equal(real[panel.view][::3, ::3][:5, 0], at_view_size(run.source)[::3, ::3][:5, 0])
    assert "100% real" in real[panel.words]
    half, other = (panel.look(run, 1, 0.5, 64, seed)[panel.view] for seed in (0, 1))
    assert not np.array_equal(half, other)
    synthetic = panel.look(run, 1, 0.0, 64, 0)[panel.view]
    assert np.array_equal(synthetic[0], at_view_size(run.results[1].image)[0])


def test_the_merging_panel_says_what_is_missing(tab, example):
    panel = tab.merging
    assert "Generate images first" in panel.look(None, 0, 0.6, 64, 0)[panel.words]
    run = generate(tab, example, scan=None)[0][tab.run]
    assert "without a real image" in panel.look(run, 0, 0.6, 64, 0)[panel.words]
    run = generate(tab, example)[0][tab.run]
    assert "patch of the merging mask must be" in panel.look(run, 0, 0.6, 0, 0)[panel.words]


def test_a_preset_sets_the_fields_it_names(tab):
    steps, guidance, _, detector, thresholds, words = tab.take_defaults("emitdiff-mini", "paper")
    assert "Preset paper: as published." in words
    assert (steps, guidance, detector, thresholds.visible) == (4, 9.0, "hed", False)


@pytest.mark.parametrize(("name", "value", "words"), [("seed", None, "The seed is empty"), ("prompt", "", "prompt is")])
def test_generate_names_the_field_that_is_wrong(tab, example, name, value, words):
    (update,) = generate(tab, example, **{name: value})
    assert words in update[tab.progress]


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


def test_missing_weights_end_in_their_sentence(example):
    tab = build(synthesize=failing)
    last = generate(tab, example)[-1]
    assert "The weights are not here" in last[tab.progress]
    assert last[tab.download].interactive is False


def test_an_unforeseen_failure_shows_no_traceback(example, caplog):
    tab = build(synthesize=lambda *arguments: 1 / 0)
    last = generate(tab, example)[-1]
    assert "did not foresee (ZeroDivisionError)" in last[tab.progress]
    assert "division by zero" in caplog.text


def test_stop_ends_the_run_and_keeps_what_is_finished(tab, example):
    tab.begin(BROWSER)
    arguments = {"previous": None, "scan": scan_that_saves(example.image), "slice_number": 1, "window": None}
    updates = tab.generate(BROWSER, **arguments, mask_file=None, **{**FORM, "num_images": 8})
    seen = []
    for update in updates:
        seen.append(update)
        if "Image 2 of 8, step 2" in update[tab.progress]:
            tab.stop(BROWSER)
    assert "Stopped: 1 synthetic image of 8" in seen[-1][tab.progress]
    assert len(seen) < 10
    tab.rest(BROWSER)
    assert tab._stops == {}


def test_stop_reaches_a_run_that_still_waits(tab, example):
    tab.begin(BROWSER)
    tab.stop(BROWSER)
    assert "Stopped before" in generate(tab, example)[-1][tab.progress]
    tab.rest(BROWSER)


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


def test_choosing_an_image_offers_its_seed(tab, example):
    run = generate(tab, example)[0][tab.run]
    updates = tab.choose(run, SimpleNamespace(index=1))
    assert updates[tab.chosen_seed] == 6 and "seed 6" in updates[tab.chosen]
    assert tab.use_seed in tab.choose(None, SimpleNamespace(index=0))
