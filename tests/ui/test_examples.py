from __future__ import annotations

import json

import cv2
import numpy as np

from emitdiff.ui.examples import FOLDER, read_examples
from emitdiff.ui.phantoms import write_examples


def test_every_card_has_its_files_and_says_where_it_comes_from():
    cards = read_examples()
    assert len(cards) >= 6
    for card in cards:
        assert card.image.is_file() and card.origin.startswith(("drawn", "synthetic")) and card.title
        if card.mask:
            assert cv2.imread(str(card.mask)).shape == cv2.imread(str(card.image)).shape


def test_the_drawn_examples_can_be_drawn_again(tmp_path):
    for row in write_examples(tmp_path):
        for key in ("image", "mask"):
            committed, drawn = (cv2.imread(str(folder / row[key])).astype(int) for folder in (FOLDER, tmp_path))
            # Another processor may round one grey level differently.
            assert np.abs(committed - drawn).max() <= 1, row[key]


def test_a_card_is_files_and_one_line(tmp_path):
    (tmp_path / "examples.jsonl").write_text(json.dumps({"image": "a.png", "title": "A", "origin": "synthetic"}) + "\n")
    (card,) = read_examples(tmp_path)
    assert card.image == tmp_path / "a.png" and card.mask is None and card.text == ""
    assert read_examples(tmp_path / "nowhere") == []
