"""The handlers of the Comparison tab, called as Gradio calls them."""

from __future__ import annotations

import re
from types import SimpleNamespace

import cv2
import gradio as gr
import numpy as np
import pytest
from fakes import STEPS, failing, fake_callables, filled_form, scan_that_saves
from PIL import Image

from emitdiff.errors import EmitDiffError
from emitdiff.ui.comparison.axes import NO_TEXT
from emitdiff.ui.comparison.tab import ComparisonTab
from emitdiff.ui.examples import read_examples

BROWSER = SimpleNamespace(session_hash="someone")


def build(**changes):
    with gr.Blocks():
        return ComparisonTab(fake_callables(**changes), read_examples())


@pytest.fixture(scope="module")
def tab():
    return build()


def page_of(tab, example, **changes):
    """The page's fields as they are at first, with an example in place."""
    page = {name: getattr(field, "value", None) for name, field in tab.inputs.items()}
    given = {"scan": scan_that_saves(example.image), "slice_number": 1, "mask_file": str(example.mask)}
    words = {"synthesis_prompt": "X-ray, chest", "segmentation_text": "lung"}
    return {**page, **given, "truth_class": None, **words, **changes}


def compare(tab, example, **changes):
    return list(tab.compare(BROWSER, **page_of(tab, example, **changes)))


def test_the_grid_is_filled_cell_by_cell(tab, example):
    updates = compare(tab, example, across_values="1, 0.5", down_values="3, 4")
    filled = [update[tab.table].count("Enlarge: Seed") for update in updates if tab.table in update]
    assert filled == sorted(filled) and set(filled) == {0, 1, 2, 3, 4}
    assert sum(f"Cell 2 of 4, step 1 of {STEPS}" in update[tab.progress] for update in updates) == 1
    last = updates[-1]
    assert "4 of 4 cells filled" in last[tab.progress]
    assert re.search(r"edges <b>0\.\d\d</b></span> <span>MS-SSIM <b>0\.\d\d</b></span> <span>time", last[tab.table])
    figure = last[tab.download].value
    assert "synthetic_comparison_painted_chest_xray" in str(figure) and Image.open(figure["path"]).width > 700


def test_the_pictures_are_served_and_go_with_the_page(tab, example):
    shown = set(re.findall(r'gradio_api/file=([^"]+)"', compare(tab, example)[-1][tab.table]))
    assert len(shown) == 3 and shown <= tab.table.temp_files


def test_the_pictures_of_a_page_that_is_closed_meanwhile_go_too(example):
    tab, shown = build(), set()
    for update in (running := tab.compare(BROWSER, **page_of(tab, example, across_values="1, 0.9, 0.8"))):
        shown |= set(re.findall(r'gradio_api/file=([^"]+)"', update.get(tab.table, "")))
        if len(shown) == 3:
            break
    running.close()
    assert shown <= tab.table.temp_files


def test_an_empty_number_is_named_in_the_cells(tab, example):
    last = compare(tab, example, synthesis_num_inference_steps=None, across_values="1", down="nothing")[-1]
    assert "The number of steps is empty" in last[tab.table]


def test_texts_and_thresholds_with_their_dice(tab, example):
    asked = []

    def segment(image, text, threshold, checkpoint):
        asked.append(text)
        return fake_callables().segment(image, text, threshold, checkpoint)

    other = build(segment=segment)
    page = {
        "task": "Segmentation", "across": "Text", "across_values": f"perhaps lung\nspleen\npancreas\n{NO_TEXT}",
        "down": "Threshold", "down_values": "0.3, 0.5",
    }  # fmt: skip
    last = compare(other, example, **page)[-1]
    assert asked == ["perhaps lung", "spleen", "pancreas", ""], "another threshold asks nothing again"
    html = last[other.table]
    assert len(re.findall(r"Dice <b>[01]\.\d{3}</b>", html)) == 8 and html.count("presence <b>0.90</b>") == 6
    assert html.count('<p class="said">Unsure</p>') == 2
    assert html.count('<p class="said">Not found</p>') == 2 and html.count('<p class="said">Not present</p>') == 2
    assert "synthetic" not in str(last[other.download].value)


