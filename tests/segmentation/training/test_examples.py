"""Labelled images as the head is given them: altered together with their masks, and asked about."""

import numpy as np
import pytest

from emitdiff.datasets.folder import DatasetInfo, Sample
from emitdiff.segmentation.training.examples import (
    LabelledImage,
    augmented_image,
    downscaled,
    image_tensor,
    labelled_at,
    read_labelled,
    sample_images,
    sample_query,
    trained_phrases,
)
from emitdiff.segmentation.vocabulary import absent_targets, match_target

BREAST = DatasetInfo("drawn", "Ultrasound", "breast", {"background": 0, "lesion": 1, "cyst": 2})
ABDOMEN = DatasetInfo("drawn", "CT", "abdomen", {"background": 0, "liver": 1, "spleen": 2})


def two_blocks(info: DatasetInfo) -> LabelledImage:
    """Class 1, bright, left of class 2, dark, on grey."""
    mask = np.zeros((96, 96), np.uint8)
    mask[40:56, 36:44], mask[40:56, 52:60] = 1, 2
    image = np.choose(mask, [110, 230, 15]).astype(np.uint8)[..., None].repeat(3, 2)
    return labelled_at(96, Sample(image, mask, "", "a", "", "a.png", {}), info)


@pytest.mark.parametrize(("shape", "expected"), [((50, 80), (100, 160)), ((333, 200), (166, 100)), ((100, 100),) * 2])
def test_the_short_side_is_brought_to_the_resolution(shape, expected):
    mask = np.zeros(shape, np.uint8)
    mask[: shape[0] // 2] = 1
    labelled = labelled_at(100, Sample(np.zeros((*shape, 3), np.uint8), mask, "", "", "", "", {}), ABDOMEN)
    assert labelled.image.shape == (*expected, 3) and set(labelled.masks) == {"liver", "spleen"}
    assert labelled.masks["liver"].shape == expected and labelled.masks["liver"].mean() == pytest.approx(0.5, abs=0.01)
    assert not labelled.masks["spleen"].any()


@pytest.mark.parametrize("info", [BREAST, ABDOMEN])
def test_masks_follow_what_they_label(info):
    labelled, rng, seen = two_blocks(info), np.random.default_rng(0), 0
    for _ in range(20):
        altered = augmented_image(labelled, 64, rng)
        first, second = altered.masks.values()
        assert altered.image.shape == (64, 64, 3) and first.shape == (64, 64) and first.dtype == bool
        assert not (first & second).any()
        if first.sum() > 20 and second.sum() > 20:
            seen += 1
            assert altered.image[first].mean() > altered.image[~first & ~second].max(-1).mean() + 20
            assert altered.image[second].mean() < altered.image[first].mean() - 100
    assert seen > 10


def mirrored(labelled: LabelledImage, upright: bool = False) -> set[bool]:
    """Whether class 1 came to lie right of class 2, in forty alterations."""
    rng, orders = np.random.default_rng(0), set()
    for _ in range(40):
        first, second = augmented_image(labelled, 96, rng, upright).masks.values()
        if first.any() and second.any():
            orders.add(bool(first.nonzero()[1].mean() > second.nonzero()[1].mean()))
    return orders


def test_only_what_has_no_sides_is_mirrored():
    assert mirrored(two_blocks(BREAST)) == {False, True}
    assert mirrored(two_blocks(BREAST), upright=True) == {False}
    assert mirrored(two_blocks(ABDOMEN)) == {False}


def test_a_head_claims_what_an_image_shows_and_no_more():
    shown = two_blocks(BREAST)
    empty = LabelledImage(shown.image, {"spleen": np.zeros((96, 96), bool)}, ABDOMEN)
    own = LabelledImage(shown.image, {"zebra": np.ones((96, 96), bool), "liver": np.ones((96, 96), bool)}, ABDOMEN)
    assert trained_phrases([[empty]]) == []
    phrases = trained_phrases([[empty, own], [shown]])
    assert "liver" in phrases and "spleen" not in phrases and phrases[-1] == "zebra", "its own words come last"


def test_small_datasets_are_seen_more_than_their_share():
    few, many = two_blocks(BREAST), two_blocks(ABDOMEN)
    drawn = sample_images([[few], [many] * 16], 300, 32, np.random.default_rng(0))
    share = sum(one.info is BREAST for one in drawn) / 300
    assert 0.13 < share < 0.27, "1 to 4, as the roots of 1 and 16"


def test_tensors_are_what_the_backbone_takes():
    image = np.zeros((8, 8, 3), np.uint8)
    image[0, 1] = (255, 0, 51)
    tensor = image_tensor([LabelledImage(image, {}, BREAST)] * 2)
    assert tensor.shape == (2, 3, 8, 8) and tensor[0, :, 0, 1].tolist() == pytest.approx([1, -1, -0.6])


def test_questions_and_their_answers_go_together():
    labelled, rng = two_blocks(ABDOMEN), np.random.default_rng(0)
    absent = {target.phrase for target in absent_targets(ABDOMEN)}
    kinds = {"own": 0, "none": 0, "absent": 0}
    for _ in range(200):
        text, mask = sample_query(labelled, False, rng)
        meant = match_target(text)
        if not text:
            kinds["none"] += 1
            assert mask is labelled.masks["liver"]
        elif mask.any():
            kinds["own"] += 1
            assert meant is None or mask is labelled.masks.get(meant.phrase, mask)
        else:
            kinds["absent"] += 1
            assert meant is None or meant.phrase in absent
    assert 40 < kinds["own"] < 100 and 5 < kinds["none"] < 40 and kinds["absent"] > 80


def test_where_it_is_asked_what_is_labelled_nothing_else_is_asked():
    labelled, rng = two_blocks(ABDOMEN), np.random.default_rng(0)
    asked = [sample_query(labelled, True, rng) for _ in range(50)]
    assert all(text and mask.any() for text, mask in asked)
    assert len({id(mask) for _, mask in asked}) == 2, "both labels are asked for"


def test_half_the_side_is_for_what_has_another():
    labelled = two_blocks(BREAST)
    assert downscaled(labelled, 96) is labelled
    small = downscaled(labelled, 48)
    assert small.image.shape == (48, 48, 3)
    assert [mask.sum() for mask in small.masks.values()] == [mask.sum() / 4 for mask in labelled.masks.values()]


def test_every_image_of_every_dataset_is_read(lesions):
    first, second = read_labelled([lesions, lesions], 32)
    assert len(first) == len(second) == 6 and {one.image.shape for one in first} == {(32, 36, 3)}
    assert [one.masks["breast lesion"].any() for one in first] == [True] * 5 + [False]
