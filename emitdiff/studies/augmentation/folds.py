"""Which images a run learns from, which choose its epoch, and which it is tested on.

Groups that the synthesis model was trained on are never tested on. The rest is cut into folds; whatever is not in a
fold's test part may teach. Of that, so many labelled images are drawn, always the same first ones, and a fifth of their
groups validates: labels that choose an epoch count as labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emitdiff.checkpoints import find_checkpoint, local_folder
from emitdiff.datasets.folder import DatasetFolder
from emitdiff.datasets.splits import draw_labelled, few_shot_subset, folds_by_group, split_by_group
from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.card import read_card

ALL = "all"
VALIDATING, EVERY = 1, 5  # the second group of every five, in the order they are drawn, so that budgets stay nested


@dataclass(frozen=True)
class Fold:
    """`pool` may teach, `test` is tested on; no group is in both."""

    number: int
    pool: DatasetFolder
    test: DatasetFolder


@dataclass(frozen=True)
class Seen:
    """What a synthesis model `weights` was shown of a dataset: all images and masks of `groups`."""

    weights: str
    groups: frozenset[str]


def seen_groups(dataset: DatasetFolder, checkpoint: str) -> Seen:
    """The groups of `dataset` that its card says the checkpoint was trained on: none where the card does not name it.

    Raises:
        EmitDiffError: the card names the dataset, but with another number of images than its split has here.
    """
    found = find_checkpoint(checkpoint, "synthesis")
    training = read_card(found, local_folder(found)).training
    named = [row for row in training.get("datasets", ()) if row.get("name") == dataset.info.name]
    if not named:
        return Seen(checkpoint, frozenset())
    held_out = training.get("held_out", 0.2)
    taught = dataset if held_out <= 0 else split_by_group(dataset, held_out, training.get("split_seed", 0))[0]
    expected = named[0].get("images")
    if expected is not None and expected != len(taught):
        raise EmitDiffError(
            f"{checkpoint} was trained on {expected} images of '{dataset.info.name}', but its split has {len(taught)} "
            "of the images here: which of them it has seen cannot be told. Give the dataset it was trained on, whole, "
            "or call another one by another name in dataset.json."
        )
    return Seen(checkpoint, frozenset(taught.groups))


def make_folds(dataset: DatasetFolder, count: int, seen: Seen, tested: str = "unseen") -> list[Fold]:
    """`count` folds by group of the real images; "unseen" tests on no group that was `seen`, "all" on every group.

    Every tested group is tested once. What was seen is in every pool.

    Raises:
        EmitDiffError: `tested` is "all" and some were seen, or too few groups are left to be tested on.
    """
    dataset = dataset.real()
    groups = set(dataset.groups)
    if tested == "all" and seen.groups & groups:
        raise EmitDiffError(
            f"{seen.weights} was trained on {len(seen.groups & groups)} of the {len(groups)} groups of "
            f"'{dataset.info.name}', images and masks: what it paints would carry them into the training of segmenters "
            "that are tested on them. Test on the groups it has not seen (--tested unseen), or give --checkpoint "
            "weights that were not trained on this dataset."
        )
    unseen = dataset.subset(index for index, group in enumerate(dataset.groups) if group not in seen.groups)
    left = len(set(unseen.groups))
    if not 2 <= count <= left:
        known = f"; {seen.weights} was trained on the others, which are not tested on" if left < len(groups) else ""
        raise EmitDiffError(
            f"{count} folds were asked for, and {left} of the {len(groups)} groups of '{dataset.info.name}' can be "
            f"tested on{known}: give from 2 to that many folds."
        )
    folds = []
    for number, (_, test) in enumerate(folds_by_group(unseen, count)):
        tested_groups = set(test.groups)
        pool = dataset.subset(index for index, group in enumerate(dataset.groups) if group not in tested_groups)
        folds.append(Fold(number, pool, test))
    return folds


def budget_count(images: str) -> int | None:
    """The number of labelled images that "10" or "all" asks for, None for all.

    Raises EmitDiffError for anything else, and below 2.
    """
    if images == ALL:
        return None
    if not images.isdecimal() or int(images) < 2:
        raise EmitDiffError(f"A budget of '{images}' labelled images was given: give whole numbers from 2 on, or all.")
    return int(images)


def draw_budget(fold: Fold, images: str) -> tuple[DatasetFolder, DatasetFolder]:
    """(training part, validation part) of a budget, "10" or "all", of one fold: no group in both.

    Images that show a label are drawn, from different groups as long as there are any; "all" takes those without one
    too. A smaller budget's parts are within a larger one's.

    Raises:
        EmitDiffError: too few labelled images, or all of one group.
    """
    count = budget_count(images)
    if count is None:
        drawn = few_shot_subset(fold.pool, len(fold.pool), fold.number)
    else:
        drawn = draw_labelled(fold.pool, count, fold.number)
    order = list(dict.fromkeys(drawn.groups))
    if len(order) < 2:
        raise EmitDiffError(
            f"The {len(drawn)} images of '{drawn.info.name}' to learn from are all of one group; a part must be kept "
            "aside to choose the epoch: give images of at least two."
        )
    validating = {group for index, group in enumerate(order) if index % EVERY == VALIDATING}
    return _rows(drawn, [group not in validating for group in drawn.groups]), _rows(
        drawn, [group in validating for group in drawn.groups]
    )


def _rows(dataset: DatasetFolder, chosen: Sequence[bool]) -> DatasetFolder:
    return dataset.subset(index for index, taken in enumerate(chosen) if taken)
