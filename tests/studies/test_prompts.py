import json

import numpy as np
import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.studies.image_kind_classifier import ImageKindNetwork
from emitdiff.studies.prompts import EvaluatePrompts, compare_words, evaluate_prompts
from emitdiff.synthesis.training.captions import APPEARANCE_WORDS

KINDS = [("Ultrasound", "breast"), ("Microscopy", "nuclei")]


def pictures(count: int, seed: int):
    """Stripes across and stripes down, of any brightness."""
    rng = np.random.default_rng(seed)
    images, kinds = [], []
    for index in range(count):
        grey = 128 + rng.uniform(20, 100) * np.sin(np.arange(64) / rng.uniform(1, 2) + rng.uniform(0, 6))
        plane = np.tile(grey[:, None], (1, 64)) + rng.normal(0, 10, (64, 64))
        plane = plane if index % 2 else plane.T
        images.append(np.repeat(np.clip(plane, 0, 255).astype(np.uint8)[..., None], 3, axis=-1))
        kinds.append(KINDS[index % 2])
    return images, kinds


def test_two_kinds_of_image_are_told_apart():
    recogniser = ImageKindNetwork(KINDS)
    recogniser.train(*pictures(40, 0), steps=40)
    images, kinds = pictures(40, 1)
    assert np.mean([found == kind for found, kind in zip(recogniser(images), kinds, strict=True)]) > 0.95


def measures(**changed):
    return {name: changed.get(name, 10.0) for name in APPEARANCE_WORDS}


def test_words_count_where_their_measure_moves_as_they_say():
    words = {word: measures() for pair in APPEARANCE_WORDS.values() for word in pair}
    first = {"": measures(), **words, "dark": measures(brightness=4.0), "bright": measures(brightness=14.0)}
    second = {"": measures(), **words, "dark": measures(brightness=11.0), "bright": measures(brightness=12.0)}
    table = compare_words([first, second])
    assert table["dark"]["measure"] == "brightness" and table["dark"]["n"] == 2
    assert table["dark"]["word"] == {"right": 0.5, "shift": -2.5}
    assert table["dark"]["opposite"] == {"right": 1.0, "shift": -5.5}
    assert table["bright"]["word"] == {"right": 1.0, "shift": 3.0}
    assert table["noisy"]["word"]["right"] == 0.0  # what stays the same has not moved the right way
    assert set(table) == {word for pair in APPEARANCE_WORDS.values() for word in pair}


def test_the_whole_measure(two_kinds, checkpoint, capsys):
    evaluate_prompts(EvaluatePrompts(two_kinds, checkpoint, limit=1, steps=1, json=True))
    printed = capsys.readouterr().out
    result = json.loads(printed.splitlines()[-1])
    assert result["real_images_recognised"]["n"] == 4
    for way in ("text alone", "outline"):
        found = result["kinds"][way]
        assert found["n"] == 2 and set(found["per_kind"]) == {"Ultrasound, breast", "CT, abdomen"}
        assert 0 <= found["both"] <= min(found["modality"], found["organ"]) <= 1
    assert {structure: words["dark"]["n"] for structure, words in result["words"].items()} == {"full": 2, "outline": 2}
    assert "| text alone" in printed and "| dark" in printed


def test_one_kind_cannot_be_told_from_itself(dataset_folder, checkpoint):
    with pytest.raises(EmitDiffError, match="two or more kinds"):
        evaluate_prompts(EvaluatePrompts((dataset_folder, dataset_folder), checkpoint))
