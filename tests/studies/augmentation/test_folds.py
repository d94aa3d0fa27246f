import json
import shutil

import pytest

from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.splits import split_by_group
from emitdiff.errors import EmitDiffError
from emitdiff.studies.augmentation.folds import Fold, Seen, draw_budget, make_folds, seen_groups

NOBODY = Seen("weights", frozenset())


@pytest.fixture
def discs(dataset_folder):
    return open_dataset(dataset_folder)


def trained_on(checkpoint, tmp_path, **training):
    """The checkpoint with a card that says what it was trained on."""
    folder = shutil.copytree(checkpoint, tmp_path / "trained")
    card = json.loads((folder / "emitdiff.json").read_text()) | {"training": training}
    (folder / "emitdiff.json").write_text(json.dumps(card))
    return str(folder)


def test_every_group_is_tested_once_and_never_taught_in_its_fold(discs):
    folds = make_folds(discs, 5, NOBODY)
    assert sorted(group for fold in folds for group in set(fold.test.groups)) == sorted(set(discs.groups))
    for fold in folds:
        assert not set(fold.pool.groups) & set(fold.test.groups) and len(fold.pool) + len(fold.test) == 10


def test_budgets_are_nested_and_their_parts_share_no_group(discs):
    fold = make_folds(discs, 5, NOBODY)[0]
    names = []
    for images in ("3", "5", "all"):
        teaching, validating = draw_budget(fold, images)
        assert not set(teaching.groups) & set(validating.groups)
        names.append([{row["file_name"] for row in part.rows} for part in (teaching, validating)])
        assert len(teaching) + len(validating) == (8 if images == "all" else int(images))
    for smaller, larger in zip(names, names[1:], strict=False):
        assert smaller[0] <= larger[0] and smaller[1] <= larger[1]
    assert names[0] != names[1]


def test_folds_draw_other_images(discs):
    fold = make_folds(discs, 5, NOBODY)[0]
    drawn = {
        tuple(row["file_name"] for row in draw_budget(Fold(number, fold.pool, fold.test), "4")[0].rows)
        for number in range(3)
    }
    assert len(drawn) > 1


def test_groups_that_the_painter_was_trained_on_are_not_tested(discs, checkpoint, tmp_path):
    named = [{"name": "discs", "images": 6}]
    weights = trained_on(checkpoint, tmp_path, datasets=named, held_out=0.4, split_seed=0)
    train, held_out = split_by_group(discs, 0.4)
    seen = seen_groups(discs, weights)
    assert seen.groups == set(train.groups)
    folds = make_folds(discs, 2, seen)
    assert {group for fold in folds for group in fold.test.groups} == set(held_out.groups)
    assert all(seen.groups <= set(fold.pool.groups) for fold in folds)
    with pytest.raises(EmitDiffError, match="was trained on 3 of the 5 groups"):
        make_folds(discs, 2, seen, "all")
    with pytest.raises(EmitDiffError, match="3 folds were asked for, and 2 of the 5 groups"):
        make_folds(discs, 3, seen)


def test_a_painter_of_other_datasets_has_seen_nothing(discs, checkpoint, tmp_path):
    assert seen_groups(discs, checkpoint).groups == frozenset()
    weights = trained_on(checkpoint, tmp_path, datasets=[{"name": "plates", "images": 6}], held_out=0.4)
    assert seen_groups(discs, weights).groups == frozenset() and len(make_folds(discs, 5, NOBODY, "all")) == 5


def test_a_painter_that_held_nothing_out_leaves_nothing_to_test(discs, checkpoint, tmp_path):
    weights = trained_on(checkpoint, tmp_path, datasets=[{"name": "discs", "images": 10}], held_out=0)
    with pytest.raises(EmitDiffError, match="0 of the 5 groups"):
        make_folds(discs, 2, seen_groups(discs, weights))


def test_a_dataset_that_was_changed_since_cannot_be_told_apart(discs, checkpoint, tmp_path):
    weights = trained_on(checkpoint, tmp_path, datasets=[{"name": "discs", "images": 7}], held_out=0.4)
    with pytest.raises(EmitDiffError, match="7 images of 'discs', but its split has 6"):
        seen_groups(discs, weights)


@pytest.mark.parametrize(("images", "answer"), [("1", "from 2 on"), ("ten", "'ten'"), ("99", "99 were asked for")])
def test_budgets_that_cannot_be(discs, images, answer):
    with pytest.raises(EmitDiffError, match=answer):
        draw_budget(make_folds(discs, 5, NOBODY)[0], images)


def test_one_group_cannot_teach_and_validate(discs):
    one = discs.subset([0, 1])
    with pytest.raises(EmitDiffError, match="all of one group"):
        draw_budget(Fold(0, one, one), "2")
