"""The settings of augmenting a dataset, which the command, the page and the backend share."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from emitdiff.augmentation_settings import MIN_STRUCTURE, AugmentationSettings
from emitdiff.commands.datasets import Augment as Command
from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.augmentation import Augment
from emitdiff.synthesis_settings import SynthesisSettings
from emitdiff.ui.interface import AugmentRequest


def defaults(settings: type) -> dict:
    return {field.name: field.default for field in fields(settings)}


def test_command_and_page_have_every_setting_with_its_default():
    shared = defaults(AugmentationSettings)
    command, request = defaults(Command), defaults(AugmentRequest)
    assert {name: command[name] for name in shared} == shared and set(command) - set(shared) == {"dataset", "out"}
    assert request == {**shared, "include_real": True, "segmenter": ""}, "on the page the real images come along"
    verb = Command(Path("a"), Path("b"), ratio=2.0, limit=3)
    assert Augment(**vars(verb)) == Augment(Path("a"), Path("b"), ratio=2.0, limit=3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"structure": MIN_STRUCTURE - 0.01}, "structure was 0.49.*not be a valid label"),
        ({"structure": 1.01}, "structure was 1.01"),
        ({"structure": float("nan")}, "structure was nan"),
        ({"edit": 1.5}, "mask edits was 1.5"),
        ({"edit": -0.1}, "mask edits was -0.1"),
        ({"ratio": 0}, "ratio was 0"),
        ({"ratio": 1001}, "ratio was 1001"),
    ],
)
def test_numbers_out_of_range_are_refused(changes, said):
    with pytest.raises(EmitDiffError, match=said):
        AugmentationSettings(**changes).check()


def test_the_ends_of_every_range_are_taken():
    AugmentationSettings(structure=MIN_STRUCTURE, edit=0, ratio=0.01).check()
    AugmentationSettings(structure=1, edit=1, ratio=1000).check()


def test_what_all_images_have_in_common_goes_to_the_synthesis():
    settings = AugmentationSettings(steps=7, guidance=2.5, control_strength=0.8, structure=0.6, preset="paper", seed=9)
    assert settings.of_each_image == SynthesisSettings(
        num_images=1,
        num_inference_steps=7,
        guidance_scale=2.5,
        controlnet_conditioning_scale=0.8,
        structure=0.6,
        preset="paper",
    )
