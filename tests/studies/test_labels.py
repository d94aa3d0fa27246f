import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emitdiff.checkpoints import find_checkpoint, local_folder
from emitdiff.datasets.folder import DatasetInfo, Sample, open_dataset
from emitdiff.datasets.writing import write_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.studies import labels
from emitdiff.studies.arms import TrainArm, altered_batches, load_base, train_arm
from emitdiff.studies.labels import Labels, measure_arm, queries_for, resized, study_labels
from emitdiff.studies.results_table import read_table
from emitdiff.studies.unet_baseline import TrainSegmenter


@pytest.fixture
def settings(dataset_folder, tmp_path):
    return Labels((dataset_folder,), tmp_path / "out", images=(2,), draws=2, arms=("unet",), steps=2, resolution=64)


@pytest.fixture(scope="module")
def organs(tmp_path_factory):
    """Six pictures of two labelled organs, the second in every other one, of three groups."""
    rng = np.random.default_rng(0)

    def samples():
        for index in range(6):
            mask = np.zeros((64, 80), np.uint8)
            mask[10:30, 10 + index : 40] = 4
            mask[40:60, 50:70] = 7 * (index % 2)
            image = np.repeat((rng.uniform(40, 60, mask.shape) + 20 * mask)[..., None], 3, 2).astype(np.uint8)
            yield Sample(image, mask, f"sentence {index}", str(index // 2), "", f"images/{index}.png", {})

    info = DatasetInfo("organs", "CT", "abdomen", {"background": 0, "spleen": 7, "liver": 4})
    return write_dataset(tmp_path_factory.mktemp("data") / "organs", info, samples())


def test_a_row_a_run_the_same_images_for_every_arm_and_a_report(settings, capsys):
    settings = replace(settings, arms=("ours", "unet"), draws=1, seconds=0.5, json=True)
    report = study_labels(settings)
    rows = read_table(settings.out / "results.csv")
    kinds = [("ours", "own"), ("ours", "none"), ("ours", "shuffled"), ("unet", "-")]
    assert [(row["arm"], row["text"]) for row in rows] == kinds
    (drawn,) = {row["drawn"] for row in rows}
    assert len(drawn.split("|")) == 2
    assert all(row["n"] == "2" and row["target"] == "breast lesion" for row in rows)
    found = next(row for row in report["results"] if row["text"] == "own")
    beside = next(row for row in report["results"] if row["arm"] == "unet")
    assert found["minus_unet"]["mean"] == pytest.approx(found["dice"]["mean"] - beside["dice"]["mean"])
    assert found["seconds"] > 0 and report["datasets"]["discs"]["own_text"] == "sentences of the rows"
    page = (settings.out / "report.md").read_text()
    assert "| ours" in page and "| unet" in page and "own - shuffled" in page
    printed = capsys.readouterr().out
    assert page.strip() in printed and json.loads(printed.splitlines()[-1]) == report
    assert Image.open(settings.out / "labels.png").size[0] > 300


def test_killed_after_a_run_it_ends_with_the_same_rows(settings, monkeypatch):
    study_labels(replace(settings, out=settings.out.with_name("whole")))
    taught, teach_one = [], labels.train_arm

    def one_arm(*given):
        if taught:
            raise KeyboardInterrupt
        taught.append(1)
        return teach_one(*given)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(labels, "train_arm", one_arm)
        study_labels(settings)
    assert len(read_table(settings.out / "results.csv")) == 1
    study_labels(settings)
    both = [read_table(folder / "results.csv") for folder in (settings.out, settings.out.with_name("whole"))]
    assert [row | {"seconds": ""} for row in both[0]] == [row | {"seconds": ""} for row in both[1]]


def test_draws_images_arms_and_datasets_may_be_added_but_nothing_else(settings, organs):
    study_labels(replace(settings, draws=1))
    first = read_table(settings.out / "results.csv")
    more = replace(settings, datasets=(*settings.datasets, organs.folder), images=(2, 3))
    report = study_labels(more)
    again = read_table(settings.out / "results.csv")
    assert again[:1] == first and len(again) == 2 * 2 * (1 + 2)
    assert [row["target"] for row in report["results"] if row["dataset"] == "organs"] == ["mean", "spleen", "liver"] * 2
    assert "Dice of each target" in (settings.out / "report.md").read_text()
    with pytest.raises(EmitDiffError, match="started with steps 2, now 3"):
        study_labels(replace(settings, steps=3))


def test_with_folds_every_image_is_tested_once_a_draw(settings):
    report = study_labels(replace(settings, folds=2, draws=1))
    rows = read_table(settings.out / "results.csv")
    assert [row["fold"] for row in rows] == ["0", "1"] and sum(int(row["n"]) for row in rows) == 10
    (found,) = report["results"]
    weighted = sum(int(row["n"]) * float(row["dice"]) for row in rows) / 10
    assert found["n"] == 10 and found["dice"]["mean"] == pytest.approx(weighted)
    assert found["dice"]["sd"] is None and report["datasets"]["discs"]["test"] == [6, 4]


def test_an_arm_without_text_learns_discs_by_heart(dataset_folder):
    few = open_dataset(dataset_folder).subset([0, 3, 6, 9])
    samples = [resized(sample, 64) for sample in few]
    segment, seconds = train_arm(TrainArm("unet", 64, steps=60, learning_rate=3e-3), None, samples, few.info)
    measured = measure_arm(segment, samples, few, ("-",))
    assert np.mean([row["dice"] for row in measured]) > 0.85 and seconds > 0
    assert [row["file_name"] for row in measured] == [row["file_name"] for row in few.rows]


def test_altered_images_and_their_classes_go_together(organs):
    samples = [resized(sample, 64) for sample in organs]
    settings = TrainSegmenter(steps=5, batch=4, resolution=64)
    batches = list(altered_batches(settings, samples, organs.info, np.random.default_rng(0)))
    assert len(batches) == 5
    for (images,), classes in batches:
        assert images.shape == (4, 3, 64, 64) and classes.shape == (4, 64, 64)
        for image, wanted in zip(images[:, 0].float(), classes, strict=True):
            grey = [image[wanted == channel].median() for channel in sorted(set(wanted.unique().tolist()) & {1, 2})]
            assert grey == sorted(grey), "liver (channel 1) is darker than spleen (2), however it is turned"


def test_pictures_of_any_shape_are_squares_with_masks_of_ids(organs):
    sample = resized(organs[1], 32)
    assert sample.image.shape == (32, 32, 3) and set(np.unique(sample.mask)) == {0, 4, 7}


def test_what_is_said_about_an_image(dataset_folder, organs):
    few = open_dataset(dataset_folder).subset([1, 2])
    said = [asked["said"] for asked in queries_for(list(few), few, ("own", "none", "shuffled"))]
    assert [one["own"] for one in said] == ["breast lesion", "Ultrasound, breast, lesion"]
    assert all(one["none"] == "" and one["shuffled"] not in ("", one["own"]) for one in said)
    several = queries_for(list(organs), organs, ("own",))
    assert [(one["label"], one["said"]["own"]) for one in several[:2]] == [
        ("spleen", "CT, abdomen, spleen"), ("liver", "CT, abdomen, liver")
    ]  # fmt: skip
    assert [one["truth"].any() for one in several[:4]] == [False, True, True, True]


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"arms": ("unet", "theirs")}, "no arm called 'theirs'"),
        ({"texts": ("own", "any")}, "text 'any' is not known"),
        ({"images": (5, 20)}, "20 were asked for"),
        ({"resolution": 100}, "multiple of 32"),
        ({"folds": 9}, "2 to 5 folds"),
        ({"split_column": "finding"}, "finding"),
        ({"arms": ("ours",), "checkpoint": "nobody"}, "nobody"),
        ({"arms": ("ours",), "backbone": Path("nowhere")}, "nowhere holds no backbone"),
        ({"split_column": "side"}, "No dataset has a column 'side'"),
    ],
)
def test_what_cannot_be_studied_leaves_nothing(settings, change, answer):
    with pytest.raises(EmitDiffError, match=answer):
        study_labels(replace(settings, **change))
    assert not settings.out.exists()


