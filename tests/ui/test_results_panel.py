"""What is shown of a run and done with its images, called as Gradio calls it."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from fakes import failing, fake_callables, filled_form, scan_that_saves, synthesize

from emitdiff.provenance import read_synthetic_settings
from emitdiff.scans.masks import read_mask
from emitdiff.synthesis_settings import MaskEdit
from emitdiff.ui.examples import read_examples
from emitdiff.ui.segmentation.tab import SegmentationTab
from emitdiff.ui.source import at_view_size
from emitdiff.ui.synthesis.results_panel import describe
from emitdiff.ui.synthesis.tab import SynthesisTab

BROWSER = SimpleNamespace(session_hash="someone")
FORM = filled_form("X-ray, chest", num_images=2, seed=5)


def build(**changes):
    with gr.Blocks():
        return SynthesisTab(fake_callables(**changes), read_examples())


@pytest.fixture(scope="module")
def tab():
    return build()


@pytest.fixture(scope="module")
def results(tab):
    return tab.results


def generate(tab, example, **changes):
    arguments = {
        "previous": None,
        "scan": scan_that_saves(example.image),
        "slice_number": 1,
        "window": None,
        "outlines": False,
        "large": None,
    }
    return list(tab.generation.generate(BROWSER, **{**arguments, "mask_file": str(example.mask), **FORM, **changes}))


def pack(results, run, layout="images, masks, manifest", classes=""):
    return results.downloads.pack(run, layout, classes)


def test_generate_fills_the_gallery_and_offers_the_archive(tab, results, example):
    updates = generate(tab, example)
    last = updates[-1]
    captions = [caption for _, caption in last[results.gallery]]
    assert captions[0].startswith("seed 5, edges 0.9") and captions[1].startswith("seed 6, edges")
    packed = pack(results, updates[0][results.run])
    assert str(packed[results.downloads.button]["value"]).endswith("synthetic_painted_chest_xray.zip")
    assert "2 images" in packed[results.downloads.words]
    assert "2 synthetic images" in last[results.progress]
    assert sum("step 1 of 4" in update[results.progress] for update in updates) == 2


def test_generate_without_an_image_says_so(tab, results, example):
    (update,) = generate(tab, example, scan=None, mask_file=None)
    assert "No image yet" in update[results.progress] and 'role="alert"' in update[results.progress]


def test_a_mask_alone_or_free_text_is_enough(tab, results, example):
    alone = generate(tab, example, scan=None)[-1]
    assert "painted_chest_xray_mask" in alone[results.gallery][0][0] and "2 synthetic images" in alone[results.progress]
    free = generate(tab, example, scan=None, mask_file=None, structure=0)
    assert "synthetic_text_000" in free[-1][results.gallery][0][0] and free[0][results.run].label is None


def test_the_merging_panel_mixes_the_chosen_image_with_its_source(tab, results, example):
    panel, run = results.merging, generate(tab, example)[0][results.run]
    real = panel.look(run, 1, 1.0, 64, 0)
    np.testing.assert_array_equal(real[panel.view][::3, ::3][:5, 0], at_view_size(run.source)[::3, ::3][:5, 0])
    assert "100% real" in real[panel.words]
    half, other = (panel.look(run, 1, 0.5, 64, seed)[panel.view] for seed in (0, 1))
    assert not np.array_equal(half, other)
    synthetic = panel.look(run, 1, 0.0, 64, 0)[panel.view]
    assert np.array_equal(synthetic[0], at_view_size(run.results[1].image)[0])


def test_the_merging_panel_says_what_is_missing(tab, results, example):
    panel = results.merging
    assert "Generate images first" in panel.look(None, 0, 0.6, 64, 0)[panel.words]
    run = generate(tab, example, scan=None)[0][results.run]
    assert "without a real image" in panel.look(run, 0, 0.6, 64, 0)[panel.words]
    run = generate(tab, example)[0][results.run]
    assert "patch of the merging mask must be" in panel.look(run, 0, 0.6, 0, 0)[panel.words]


@pytest.mark.parametrize(("name", "value", "words"), [("seed", None, "The seed is empty"), ("prompt", "", "prompt is")])
def test_generate_names_the_field_that_is_wrong(tab, results, example, name, value, words):
    (update,) = generate(tab, example, **{name: value})
    assert words in update[results.progress]


def test_missing_weights_end_in_their_sentence(example):
    tab = build(synthesize=failing)
    results = tab.results
    last = generate(tab, example)[-1]
    assert "The weights are not here" in last[results.progress]
    assert last[results.send]["interactive"] is False and last[results.use_settings]["interactive"] is False


def test_an_unforeseen_failure_shows_no_traceback(example, caplog):
    tab = build(synthesize=lambda *arguments: 1 / 0)
    results = tab.results
    last = generate(tab, example)[-1]
    assert "Unexpected error (ZeroDivisionError)" in last[results.progress]
    assert "division by zero" in caplog.text


def test_stop_ends_the_run_and_keeps_what_is_finished(tab, results, example):
    tab.generation.start_run(BROWSER)
    arguments = {
        "previous": None,
        "scan": scan_that_saves(example.image),
        "slice_number": 1,
        "window": None,
        "outlines": False,
        "large": None,
    }
    updates = tab.generation.generate(BROWSER, **arguments, mask_file=None, **{**FORM, "num_images": 8})
    seen = []
    for update in updates:
        seen.append(update)
        if "Image 2 of 8, step 2" in update[results.progress]:
            tab.generation.stop(BROWSER)
    assert "Stopped: 1 synthetic image of 8" in seen[-1][results.progress]
    assert len(seen) < 11
    tab.generation.end_run(BROWSER, None)
    assert not tab.generation.cancellation.running(BROWSER)


def test_stop_reaches_a_run_that_still_waits(tab, results, example):
    tab.generation.start_run(BROWSER)
    tab.generation.stop(BROWSER)
    assert "Stopped before" in generate(tab, example)[-1][results.progress]
    tab.generation.end_run(BROWSER, None)


@pytest.fixture
def run(tab, results, example):
    return generate(tab, example, guidance_scale=2.5, move_x=0.1, num_images=3)[0][results.run]


def test_choosing_an_image_says_what_is_known_of_it(results, run):
    updates = results.choose(run, "All images", SimpleNamespace(index=1))
    words = updates[results.words]
    assert "Image 2 of 3: seed 6" in words and "edge F1 0." in words and "MS-SSIM 0." in words
    assert updates[results.chosen_index] == 1 and results.slider not in updates
    nothing = results.choose(None, "All images", SimpleNamespace(index=0))
    assert results.chosen_index not in nothing


def test_scores_of_an_edited_mask_are_said_to_be_beside_another_one(run):
    moved = run.images[0]
    assert "Compared with the real image (unedited mask): edge F1" in describe(moved, 0, 3)
    settings = moved.request.settings.replace(edit=MaskEdit(seed=5))
    in_place = replace(moved, request=replace(moved.request, settings=settings))
    assert "Compared with the real image: edge F1" in describe(in_place, 0, 3)


def test_before_and_after_are_the_real_and_the_chosen_image(results, run):
    updates = results.refresh(run, 1, "Side by side", outlines=False)
    before, after = updates[results.slider]["value"]
    np.testing.assert_array_equal(before, at_view_size(run.source))
    np.testing.assert_array_equal(after, at_view_size(run.results[1].image))
    assert updates[results.slider]["visible"] and not updates[results.gallery]["allow_preview"]
    outlined = results.refresh(run, 1, "Side by side", outlines=True)[results.slider]["value"]
    assert all((first != second).any() for first, second in zip(outlined, (before, after), strict=True))
    again = results.refresh(run, 1, "All images", outlines=True)
    assert not again[results.slider]["visible"] and again[results.gallery]["allow_preview"]


def test_the_image_beside_the_real_one_is_marked_among_the_small_ones(results, run):
    assert results.refresh(run, 1, "Side by side", outlines=False)[results.gallery]["selected_index"] == 1
    assert results.choose(run, "Side by side", SimpleNamespace(index=2))[results.large] == run.large == 2
    assert results.switch_view(run, 2, "All images", outlines=False)[results.large] is run.large is None


def test_a_mask_alone_stands_where_there_is_no_real_image(tab, results, example):
    run = generate(tab, example, scan=None)[0][results.run]
    before, after = results.refresh(run, 0, "Side by side", outlines=False)[results.slider]["value"]
    assert before.shape == after.shape and before.any() and run.images[0].scores == {}


def test_outlines_are_drawn_on_copies_that_keep_their_settings(results, run):
    plain = [path for path, _ in run.tiles()]
    results.refresh(run, 0, "All images", outlines=True)
    outlined = [path for path, _ in run.tiles()]
    assert not set(plain) & set(outlined) and read_synthetic_settings(outlined[0])["outlined"]
    results.refresh(run, 0, "All images", outlines=False)
    assert [path for path, _ in run.tiles()] == plain


def test_a_dropped_image_is_left_out_of_the_download(results, run):
    updates = results.keep(run, 1, kept=False)
    assert updates[results.gallery][1][1].startswith("Dropped, seed 6") and "Dropped" in updates[results.words]
    packed = pack(results, run)
    with zipfile.ZipFile(packed[results.downloads.button]["value"]) as archive:
        names = archive.namelist()
        manifest = json.loads(archive.read("manifest.json"))
    assert sum(name.startswith("images/") for name in names) == 2 and not any("seed6" in name for name in names)
    assert [entry["seed"] for entry in manifest["images"]] == [5, 7] and manifest["images"][0]["scores"]["edge_f1"] > 0
    assert "1 dropped, 2 images" in packed[results.downloads.words]
    for index in (0, 2):
        results.keep(run, index, kept=False)
    nothing = pack(results, run)
    assert "All images are dropped" in nothing[results.downloads.words]
    assert not nothing[results.downloads.button]["interactive"]


def test_other_layouts_name_the_classes(results, run):
    packed = pack(results, run, "nnU-Net", "")
    assert Path(packed[results.downloads.button]["value"]).read_text() == "3 of ('target',)"
    assert "Labels are numbered again." in packed[results.downloads.words]
    named = pack(results, run, "COCO", "left lung, right lung")
    assert Path(named[results.downloads.button]["value"]).read_text() == "3 of ('left lung', 'right lung')"


def test_variations_follow_the_chosen_image(example):
    given = []

    def synthesize_and_tell(image, mask, request, cancelled):
        given.append((image, mask, request))
        yield from synthesize(image, mask, request, cancelled)

    tab = build(synthesize=synthesize_and_tell)
    results = tab.results
    run = generate(tab, example, move_x=0.2)[0][results.run]
    updates = list(tab.generation.vary(BROWSER, run, 1, wanted=3))
    image, mask, request = given[1]
    assert image is run.results[1].image and mask is run.results[1].mask
    settings = request.settings
    assert settings.num_images == 3 and settings.edit.move_x == 0 and settings.seed != 5
    assert len(run.images) == 5 and updates[0][results.run] is run and len(updates[0][results.gallery]["value"]) == 5
    assert "3 variations" in updates[-1][results.progress] and updates[-1][results.chosen_index] == 2
    made = run.images[4]
    assert "of 6" in made.caption and read_synthetic_settings(made.path)["source"] == run.images[1].path.stem
    assert "synthetic image with seed 6" in updates[-1][results.words]


def test_variations_have_a_limit_and_need_an_image(tab, results, run):
    (update,) = tab.generation.vary(BROWSER, None, 0, wanted=3)
    assert "No image yet" in update[results.progress]
    run.images *= 8
    (update,) = tab.generation.vary(BROWSER, run, 0, wanted=3)
    assert "limit of 24" in update[results.progress] and len(run.images) == 24


def test_scores_that_fail_cost_no_image(example, caplog):
    tab = build(quality=lambda source, synthetic: 1 / 0)
    results = tab.results
    last = generate(tab, example)[-1]
    assert "2 synthetic images" in last[results.progress] and len(last[results.gallery]) == 2
    assert caplog.text.count("division by zero") >= 2


def test_an_image_goes_to_the_segmentation_with_its_label_as_the_truth(results, run):
    with gr.Blocks():
        tabs = gr.Tabs()
        segmentation = SegmentationTab(fake_callables(), read_examples())
        segmentation.connect_synthesis(results, tabs)
    updates = segmentation.take_result(run, 1)
    assert updates[tabs]["selected"] == "segmentation" and updates[segmentation.words.kind] == "X-ray"
    np.testing.assert_array_equal(updates[segmentation.source.scan].image(0), run.results[1].image)
    np.testing.assert_array_equal(read_mask(updates[segmentation.truth.file]), run.results[1].mask)
    assert "synthetic_painted_chest_xray_001_seed6.png" in updates[segmentation.source.message]
    assert tabs not in segmentation.take_result(None, 0)


def test_the_image_that_is_large_stays_the_chosen_one(tab, results, example):
    run = generate(tab, example, num_images=3)[0][results.run]
    assert results.choose(run, "All images", SimpleNamespace(index=1))[results.large] == 1
    last = list(tab.generation.vary(BROWSER, run, 1, wanted=2))[-1]
    assert last[results.chosen_index] == 1 and "Image 2 of 5" in last[results.words]
    results.close(run)
    last = list(tab.generation.vary(BROWSER, run, 1, wanted=2))[-1]
    assert last[results.chosen_index] == 5 and "Image 6 of 7" in last[results.words]
    assert generate(tab, example, large=4)[-1][results.chosen_index] == 1
