from __future__ import annotations

import json
from dataclasses import replace

import pytest

from emitdiff.checkpoints import Checkpoint
from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.card import CARD_FILE, CheckpointCard, read_card

WEIGHTS = Checkpoint("some", "synthesis", "", "", base="some/repo", detector="canny", defaults={"guidance_scale": 9.0})


def write(folder, **card):
    folder.mkdir(exist_ok=True)
    (folder / CARD_FILE).write_text(json.dumps(card), encoding="utf-8")
    return folder


def test_without_a_card_the_known_facts_and_those_of_stable_diffusion_hold(tmp_path):
    card = read_card(WEIGHTS, tmp_path)
    assert card == CheckpointCard(detector="canny", defaults={"guidance_scale": 9.0})
    assert (card.area, card.multiple, card.control_layout) == (512 * 512, 64, "joined")
    assert read_card(replace(WEIGHTS, detector=None), tmp_path).detector == "soft"


def test_a_card_beside_the_weights_is_believed(tmp_path):
    card = read_card(WEIGHTS, write(tmp_path, area=4096, detector="hed"))
    assert (card.area, card.detector, card.defaults) == (4096, "hed", {})


def test_the_card_of_a_fine_tuned_controlnet_comes_before_that_of_its_base(tmp_path):
    base, own = write(tmp_path / "base", detector="hed"), write(tmp_path / "own", detector="soft")
    assert read_card(replace(WEIGHTS, card=str(own)), base).detector == "soft"


@pytest.mark.parametrize("content", ["{", "[1]", '{"colour": 1}', "null"])
def test_a_damaged_card_is_named(tmp_path, content):
    (tmp_path / CARD_FILE).write_text(content)
    with pytest.raises(EmitDiffError, match=f"{CARD_FILE} cannot be read"):
        read_card(WEIGHTS, tmp_path)
