"""The weights that come with the project: whole, small, documented, and awake. Quality is measured, not tested."""

import cv2
import numpy as np
import pytest
import torch

from emitdiff.checkpoints import find_checkpoint, local_folder
from emitdiff.scans.masks import read_slice_mask
from emitdiff.scans.reading import read_scan
from emitdiff.segmentation.loading import load_segmenter
from emitdiff.segmentation.vocabulary import TARGETS, target_named
from emitdiff.ui.examples import read_examples


@pytest.fixture(scope="module")
def segment():
    return load_segmenter("textdiff-mini", device="cpu")


@pytest.fixture(scope="module")
def folder():
    return local_folder(find_checkpoint("textdiff-mini", "segmentation"))


def test_small_safe_and_with_a_card(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 24 * 2**20
    assert {path.suffix for path in files} == {".json", ".md", ".safetensors"}
    card = (folder / "README.md").read_text()
    assert "Not a medical device" in card and all(target.phrase in card for target in TARGETS)


def test_knows_its_targets_and_what_it_was_trained_on(segment):
    assert segment.targets == tuple(target.phrase for target in TARGETS)
    assert segment.card["split"] == {"rule": "split_by_group", "held_out": 0.2, "seed": 0}
    assert all(dataset["licence"] and dataset["citation"] for dataset in segment.card["datasets"])


def test_every_weight_is_a_number_and_frozen(segment):
    for part in (segment.features, segment.text, segment.head):
        assert not any(parameter.requires_grad for parameter in part.parameters())
        for name, values in part.state_dict().items():  # statistics too: an infinite variance silences its channel
            assert torch.isfinite(values).all(), name


def test_the_words_change_the_mask(segment):
    rows, columns = np.mgrid[:256, :256] / 256
    body = ((rows - 0.5) / 0.45) ** 2 + ((columns - 0.5) / 0.42) ** 2 < 1
    lungs = [((rows - 0.45) / 0.27) ** 2 + ((columns - middle) / 0.14) ** 2 < 1 for middle in (0.33, 0.67)]
    drawn = 20 + 170 * body - 110 * (lungs[0] | lungs[1])
    image = np.repeat(drawn[..., None], 3, axis=-1).astype(np.uint8)
    both, nuclei = segment(image, "both lungs").probability, segment(image, "cell nuclei").probability
    assert np.isfinite(both).all() and both.shape == (256, 256)
    assert both[lungs[0] | lungs[1]].mean() > nuclei[lungs[0] | lungs[1]].mean()


@pytest.mark.parametrize("card", read_examples(), ids=lambda card: card.title)
def test_what_an_example_card_shows_is_found(segment, card):
    scan = read_scan(card.image)
    truth = read_slice_mask(card.mask, scan, 0) > 0
    found = segment(scan.image(), card.text).mask > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.8


@pytest.mark.parametrize("card", read_examples(), ids=lambda card: card.title)
def test_what_was_taught_on_other_images_alone_is_not_called_found(segment, card):
    """Lung in abdominal CT, left ventricle there: perhaps in the picture, never labelled in such a one."""
    encoded, home = segment.encode(read_scan(card.image).image()), segment(read_scan(card.image).image(), card.text)
    kind = target_named(home.target).image_kind
    others = [target for target in TARGETS if target.image_kind != kind]
    answers = {target.phrase: segment.segment(encoded, target.phrase) for target in others}
    assert home.answer == "found" and {answer.answer for answer in answers.values()} <= {"not there", "unsure"}
    for phrase, answer in answers.items():
        assert answer.answer == "not there" or f"not taught the {phrase}" in " ".join(answer.warnings)


def test_a_lung_is_at_most_two_pieces_and_nuclei_are_many(segment):
    cards = {card.text: card for card in read_examples()}
    found = {text: segment(read_scan(cards[text].image).image(), text).mask for text in ("lung", "nuclei")}
    pieces = {text: cv2.connectedComponents(mask, connectivity=8)[0] - 1 for text, mask in found.items()}
    assert pieces["lung"] <= 2 and pieces["nuclei"] > 5
