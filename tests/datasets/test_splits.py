from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dataset_files import edit_rows, set_cell
from PIL import Image

from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.splits import (
    choose_rows,
    draw_labelled,
    few_shot_subset,
    folds_by_group,
    split_by_column,
    split_by_group,
)
from emitdiff.errors import EmitDiffError


@pytest.fixture
def discs(dataset_folder):
    return open_dataset(dataset_folder)


def names(rows):
    return [row["file_name"] for row in rows.rows]


def test_groups_are_never_split(folder):
    dataset = open_dataset(folder)
    train, held_out = split_by_group(dataset, held_out=0.3, seed=0)
    assert not set(train.groups) & set(held_out.groups)
    assert len(set(held_out.groups)) == 2  # ceil(0.3 * 4)
    assert sorted(row["file_name"] for part in (train, held_out) for row in part.rows) == sorted(
        row["file_name"] for row in dataset.rows
    )


def test_splits_are_the_same_on_every_machine(folder):
    """Written down: weights are measured on the groups that these hashes keep back."""
    dataset = open_dataset(folder)
    assert set(split_by_group(dataset, 0.2, seed=0)[1].groups) == {"patient 2"}
    assert set(split_by_group(dataset, 0.5, seed=7)[1].groups) == {"patient 0", "patient 3"}
    reordered = dataset.subset(reversed(range(8)))
    assert set(split_by_group(reordered, 0.2, seed=0)[1].groups) == {"patient 2"}


def test_a_column_says_what_trains_and_what_validates(folder):
    words = ("train", "train", " Val", "validation", "test", "test", "", "train")
    edit_rows(folder, lambda rows: [{**row, "split": word} for row, word in zip(rows, words, strict=True)])
    dataset = open_dataset(folder)
    train, validation = split_by_column(dataset, "split")
    assert train.rows == [dataset.rows[index] for index in (0, 1, 7)]
    assert validation.rows == [dataset.rows[index] for index in (2, 3)]
    assert choose_rows(dataset, "held-out", column="split").rows == validation.rows
    with pytest.raises(EmitDiffError, match="'fold' of 'drawn' says nothing"):
        split_by_column(dataset, "fold")
    set_cell(folder, 6, "split", "val")
    with pytest.raises(EmitDiffError, match="'split' of 'drawn' splits the group 'patient 3'"):
        split_by_column(open_dataset(folder), "split")


def test_folds_hold_every_group_out_once(folder):
    folds = folds_by_group(open_dataset(folder), 3)
    assert sorted(group for _, held_out in folds for group in set(held_out.groups)) == [
        f"patient {number}" for number in range(4)
    ]
    assert all(not set(train.groups) & set(held_out.groups) for train, held_out in folds)


def test_few_shot_takes_different_groups_first_and_grows(folder):
    dataset = open_dataset(folder)
    four, six = few_shot_subset(dataset, 4, seed=1), few_shot_subset(dataset, 6, seed=1)
    assert len(set(four.groups)) == 4
    assert six.rows[:4] == four.rows and len({row["file_name"] for row in six.rows}) == 6
    assert few_shot_subset(dataset, 4, seed=1).rows == four.rows != few_shot_subset(dataset, 4, seed=2).rows


def test_rows_of_a_split_are_spread_evenly(folder):
    dataset = open_dataset(folder)
    train, held_out = split_by_group(dataset, 0.3, seed=2)
    assert choose_rows(dataset).rows == choose_rows(dataset, limit=99).rows == dataset.rows
    assert choose_rows(dataset, "train", None, 0.3, 2).rows == train.rows
    assert choose_rows(dataset, "held-out", None, 0.3, 2).rows == held_out.rows
    assert choose_rows(dataset, limit=3).rows == [dataset.rows[index] for index in (0, 4, 7)]
    for wrong, words in ({"limit": 0}, "limit of 0"), ({"limit": -1}, "limit of -1"), ({"split": "test"}, "'test'"):
        with pytest.raises(EmitDiffError, match=words):
            choose_rows(dataset, **wrong)


@pytest.mark.parametrize(
    "choose",
    [
        lambda dataset: split_by_group(dataset, 0),
        lambda dataset: split_by_group(dataset, 1.0),
        lambda dataset: split_by_group(dataset.subset([0, 1]), 0.2),
        lambda dataset: folds_by_group(dataset, 5),
        lambda dataset: folds_by_group(dataset, 1),
        lambda dataset: few_shot_subset(dataset, 9),
        lambda dataset: few_shot_subset(dataset, 0),
    ],
)
def test_impossible_choices_are_refused(folder, choose):
    with pytest.raises(EmitDiffError, match="drawn"):
        choose(open_dataset(folder))


def test_draws_hold_different_groups_and_a_label_and_grow(discs, tmp_path):
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "empty.png")
    empty = {"0", "3"}
    rows = [
        {**row, "mask": str(tmp_path / "empty.png") if row["group"] in empty else row["mask"]} for row in discs.rows
    ]
    some = replace(discs, rows=rows)
    draws = [draw_labelled(some, 3, seed) for seed in range(4)]
    assert all(set(draw.groups) == {"1", "2", "4"} for draw in draws)
    assert len({tuple(names(draw)) for draw in draws}) > 1
    assert names(draw_labelled(some, 6, 0))[:3] == names(draws[0])
    with pytest.raises(EmitDiffError, match="6 show a label; 7 were asked for"):
        draw_labelled(some, 7, 0)
    with pytest.raises(EmitDiffError, match="has 10 images to learn from; 11 were asked for"):
        draw_labelled(some, 11, 0)
