"""Images and masks paired by name. What belongs together is known, for the names are made here."""

from __future__ import annotations

from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from emitdiff.pairing import pair_folders, pair_mixed, stem

BUSI = ["benign (1).png", "benign (1)_mask.png", "benign (1)_mask_1.png", "benign (10).png", "benign (10)_mask.png"]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("x.png", "x_mask.png"),
        ("x.jpg", "x-seg.png"),
        ("x.tif", "x_gt.tif"),
        ("x y.png", "x y mask.png"),
        ("ISIC_0000000.jpg", "ISIC_0000000_Segmentation.png"),
        ("scan.nii.gz", "scan_labels.nii"),
        ("image_001.png", "mask_001.png"),
        ("img7.png", "mask7.png"),
        ("x_image.png", "x_mask.png"),
        ("001.png", "gt_001.png"),
        ("scan_1.png", "scan_mask_1.png"),
        ("La\u0308sion.png", "L\u00e4sion_MASK.png"),
        ("p1/x.png", "p1/x_mask.png"),
    ],
)
def test_a_mask_is_called_after_its_image(image, mask):
    found = pair_mixed([mask, image])
    assert found.pairs == {image: (mask,)} and not (found.images or found.masks or found.unclear)


def test_masks_of_one_image_stay_together_and_numbers_do_not_run_into_each_other():
    found = pair_mixed(BUSI)
    assert found.pairs == {"benign (1).png": tuple(BUSI[1:3]), "benign (10).png": (BUSI[4],)}


def test_folders_take_the_same_name_and_a_name_with_a_word():
    found = pair_folders(["a.png", "p/b.jpg", "c.png", "d.png"], ["a.png", "p/b.png", "c_mask.png", "q/d.png"])
    assert found.pairs == {"a.png": ("a.png",), "p/b.jpg": ("p/b.png",), "c.png": ("c_mask.png",)}
    assert found.images == ("d.png",) and found.masks == ("q/d.png",)


def test_what_may_belong_to_two_images_belongs_to_none_and_neither_gets_another():
    found = pair_mixed(["a.png", "a_1.png", "b.png", "a_mask.png", "a_mask_1.png", "b_mask.png"])
    assert found.pairs == {"b.png": ("b_mask.png",)} and set(found.images) == {"a.png", "a_1.png"}
    assert found.unclear == {"a_mask_1.png": ("a.png", "a_1.png"), "a_mask.png": ("a.png",)}
    twice = pair_mixed(["a.png", "a.jpg", "a_mask.png"])
    assert not twice.pairs and twice.unclear == {"a_mask.png": ("a.jpg", "a.png")}


def test_an_image_that_is_called_like_a_mask_is_not_taken_for_one():
    found = pair_mixed(["left_seg.png", "left_seg_mask.png"])
    assert found.pairs == {"left_seg.png": ("left_seg_mask.png",)}
    both = pair_mixed(["left.png", "left_seg.png", "left_seg_mask.png"])
    assert not both.pairs and "left_seg.png" in both.unclear


def test_words_are_taken_off_images_only_where_that_is_how_they_are_called():
    found = pair_mixed(["7.png", "7_mask.png", "img_3.png", "3_mask.png"])
    assert found.pairs == {"7.png": ("7_mask.png",)} and found.unclear == {"3_mask.png": ("img_3.png",)}


def test_only_the_suffix_of_a_file_is_taken_off():
    assert [stem(name) for name in ("a.b.png", "1.2.840.5", "x.NII.GZ", "f/y.dcm")] == ["a.b", "1.2.840.5", "x", "y"]


# --- names made up ------------------------------------------------------------

# Any letters, and pieces that make names look like masks, like images, or like one another.
PIECES = some.sampled_from(["a", "B", "1", "10", "01", "(1)", " ", "_", "-", ".", "mask", "img", "image", "seg", "gt"])
LETTERS = some.text(
    some.characters(exclude_characters="/\\\0", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6
)
AWKWARD = some.lists(PIECES | LETTERS, min_size=1, max_size=5).map("".join)
PLAIN = some.from_regex(r"[bcdhknopqrtuvwxyzäé世]{1,4}[ _-]?[0-9]{0,3}", fullmatch=True)  # no word can be made of them
STYLES = [("{}", mask) for mask in ("{}_mask", "{}-seg", "{} gt", "{}.labels", "mask_{}", "GT-{}")]
STYLES += [("{}_img", "{}_mask"), ("img_{}", "mask_{}"), ("image-{}", "{}-label")]
AWKWARD_STYLES = [*STYLES, ("{}", "{}_mask_1"), ("img{}", "mask{}")]


def spelling(name: str) -> str:
    return normalize("NFC", name).casefold()


@some.composite
def named(draw, bases, styles):
    """The mask of each image, all in one style, with names that differ in more than capitals."""
    names = draw(some.lists(bases, min_size=1, max_size=6, unique_by=spelling))
    image, mask = draw(some.sampled_from(styles))
    return {f"{image.format(name)}.png": f"{mask.format(name)}.png" for name in names}


def right(found, truth) -> bool:
    return all(masks == (truth[image],) for image, masks in found.pairs.items())


def complete(found, images, masks) -> bool:
    """Whether every file is accounted for."""
    told = {*found.pairs, *found.images, *found.masks, *found.unclear, *(m for ms in found.pairs.values() for m in ms)}
    return told == {*images, *masks}


@settings(max_examples=400, deadline=None, derandomize=True)
@given(named(AWKWARD, AWKWARD_STYLES), some.randoms())
def test_no_name_is_so_awkward_that_a_wrong_mask_is_taken(truth, random):
    images, masks = list(truth), list(truth.values())
    if len({spelling(name) for name in images + masks}) < len(images + masks):
        return  # no such folder, or one in which capitals alone differ
    together = images + masks
    random.shuffle(together)
    found = pair_mixed(together)
    assert right(found, truth) and complete(found, images, masks)
    random.shuffle(masks)
    apart = pair_folders(images, masks)
    assert right(apart, truth)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(named(PLAIN, STYLES), some.data())
def test_plain_names_are_all_paired_whatever_else_is_missing(truth, data):
    gone = data.draw(some.sets(some.sampled_from([*truth, *truth.values()])))
    there = [name for name in [*truth, *truth.values()] if name not in gone]
    found = pair_mixed(data.draw(some.permutations(there)))
    assert right(found, truth)
    whole = {image: (mask,) for image, mask in truth.items() if image not in gone and mask not in gone}
    assert found.pairs == whole and not found.unclear


@settings(max_examples=200, deadline=None, derandomize=True)
@given(some.lists(AWKWARD, min_size=1, max_size=8, unique_by=spelling), some.randoms())
def test_equal_names_in_two_folders_are_paired_or_left(names, random):
    truth = {f"{name}.png": f"{name}.tif" for name in names}
    masks = list(truth.values())
    random.shuffle(masks)
    found = pair_folders(truth, masks)
    assert right(found, truth) and complete(found, truth, masks)
