"""Which images a study learns from and which it is measured on: by group, by fold, or by a column of the dataset."""

from __future__ import annotations

from emitdiff.datasets.folder import DatasetFolder
from emitdiff.datasets.splits import folds_by_group, split_by_column, split_by_group
from emitdiff.errors import EmitDiffError

HELD_OUT, SPLIT_SEED = 0.2, 0  # as the embedded weights were trained: what they never saw is what is tested on

TrainTest = tuple[DatasetFolder, DatasetFolder]


def split_train_test(dataset: DatasetFolder, folds: int | None = None, column: str | None = None) -> list[TrainTest]:
    """(train, test) of the real images: one pair, or one for each of `folds` folds.

    Without folds a fifth of the groups is tested on, or what `column` of metadata.csv says (`split_by_column`).

    Raises:
        EmitDiffError: folds and column together, and what cannot be split so.
    """
    dataset = dataset.real()
    if folds is not None and column is not None:
        raise EmitDiffError("Folds and a column for the split were given: give one of them.")
    if column is not None:
        return [split_by_column(dataset, column)]
    if folds is not None:
        return folds_by_group(dataset, folds, SPLIT_SEED)
    return [split_by_group(dataset, HELD_OUT, SPLIT_SEED)]
