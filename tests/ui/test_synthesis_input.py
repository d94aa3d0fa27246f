"""The handlers of the form that a run of the synthesis is made from, called as Gradio calls them."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import gradio as gr
import numpy as np
import pytest
from fakes import failing, fake_callables, filled_form, scan_that_saves

from emitdiff.provenance import save_synthetic_png
from emitdiff.ui.examples import read_examples
from emitdiff.ui.synthesis.input_panel import SynthesisInput
from emitdiff.ui.synthesis.prompt_panel import chips

FORM = filled_form("X-ray, chest", num_images=2, seed=5)
SET = ("num_inference_steps", "guidance_scale", "controlnet_conditioning_scale", "detector")  # by weights and presets


def build(**changes):
    with gr.Blocks():
        form = SynthesisInput(fake_callables(**changes), read_examples())
        form.lay_out_controls()
        form.lay_out_views()
        form.connect()
        return form


@pytest.fixture(scope="module")
def form():
    return build()


def test_the_preview_says_what_is_missing(form, example):
    shown, control = form.preview.update(None, 1, None, str(example.mask), **FORM)
    assert "mask alone" in shown[form.mask.note] and control[form.preview.control_view].any()
    (nothing,) = form.preview.update(None, 1, None, None, **FORM)
    assert nothing[form.preview.control_view] is None


def test_a_preset_sets_the_fields_it_names(form):
    updates = form.take_defaults("emitdiff-mini", "paper")
    assert "Preset paper: as published." in updates[form.sampling.note]
    assert [updates[form.form[name]] for name in SET] == [4, 9.0, 1.0, "hed"]
    assert not updates[form.structure.thresholds].visible


def test_a_mask_of_another_size_is_named_beside_it(form, example, tmp_path):
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), cv2.resize(cv2.imread(str(example.mask)), (64, 64), interpolation=cv2.INTER_NEAREST))
    given = {**FORM, "scan": scan_that_saves(example.image), "slice_number": 1, "window": None}
    first, second = form.preview.update(mask_file=str(small), **given)
    assert "small.png" in first[form.mask.note] and "64 x 64" in first[form.mask.note]
    assert form.preview.source_view in first and second[form.preview.control_view].shape == (256, 256, 3)


def test_an_empty_mask_is_said_to_be_empty_beside_it(form, example, tmp_path):
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((256, 256), np.uint8))
    given = {**FORM, "scan": scan_that_saves(example.image), "slice_number": 1, "window": None}
    first, _ = form.preview.update(mask_file=str(tmp_path / "empty.png"), **given)
    assert "The mask is empty" in first[form.mask.note]


def test_a_preview_that_fails_is_named_below_it(example):
    form = build(control_image=failing)
    given = {**FORM, "scan": scan_that_saves(example.image), "slice_number": 1, "window": None}
    _, second = form.preview.update(mask_file=None, **given)
    assert second[form.preview.control_view] is None and "The weights are not here" in second[form.preview.control_note]


def test_a_bad_file_leaves_what_was_there(form, tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("no image")
    updates = form.take_file(str(path))
    assert set(updates) == {form.source.message, form.source.file}
    assert "notes.png" in updates[form.source.message] and "Traceback" not in updates[form.source.message]


def test_an_example_brings_its_mask_and_words(form):
    updates = form.take_example("sd15-canny", SimpleNamespace(index=1))
    assert updates[form.words.prompt] == "CT, abdomen, liver" and updates[form.words.modality] == "CT"
    assert updates[form.mask.file].endswith("painted_abdominal_ct_mask.png")


def test_other_weights_bring_their_defaults(form):
    updates = form.take_defaults("sd15-canny")
    assert [updates[form.form[name]] for name in SET] == [20, 7.5, 1.0, "canny"]
    assert "not downloaded" in updates[form.sampling.note]


def test_the_tokens_of_the_prompt_are_counted_and_what_is_cut_is_named(form):
    assert "4 of 77 tokens" in form.words.count("CT, liver", "emitdiff-mini")
    assert "Cut after 77 tokens" in form.words.count("word " * 60, "emitdiff-mini")
    assert form.words.count("", "emitdiff-mini") == ""


def test_a_chip_chooses_its_words_and_fits_the_modality(form):
    assert chips(form.calls) == [["CT, abdomen, liver"], ["MRI, heart, left ventricle, high contrast"]]
    assert chips(form.calls, "CT") == [["CT, abdomen, liver"]]
    updates = form.words.take_chip(["MRI, heart, left ventricle, high contrast"])
    assert updates[form.words.appearance] == "high contrast" and updates[form.words.free_text] == ""


def made_here(folder, source, **changes):
    """A PNG as the page saves it, made with other settings than the form's first ones."""
    settings = {**FORM, "prompt": "CT, abdomen, liver, of a child", "edit": None, "detector": "canny", "num_images": 1}
    image = cv2.imread(str(read_examples()[1].image))
    return save_synthetic_png(image, folder / "synthetic_a.png", {**settings, "source": source, **changes})


