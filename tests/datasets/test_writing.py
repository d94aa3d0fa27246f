from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from dataset_files import INFO, draw_sample

from emitdiff.datasets.folder import DatasetInfo, open_dataset
from emitdiff.datasets.rows import FIRST_COLUMNS
from emitdiff.datasets.writing import write_dataset, write_tables
from emitdiff.errors import EmitDiffError


def test_nothing_is_written_over_and_nothing_wrong_is_written(folder, tmp_path):
    with pytest.raises(EmitDiffError, match="contains other files: dataset.json, metadata.csv, images/"):
        write_dataset(folder, INFO, [draw_sample(0)])
    (tmp_path / "mine" / "images").mkdir(parents=True)
    (tmp_path / "mine" / "images" / "case_000.png").write_text("mine")
    with pytest.raises(EmitDiffError, match="contains other files: images/case_000.png"):
        write_dataset(tmp_path / "mine", INFO, [draw_sample(0)])
    with pytest.raises(EmitDiffError, match="Two samples are called"):
        write_dataset(tmp_path / "twice", INFO, [draw_sample(0), draw_sample(0)])
    capitals = [draw_sample(0), replace(draw_sample(1), name="images/CASE_000.webp")]
    with pytest.raises(EmitDiffError, match="Two samples are called"):
        write_dataset(tmp_path / "capitals", INFO, capitals)
    with pytest.raises(EmitDiffError, match="'group' is empty"):
        write_dataset(tmp_path / "no_group", INFO, [draw_sample(0, group="")])
    binary = DatasetInfo("drawn", "MRI", "knee", {"bone": 1})
    with pytest.raises(EmitDiffError, match="class id 2"):
        write_dataset(tmp_path / "label", binary, [draw_sample(1)])
    assert not (tmp_path / "label" / "metadata.csv").exists()


def test_the_table_has_its_own_columns_first_and_every_other_once(tmp_path):
    samples = [replace(draw_sample(index), row={"scanner": "A", f"note {index}": "x"}) for index in range(2)]
    write_dataset(tmp_path, INFO, samples)
    with (tmp_path / "metadata.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["file_name", "mask_file_name", *FIRST_COLUMNS[2:], "scanner", "note 0", "note 1"]
    assert [row[-3:] for row in rows] == [["A", "x", ""], ["A", "", "x"]]


@pytest.mark.parametrize("names", [("a", "b"), ("train_1", "test_2"), ("Läsion é", "病变 (2)")])
def test_hugging_face_loads_images_and_masks_as_pictures(tmp_path, names):
    """With all files, or it would look for splits in their names."""
    from datasets import load_dataset

    samples = [replace(draw_sample(place), name=f"images/{name}.png") for place, name in enumerate(names)]
    folder = write_dataset(tmp_path / "drawn", INFO, samples).folder
    loaded = load_dataset("imagefolder", data_dir=str(folder), data_files="**", cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"] and {"image", "mask", "group", "text"} <= set(loaded["train"].column_names)
    for row, sample in zip(loaded["train"], samples, strict=True):
        np.testing.assert_array_equal(np.asarray(row["image"].convert("RGB")), sample.image)
        np.testing.assert_array_equal(np.asarray(row["mask"]), sample.mask)
        assert row["group"] == sample.group


def test_dataset_json_counts_what_was_written(folder):
    facts = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert (facts["count"], facts["groups"], facts["labels"]) == (8, 4, INFO.labels)


def test_what_was_not_finished_looks_unfinished_and_can_be_started_again(tmp_path):
    def samples():
        yield draw_sample(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "cut", INFO, samples())
    assert list((tmp_path / "cut" / "images").iterdir()) and not (tmp_path / "cut" / "metadata.csv").exists()
    with pytest.raises(EmitDiffError):
        open_dataset(tmp_path / "cut")


def test_tables_written_again_take_the_place_of_the_old_ones_at_once(folder, monkeypatch):
    before = (folder / "metadata.csv").read_bytes()
    rows = open_dataset(folder).rows

    def fail(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("os.replace", fail)
        write_tables(folder, INFO, rows[:2])
    assert (folder / "metadata.csv").read_bytes() == before
    assert len(write_tables(folder, INFO, rows[:2])) == 2 and len(open_dataset(folder)) == 2