def test_a_cell_of_an_untaught_text_says_so_and_shows_no_mask(tab, example):
    page = {"task": "Segmentation", "across": "Text", "across_values": "pneumonia", "down": "nothing"}
    html = compare(tab, example, **page)[-1][tab.table]
    assert "Not taught, not looked for. Nearest: lung?" in html and "presence <b>-</b>" in html


def test_without_a_mask_there_is_no_dice_and_without_an_image_no_score(tab, example):
    page = {"task": "Segmentation", "across": "Threshold", "across_values": "0.5", "down": "nothing"}
    assert "Dice" not in compare(tab, example, **page, mask_file=None)[-1][tab.table]
    alone = compare(tab, example, scan=None, across_values="0.5", down="nothing")[-1]
    assert "MS-SSIM" not in alone[tab.table] and "1 of 1 cells filled" in alone[tab.progress]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scan": None, "mask_file": None}, "No image yet"),
        ({"task": "Segmentation", "across": "Text", "across_values": "lung", "down": "nothing", "scan": None},
         "No image yet"),
        ({"across_values": "1, 2"}, "The structure cannot be 2"),
        ({"synthesis_prompt": " "}, "The prompt is empty"),
        ({"down": "Structure", "down_values": "1"}, "Structure is already varied across"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_said_above_the_grid(tab, example, changes, words):
    (update,) = compare(tab, example, **changes)
    assert words in update[tab.progress] and 'role="alert"' in update[tab.progress]


def test_a_cell_that_fails_says_why_and_the_others_come(example):
    def synthesize(image, mask, request, cancelled):
        if request.settings.seed == 1:
            raise EmitDiffError("Seed 1 is unlucky.")
        yield from fake_callables().synthesize(image, mask, request, cancelled)

    tab = build(synthesize=synthesize)
    last = compare(tab, example, across_values="1", down_values="0, 1, 2")[-1]
    assert last[tab.table].count("Seed 1 is unlucky.") == 1 and "2 of 3 cells filled" in last[tab.progress]
    nothing = build(synthesize=failing)
    last = compare(nothing, example, across_values="1", down_values="0")[-1]
    assert "The weights are not here" in last[nothing.table] and nothing.download not in last
    assert "No cell could be computed. The weights are not here" in last[nothing.progress]


def test_stop_ends_the_comparison_and_keeps_what_is_filled(tab, example):
    tab.start_run(BROWSER)
    seen = []
    for update in tab.compare(BROWSER, **page_of(tab, example)):
        seen.append(update)
        if "Cell 2 of 6, step 2" in update[tab.progress]:
            tab.stop(BROWSER)
    assert "Stopped: 1 of 6 cells" in seen[-1][tab.progress] and tab.download in seen[-1]
    assert len(seen) < 15
    tab.end_run(BROWSER)


def test_a_failing_measure_does_not_take_the_picture(example):
    tab = build(quality=failing)
    last = compare(tab, example, across_values="1", down_values="0")[-1]
    assert "Enlarge: Seed 0" in last[tab.table] and "edges <b>-</b>" in last[tab.table]


def test_a_plan_shows_the_image_and_what_is_wrong(tab, example):
    plan = tab.preview(**page_of(tab, example))
    assert 'id="cell-source"' in plan[tab.table] and plan[tab.table].count("edges <b>-</b>") == 6
    assert "3 across, 2 down: 6 cells" in plan[tab.form.down_note]
    plan = tab.preview(**page_of(tab, example, across_values="", down_values="x"))
    assert "has no values yet" in plan[tab.form.across_note] and "cannot be “x”" in plan[tab.form.down_note]
    assert tab.table not in plan


def test_results_stay_while_the_next_values_are_written(tab, example):
    page = page_of(tab, example, across_values="1")
    assert tab.table in tab.update_preview(False, **page) and tab.table not in tab.update_preview(True, **page)


def test_one_class_of_a_true_mask_is_compared(tab, example, tmp_path):
    mask = cv2.imread(str(example.mask), cv2.IMREAD_GRAYSCALE) // 255
    mask[:40, :40] = 2
    Image.fromarray(mask).save(tmp_path / "two.png")
    page = page_of(tab, example, mask_file=str(tmp_path / "two.png"), task="Segmentation", across="Threshold",
                   across_values="0.5", down="nothing")  # fmt: skip
    menu = tab.preview(**page)[tab.truth_class]
    assert (menu["choices"], menu["value"], menu["visible"]) == ([1, 2], 1, True)
    dice = [
        re.search(r"Dice <b>([\d.]+)", list(tab.compare(BROWSER, **{**page, "truth_class": label}))[-1][tab.table])[1]
        for label in (1, 2)
    ]
    assert dice[0] != dice[1]


def test_the_other_task_brings_its_axes_and_lists_come_back(tab):
    across, down, synthesis, segmentation = tab.form.switch_task("Segmentation")
    assert across["choices"] == ["Text", "Threshold", "Weights"] and down["choices"][0] == "nothing"
    assert (synthesis["visible"], segmentation["visible"]) == (False, True)
    fields = {name: getattr(field, "value", None) for name, field in tab.form.fields.items()}
    fields |= {"across": "Text", "down": "Threshold", "segmentation_text": "nuclei"}
    filled = tab.form.fill("Segmentation", {}, **fields)
    assert filled[tab.form.across_values]["value"] == f"nuclei\nlung\nleft lung\n{NO_TEXT}"
    fields |= {"across_values": "mine", "down_values": "0.3, 0.5, 0.7"}
    typed = tab.form.remember({}, "Segmentation", **fields)
    assert typed == {"Segmentation Text": "mine"}, "the list it began with is nobody's own"
    assert "value" not in tab.form.fill("Segmentation", typed, **fields)[tab.form.across_values], "it is there already"
    fields |= {"across_values": "another axis's"}
    assert tab.form.fill("Segmentation", typed, **fields)[tab.form.across_values]["value"] == "mine"


def test_a_sentence_changes_only_the_lists_that_begin_with_it(tab):
    fields = {name: getattr(field, "value", None) for name, field in tab.form.fields.items()}
    fields |= {"across": "Text", "down": "Threshold", "segmentation_text": "nuclei", "down_values": "0.2, 0.4"}
    updates = tab.form.follow("Segmentation", {}, **fields)
    assert updates[tab.form.across_values]["value"].startswith("nuclei") and tab.form.down_values not in updates
    fields["across_values"] = updates[tab.form.across_values]["value"]
    assert "value" not in tab.form.follow("Segmentation", {}, **fields)[tab.form.across_values], "it is there already"


def test_few_shot_heads_are_compared_by_name(example):
    used = []

    def segment(image, text, threshold, checkpoint):
        used.append(checkpoint)
        return fake_callables().segment(image, text, threshold, checkpoint)

    tab = build(segment=segment)
    heads = ["/somewhere/disc.safetensors"]
    assert tab.form.take_heads(heads)["choices"] == ["textdiff-mini", "disc"]
    assert tab.form.axes("Segmentation", heads)["Weights"].default_text == "textdiff-mini, disc"
    last = compare(tab, example, task="Segmentation", across="Weights", across_values="textdiff-mini, disc",
                   down="nothing", heads=heads)[-1]  # fmt: skip
    assert used == ["textdiff-mini", heads[0]] and "Weights</span> disc" in last[tab.table]


def test_an_example_brings_its_words(tab):
    updates = tab.take_example(SimpleNamespace(index=1))
    assert updates[tab.form.synthesis_prompt] == "CT, abdomen, liver" and updates[tab.form.segmentation_text] == "liver"
    assert updates[tab.mask_file].endswith("painted_abdominal_ct_mask.png")
    assert isinstance(updates[tab.source.scan].image(0), np.ndarray)


def test_image_and_settings_come_over_from_the_synthesis(tab, example):
    request = filled_form("MRI, heart", seed=9, move_x=0.25, structure=0.8, num_images=2)
    scan = scan_that_saves(example.image)
    updates = tab.import_synthesis(scan, 1, None, str(example.mask), **request)
    assert updates[tab.source.scan] is scan and updates[tab.mask_file] == str(example.mask)
    assert updates[tab.form.synthesis_prompt] == "MRI, heart" and updates[tab.form.synthesis_structure] == 0.8
    assert updates[tab.form.carried] == {"move_x": 0.25} and "were copied too" in updates[tab.source.message]
    asked = []

    def synthesize(image, mask, request, cancelled):
        asked.append(request.settings)
        return fake_callables().synthesize(image, mask, request, cancelled)

    compare(build(synthesize=synthesize), example, carried={"move_x": 0.25}, across_values="1", down_values="0, 1")
    assert [(one.edit.move_x, one.num_images, one.seed) for one in asked] == [(0.25, 1, 0), (0.25, 1, 1)]
    fields = {name: getattr(field, "value", None) for name, field in tab.form.fields.items()}
    filled = tab.form.fill("Synthesis", {}, **{**fields, "synthesis_seed": 9})
    assert filled[tab.form.down_values]["value"] == "9, 10", "the seed that were copied too is the first"
    nothing = tab.import_synthesis(None, 1, None, None, **request)
    assert "no image yet" in nothing[tab.source.message] and tab.source.scan not in nothing
    assert tab.take_example(SimpleNamespace(index=0))[tab.form.carried] == {}


def test_settings_are_there_again_when_the_page_is_opened_again(tab):
    kept = {"task": "Segmentation", "across": "Weights", "across_values": "textdiff-mini", "down": "nothing",
            "segmentation_text": "liver, all of it", "segmentation_threshold": 0.35, "synthesis_seed": 12,
            "synthesis_num_inference_steps": 9}  # fmt: skip
    updates = tab.restore(kept)
    assert updates[tab.task] == "Segmentation" and updates[tab.form.across]["value"] == "Weights"
    assert updates[tab.form.down]["value"] == "nothing" and updates[tab.form.segmentation]["visible"]
    assert updates[tab.form.typed] == {"Segmentation Weights": "textdiff-mini"}
    for name in ("segmentation_text", "segmentation_threshold", "synthesis_seed", "synthesis_num_inference_steps"):
        assert updates[getattr(tab.form, name)] == kept[name]


@pytest.mark.parametrize(
    "kept",
    [{}, [1], {"task": []}, {"task": "Cooking"},
     {"task": "Synthesis", "across": "Mood", "across_values": 7, "synthesis_seed": "many",
      "synthesis_guidance_scale": None, "synthesis_checkpoint": "../secret", "synthesis_prompt": ["x"]}],
)  # fmt: skip
def test_what_was_kept_is_not_trusted(tab, kept):
    updates = tab.restore(kept)
    assert updates[tab.form.typed] == {}
    assert not any(getattr(tab.form, name) in updates for name in tab.form.fields if name.startswith("synthesis_"))


def test_a_mask_dropped_before_its_image_stays_and_that_of_another_goes_with_a_sentence(tab, example):
    path, mask = str(read_examples()[1].image), str(example.mask)
    alone = tab.take_file(path, None, mask)
    assert tab.mask_file not in alone and "removed" not in alone[tab.source.message]
    scan = scan_that_saves(example.image)
    left = tab.take_away(scan, 1, None, mask)[tab.before]
    for before in ({"previous": scan}, {"before": left}):
        updates = tab.take_file(path, mask_file=mask, **before)
        assert updates[tab.mask_file] is None
        assert "painted_chest_xray_mask.png of" in updates[tab.source.message]
