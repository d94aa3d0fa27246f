"""What a segmenter answers, and what it does not take."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.output import (
    SegmentationOutput,
    check_query,
    checked_image,
    entropy,
    upsample,
)


@pytest.fixture
def answer():
    probability = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    return SegmentationOutput((probability > 0.5).astype(np.uint8), probability, True, None, 0.9, probability, 1.0)


def test_another_threshold_is_another_mask_and_nothing_else(answer):
    strict = answer.at(0.9)
    assert strict.mask.dtype == np.uint8 and np.array_equal(strict.mask == 1, answer.probability > 0.9)
    assert strict.found and strict.probability is answer.probability and strict.present == answer.present
    none = answer.at(1.0)
    assert not none.found and not none.mask.any()
    assert np.array_equal(none.at(0.5).mask, answer.mask), "nothing was lost"


def test_what_is_absent_is_found_at_no_threshold(answer):
    absent = SegmentationOutput(**{**vars(answer), "absent": True}).at(0.01)
    assert not absent.found and not absent.mask.any()


def test_there_are_four_answers(answer):
    assert answer.answer == "found" and SegmentationOutput(**{**vars(answer), "unsure": True}).answer == "unsure"
    for changes in ({"absent": True}, {"absent": True, "unsure": True}):
        assert SegmentationOutput(**{**vars(answer), **changes}).at(0.5).answer == "not there"
    assert SegmentationOutput(**{**vars(answer), "unsure": True}).at(1.0).answer == "not there", "nothing is drawn"
    assert SegmentationOutput(**{**vars(answer), "untaught": True}).at(1.0).answer == "not taught"


def test_what_was_not_taught_is_found_at_no_threshold(answer):
    tried = SegmentationOutput(**{**vars(answer), "untaught": True}).at(0.01)
    assert tried.mask.any() and not tried.found


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (8, 9, 3), (8, 9, 4)])
def test_any_picture_becomes_rgb(shape):
    assert checked_image(np.full(shape, 7, np.uint8)).shape == (8, 9, 3)


@pytest.mark.parametrize("threshold", [0, 1, -0.1, 1.1, float("nan")])
def test_a_threshold_lies_between_0_and_1(threshold):
    with pytest.raises(EmitDiffError, match="threshold is"):
        check_query("lung", threshold)


def test_what_is_done_with_an_untaught_text_is_one_of_two():
    with pytest.raises(EmitDiffError, match="untaught is 'guess': give 'refuse' or 'try'"):
        check_query("lung", 0.5, "guess")


@pytest.mark.parametrize("image", [np.zeros((8, 8)), np.zeros((7, 8), np.uint8), np.zeros((8, 8, 2), np.uint8), None])
def test_what_is_no_picture_is_described(image):
    with pytest.raises(EmitDiffError, match=r"The image is \w+ of shape \(.*\): give uint8"):
        checked_image(image)


def test_doubt_is_counted_in_bits():
    sure, half = torch.zeros(1, 4, 2, 2), torch.full((1, 4, 2, 2), 0.25)
    sure[:, 1] = 1
    assert entropy(sure).shape == (1, 2, 2) and not entropy(sure).any()
    assert torch.allclose(entropy(half), torch.tensor(2.0))


def test_maps_grow_without_leaving_their_range():
    maps = torch.rand(2, 3, 4, 5)
    upsampled = upsample(maps, (16, 20))
    assert upsampled.shape == (2, 3, 16, 20) and upsampled.min() >= maps.min() and upsampled.max() <= maps.max() + 1e-6
    assert torch.allclose(upsample(torch.full((1, 1, 4, 4), 0.3), (9, 7)), torch.tensor(0.3))


def test_strays_beside_an_organ_are_left_out_at_every_threshold(answer):
    probability = np.zeros((40, 40), np.float32)
    probability[2:22, 2:22], probability[2:12, 26:36], probability[30:34, 30:34] = 0.9, 0.9, 0.9
    probability[36:38, 2:4] = 0.6  # 400, 100, 16 and 4 pixels
    whole = replace(answer, mask=np.zeros((40, 40), np.uint8), probability=probability, absent=False)
    assert whole.at(0.5).mask.sum() == 520
    organ = replace(whole, least_piece=0.1)
    assert organ.at(0.5).mask.sum() == 500 and organ.at(0.5).found
    assert organ.at(0.5).at(0.7).mask.sum() == 500 and organ.at(0.95).mask.sum() == 0
