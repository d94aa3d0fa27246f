"""The handlers of the Segmentation tab, called as Gradio calls them."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import gradio as gr
import numpy as np
import pytest
from fakes import failing, fake_callables, scan_that_saves

from emitdiff.ui.examples import read_examples
from emitdiff.ui.segmentation_tab import SegmentationTab


def build(**changes):
    with gr.Blocks():
        return SegmentationTab(fake_callables(**changes), read_examples())


@pytest.fixture(scope="module")
def tab():
    return build()


def find(tab, example, **changes):
    arguments = {
        "previous": None, "scan": scan_that_saves(example.image), "slice_number": 1, "window": None, "text": "lung",
        "threshold": 0.5, "checkpoint": "textdiff-mini", "opacity": 40, "outlined": True,
        "mapped": "Probability",
    }  # fmt: skip
    return tab.find(**{**arguments, **changes})


def test_find_shows_overlay_probability_and_mask_file(tab, example):
    updates = find(tab, example)
    assert "Found “lung”" in updates[tab.progress]
    assert updates[tab.view].shape == updates[tab.probability_view].shape == (768, 768, 3)
    assert updates[tab.download].interactive and "drawn_chest_xray.png" in updates[tab.download_note]


def test_not_found_is_said_plainly(tab, example):
    updates = find(tab, example, text="spleen")
    assert (
        "Not found: nothing here answers to “spleen” (highest probability 0.10, threshold 0.50)"
        in updates[tab.progress]
    )


def test_what_is_held_to_be_absent_stays_so_at_any_threshold(tab, example):
    updates = find(tab, example, text="pancreas")
    assert "“pancreas” (probability that the image shows it 0.02)" in updates[tab.progress]
    again = tab.rethink(updates[tab.finding], scan_that_saves(example.image), 0.05, 40, True)
    assert "Not found" in again[tab.progress]


def test_the_second_view_is_the_map_that_is_chosen(tab, example):
    finding = find(tab, example)[tab.finding]
    probability, uncertainty = (tab.map(finding, name) for name in ("Probability", "Uncertainty"))
    assert np.abs(probability.astype(int) + uncertainty - 255).max() <= 1 and probability.std() > 1


@pytest.mark.parametrize(("changes", "words"), [({"scan": None}, "No image yet"), ({"text": " "}, "No sentence yet")])
def test_what_is_missing_is_named(tab, example, changes, words):
    assert words in find(tab, example, **changes)[tab.progress]


def test_missing_weights_end_in_their_sentence(example):
    tab = build(segment=failing)
    assert "The weights are not here" in find(tab, example)[tab.progress]


def test_the_page_comes_up_without_weights():
    assert build(targets=failing)._samples("textdiff-mini") == []


def test_opacity_blends_without_running_the_network(example):
    runs = []
    fake = fake_callables()
    tab = build(segment=lambda *arguments: runs.append(1) or fake.segment(*arguments))
    finding = find(tab, example)[tab.finding]
    clear, covered = tab.blend(finding, 0, False), tab.blend(finding, 100, False)
    inside = cv2.resize(finding.output.mask, (768, 768), interpolation=cv2.INTER_NEAREST) > 0
    assert np.ptp(covered[inside], axis=0).max() == 0 and np.ptp(clear[inside], axis=0).max() > 50
    assert len(runs) == 1


def test_another_threshold_runs_no_network(tab, example):
    scan = scan_that_saves(example.image)
    finding = find(tab, example)[tab.finding]
    updates = tab.rethink(finding, scan, 0.3, 40, True)
    assert updates[tab.finding].output.mask.sum() > finding.output.mask.sum()
    assert tab.download in updates and tab.probability_view not in updates
    assert "Not found" in tab.rethink(finding, scan, 0.999, 40, True)[tab.progress]


def test_truth_gives_dice_and_iou(tab, example, tmp_path):
    finding = find(tab, example)[tab.finding]
    truth = tmp_path / "truth.png"
    cv2.imwrite(str(truth), finding.output.mask * 255)
    updates = tab.compare(finding, str(truth), None)
    assert updates[tab.figures].count("1.000") == 2
    assert updates[tab.truth_class].visible is False


def test_truth_with_several_classes_is_compared_by_class(tab, example, tmp_path):
    finding = find(tab, example)[tab.finding]
    classes = finding.output.mask * 2
    classes[:10, :10] = 1
    truth = tmp_path / "truth.png"
    cv2.imwrite(str(truth), classes)
    updates = tab.compare(finding, str(truth), 2)
    assert "class 2" in updates[tab.figures] and updates[tab.truth_class].visible


def test_a_truth_of_another_size_is_named_beside_it(tab, example, tmp_path):
    truth = tmp_path / "truth.png"
    cv2.imwrite(str(truth), np.zeros((10, 12), np.uint8))
    updates = tab.compare(find(tab, example)[tab.finding], str(truth), None)
    assert "truth.png" in updates[tab.truth_note]


def test_another_slice_clears_what_was_found(tab, example):
    finding = find(tab, example)[tab.finding]
    assert tab.clear(finding, scan_that_saves(example.image), 1, None) == {tab.finding: finding}
    assert list(finding.folder.iterdir())
    updates = tab.clear(finding, scan_that_saves(read_examples()[1].image), 1, None)
    assert updates[tab.finding] is None and updates[tab.probability_view] is None
    assert not finding.folder.exists(), "a patient's mask is not left behind"


def test_a_mask_that_cannot_be_shown_is_not_left_behind(tab, example, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(tab, "blend", lambda *arguments: 1 / 0)
    assert "did not foresee" in find(tab, example)[tab.progress]
    assert not list(tmp_path.iterdir())


def test_an_example_brings_sentence_and_truth(tab):
    updates = tab.take_example(SimpleNamespace(index=2))
    assert updates[tab.text] == "left ventricle" and updates[tab.truth_file].endswith("cardiac_mri_mask.png")
