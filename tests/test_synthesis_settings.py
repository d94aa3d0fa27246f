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
        ({"seed": "7"}, "seed is '7', which is no number"),
        ({"prompt": 3}, "prompt is 3, which is no text"),
        ({"edit": 0.5}, "edit is 0.5, which is no mask edit"),
        ({"edit": {"scale": "large"}}, "which is no mask edit"),
        ({"size": [64]}, "no pair of whole numbers"),
        ({"boundary": 1}, "which is no yes or no"),
    ],
)
def test_a_record_with_other_values_is_refused_in_a_sentence(record, words):
    with pytest.raises(EmitDiffError, match=words):
        SynthesisSettings.from_record(record)
