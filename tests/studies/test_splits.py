from dataclasses import replace

import pytest

from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.splits import split_by_group
from emitdiff.errors import EmitDiffError
from emitdiff.studies.splits import split_train_test


@pytest.fixture
def discs(dataset_folder):
    return open_dataset(dataset_folder)


def names(rows):
    return [row["file_name"] for row in rows.rows]


def test_a_fifth_of_the_groups_or_every_fold(discs):
    ((train, test),) = split_train_test(discs)
    expected = split_by_group(discs, 0.2, 0)
    assert names(train) == names(expected[0]) and names(test) == names(expected[1])
    folds = split_train_test(discs, folds=5)
    assert sorted(name for _, test in folds for name in names(test)) == sorted(names(discs))
    assert all(not set(train.groups) & set(test.groups) for train, test in folds)


def test_a_column_may_say_which_rows_are_tested_on(discs):
    rows = [{**row, "split": "train" if int(row["group"]) < 3 else "val"} for row in discs.rows]
    ((train, test),) = split_train_test(replace(discs, rows=rows), column="split")
    assert set(train.groups) == {"0", "1", "2"} and set(test.groups) == {"3", "4"}
    with pytest.raises(EmitDiffError, match="Folds and a column"):
        split_train_test(replace(discs, rows=rows), 2, "split")


def test_synthetic_images_are_on_neither_side(discs):
    rows = [{**row, "provenance": "made" if index % 2 else ""} for index, row in enumerate(discs.rows)]
    ((train, test),) = split_train_test(replace(discs, rows=rows))
    assert len(train) + len(test) == 5
