"""The handlers of the Teach panel, called as Gradio calls them."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import cv2
import gradio as gr
import numpy as np
import pytest
from fakes import fake_callables, scan_that_saves

from emitdiff.images import PALETTE
from emitdiff.scans.masks import read_mask
from emitdiff.ui.examples import read_examples
from emitdiff.ui.sample_data import write_example_dataset, write_sample_data
from emitdiff.ui.segmentation.example_panel import MAX_EXAMPLES, LabelledExample
from emitdiff.ui.segmentation.tab import SegmentationTab
from emitdiff.ui.segmentation.training_views import STEPS, loss_curve, step_list
from emitdiff.ui.segmentation.truth_panel import Truth

ASKING = SimpleNamespace(session_hash="somebody")


@pytest.fixture(scope="module")
def panel():
    with gr.Blocks():
        return SegmentationTab(fake_callables(), read_examples()).teaching


def painted(panel, example, where=np.s_[10:40, 20:60]):
    canvas = panel.given.fill_canvas(True, scan_that_saves(example.image), 1, None)[panel.given.canvas]
    layer = np.zeros((*canvas["background"].shape[:2], 4), np.uint8)
    layer[where] = (*PALETTE[0], 255)
    return {**canvas, "layers": [layer]}


def add(panel, example, shown=(), canvas=None, truth=None, label=0):
    return panel.given.add(list(shown), canvas, scan_that_saves(example.image), 1, None, truth, label)


def test_a_generated_mask_and_a_true_mask_become_examples(panel, example):
    drawn = add(panel, example, canvas=painted(panel, example))
    (one,) = drawn[panel.given.examples]
    assert one.image.shape[:2] == one.mask.shape and 0 < one.mask.mean() < 0.1
    assert not drawn[panel.given.canvas]["layers"] and "1 example." in drawn[panel.given.said]
    (true,) = add(panel, example, canvas=None, truth=Truth(read_mask(example.mask)[None]))[panel.given.examples]
    assert true.mask.any() and not np.array_equal(true.mask, one.mask)


def test_of_several_classes_one_is_chosen(panel, example):
    classes = read_mask(example.mask)
    classes[:4] = 2
    assert "holds the classes 1, 2: choose one" in add(panel, example, truth=Truth(classes[None]))[panel.given.said]
    (one,) = add(panel, example, truth=Truth(classes[None]), label=2)[panel.given.examples]
    assert one.mask[:4].all() and not one.mask[4:].any()


def test_the_walk_says_where_one_is(panel, example):
    assert "now" in step_list(1) and step_list(1).count("done") == 0 and step_list(6).count("done") == len(STEPS)
    shown = add(panel, example, canvas=painted(panel, example))
    assert shown[panel.steps] == step_list(2)
    walked = [update[panel.steps] for update in teach(panel, shown[panel.given.examples]) if panel.steps in update]
    assert walked == [step_list(3), step_list(4)]


def test_nothing_is_drawn_on_while_the_panel_is_closed(panel, example):
    assert panel.given.fill_canvas(False, scan_that_saves(example.image), 1, None)[panel.given.canvas] is None
    assert panel.given.fill_canvas(True, None, 1, None)[panel.given.canvas] is None


def test_an_image_that_does_not_show_the_target_is_an_example_too(panel, example):
    updates = panel.given.add_empty([], scan_that_saves(example.image), 1, None)
    assert not updates[panel.given.examples][0].mask.any() and updates[panel.given.gallery]["visible"]


def test_several_files_are_matched_by_name(panel, example, tmp_path):
    def written(name, array):
        cv2.imwrite(str(tmp_path / name), array)
        return str(tmp_path / name)

    disc = np.zeros((40, 40), np.uint8)
    disc[10:20, 10:20] = 255
    files = [written(f"{letter}.png", disc // 2 + 20 * k) for k, letter in enumerate("abc", 1)]
    files += [written("a_mask.png", disc), written("b_mask.png", disc * 0)]
    updates, given = panel.given.add_files([], files), panel.given
    assert [one.name for one in updates[given.examples]] == ["a.png", "b.png"]
    assert updates[given.examples][0].mask.sum() == 100 and not updates[given.examples][1].mask.any()
    assert "2 examples." in updates[given.said] and "c.png" in updates[given.said] and updates[given.files] is None
    again = given.add_files(updates[given.examples], [files[0], files[3]])
    assert len(again[given.examples]) == 2 and "a.png is an example already" in again[given.said]
    several = [files[2], written("c_mask.png", np.arange(1600, dtype=np.uint8).reshape(40, 40) % 3)]
    assert "holds the classes 1, 2" in given.add_files([], several)[given.said]
    assert "No images with masks" in given.add_files([], files[:1])[given.said]
    packed = str(write_sample_data(tmp_path / "sample.zip"))
    assert len(given.add_files([], [packed])[given.examples]) == 4
    packed = str(write_example_dataset(tmp_path / "dataset.zip"))
    assert len(given.add_files([], [packed])[given.examples]) == 4
    (tmp_path / "other").mkdir()
    assert "Two files are called a.png" in given.add_files([], [files[0], written("other/a.png", disc)])[given.said]


def test_what_cannot_be_added_is_said(panel, example):
    assert "Nothing is drawn yet" in add(panel, example)[panel.given.said]
    once = add(panel, example, canvas=painted(panel, example))[panel.given.examples]
    assert "already an example" in add(panel, example, once, painted(panel, example))[panel.given.said]
    many = [
        LabelledExample(np.full((8, 8, 3), k, np.uint8), np.ones((8, 8), np.uint8), "x") for k in range(MAX_EXAMPLES)
    ]
    assert "emitdiff teach" in add(panel, example, many, painted(panel, example))[panel.given.said]
    assert "No image yet" in panel.given.add_empty([], None, 1, None)[panel.given.said]


def teach(panel, shown, name="optic disc", heads=(), seconds=60):
    return list(panel.teach(ASKING, shown, name, "MRI", "", seconds, list(heads)))


def test_training_shows_how_it_goes_and_the_head_is_chosen(panel, example):
    shown = add(panel, example, canvas=painted(panel, example))[panel.given.examples]
    updates = teach(panel, shown)
    told = [update for update in updates if panel.figures in update]
    assert "Step 5 of 10" in told[0][panel.progress] and "0.40" in told[0][panel.figures]
    assert told[0][panel.view].shape[2] == 3 and "<polyline" in told[-1][panel.figures]
    last, heads = updates[-1], panel.heads
    assert "Taught “optic disc” in 10 steps, 5 s. No image was kept aside to look at" in last[panel.progress]
    assert last[heads.download].interactive and last[heads.latest] == "optic disc.safetensors"
    assert last[heads.heads] == [("optic disc (trained here)", "optic disc.safetensors")]
    assert "value" not in last[heads.checkpoint]._constructor_args[0], "the weights in use stay until one has looked"
    assert last[heads.use_button].variant == "primary" and last[heads.keep_button].interactive
    used = panel.heads.use(last[heads.latest])
    assert used[heads.checkpoint]["value"] == "optic disc.safetensors" and used[panel.steps] == step_list(5)
    assert used[heads.taught] == "lung" and used[heads.try_button].interactive, "the first target of the fake head"


def four(panel, example):
    shown = add(panel, example, canvas=painted(panel, example))[panel.given.examples]
    return [replace(shown[0], image=shown[0].image + k) for k in range(4)]


def test_of_four_examples_one_is_looked_at_before_the_head_is_used(panel, example):
    last = teach(panel, four(panel, example))[-1]
    assert "Dice 0.80 on the image kept aside. Look at the image kept aside, then" in last[panel.progress]


def test_learning_goes_on_and_gives_another_head(panel, example):
    first = teach(panel, four(panel, example), seconds=10)[-1]
    heads = panel.heads
    updates = list(panel.keep_learning(ASKING, first[heads.latest], 60, first[heads.heads]))
    assert updates[0][panel.steps] == step_list(3) and updates[1][panel.view].shape[2] == 3
    last = updates[-1]
    assert "Taught “lung” in 15 steps" in last[panel.progress] and "Dice 0.90" in last[panel.progress]
    assert last[heads.heads][0] == first[heads.heads][0] and len(last[heads.heads]) == 2, "the first stays a choice"
    again = list(panel.keep_learning(ASKING, last[heads.latest], 60, last[heads.heads]))[-1]
    names = [name for name, _ in again[heads.heads]]
    assert names == ["optic disc (trained here)", "lung (trained here)", "lung (trained here, 2)"]
    assert "over for good" in list(panel.keep_learning(ASKING, "", 60, []))[-1][panel.progress]


def test_stop_ends_the_training_and_keeps_what_was_learnt(panel, example):
    shown = add(panel, example, canvas=painted(panel, example))[panel.given.examples]
    begun = panel.begin(ASKING)
    assert not begun[panel.teach_button].interactive and begun[panel.stop_button]["interactive"]
    updates = []
    for update in panel.teach(ASKING, shown, "optic disc", "MRI", "", 60, []):
        updates.append(update)
        if "Step 5" in update[panel.progress]:
            assert not panel.stop(ASKING)["interactive"]
    assert "in 6 steps" in updates[-1][panel.progress] or "in 5 steps" in updates[-1][panel.progress]
    assert "Too few steps" in updates[-1][panel.progress] and updates[-1][panel.heads.download].interactive
    ended = panel.end(ASKING, "")
    assert ended[panel.teach_button].interactive and not ended[panel.stop_button]["interactive"]
    assert "in 10 steps" in teach(panel, shown)[-1][panel.progress], "the next one is not stopped"


def test_a_head_that_falls_short_is_offered_without_being_recommended(panel, example):
    shown = add(panel, example, canvas=painted(panel, example))[panel.given.examples]
    last, heads = teach(panel, shown, seconds=10)[-1], panel.heads
    assert "Too few steps. Keep learning, or add examples" in last[panel.progress]
    offered = last[heads.checkpoint]
    assert ("optic disc (trained here)", "optic disc.safetensors") in offered.choices
    assert "value" not in offered._constructor_args[0], "the weights in use stay"
    assert last[heads.use_button].value == "Use it anyway" and last[heads.use_button].variant == "secondary"


def test_what_cannot_be_trained_is_said(panel, example):
    assert "Name what the masks show" in teach(panel, [], name=" ")[-1][panel.progress]
    assert "No examples yet" in teach(panel, [])[-1][panel.progress]
    empty = panel.given.add_empty([], scan_that_saves(example.image), 1, None)[panel.given.examples]
    assert "None of the images shows it" in teach(panel, empty)[-1][panel.progress]


def test_a_downloaded_head_becomes_a_choice_again(panel):
    heads = panel.heads
    updates = heads.load("heads/disc.safetensors", [("cup", "cup.safetensors")])
    assert updates[heads.heads] == [("cup", "cup.safetensors"), ("disc", "heads/disc.safetensors")]
    assert "disc.safetensors is in use" in updates[heads.loaded]
    assert updates[heads.checkpoint].value == "heads/disc.safetensors"
    (wrong,) = heads.load("uploads/notes.txt", []).items()
    assert wrong[0] is heads.loaded and "notes.txt is not a few-shot head" in wrong[1] and "uploads" not in wrong[1]


def test_the_curve_goes_from_the_first_loss_to_the_last():
    points = re.search('points="([^"]+)"', loss_curve([2.0, 1.0, 0.0]))[1].split()
    assert [float(point.split(",")[0]) for point in points] == [1, 140, 279]
    heights = [float(point.split(",")[1]) for point in points]
    assert heights == [1, 24, 47]
