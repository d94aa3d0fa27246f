"""Which rows of a dataset teach and which are held out: by group, by column, by fold, by a draw of a few."""

from __future__ import annotations

import hashlib
import math
from itertools import zip_longest

import numpy as np

from emitdiff.datasets.folder import DatasetFolder
from emitdiff.errors import EmitDiffError


def split_by_group(dataset: DatasetFolder, held_out: float = 0.2, seed: int = 0) -> tuple[DatasetFolder, DatasetFolder]:
    """(train, held out) with no group in both: ceil(`held_out` * groups) groups are held out.

    Which ones follows from sha256 of "seed:dataset name:group" alone, so it is the same on every machine.
    """
    groups = _groups_by_hash(dataset, seed)
    count = math.ceil(held_out * len(groups))
    if not 0 < count < len(groups):
        raise EmitDiffError(
            f"Holding out {held_out:g} of the {len(groups)} group(s) of '{dataset.info.name}' leaves one split empty. "
            "Give a fraction between 0 and 1, and a dataset of at least two groups."
        )
    return _partition(dataset, set(groups[:count]))


def split_by_column(dataset: DatasetFolder, column: str) -> tuple[DatasetFolder, DatasetFolder]:
    """(the rows that say "train" in `column`, those that say "val" or "validation"); others are in neither.

    Raises EmitDiffError where one side is empty or a group is on both.
    """
    cells = [row.get(column, "").strip().lower() for row in dataset.rows]
    sides = [dataset.subset(index for index, word in enumerate(cells) if word in words)
             for words in (("train",), ("val", "validation"))]  # fmt: skip
    if not all(map(len, sides)):
        raise EmitDiffError(
            f"The column {column!r} of '{dataset.info.name}' says {', '.join(sorted(set(cells) - {''})) or 'nothing'}: "
            "it must say train for some rows and val (or validation) for others."
        )
    if shared := sorted(set(sides[0].groups) & set(sides[1].groups)):
        raise EmitDiffError(f"The column {column!r} of '{dataset.info.name}' splits the group {shared[0]!r}.")
    return sides[0], sides[1]


def folds_by_group(dataset: DatasetFolder, k: int, seed: int = 0) -> list[tuple[DatasetFolder, DatasetFolder]]:
    """`k` pairs (train, held out); every group is held out exactly once."""
    groups = _groups_by_hash(dataset, seed)
    if not 2 <= k <= len(groups):
        raise EmitDiffError(
            f"'{dataset.info.name}' has {len(groups)} group(s): it can be cut into 2 to {len(groups)} folds, not {k}."
        )
    return [_partition(dataset, set(groups[fold::k])) for fold in range(k)]


def few_shot_subset(dataset: DatasetFolder, n: int, seed: int = 0) -> DatasetFolder:
    """`n` images, from different groups while there are any left; the first n of a larger choice at the same seed."""
    if not 1 <= n <= len(dataset):
        raise EmitDiffError(f"'{dataset.info.name}' has {len(dataset)} images here; {n} were asked for.")
    members: dict[str, list[int]] = {group: [] for group in _groups_by_hash(dataset, seed)}
    for index in sorted(range(len(dataset)), key=lambda index: _hash(seed, dataset, dataset.rows[index]["file_name"])):
        members[dataset.rows[index]["group"]].append(index)
    rounds = zip_longest(*members.values())  # one image of every group, then the second of every group, ...
    return dataset.subset([index for one_each in rounds for index in one_each if index is not None][:n])


def choose_rows(
    dataset: DatasetFolder, split: str = "all", limit: int | None = None, held_out: float = 0.2, seed: int = 0,
    column: str | None = None,
) -> DatasetFolder:  # fmt: skip
    """The rows of a split ("all", "held-out" or "train", as `split_by_group`, or `split_by_column` where a column is
    named), at most `limit`, spread evenly over it.

    Raises EmitDiffError for another split, a limit below 1, and a dataset that cannot be split.
    """
    if split not in ("all", "held-out", "train"):
        raise EmitDiffError(f"The split '{split}' is not known: choose all, held-out or train.")
    if limit is not None and limit < 1:
        raise EmitDiffError(f"A limit of {limit} images was given: at least one is needed.")
    if split != "all":
        sides = split_by_column(dataset, column) if column else split_by_group(dataset, held_out, seed)
        dataset = sides[split == "held-out"]
    count = min(limit or len(dataset), len(dataset))
    return dataset.subset(np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist())


def draw_labelled(train: DatasetFolder, count: int, seed: int) -> DatasetFolder:
    """`count` images that show at least one label, from different groups while there are any left (`few_shot_subset`);
    the first of a larger draw at the same seed. They are read one by one until there are enough.

    Raises:
        EmitDiffError: fewer images show a label.
    """
    if len(train) < count:
        raise EmitDiffError(f"'{train.info.name}' has {len(train)} images to learn from; {count} were asked for.")
    order, wanted = few_shot_subset(train, len(train), seed), [value for value in train.info.labels.values() if value]
    chosen = []
    for index in range(len(order)):
        mask = order[index].mask
        if any((mask == value).any() for value in wanted):
            chosen.append(index)
        if len(chosen) == count:
            return order.subset(chosen)
    raise EmitDiffError(
        f"Of the images of '{train.info.name}' to learn from, {len(chosen)} show a label; {count} were asked for."
    )


def _hash(seed: int, dataset: DatasetFolder, name: str) -> str:
    return hashlib.sha256(f"{seed}:{dataset.info.name}:{name}".encode()).hexdigest()


def _groups_by_hash(dataset: DatasetFolder, seed: int) -> list[str]:
    return sorted(set(dataset.groups), key=lambda group: _hash(seed, dataset, group))


def _partition(dataset: DatasetFolder, groups: set[str]) -> tuple[DatasetFolder, DatasetFolder]:
    inside = [index for index, group in enumerate(dataset.groups) if group in groups]
    outside = [index for index, group in enumerate(dataset.groups) if group not in groups]
    return dataset.subset(outside), dataset.subset(inside)
