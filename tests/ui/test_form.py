from __future__ import annotations

import pytest
from fakes import filled_form, models

from emitdiff.errors import EmitDiffError
from emitdiff.synthesis_settings import MaskEdit
from emitdiff.ui.form import (
    BLANK_FORM,
    check_request,
    fill_form,
    find_preset,
    form_values,
    menu,
    read_form,
    sampling_defaults,
)
from emitdiff.ui.interface import PresetOption

PRESETS = (
    PresetOption("default", "own", {}),
    PresetOption("paper", "as published", {"guidance_scale": 9.0, "detector": "hed"}),
)
FORM = filled_form("CT, abdomen")


def test_check_request_keeps_good_values():
    request = check_request({**FORM, "seed": 5.0, "num_images": 2})
    settings = request.settings
    assert settings.seed == 5 and isinstance(settings.seed, int) and settings.prompt == "CT, abdomen"


@pytest.mark.parametrize("name", ["seed", "num_images", "num_inference_steps", "guidance_scale"])
def test_check_request_names_an_empty_field(name):
    with pytest.raises(EmitDiffError, match="is empty: enter a value from"):
        check_request({**FORM, name: None})


def test_minus_one_is_a_seed_drawn_anew():
    seeds = {check_request({**FORM, "seed": -1}).settings.seed for _ in range(5)}
    assert len(seeds) > 1 and min(seeds) >= 0


def test_check_request_generates_no_other_seed_than_the_one_that_stands_there():
    with pytest.raises(EmitDiffError, match="The seed is 1.5: enter a whole number"):
        check_request({**FORM, "seed": 1.5})


def test_check_request_names_a_value_out_of_range():
    with pytest.raises(EmitDiffError, match="The number of images is 9: enter a value from 1 to 8"):
        check_request({**FORM, "num_images": 9})


def test_defaults_are_the_models_own_before_the_general_ones():
    mini, canny, _ = models()
    assert sampling_defaults(mini)["num_inference_steps"] == 4
    assert sampling_defaults(canny) == {**sampling_defaults(None), "detector": "canny"}
    assert sampling_defaults(None)["guidance_scale"] == 7.5
    paper = find_preset(PRESETS, "paper")
    assert sampling_defaults(mini, paper) == {**sampling_defaults(mini), "guidance_scale": 9.0, "detector": "hed"}
    with pytest.raises(EmitDiffError, match="give one of default, paper"):
        find_preset(PRESETS, "best")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("structure", 1.5, "The structure is 1.5"),
        ("scale", 0, "mask's scale is 0"),
        ("move_x", None, "to the right is"),
    ],
)
def test_check_request_names_what_is_wrong_with_an_edit(name, value, words):
    with pytest.raises(EmitDiffError, match=words):
        check_request({**FORM, name: value})


def test_a_menu_begins_with_no_choice():
    assert menu(("", "CT")) == [("any", ""), ("CT", "CT")]


CHOICES = {"detector": ("soft", "canny"), "preset": ("default",), "checkpoint": {"emitdiff-mini": None}}


def test_a_form_becomes_a_request_and_the_same_form_again():
    form = {**FORM, "move_x": 0.25, "edit_seed": 3, "checkpoint": "sd15-canny", "preset": "paper"}
    request = read_form(form)
    assert request.settings.edit == MaskEdit(move_x=0.25, seed=3) and request.checkpoint == "sd15-canny"
    assert fill_form(request) == form
    assert fill_form(read_form({})) == {**BLANK_FORM, "boundary": None}


def test_settings_kept_in_an_image_become_the_form_again():
    edit = {"move_x": 0.1, "move_y": 0.0, "scale": 1.0, "rotate": 5.0, "deform": 0.2, "seed": 9}
    kept = {name: value for name, value in FORM.items() if name not in (*edit, "edit_seed")}
    values, unusable = form_values({**kept, "seed": 4, "edit": edit, "working_size": [256, 256]}, CHOICES)
    assert values == {**FORM, "seed": 4, "move_x": 0.1, "rotate": 5.0, "deform": 0.2, "edit_seed": 9}
    assert unusable == []
    assert form_values({"edit": None}, CHOICES)[0]["scale"] == 1.0


def test_settings_from_elsewhere_that_cannot_be_used_are_named():
    bad = {"checkpoint": "someone/else", "seed": -2, "guidance_scale": "high", "structure": float("nan"), "prompt": "a"}
    assert form_values(bad, CHOICES) == ({"prompt": "a"}, ["seed", "guidance_scale", "structure", "checkpoint"])
