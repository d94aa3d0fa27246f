"""The settings of the synthesis as plain data: what is refused, and what records of any age give back."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from emitdiff import MaskEdit, SynthesisSettings
from emitdiff.errors import EmitDiffError
from emitdiff.provenance import read_synthetic_settings, save_synthetic_png

FULL = SynthesisSettings(
    prompt="CT, liver", negative_prompt="noise", num_images=1, seed=3, num_inference_steps=4, guidance_scale=2.5,
    controlnet_conditioning_scale=0.8, detector="canny", boundary=False, low_threshold=30, structure=0.7,
    edit=MaskEdit(move_x=0.1, seed=5), preset="released", appearance="speckled", size=(64, 96),
)  # fmt: skip


def test_they_do_not_change_but_give_changed_ones():
    with pytest.raises(FrozenInstanceError):
        FULL.seed = 4
    changed = FULL.replace(seed=4, edit={"scale": 0.5}, size=[32, 48])
    assert (changed.seed, changed.edit, changed.size) == (4, MaskEdit(scale=0.5), (32, 48))
    assert FULL.seed == 3 and changed.replace(seed=3, edit=FULL.edit, size=FULL.size) == FULL


def test_an_unknown_setting_is_named_with_the_known_ones():
    with pytest.raises(EmitDiffError, match=r"no setting called 'steps'; the settings are prompt, .*, size\."):
        FULL.replace(steps=3)
    with pytest.raises(EmitDiffError, match="it may have move_x"):
        FULL.replace(edit={"shift": 3})


def test_a_png_gives_back_what_it_was_made_with(tmp_path):
    others = {"checkpoint": "emitdiff-mini", "working_size": [64, 64], "edge_weights": "hed-mini", "row": {"seed": "9"}}
    path = save_synthetic_png(np.zeros((4, 4, 3), np.uint8), tmp_path / "one.png", {**FULL.record(), **others})
    assert SynthesisSettings.from_record(read_synthetic_settings(path)) == FULL


def test_the_record_of_an_older_version_lacks_what_came_later():
    old = """{"synthetic": true, "prompt": "CT, liver", "negative_prompt": null, "num_images": 1, "seed": 7,
        "num_inference_steps": 6, "guidance_scale": 1.5, "controlnet_conditioning_scale": 1.4, "detector": "soft",
        "boundary": true, "low_threshold": 50, "high_threshold": 120, "checkpoint": "emitdiff-mini",
        "working_size": [256, 256], "source": "scan", "mask": null}"""
    assert SynthesisSettings.from_record(json.loads(old)) == SynthesisSettings(
        prompt="CT, liver", num_images=1, seed=7, num_inference_steps=6, guidance_scale=1.5,
        controlnet_conditioning_scale=1.4, detector="soft", boundary=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"seed": "7"}, "seed is '7', where a whole number belongs"),
        ({"prompt": 3}, "prompt is 3, where text belongs"),
        ({"edit": 0.5}, "edit is 0.5, where a mask edit belongs"),
        ({"edit": {"scale": "large"}}, "where a mask edit belongs"),
        ({"size": [64]}, "size is .64., where a pair of whole numbers belongs"),
        ({"boundary": 1}, "where True or False belongs"),
    ],
)
def test_a_record_with_other_values_is_refused_in_a_sentence(record, words):
    with pytest.raises(EmitDiffError, match=words):
        SynthesisSettings.from_record(record)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": [1]}, "The setting seed is .1.; give a whole number"),
        ({"seed": True}, "seed is True; give a whole number"),
        ({"num_images": 1.5}, "num_images is 1.5; give a whole number"),
        ({"num_inference_steps": "6"}, "num_inference_steps is '6'"),
        ({"prompt": None}, "prompt is None; give text"),
        ({"prompt": ["a"]}, "prompt is .'a'.; give text"),
        ({"structure": "all"}, "structure is 'all'; give a number"),
        ({"size": [64, "64"]}, "size is .64, '64'.; give a pair of whole numbers"),
    ],
)
def test_a_value_of_another_kind_is_refused(changes, words):
    with pytest.raises(EmitDiffError, match=words):
        FULL.replace(**changes).check_kinds()


def test_numbers_of_numpy_are_numbers_and_an_edit_has_its_own():
    FULL.replace(seed=np.int64(3), structure=np.float32(0.5)).check_kinds()
    SynthesisSettings().check_kinds()
    with pytest.raises(EmitDiffError, match="scale was .1.; give a number"):
        MaskEdit(scale=[1]).check()
    with pytest.raises(EmitDiffError, match="seed of the deformation was 1.5; give a whole number"):
        MaskEdit(seed=1.5).check()
