"""What is shown of a run and done with its images, called as Gradio calls it."""

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
        return SynthesisTab(fake_callables(**changes), read_examples()).results


@pytest.fixture(scope="module")
def results():
    return build()


def generate(results, example, **changes):
    arguments = {"previous": None, "scan": scan_that_saves(example.image), "slice_number": 1, "window": None}
    return list(results.generate(BROWSER, **{**arguments, "mask_file": str(example.mask), **FORM, **changes}))


def test_generate_fills_the_gallery_and_offers_the_archive(results, example):
    updates = generate(results, example)
    last = updates[-1]
    assert [caption for _, caption in last[results.gallery]] == ["seed 5", "seed 6"]
    assert str(last[results.download].value).count("synthetic_drawn_chest_xray.zip")
    assert "2 synthetic images" in last[results.progress]
    assert sum("step 1 of 4" in update[results.progress] for update in updates) == 2


def test_generate_without_an_image_says_so(results, example):
    (update,) = generate(results, example, scan=None, mask_file=None)
    assert "No image yet" in update[results.progress] and 'role="alert"' in update[results.progress]


def test_a_mask_alone_or_free_text_is_enough(results, example):
    alone = generate(results, example, scan=None)[-1]
    assert "drawn_chest_xray_mask" in alone[results.gallery][0][0] and "2 synthetic images" in alone[results.progress]
    free = generate(results, example, scan=None, mask_file=None, structure=0)
    assert "synthetic_text_000" in free[-1][results.gallery][0][0] and free[0][results.run].label is None


def test_the_merging_panel_mixes_the_chosen_image_with_its_source(results, example):
    panel, run = results.merging, generate(results, example)[0][results.run]
    real = panel.look(run, 1, 1.0, 64, 0)
    np.testing.assert_array_equal(real[panel.view][::3, ::3][:5, 0], at_view_size(run.source)[::3, ::3][:5, 0])
    assert "100% real" in real[panel.words]
    half, other = (panel.look(run, 1, 0.5, 64, seed)[panel.view] for seed in (0, 1))
    assert not np.array_equal(half, other)
    synthetic = panel.look(run, 1, 0.0, 64, 0)[panel.view]
    assert np.array_equal(synthetic[0], at_view_size(run.results[1].image)[0])


def test_the_merging_panel_says_what_is_missing(results, example):
    panel = results.merging
    assert "Generate images first" in panel.look(None, 0, 0.6, 64, 0)[panel.words]
    run = generate(results, example, scan=None)[0][results.run]
    assert "without a real image" in panel.look(run, 0, 0.6, 64, 0)[panel.words]
    run = generate(results, example)[0][results.run]
    assert "patch of the merging mask must be" in panel.look(run, 0, 0.6, 0, 0)[panel.words]


@pytest.mark.parametrize(("name", "value", "words"), [("seed", None, "The seed is empty"), ("prompt", "", "prompt is")])
def test_generate_names_the_field_that_is_wrong(results, example, name, value, words):
    (update,) = generate(results, example, **{name: value})
    assert words in update[results.progress]


def test_missing_weights_end_in_their_sentence(example):
    results = build(synthesize=failing)
    last = generate(results, example)[-1]
    assert "The weights are not here" in last[results.progress]
    assert last[results.download].interactive is False


def test_an_unforeseen_failure_shows_no_traceback(example, caplog):
    results = build(synthesize=lambda *arguments: 1 / 0)
    last = generate(results, example)[-1]
    assert "did not foresee (ZeroDivisionError)" in last[results.progress]
    assert "division by zero" in caplog.text


def test_stop_ends_the_run_and_keeps_what_is_finished(results, example):
    results.begin(BROWSER)
    arguments = {"previous": None, "scan": scan_that_saves(example.image), "slice_number": 1, "window": None}
    updates = results.generate(BROWSER, **arguments, mask_file=None, **{**FORM, "num_images": 8})
    seen = []
    for update in updates:
        seen.append(update)
        if "Image 2 of 8, step 2" in update[results.progress]:
            results.stop(BROWSER)
    assert "Stopped: 1 synthetic image of 8" in seen[-1][results.progress]
    assert len(seen) < 10
    results.rest(BROWSER)
    assert results._stops == {}


def test_stop_reaches_a_run_that_still_waits(results, example):
    results.begin(BROWSER)
    results.stop(BROWSER)
    assert "Stopped before" in generate(results, example)[-1][results.progress]
    results.rest(BROWSER)


def test_choosing_an_image_offers_its_seed(results, example):
    run = generate(results, example)[0][results.run]
    updates = results.choose(run, SimpleNamespace(index=1))
    assert updates[results.chosen_seed] == 6 and "seed 6" in updates[results.chosen]
    assert results.use_seed in results.choose(None, SimpleNamespace(index=0))
