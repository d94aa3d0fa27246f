from __future__ import annotations

import json

import cv2
import numpy as np

from emitdiff.provenance import DIGITAL_SOURCE_TYPE, read_synthetic_settings
from emitdiff.ui.examples import read_examples
from emitdiff.ui.sample_data import sample_pairs


def test_every_card_has_its_files_and_says_where_it_comes_from():
    cards = read_examples()
    assert len(cards) >= 6
    for card in cards:
        assert card.image.is_file() and card.origin.startswith("synthetic") and card.title
        if card.mask:
            assert cv2.imread(str(card.mask)).shape == cv2.imread(str(card.image)).shape


def test_every_example_says_in_its_own_file_that_it_is_synthetic():
    pictures = [card.image for card in read_examples()] + [image for image, _ in sample_pairs()]
    assert len(pictures) >= 10
    for picture in pictures:
        assert read_synthetic_settings(picture)["checkpoint"] == "emitdiff-mini", picture.name
        assert DIGITAL_SOURCE_TYPE in picture.read_bytes().decode("latin-1"), picture.name


def test_the_masks_of_the_example_dataset_are_white_on_black_and_fit():
    for image, mask in sample_pairs():
        picture, label = cv2.imread(str(image)), cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
        assert label.shape == picture.shape[:2] and set(np.unique(label)) == {0, 255}


def test_a_card_is_files_and_one_line(tmp_path):
    (tmp_path / "examples.jsonl").write_text(json.dumps({"image": "a.png", "title": "A", "origin": "synthetic"}) + "\n")
    (card,) = read_examples(tmp_path)
    assert card.image == tmp_path / "a.png" and card.mask is None and card.text == ""
    assert read_examples(tmp_path / "nowhere") == []
