"""Which images training sees how often, and what becomes of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from emitdiff.datasets.folder import DatasetInfo, open_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.training.corpus import (
    Corpus,
    Item,
    jitter_tone,
    load_corpus,
    random_view,
    vary_appearance,
)

BLACK, EMPTY = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)


def item(dataset: str, finding: str = "", organ: str = "breast", image=BLACK, mask=EMPTY) -> Item:
    return Item(image, mask, DatasetInfo(dataset, "Ultrasound", organ, {"background": 0, "lesion": 1}), finding, "")


def shares(corpus: Corpus, key) -> dict:
    """How often each key comes up, as a part of all that is drawn."""
    drawn = Counter(key(one) for one in corpus.draw(4000, np.random.default_rng(0)))
    return {name: count / 4000 for name, count in drawn.items()}


def test_a_dataset_is_seen_by_the_root_of_its_size():
    corpus = Corpus([item("large")] * 90 + [item("small")] * 10)
    assert shares(corpus, lambda one: one.info.name) == pytest.approx({"large": 0.75, "small": 0.25}, abs=0.03)


def test_a_finding_is_seen_by_the_root_of_its_number_and_does_not_change_its_dataset_s_share():
    corpus = Corpus([item("a", "benign")] * 81 + [item("a", "malignant")] * 9 + [item("b", "benign")] * 90)
    seen = shares(corpus, lambda one: (one.info.name, one.finding))
    expected = {("a", "benign"): 0.375, ("a", "malignant"): 0.125, ("b", "benign"): 0.5}
    assert seen == pytest.approx(expected, abs=0.03)


def test_every_group_is_either_learnt_from_or_held_out(dataset_folder):
    sides = [{one.name for one in load_corpus([dataset_folder], 0.2, 3, part).items} for part in ("train", "held-out")]
    group = {row["file_name"]: row["group"] for row in open_dataset(dataset_folder).rows}
    assert sides[0] | sides[1] == set(group) and len(sides[1]) == 2
    assert not {group[name] for name in sides[0]} & {group[name] for name in sides[1]}


def test_no_dataset_is_a_sentence():
    with pytest.raises(EmitDiffError, match="No dataset folder was given"):
        load_corpus([], 0.2, 0)


def sides_seen(organ: str) -> set[tuple[bool, bool]]:
    """Where, of all views, the bright corner lay: (below the middle, right of the middle)."""
    image, mask = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
    image[:10, :10], mask[:10, :10] = 255, 1
    rng, seen = np.random.default_rng(0), set()
    for _ in range(60):
        view, label = random_view(item("a", organ=organ, image=image, mask=mask), 32, rng, whole=1.0)
        assert view[label > 0].mean() > 200 > 50 > view[label == 0].mean()
        seen.add(tuple(bool(places.mean() > 15.5) for places in np.nonzero(label)))
    return seen


@pytest.mark.parametrize(
    ("organ", "seen"),
    [
        ("chest", {(False, False)}),
        ("breast", {(False, False), (False, True)}),
        ("nuclei", {(False, False), (False, True), (True, False), (True, True)}),
    ],
)
def test_only_anatomy_without_sides_is_mirrored_and_only_microscopy_turned(organ, seen):
    assert sides_seen(organ) == seen


def test_tones_vary_but_keep_their_order():
    ramp, rng = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2), np.random.default_rng(0)
    jittered = [jitter_tone(ramp, rng) for _ in range(20)]
    assert all((np.diff(one.astype(int), axis=1) >= 0).all() for one in jittered)
    assert all(np.abs(one.astype(int) - ramp).max() < 90 for one in jittered)
    middles = [int(one[0, 128, 0]) for one in jittered]
    assert len(set(middles)) > 10 and min(middles) < 120 < 136 < max(middles)


def test_appearance_varies_in_brightness_sharpness_and_grain_and_nothing_moves():
    """An image of a dark and a bright half: their order and the place of their edge stay."""
    image = np.full((64, 64, 3), 70, np.uint8)
    image[:, 32:] = 170
    rng, seen = np.random.default_rng(0), [[], [], []]
    for _ in range(200):
        varied = vary_appearance(image, rng)
        assert varied.shape == image.shape and varied.dtype == np.uint8
        dark, bright = varied[:, :24].astype(float), varied[:, 40:].astype(float)
        assert dark.mean() + 30 < bright.mean()
        assert (varied[..., 0] == varied[..., 1]).all(), "grey stays grey"
        rise = np.abs(np.diff(varied[..., 0].astype(float).mean(0)))
        assert rise.argmax() in (30, 31, 32)
        for values, value in zip(
            seen, (varied.mean(), rise.max() / (bright.mean() - dark.mean()), dark.std()), strict=True
        ):
            values.append(value)
    mean, sharpness, grain = map(np.array, seen)
    assert mean.min() < 100 and mean.max() > 140
    assert sharpness.min() < 0.5 and sharpness.max() > 1.2, "blurred, and sharpened"
    assert 0.3 < (grain < 0.01).mean() < 0.7 and grain.max() > 8


def test_the_appearance_follows_the_generator():
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    once, again = (vary_appearance(image, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(once, again)
