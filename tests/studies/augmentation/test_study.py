from dataclasses import replace

import numpy as np
import pytest

from emitdiff.datasets.folder import open_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.studies.augmentation import study
from emitdiff.studies.augmentation.folds import draw_budget
from emitdiff.studies.augmentation.painting import painted_folders
from emitdiff.studies.augmentation.runs import KEYS, Augmentation, _budget, _painted, folds_of, paint_settings
from emitdiff.studies.augmentation.study import runs_of, study_augmentation
from emitdiff.studies.results_table import read_table, write_table


@pytest.fixture
def settings(dataset_folder, checkpoint, tmp_path):
    return Augmentation(
        (dataset_folder,), tmp_path / "out", ("none", "classical+painted"), images=("3",), folds=2, seeds=1, steps=2,
        batch=2, resolution=64, validations=2, checkpoint=checkpoint, ratio=1,
    )  # fmt: skip


def test_a_row_a_run_with_all_that_it_rests_on_and_its_cases(settings):
    report = study_augmentation(settings)
    rows = read_table(settings.out / "results.csv")
    assert [(row["method"], row["fold"]) for row in rows] == [
        ("none", "0"), ("classical+painted", "0"), ("none", "1"), ("classical+painted", "1")
    ]  # fmt: skip
    assert [row["method"] for row in report["cells"][0]["rows"]] == ["none", "classical+painted"]
    assert (settings.out / "report.html").is_file() and (settings.out / "augmentation.png").is_file()
    for row in rows:
        assert row["n_train"] in "12" and int(row["n_train"]) + int(row["n_validation"]) == 3
        assert row["n_painted"] == (row["n_train"] if "painted" in row["method"] else "0")
        assert len(row["weights_sha256"]) == len(row["dataset_sha256"]) == 64 and float(row["seconds"]) > 0
        assert row["steps"] == "2" and row["torch"] and row["monai"] and row["best_step"] in "12"
        (file,) = (settings.out / "runs").glob(f"discs-unet-{row['method']}-3-{row['fold']}-0.csv")
        cases = read_table(file)
        assert np.mean([float(case["dice"]) for case in cases]) == pytest.approx(float(row["dice"]))
        assert {"iou", "precision", "recall", "hd95", "assd", "group"} <= set(cases[0])
    tested = [case["file_name"] for row in rows[::2] for case in read_table(
        settings.out / "runs" / f"discs-unet-none-3-{row['fold']}-0.csv")]  # fmt: skip
    assert sorted(tested) == sorted(row["file_name"] for row in open_dataset(settings.datasets[0]).rows)


def test_nothing_is_painted_from_what_validates_or_is_tested(settings):
    study_augmentation(settings)
    dataset = open_dataset(settings.datasets[0])
    folders, every = painted_folders(settings.out, dataset), set()
    for fold in folds_of(dataset, settings):
        teaching, _ = draw_budget(fold, "3")
        *_, sources = _budget(settings, settings.datasets[0], fold.number, "3")
        assert list(sources) == [row["file_name"] for row in teaching.rows]
        names = _painted(settings, settings.datasets[0], sources).names
        assert set(names) == set(sources) and len(names) == settings.ratio * len(sources)
        every |= set(sources)
    assert sorted(folder for folder in folders.values() if folder.exists()) == sorted(folders[name] for name in every)
    painted = [row for name in every for row in open_dataset(folders[name] / "images").rows]
    assert any(row["edit"] for row in painted)


def test_of_a_large_budget_a_part_is_painted_from(settings, dataset_folder):
    how = paint_settings(replace(settings, ratio=2, painted_limit=6))
    dataset = open_dataset(dataset_folder)
    assert how.sources(dataset) == [row["file_name"] for row in dataset.rows[:3]]
    assert how.sources(dataset.subset([4, 2])) == ["images/4.png", "images/2.png"]


def test_what_is_painted_is_not_painted_again(settings, monkeypatch):
    study_augmentation(settings)
    monkeypatch.setattr("emitdiff.studies.augmentation.painting.augment", None)
    study_augmentation(replace(settings, methods=("painted",), seeds=2))


def test_started_again_it_trains_only_what_is_missing(settings, monkeypatch):
    trained = []
    train = study.run_one
    monkeypatch.setattr(study, "run_one", lambda *job: trained.append(job[2].key) or train(*job))
    study_augmentation(settings)
    path = settings.out / "results.csv"
    before = read_table(path)
    write_table(path, before[:2])  # killed after two runs
    trained.clear()
    study_augmentation(settings)
    assert read_table(path)[:2] == before[:2]
    assert trained == [tuple(row[name] for name in KEYS) for row in before[2:]]
    trained.clear()
    study_augmentation(replace(settings, methods=("none", "mirror"), images=("3",)))
    assert [key[2] for key in trained] == ["mirror", "mirror"]
    with pytest.raises(EmitDiffError, match="started with steps 2, now 3"):
        study_augmentation(replace(settings, steps=3))


@pytest.mark.slow  # two processes import torch
def test_the_same_run_gives_the_same_figures_in_several_processes(settings, tmp_path):
    settings = replace(settings, methods=("none",))
    study_augmentation(settings)
    study_augmentation(replace(settings, out=tmp_path / "other", workers=2))
    tables = (read_table(out / "results.csv") for out in (settings.out, tmp_path / "other"))
    for row, other in zip(*(sorted(table, key=lambda row: row["fold"]) for table in tables), strict=True):
        assert float(row["dice"]) == pytest.approx(float(other["dice"]), abs=1e-4)


def test_a_study_that_is_stopped_early_has_the_same_seeds_of_everything(settings):
    runs = list(runs_of(replace(settings, seeds=2), [open_dataset(settings.datasets[0])]))
    assert [run.seed for run in runs] == [0] * 4 + [1] * 4 and len({run.key for run in runs}) == 8


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"methods": ("none", "magic")}, "no method called 'magic'"),
        ({"network": ("vnet",)}, "no network called 'vnet'"),
        ({"images": ("1",)}, "from 2 on"),
        ({"images": ("99",)}, "99 were asked for"),
        ({"folds": 9}, "9 folds were asked for"),
        ({"resolution": 100}, "multiple of 32"),
        ({"batch": 1}, "batch of 1"),
        ({"real_share": 1.0}, "share of real images was 1"),
        ({"edit": 2.0}, "mask edits was 2"),
        ({"checkpoint": "nobody"}, "nobody"),
    ],
)
def test_what_cannot_be_studied_leaves_nothing(settings, change, answer):
    with pytest.raises(EmitDiffError, match=answer):
        study_augmentation(replace(settings, **change))
    assert not settings.out.exists()


def test_two_datasets_of_one_name(settings):
    with pytest.raises(EmitDiffError, match="one name"):
        study_augmentation(replace(settings, datasets=settings.datasets * 2))
