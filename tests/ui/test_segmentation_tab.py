"""The handlers of the Segmentation tab, called as Gradio calls them."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import cv2
import gradio as gr
import numpy as np
import pytest
from fakes import failing, fake_callables, scan_that_saves
from segmentation_steps import SHOWN, build, find, look, settle

from emitdiff.ui.examples import read_examples
from emitdiff.ui.segmentation.tab import SegmentationTab
from emitdiff.ui.segmentation.truth_panel import Truth
from emitdiff.ui.source import at_view_size


@pytest.fixture(scope="module")
def tab():
    return build()


def test_find_shows_overlay_probability_and_mask_file(tab, example):
    updates = find(tab, example)
    assert "Found “lung”" in updates[tab.reading.progress]
    assert updates[tab.reading.view].shape == updates[tab.reading.map_view].shape == (768, 768, 3)
    assert updates[tab.reading.download]["interactive"]
    assert "painted_chest_xray.png" in updates[tab.reading.download_note]


def test_not_found_is_said_plainly(tab, example):
    said = find(tab, example, text="spleen")[tab.reading.progress]
    assert "Not found: no pixel of “spleen” is above the threshold (highest probability 0.10, threshold 0.50)" in said


def test_what_was_not_taught_is_not_looked_for(tab, example):
    updates = find(tab, example, text="pneumonia", side=True)
    reading, said = tab.reading, updates[tab.reading.progress]
    assert "Nothing was looked for: “pneumonia” asks for nothing these weights were taught. Nearest: lung?" in said
    assert "These weights were not taught it." in updates[tab.words.note]
    assert updates[reading.asks]["visible"] and updates[reading.nearest_button]["value"] == "Find “lung”"
    picture = at_view_size(scan_that_saves(example.image).image(0))
    assert np.array_equal(updates[reading.view], picture) and not updates[reading.map_view].any()
    assert updates[reading.download] == gr.update(value=None, interactive=False) and not updates[reading.download_note]
    again = tab.apply_threshold(updates[tab.finding], 0.05, **SHOWN)
    assert np.array_equal(again[reading.view], picture)
    truth = Truth(np.ones((1, 256, 256), np.uint8))
    assert "-" in tab.truth.compare(updates[tab.finding], truth, None)[tab.truth.figures]
    for update in tab.runs.toggle_comparison(updates[tab.finding], True):
        assert tab.runs.result not in update


def test_what_was_not_taught_is_looked_for_on_demand_and_never_called_found(tab, example):
    asked = {"scan": scan_that_saves(example.image), "slice_number": 1, "window": None, "threshold": 0.3}
    told = tab.runs.find_anyway(**asked, text="pneumonia", checkpoint="textdiff-mini", side=False)
    updates = settle(tab, told, **asked)
    assert "Looked anyway for “pneumonia”, which was not taught: " in updates[tab.reading.progress]
    assert "Found" not in updates[tab.reading.progress] and not updates[tab.reading.asks]["visible"]
    assert updates[tab.finding].output.mask.any() and updates[tab.reading.download]["interactive"]
    assert not find(tab, example)[tab.reading.asks]["visible"]
    assert not look(tab, None)[tab.reading.asks]["visible"]


def test_a_mask_that_may_be_wrong_is_dashed_and_said_so(tab, example):
    unsure, sure = find(tab, example, text="perhaps lung"), find(tab, example, text="lung")
    said = unsure[tab.reading.progress]
    assert "Unsure whether the image shows “perhaps lung” (presence 0.90): the dashed outline, " in said
    views = [one[tab.finding].picture(0, outlined=True) for one in (unsure, sure)]
    plain = sure[tab.finding].picture(0, outlined=False)
    dashed, whole = ((view != plain).any(axis=-1).sum() for view in views)
    assert 0.3 * whole < dashed < 0.7 * whole


def test_what_is_held_to_be_absent_stays_so_at_any_threshold(tab, example):
    updates = find(tab, example, text="pancreas")
    said = updates[tab.reading.progress]
    assert "Target absent: the image does not appear to show “pancreas” (presence 0.02)" in said
    again = tab.apply_threshold(updates[tab.finding], 0.05, **SHOWN)
    assert "Target absent" in again[tab.reading.progress]


def test_the_second_view_is_the_map_that_is_chosen(tab, example):
    finding = find(tab, example)[tab.finding]
    probability, uncertainty = (finding.map(name) for name in ("Probability", "Uncertainty"))
    assert np.abs(probability.astype(int) + uncertainty - 255).max() <= 1 and probability.std() > 1


@pytest.mark.parametrize(("changes", "words"), [({"scan": None}, "No image yet"), ({"text": " "}, "No text yet")])
def test_what_is_missing_is_named(tab, example, changes, words):
    assert words in find(tab, example, **changes)[tab.reading.progress]


def test_missing_weights_end_in_their_sentence(example):
    tab = build(segment=failing)
    assert "The weights are not here" in find(tab, example)[tab.reading.progress]


def test_the_page_comes_up_without_weights():
    words = build(targets=failing, sentences=failing).words
    assert all(chips.constructor_args["samples"] == [] for chips in words.offer("textdiff-mini", "CT"))


def test_a_kind_of_image_brings_its_sentences(tab):
    _, sentences = tab.words.offer("textdiff-mini", "MRI")
    assert sentences.constructor_args["samples"] == [["segment the lung, MRI"]]
    assert tab.words.kind_of("mri")[tab.words.kind] == "MRI"
    assert tab.words.kind_of(None)[tab.words.kind] == "any modality"


def test_opacity_blends_without_running_the_network(example):
    runs = []
    fake = fake_callables()
    tab = build(segment=lambda *arguments: runs.append(1) or fake.segment(*arguments))
    finding = find(tab, example)[tab.finding]
    clear, covered = (tab.reading.blend(finding, opacity, False)[tab.reading.view] for opacity in (0, 100))
    inside = cv2.resize(finding.output.mask, (768, 768), interpolation=cv2.INTER_NEAREST) > 0
    assert np.ptp(covered[inside], axis=0).max() == 0 and np.ptp(clear[inside], axis=0).max() > 50
    assert len(runs) == 1


def test_another_threshold_runs_no_network(tab, example):
    finding = find(tab, example)[tab.finding]
    updates = tab.apply_threshold(finding, 0.3, **SHOWN)
    assert updates[tab.finding].output.mask.sum() > finding.output.mask.sum()
    assert updates[tab.reading.download]["interactive"]
    assert "Not found" in tab.apply_threshold(finding, 0.999, **SHOWN)[tab.reading.progress]


def test_another_threshold_whose_mask_cannot_be_written_is_said(tab, example):
    finding = find(tab, example)[tab.finding]
    finding.scan.save_mask = failing
    assert "The weights are not here" in tab.apply_threshold(finding, 0.3, **SHOWN)[tab.reading.progress]


def test_with_and_without_the_text_stand_side_by_side(example):
    fake = fake_callables()
    tab = build(segment=lambda image, text, *rest: fake.segment(image if text else 255 - image, text, *rest))
    updates = find(tab, example, side=True)
    views = updates[tab.reading.view], updates[tab.reading.without_view]
    assert views[0].shape == views[1].shape and not np.array_equal(*views)
    assert "Dice between the two masks: 0.00" in updates[tab.reading.without_note]
    alone = find(tab, example)
    assert alone[tab.reading.without_view] is None and not alone[tab.reading.without_note]
    finding = alone[tab.finding]
    *_, told = tab.runs.toggle_comparison(finding, True)
    shown = {"slice_number": 1, "window": None, "threshold": 0.5}
    later = settle(tab, told, finding, scan=finding.scan, **shown)
    np.testing.assert_array_equal(later[tab.reading.without_view], views[1])


def test_another_image_clears_what_was_found(tab, example):
    finding = find(tab, example)[tab.finding]
    assert look(tab, scan_that_saves(example.image), finding) == {tab.finding: finding}
    assert list(finding.folder.iterdir())
    updates = look(tab, scan_that_saves(read_examples()[1].image), finding)
    assert updates[tab.finding] is None and updates[tab.reading.map_view] is None
    assert not finding.folder.exists(), "a patient's mask is not left behind"


def test_masks_of_other_thresholds_go_with_their_findings(tab, example, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = find(tab, example)[tab.finding]
    second = tab.apply_threshold(first, 0.3, **SHOWN)[tab.finding]
    assert len(list(tmp_path.iterdir())) == 2
    del first
    gc.collect()
    assert list(tmp_path.iterdir()) == [second.folder] and list(second.folder.iterdir())
    del second
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_mask_that_cannot_be_shown_is_not_left_behind(tab, example, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(tab.reading, "blend", lambda *arguments: 1 / 0)
    assert "Unexpected error" in find(tab, example)[tab.reading.progress]
    assert not list(tmp_path.iterdir())


def test_an_answer_is_not_shown_beside_an_image_that_was_chosen_meanwhile(tab, example):
    other = scan_that_saves(example.image)  # as large, and it looks the same
    for meanwhile in ({"scan": other}, {"scan": None}):
        updates = find(tab, example, meanwhile=meanwhile)
        assert tab.finding not in updates and tab.reading.view not in updates
        assert "the image, slice or window was changed during the run" in updates[tab.reading.progress]
    finding = find(tab, example)[tab.finding]
    *_, told = tab.runs.toggle_comparison(finding, True)
    late = settle(tab, told, scan=other, slice_number=1, window=None, threshold=0.5)
    assert tab.reading.without_view not in late and "was changed during the run" in late[tab.reading.progress]


def test_a_run_without_an_answer_takes_away_only_the_warnings_beside_the_sentence(tab, example):
    finding = find(tab, example)[tab.finding]
    updates = find(tab, example, finding=finding, text=" ")
    assert set(updates) == {tab.runs.result, tab.reading.progress, tab.words.note} and finding.folder.exists()
    assert updates[tab.words.note] == ""


def test_an_example_brings_sentence_kind_and_truth(tab):
    updates = tab.take_example(SimpleNamespace(index=2))
    assert updates[tab.words.text] == "left ventricle" and updates[tab.words.kind] == "MRI"
    assert updates[tab.truth.file].endswith("cardiac_mri_mask.png")
    assert updates[tab.runs.all_button]["visible"] is False


def test_of_what_the_browser_kept_only_the_usable_comes_back(tab):
    with gr.Blocks() as demo:
        tab.persist(demo)
    kept = {"text": "liver", "side": True, "checkpoint": "elsewhere", "opacity": 400, "threshold": 0.3, "mapped": None}
    updates = tab.restore(kept, [])
    reading, always = (
        tab.reading,
        [tab.reading.without_view, tab.teaching.heads.heads, tab.teaching.heads.stored_heads, tab.checkpoint],
    )
    assert updates.pop(reading.without_view).visible
    assert "value" not in updates.pop(tab.checkpoint).constructor_args and updates.pop(tab.teaching.heads.heads) == []
    assert updates.pop(tab.teaching.heads.stored_heads) == []
    assert updates == {tab.words.text: "liver", tab.side: True, reading.threshold: 0.3}
    assert list(tab.restore([1], None)) == list(tab.restore({"checkpoint": [], "mapped": {}}, [])) == always


def test_what_a_browser_sends_of_heads_is_read_once_and_checked(tab):
    """A choice of the weights may be any file or repository: what becomes one is never the browser's unchecked word."""
    with gr.Blocks() as demo:
        own = SegmentationTab(fake_callables(), read_examples())
        own.persist(demo)
    readers = [fn.fn.__name__ for fn in demo.fns.values() if own.teaching.heads.stored_heads in fn.inputs]
    assert readers == ["restore"]


def test_heads_trained_in_this_browser_come_back_while_their_files_are_there(tab):
    with gr.Blocks() as demo:
        tab.persist(demo)
    heads = [["disc", "heads/disc.safetensors"], ["cup", "/etc/cup.safetensors"], ["odd"], [1, 2], "ab"]
    updates = tab.restore({"checkpoint": "heads/disc.safetensors"}, heads)
    teaching = tab.teaching.heads
    assert updates[teaching.heads] == updates[teaching.stored_heads] == [("disc", "heads/disc.safetensors")]
    chosen = updates[tab.checkpoint].constructor_args
    assert chosen["choices"] == [("textdiff-mini", "textdiff-mini"), ("disc", "heads/disc.safetensors")]
    assert chosen["value"] == "heads/disc.safetensors"
    assert updates[teaching.taught] == "disc" and updates[teaching.try_button].interactive
    assert updates[teaching.download].interactive and "“disc” was trained here before" in updates[teaching.said]
    gone = tab.restore({"checkpoint": "/etc/cup.safetensors"}, heads)[tab.checkpoint]
    assert "value" not in gone.constructor_args
