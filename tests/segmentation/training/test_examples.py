"""Labelled images as the head is given them: altered together with their masks, and asked about."""

import numpy as np
import pytest

from emitdiff.datasets.folder import DatasetInfo, Sample
from emitdiff.segmentation.training import examples
from emitdiff.segmentation.training.examples import (
    LabelledImage,
    augmented_image,
    image_tensor,
    labelled_at,
    read_labelled,
    sample_images,
    sample_query,
    trained_phrases,
    view_elsewhere,
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
    kinds = {"own": 0, "none": 0, "absent": 0, "neighbour": 0}
    for _ in range(200):
        text, mask, known = sample_query(labelled, False, rng)
        meant = match_target(text)
        if known is not None:
            kinds["neighbour"] += 1
            assert meant is None or meant.phrase == "pancreas"
            assert not mask.any() and (known == labelled.masks["liver"] | labelled.masks["spleen"]).all()
        elif not text:
            kinds["none"] += 1
            assert mask is labelled.masks["liver"]
        elif mask.any():
            kinds["own"] += 1
            assert meant is None or mask is labelled.masks.get(meant.phrase, mask)
        else:
            kinds["absent"] += 1
            assert meant is None or meant.phrase in absent
    assert 40 < kinds["own"] < 100 and 5 < kinds["none"] < 40 and kinds["absent"] > 30 and kinds["neighbour"] > 30


def test_masks_follow_what_they_label_to_another_hospital():
    labelled, rng, areas, mirrored_views = two_blocks(ABDOMEN), np.random.default_rng(0), [], 0
    for _ in range(60):
        view = view_elsewhere(labelled, 64, rng)
        first, second = view.masks.values()
        assert view.image.shape == (64, 64, 3) and first.shape == (64, 64) and not (first & second).any()
        sure = np.ones((64, 64), bool) if view.known is None else view.known
        mirrored_views += view.known is not None
        if min((mask & sure).sum() for mask in (first, second)) > 12:
            greys = [np.median(view.image[mask & sure]) for mask in (first, second)]
            assert greys[0] > greys[1] + 20, "the bright block is class 1, whatever the scanner"
        areas.append(first.sum() / 64**2)
    assert max(areas) > 4 * np.median(areas) > 0, "some look from much nearer"
    assert 5 < mirrored_views < 40


def test_what_is_mirrored_is_learnt_in_microscopy_alone():
    cells = DatasetInfo("drawn", "Microscopy", "nuclei", {"background": 0, "nucleus": 1, "debris": 2})
    for info, expected in ((ABDOMEN, True), (cells, False)):
        views = [view_elsewhere(two_blocks(info), 64, np.random.default_rng(seed)) for seed in range(30)]
        assert any(view.known is not None for view in views) == expected


def test_a_closer_look_is_taken_where_something_is_labelled(monkeypatch):
    for name, value in {"ZOOMS": (2.0, 2.5), "ZOOMED_SHARE": 1.0, "CENTRED_SHARE": 1.0}.items():
        monkeypatch.setattr(examples, name, value)
    mask = np.zeros((96, 96), np.uint8)
    mask[4:9, 4:9] = 1
    sample = Sample(np.full((96, 96, 3), 90, np.uint8), mask, "", "a", "", "a.png", {})
    labelled, rng = labelled_at(96, sample, ABDOMEN), np.random.default_rng(0)
    assert all(view_elsewhere(labelled, 64, rng).masks["liver"].any() for _ in range(20))


def test_greys_of_most_views_are_on_one_scale(lesions, monkeypatch):
    from emitdiff.segmentation.greys import GreyLevels, tissue_levels

    monkeypatch.setattr(examples, "HOME_SHARE", 0.0)  # those of the drawn images are darker than is stretched
    (images,) = read_labelled([lesions], 64)

    def brightest(greys: dict) -> list[float]:
        views = sample_images([images], 100, 64, np.random.default_rng(0), greys)
        return [levels[1] for view in views if (levels := tissue_levels(view.image))]

    scaled, plain = brightest({"breast ultrasound": GreyLevels(30, 200)}), brightest({})
    near = [np.mean([abs(value - 200) < 6 for value in values]) for values in (scaled, plain)]
    assert near[0] > 0.4 > 0.2 > near[1]


def test_where_it_is_asked_what_is_labelled_nothing_else_is_asked():
    labelled, rng = two_blocks(ABDOMEN), np.random.default_rng(0)
    asked = [sample_query(labelled, True, rng) for _ in range(50)]
    assert all(query.text and query.mask.any() for query in asked)
    assert len({id(query.mask) for query in asked}) == 2, "both labels are asked for"


def test_a_smaller_view_shows_as_much():
    images = [two_blocks(BREAST)]
    whole, half = (sample_images([images], 60, side, np.random.default_rng(0)) for side in (96, 48))
    assert {one.image.shape for one in half} == {(48, 48, 3)}
    areas = [np.mean([mask.mean() for one in views for mask in one.masks.values()]) for views in (whole, half)]
    assert areas[0] == pytest.approx(areas[1], rel=0.15)


def test_every_image_of_every_dataset_is_read(lesions):
    first, second = read_labelled([lesions, lesions], 32)
    assert len(first) == len(second) == 6 and {one.image.shape for one in first} == {(32, 36, 3)}
    assert [one.masks["breast lesion"].any() for one in first] == [True] * 5 + [False]
