"""Settings resolved against preset and card, and the control image, both without any weights."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.card import CheckpointCard
from emitdiff.synthesis.control import build_control
from emitdiff.synthesis.presets import PRESETS
from emitdiff.synthesis.sampling import DEFAULTS, resolve
from emitdiff.synthesis_settings import MaskEdit, SynthesisSettings

CARD = CheckpointCard("layered", 64 * 64, 16, detector="canny", defaults={"guidance_scale": 1.5, "boundary": False})


def test_what_is_set_wins_over_the_preset_and_the_preset_over_the_card():
    assert resolve(SynthesisSettings(preset="paper", guidance_scale=3.0), CARD).guidance_scale == 3.0
    assert resolve(SynthesisSettings(preset="paper"), CARD).guidance_scale == PRESETS["paper"].guidance_scale == 9.0
    assert resolve(SynthesisSettings(), CARD).guidance_scale == 1.5
    assert resolve(SynthesisSettings(), CheckpointCard()).guidance_scale == DEFAULTS["guidance_scale"]
    detectors = [resolve(SynthesisSettings(**given), CARD).detector for given in ({}, {"preset": "paper"})]
    assert detectors == ["canny", "hed"]


def test_false_and_zero_are_set():
    none = SynthesisSettings(preset="paper", boundary=False, guidance_scale=0.0, controlnet_conditioning_scale=0.0)
    resolved = resolve(none, CheckpointCard())
    assert (resolved.boundary, resolved.guidance_scale, resolved.controlnet_conditioning_scale) == (False, 0.0, 0.0)


@pytest.mark.parametrize("preset", PRESETS)
def test_nothing_is_left_open_and_once_is_enough(preset):
    resolved = resolve(SynthesisSettings("CT", edit=MaskEdit(scale=2.0), size=(8, 8), preset=preset), CARD)
    assert not [field.name for field in fields(resolved) if getattr(resolved, field.name) is None]
    assert resolve(resolved, CARD) == resolved == resolve(resolved, CheckpointCard())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preset": "best"}, "choose one of default, paper, released"),
        ({"num_images": 1001}, "1001 images were asked for"),
        ({"edit": MaskEdit(scale=0)}, "scale was 0"),
        ({"guidance_scale": float("nan")}, "guidance scale was nan"),
    ],
)
def test_what_cannot_be_used_is_said(changes, words):
    with pytest.raises(EmitDiffError, match=words):
        resolve(SynthesisSettings(**changes), CARD)


def test_a_control_image_needs_a_card_and_no_weights(disc):
    image, mask = disc
    edit = MaskEdit(move_x=0.2)
    control = build_control(image, mask, SynthesisSettings(boundary=True, edit=edit), CARD)
    assert control.picture.shape == (64, 64, 3) and control.size == mask.shape
    assert control.picture[..., 0].any() and control.picture[..., 2].any()
    assert control.mask.any() and not np.array_equal(control.mask, mask)
    without = build_control(image, mask, SynthesisSettings(edit=edit), CARD)  # the card says: no boundary
    assert not without.picture[..., 1:].any()
    with pytest.raises(EmitDiffError, match="guidance scale"):
        build_control(image, mask, SynthesisSettings(guidance_scale=99), CARD)


def test_resolving_imports_no_torch():
    program = "import sys, emitdiff.synthesis.sampling; print('torch' in sys.modules)"
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "False"