def test_a_synthetic_image_brings_its_settings_and_its_example_back(form, tmp_path):
    updates = form.take_file(str(made_here(tmp_path, "painted_abdominal_ct", seed=77, structure=0.35)))
    restored = {name: updates[field] for name, field in form.form.items()}
    assert (restored["seed"], restored["structure"], restored["detector"]) == (77, 0.35, "canny")
    assert updates[form.words.finding] == "liver" and updates[form.words.free_text] == "of a child"
    assert updates[form.source.scan].name == "painted_abdominal_ct.png"
    assert updates[form.mask.file].endswith("painted_abdominal_ct_mask.png")
    assert "generated from the example Abdominal CT" in updates[form.source.message]


def own(folder, example, size=None):
    """A file of one's own."""
    picture = cv2.imread(str(example.image))
    cv2.imwrite(str(folder / "own.png"), cv2.resize(picture, size) if size else picture)
    return folder / "own.png"


def test_a_mask_dropped_before_its_image_stays_with_it(form, tmp_path, example):
    updates = form.take_file(str(own(tmp_path, example)), None, str(example.mask))
    assert form.mask.file not in updates and "removed" not in updates[form.source.message]
    updates = form.take_file(str(own(tmp_path, example, size=(64, 64))), None, str(example.mask))
    assert updates[form.mask.file] is None
    assert "The mask was removed" in updates[form.source.message] and "256 x 256" in updates[form.source.message]


def test_the_mask_of_the_image_before_goes_with_a_sentence(form, tmp_path, example):
    scan = scan_that_saves(example.image)
    path = str(own(tmp_path, example))
    left = form.take_away(scan, 1, None, str(example.mask))[form.before]
    for before in ({"previous": scan}, {"before": left}):
        updates = form.take_file(path, mask_file=str(example.mask), **before)
        assert updates[form.mask.file] is None and updates[form.before] is None
        said = "The mask painted_chest_xray_mask.png of painted_chest_xray.png was removed."
        assert said in updates[form.source.message]
    updates = form.take_file(path, mask_file=str(read_examples()[1].mask), before=left)
    assert form.mask.file not in updates, "it was given after the image had gone"


def test_an_upload_that_was_taken_away_is_found_again_by_what_was_generated_from_it(form, tmp_path, example):
    scan = scan_that_saves(example.image)
    scan.name, mask = "own.png", str(example.mask)
    away = form.take_away(scan, 1, None, mask)
    assert away[form.source.scan] is None
    path = str(made_here(tmp_path, "own", seed=77))
    updates = form.take_file(path, None, mask, away[form.before])
    assert updates[form.source.scan] is scan and updates[form.form["seed"]] == 77
    assert "generated from own.png, which is loaded" in updates[form.source.message]
    assert form.mask.file not in updates, "the mask that is there stays"
    assert form.take_file(path, None, None, away[form.before])[form.mask.file] == mask
    example_between = form.take_file(path, scan_that_saves(read_examples()[1].image), "other.png", away[form.before])
    assert example_between[form.source.scan] is scan and example_between[form.mask.file] == mask


def test_a_mask_alone_is_found_again_by_what_was_generated_from_it(form, tmp_path, example):
    path = made_here(tmp_path, "painted_chest_xray_mask")
    updates = form.take_file(str(path), None, str(example.mask))
    assert updates[form.source.scan] is None and form.mask.file not in updates
    assert "from the mask alone, which is loaded" in updates[form.source.message]


def test_an_image_generated_without_a_negative_prompt_empties_the_field(form, tmp_path):
    updates = form.take_file(str(made_here(tmp_path, "painted_abdominal_ct", negative_prompt=None)))
    assert updates[form.form["negative_prompt"]] == "" and "Unknown here" not in updates[form.source.message]


def test_its_source_stays_where_it_is_the_image_shown(form, tmp_path, example):
    path = made_here(tmp_path, "own", checkpoint="somebody/else")
    scan = scan_that_saves(example.image)
    scan.name = "own.dcm"
    updates = form.take_file(str(path), scan)
    assert form.source.scan not in updates and form.mask.file not in updates
    assert "left unchanged: checkpoint" in updates[form.source.message] and form.form["checkpoint"] not in updates
    alone = form.take_file(str(path))
    assert alone[form.source.scan].name == "synthetic_a.png" and "“own”" in alone[form.source.message]


def test_a_prompt_of_other_words_is_kept_as_it_is(form):
    assert form.words.read("a liver, seen on CT, bright")[form.words.free_text] == "a liver, seen on CT, bright"
    updates = form.words.read("liver, CT")
    assert updates[form.words.prompt] == "liver, CT" and updates[form.words.modality] == ""


def test_what_the_browser_kept_comes_back_and_what_makes_no_sense_does_not(form):
    updates = form.restore_stored({**FORM, "structure": 0.4, "num_images": 99, "boundary": "yes"})
    assert updates[form.form["structure"]] == 0.4 and updates[form.words.organ] == "chest"
    assert form.form["num_images"] not in updates and form.form["boundary"] not in updates
    for nothing in (None, {}, "old", {"prompt": 3}):
        assert set(form.restore_stored(nothing)) == {form.words.prompt}


def test_an_image_of_words_alone_needs_no_source(form, tmp_path):
    updates = form.take_file(str(made_here(tmp_path, "text", structure=0)))
    assert updates[form.source.scan] is None and updates[form.form["structure"]] == 0
    assert "text alone" in updates[form.source.message]
