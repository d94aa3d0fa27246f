"""Which images a study learns from and which it is measured on: by group, by fold, or by a column of the dataset."""

from __future__ import annotations

from emitdiff.datasets import DatasetFolder, few_shot, folds_by_group, split_by_column, split_by_group
from emitdiff.errors import EmitDiffError
from emitdiff.scans import read_mask

HELD_OUT, SPLIT_SEED = 0.2, 0  # as the embedded weights were trained: what they never saw is what is tested on

Sides = tuple[DatasetFolder, DatasetFolder]


def split_sides(dataset: DatasetFolder, folds: int | None = None, column: str | None = None) -> list[Sides]:
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


def draw_labelled(train: DatasetFolder, count: int, seed: int) -> DatasetFolder:
    """`count` images that show at least one label, from different groups while there are any left (`few_shot`); the
    first of a larger draw at the same seed. Masks are read one by one until there are enough.

    Raises:
        EmitDiffError: fewer images show a label.
    """
    if len(train) < count:
        raise EmitDiffError(f"'{train.info.name}' has {len(train)} images to learn from; {count} were asked for.")
    order, wanted = few_shot(train, len(train), seed), [value for value in train.info.labels.values() if value]
    chosen = []
    for index, row in enumerate(order.rows):
        mask = read_mask(order.folder / row["mask"])
        if any((mask == value).any() for value in wanted):
            chosen.append(index)
        if len(chosen) == count:
            return order.subset(chosen)
    raise EmitDiffError(
        f"Of the images of '{train.info.name}' to learn from, {len(chosen)} show a label; {count} were asked for."
    )