def test_two_datasets_of_one_name(settings):
    with pytest.raises(EmitDiffError, match="Two datasets have one name"):
        study_labels(replace(settings, datasets=settings.datasets * 2))


def test_sentences_made_from_masks_are_called_derived(settings):
    report = study_labels(replace(settings, draws=1, derived=("discs",)))
    assert report["datasets"]["discs"]["own_text"] == "sentences of the rows, derived from the masks"
    assert "derived from the masks" in (settings.out / "report.md").read_text()
    assert report["settings"] == json.loads((settings.out / "report.json").read_text())["settings"]


def test_another_backbone_is_read_as_the_checkpoints_is():
    folder = local_folder(find_checkpoint("textdiff-mini", "segmentation"))
    own, other = load_base("textdiff-mini", None), load_base("textdiff-mini", folder / "backbone")
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    assert own.features.timesteps == other.features.timesteps and own.resolution == other.resolution
    assert all(part.isfinite().all() for part in other.features(image))
    with pytest.raises(EmitDiffError, match="holds no backbone"):
        load_base("textdiff-mini", folder)


def test_a_column_splits_the_datasets_that_have_it(settings, organs, tmp_path):
    folder = shutil.copytree(organs.folder, tmp_path / "organs")
    lines = (folder / "metadata.csv").read_text().splitlines()
    sides = ["split", *("train" if index < 4 else "val" for index in range(6))]
    text = "\n".join(f"{line},{side}" for line, side in zip(lines, sides, strict=True))
    (folder / "metadata.csv").write_text(text + "\n")
    both = (*settings.datasets, folder)
    report = study_labels(replace(settings, datasets=both, split_column="split", draws=1))
    found = {name: (facts["train"], facts["test"], facts["split"]) for name, facts in report["datasets"].items()}
    assert found == {"discs": ([8], [2], "a fifth of the groups"), "organs": ([4], [2], "column split")}
