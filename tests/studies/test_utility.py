import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.writing import write_tables
from emitdiff.errors import EmitDiffError
from emitdiff.studies.results_table import read_table, write_table
from emitdiff.studies.utility import Utility, percent_of_real, real_split, reference, study_utility


@pytest.fixture(scope="module")
def painted(dataset_folder, checkpoint, tmp_path_factory):
    """What `augment --split train --ratio 2` leaves: here each image stands for its own synthetic ones."""
    train, _ = real_split(open_dataset(dataset_folder), checkpoint)
    return copied(train, tmp_path_factory.mktemp("painted") / "synthetic")


def copied(rows, folder):
    shutil.copytree(rows.folder, folder, ignore=shutil.ignore_patterns("*.json", "*.csv"))
    synthetic = [{**row, "source": row["file_name"], "provenance": "made"} for row in rows.rows for _ in range(2)]
    for variant, row in enumerate(synthetic):  # every row has files of its own
        for part in ("file_name", "mask"):
            name = row[part].replace("/", f"/synthetic_{variant}_")
            shutil.copy(folder / row[part], folder / name)
            row[part] = name
    write_tables(folder, rows.info, synthetic)
    return folder


@pytest.fixture
def settings(dataset_folder, checkpoint, painted, tmp_path):
    return Utility(dataset_folder, tmp_path / "out", checkpoint, painted, steps=2, resolution=64, seeds=2)


def test_one_row_a_run_and_a_report(settings, capsys):
    report = study_utility(settings)
    rows = read_table(settings.out / "results.csv")
    assert [(row["arm"], row["seed"]) for row in rows] == [
        ("real", "0"), ("synthetic", "0"), ("real", "1"), ("synthetic", "1")
    ]  # fmt: skip
    assert report["images"] == {"real": 8, "synthetic": 16, "test": 2}
    dice = [float(row["dice"]) for row in rows if row["arm"] == "real"]
    assert report["arms"]["real"]["dice"]["mean"] == pytest.approx(np.mean(dice))
    assert report["arms"]["real"]["dice"]["sd"] == pytest.approx(np.std(dice, ddof=1))
    assert json.loads((settings.out / "report.json").read_text()) == report
    assert report["percent_of_real"]["synthetic"]["beside"] == "real"
    page = (settings.out / "report.md").read_text()
    assert "| synthetic |" in page and page.strip() in capsys.readouterr().out


def test_started_again_it_trains_only_what_is_missing(settings):
    first = replace(settings, seeds=1)
    study_utility(first)
    path = settings.out / "results.csv"
    rows = read_table(path)
    rows[0]["seconds"] = "12345"
    write_table(path, rows)
    more = replace(settings, arms=("real", "synthetic", "synthetic+real+classical"))
    study_utility(more)
    again = read_table(path)
    assert len(again) == 6 and again[0]["seconds"] == "12345"
    assert {row["arm"] for row in again} == {"real", "synthetic", "real+synthetic+classical"}
    with pytest.raises(EmitDiffError, match="started with steps 2, now 3"):
        study_utility(replace(settings, steps=3))


def test_fewer_sources_and_variants_of_a_larger_folder(settings):
    report = study_utility(replace(settings, seeds=1, limit=3, ratio=1))
    assert report["images"] == {"real": 3, "synthetic": 3, "test": 2}


def test_images_generated_from_held_out_groups_are_refused(settings, dataset_folder, tmp_path):
    leaking = copied(open_dataset(dataset_folder), tmp_path / "leaking")
    with pytest.raises(EmitDiffError, match="held-out groups"):
        study_utility(replace(settings, synthetic=leaking))
    assert not settings.out.exists()


def test_without_a_folder_images_are_generated_first(settings):
    whole = {"synthetic": None, "limit": 1, "seeds": 1, "arms": ("synthetic",)}
    report = study_utility(replace(settings, **whole))
    assert report["images"] == {"real": 1, "synthetic": 1, "test": 2} and report["percent_of_real"] == {}
    assert len(open_dataset(settings.out / "synthetic")) == 1


def test_share_of_real_over_the_same_images_with_its_interval():
    rng = np.random.default_rng(0)
    real = {(str(index // 2), str(index), "lesion"): dice for index, dice in enumerate(rng.uniform(0.4, 0.9, 80))}
    share = percent_of_real({key: 0.9 * value for key, value in real.items()}, real)
    assert share["percent"] == pytest.approx(90) and share["groups"] == 40
    assert share["low"] == pytest.approx(90) and share["high"] == pytest.approx(90)
    noisy = {key: np.clip(value + rng.normal(0, 0.2), 0, 1) for key, value in real.items()}
    share = percent_of_real(noisy, real)
    assert share["percent"] == pytest.approx(100 * np.mean(list(noisy.values())) / np.mean(list(real.values())))
    assert share["low"] < share["percent"] < share["high"]


def test_arms_are_held_against_real_images_treated_alike():
    arms = ["real", "real+classical", "synthetic", "synthetic+classical", "real+synthetic"]
    assert [reference(arm, arms) for arm in arms] == [None, "real", "real", "real+classical", "real"]
    assert reference("synthetic+classical", ["real"]) == "real" and reference("synthetic", ["real+classical"]) is None


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"synthetic": "nowhere"}, "nowhere"),
        ({"dataset": "nowhere"}, "nowhere"),
        ({"checkpoint": "nobody"}, "nobody"),
        ({"network": "vnet"}, "no network called 'vnet'"),
        ({"resolution": 100}, "multiple of 32"),
        ({"synthetic": None, "ratio": -1}, "ratio was -1"),
        ({"arms": ("real+synthetic",), "alpha": 2.0}, "alpha, was 2"),
        ({"arms": ("real", "real+synthetic+classical"), "mix": "logits"}, "do not go together"),
    ],
)
def test_what_cannot_be_studied_leaves_nothing(settings, change, answer):
    with pytest.raises(EmitDiffError, match=answer):
        study_utility(replace(settings, **change))
    assert not settings.out.exists()


@pytest.mark.parametrize("arm", ["", "classical", "fake", "real+fake"])
def test_an_arm_that_is_none(settings, arm):
    with pytest.raises(EmitDiffError, match="is not known"):
        study_utility(replace(settings, arms=(arm,)))
