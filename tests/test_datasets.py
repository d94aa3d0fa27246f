import csv
import json
import pickle
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from emitdiff import datasets
from emitdiff.dataset_check import check_dataset
from emitdiff.datasets import (
    DatasetInfo,
    Sample,
    choose_rows,
    few_shot,
    folds_by_group,
    open_dataset,
    split_by_column,
    split_by_group,
    write_dataset,
)
from emitdiff.errors import EmitDiffError

INFO = DatasetInfo("drawn", "Ultrasound", "breast", {"background": 0, "lesion": 1, "cyst": 2}, "CC0 1.0", "nobody")


def draw_sample(index: int, group: str | None = None, height: int = 24, width: int = 32) -> Sample:
    draw = np.random.default_rng(index)
    mask = np.zeros((height, width), np.uint8)
    mask[4:12, 5:15] = 1 + index % 2
    image = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
    name = f"images/case_{index:03d}.{'webp' if index % 2 else 'png'}"
    group = f"patient {index // 2}" if group is None else group
    return Sample(image, mask, "A lesion, on the left.", group, "benign", name, {"scanner": "drawn by hand, twice"})


@pytest.fixture
def folder(tmp_path):
    write_dataset(tmp_path / "drawn", INFO, (draw_sample(index) for index in range(8)))
    return tmp_path / "drawn"


def edit_rows(folder, change):
    path = folder / "metadata.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = change(rows) or rows
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def set_cell(folder, number, column, value):
    edit_rows(folder, lambda rows: rows[number].update({column: value}))


def kinds(folder):
    return Counter(defect.kind for defect in check_dataset(folder).defects)


def test_what_is_written_is_read_again(folder):
    dataset = open_dataset(str(folder))
    assert dataset.info == INFO and len(dataset) == 8
    assert json.loads((folder / "dataset.json").read_text())["groups"] == 4
    for index, sample in enumerate(dataset):
        expected = draw_sample(index)
        np.testing.assert_array_equal(sample.image, expected.image)
        np.testing.assert_array_equal(sample.mask, expected.mask)
        assert (sample.text, sample.group, sample.finding) == (expected.text, expected.group, expected.finding)
        assert sample.name == expected.name and sample.row["scanner"] == "drawn by hand, twice"
        assert sample.image.dtype == sample.mask.dtype == np.uint8


def test_reading_is_lazy_and_light(folder):
    dataset = open_dataset(folder)
    shutil.rmtree(folder / "images")
    assert dataset.groups[:3] == ["patient 0", "patient 0", "patient 1"]
    assert len(pickle.dumps(dataset)) < 5000
    assert pickle.loads(pickle.dumps(dataset)) == dataset
    with pytest.raises(EmitDiffError, match="no file"):
        dataset[0]


def test_a_data_loader_takes_it_with_workers(folder):
    from torch.utils.data import DataLoader

    loader = DataLoader(open_dataset(folder), batch_size=4, num_workers=1, collate_fn=list)
    assert [sample.name for batch in loader for sample in batch] == [draw_sample(index).name for index in range(8)]


def test_optional_columns_may_be_absent(folder):
    edit_rows(folder, lambda rows: [{key: row[key] for key in ("file_name", "mask", "group")} for row in rows])
    sample = open_dataset(folder)[1]
    assert (sample.text, sample.finding) == ("", "")
    assert check_dataset(folder).ok


def test_an_index_column_without_a_name_is_no_defect(folder):
    edit_rows(folder, lambda rows: [{"": str(number), **row} for number, row in enumerate(rows)])
    assert open_dataset(folder)[1].row[""] == "1" and check_dataset(folder).ok


def test_masks_of_0_and_255_are_class_1(folder):
    path = folder / "masks" / "case_000.png"
    Image.fromarray(np.asarray(Image.open(path)) * 255).save(path)
    assert open_dataset(folder)[0].mask.max() == 1


def test_groups_are_never_split(folder):
    dataset = open_dataset(folder)
    train, held_out = split_by_group(dataset, held_out=0.3, seed=0)
    assert not set(train.groups) & set(held_out.groups)
    assert len(set(held_out.groups)) == 2  # ceil(0.3 * 4)
    assert sorted(row["file_name"] for part in (train, held_out) for row in part.rows) == sorted(
        row["file_name"] for row in dataset.rows
    )


def test_splits_are_the_same_on_every_machine(folder):
    """Written down: weights are measured on the groups that these hashes keep back."""
    dataset = open_dataset(folder)
    assert set(split_by_group(dataset, 0.2, seed=0)[1].groups) == {"patient 2"}
    assert set(split_by_group(dataset, 0.5, seed=7)[1].groups) == {"patient 0", "patient 3"}
    reordered = dataset.subset(reversed(range(8)))
    assert set(split_by_group(reordered, 0.2, seed=0)[1].groups) == {"patient 2"}


def test_a_column_says_what_teaches_and_what_validates(folder):
    words = ("train", "train", " Val", "validation", "test", "test", "", "train")
    edit_rows(folder, lambda rows: [{**row, "split": word} for row, word in zip(rows, words, strict=True)])
    dataset = open_dataset(folder)
    train, validation = split_by_column(dataset, "split")
    assert train.rows == [dataset.rows[index] for index in (0, 1, 7)]
    assert validation.rows == [dataset.rows[index] for index in (2, 3)]
    assert choose_rows(dataset, "held-out", column="split").rows == validation.rows
    with pytest.raises(EmitDiffError, match="'fold' of 'drawn' says nothing"):
        split_by_column(dataset, "fold")
    set_cell(folder, 6, "split", "val")
    with pytest.raises(EmitDiffError, match="'split' of 'drawn' tears the group 'patient 3' apart"):
        split_by_column(open_dataset(folder), "split")


def test_folds_hold_every_group_out_once(folder):
    folds = folds_by_group(open_dataset(folder), 3)
    assert sorted(group for _, held_out in folds for group in set(held_out.groups)) == [
        f"patient {number}" for number in range(4)
    ]
    assert all(not set(train.groups) & set(held_out.groups) for train, held_out in folds)


def test_few_shot_takes_different_groups_first_and_grows(folder):
    dataset = open_dataset(folder)
    four, six = few_shot(dataset, 4, seed=1), few_shot(dataset, 6, seed=1)
    assert len(set(four.groups)) == 4
    assert six.rows[:4] == four.rows and len({row["file_name"] for row in six.rows}) == 6
    assert few_shot(dataset, 4, seed=1).rows == four.rows != few_shot(dataset, 4, seed=2).rows


def test_rows_of_a_split_are_spread_evenly(folder):
    dataset = open_dataset(folder)
    train, held_out = split_by_group(dataset, 0.3, seed=2)
    assert choose_rows(dataset).rows == choose_rows(dataset, limit=99).rows == dataset.rows
    assert choose_rows(dataset, "train", None, 0.3, 2).rows == train.rows
    assert choose_rows(dataset, "held-out", None, 0.3, 2).rows == held_out.rows
    assert choose_rows(dataset, limit=3).rows == [dataset.rows[index] for index in (0, 4, 7)]
    for wrong, words in ({"limit": 0}, "limit of 0"), ({"limit": -1}, "limit of -1"), ({"split": "test"}, "'test'"):
        with pytest.raises(EmitDiffError, match=words):
            choose_rows(dataset, **wrong)


@pytest.mark.parametrize(
    "choose",
    [
        lambda dataset: split_by_group(dataset, 0),
        lambda dataset: split_by_group(dataset, 1.0),
        lambda dataset: split_by_group(dataset.subset([0, 1]), 0.2),
        lambda dataset: folds_by_group(dataset, 5),
        lambda dataset: folds_by_group(dataset, 1),
        lambda dataset: few_shot(dataset, 9),
        lambda dataset: few_shot(dataset, 0),
    ],
)
def test_impossible_choices_are_refused(folder, choose):
    with pytest.raises(EmitDiffError, match="drawn"):
        choose(open_dataset(folder))


def test_a_good_folder_has_no_defects(folder):
    report = check_dataset(folder)
    assert report.ok and report.num_images == 8 and report.num_groups == 4
    assert report.classes["lesion"] == (4, 4 * 80) and report.classes["cyst"] == (4, 4 * 80)
    assert report.findings == {"benign": 8}
    assert "no defects" in str(report) and "lesion" in str(report)


def test_every_defect_is_found_at_once(folder):
    (folder / "masks" / "case_000.png").unlink()
    (folder / "images" / "case_001.webp").write_bytes((folder / "images" / "case_001.webp").read_bytes()[:100])
    Image.fromarray(np.zeros((24, 33), np.uint8)).save(folder / "masks" / "case_002.png")
    Image.fromarray(np.full((24, 32), 9, np.uint8)).save(folder / "masks" / "case_003.png")
    Image.open(folder / "images" / "case_004.png").save(folder / "images" / "case_005.webp", lossless=True)
    Image.open(folder / "images" / "case_004.png").save(folder / "images" / "case_006.png")
    set_cell(folder, 7, "group", "")
    Image.new("L", (4, 4)).save(folder / "images" / "stray.png")
    report = check_dataset(folder)
    found = {(defect.kind, defect.where) for defect in report.defects}
    assert found == {
        ("missing file", "masks/case_000.png"),
        ("unreadable", "images/case_001.webp"),
        ("size mismatch", "masks/case_002.png"),
        ("unknown label id", "masks/case_003.png"),
        ("duplicate", "images/case_005.webp"),
        ("duplicate across groups", "images/case_006.png"),
        ("row", "metadata.csv line 9"),
        ("not listed", "images/stray.png"),
    }
    assert not report.ok and "group' is empty" in str(report)
    assert report.classes["id 9 (no name)"] == (1, 24 * 32)


def test_a_row_that_comes_twice_is_a_duplicate(folder):
    edit_rows(folder, lambda rows: [*rows, rows[0]])
    assert kinds(folder) == {"duplicate": 1}


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "images/../../x.png", "C:\\x.png", "..\\x.png"])
def test_paths_that_leave_the_folder_are_not_opened(folder, path, monkeypatch):
    opened = []
    monkeypatch.setattr(datasets, "read_scan", lambda path: opened.append(path) or pytest.fail("it was opened"))
    edit_rows(folder, lambda rows: [{**rows[0], "file_name": path, "group": ""}])
    (defects,) = [[defect for defect in check_dataset(folder).defects if defect.kind == "row"]]
    assert len(defects) == 2 and "leaves the folder" in defects[1].what
    with pytest.raises(EmitDiffError, match="line 2"):
        open_dataset(folder)
    assert not opened


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "not valid JSON"),
        ("[]", '"name"'),
        ('{"name": "a", "modality": "CT", "organ": ""}', '"organ"'),
        ('{"name": "a", "modality": "CT", "organ": "x"}', '"labels"'),
        ('{"name": "a", "modality": "CT", "organ": "x", "labels": {"a": 1, "b": 1}}', "different whole ids"),
        ('{"name": "a", "modality": "CT", "organ": "x", "labels": {"a": 300}}', "different whole ids"),
        ('{"name": "a", "modality": "CT", "organ": "x", "labels": {"a": 255}}', "from 0 .background. to 254"),
        ('{"name": "a", "modality": "CT", "organ": "x", "labels": {"a": "1"}}', "different whole ids"),
        ('{"name": "a", "modality": "CT", "organ": "x", "labels": {"a": true}}', "different whole ids"),
        (None, "no dataset.json"),
    ],
)
def test_a_bad_dataset_json_is_a_sentence(folder, content, sentence):
    (folder / "dataset.json").unlink()
    if content is not None:
        (folder / "dataset.json").write_text(content)
    with pytest.raises(EmitDiffError, match=sentence):
        open_dataset(folder)
    report = check_dataset(folder)
    assert [defect.where for defect in report.defects] == ["dataset.json"] and report.num_images == 8


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "lacks the column"),
        (b"file_name,mask\na,b\n", "lacks the column.*group"),
        (b"file_name,mask,group\n", "lists no images"),
        (b"file_name,mask,group\na.png,b.png,1,2\n", "more cells"),
        (b"file_name,mask,group\na.png\n", "'mask' is empty"),
        (b"\xff\xfe\x00\x81", "CSV file in UTF-8"),
        (None, "no metadata.csv"),
    ],
)
def test_a_bad_metadata_csv_is_a_sentence(folder, content, sentence):
    (folder / "metadata.csv").unlink()
    if content is not None:
        (folder / "metadata.csv").write_bytes(content)
    with pytest.raises(EmitDiffError, match=sentence):
        open_dataset(folder)
    assert not check_dataset(folder).ok


def test_no_folder_is_a_sentence(tmp_path):
    for look in (open_dataset, check_dataset):
        with pytest.raises(EmitDiffError, match="There is no folder"):
            look(tmp_path / "nowhere")


def test_a_row_whose_mask_is_gone_is_named(folder):
    (folder / "masks" / "case_003.png").unlink()
    with pytest.raises(EmitDiffError, match="images/case_003.*with masks/case_003.png.*no file.*check-dataset"):
        open_dataset(folder)[3]


def test_a_file_is_no_dataset(folder):
    with pytest.raises(EmitDiffError, match="case_003.png' is a file. A dataset is a folder"):
        open_dataset(folder / "masks" / "case_003.png")


def test_reading_a_defective_pair_is_a_sentence(folder):
    Image.fromarray(np.full((24, 32), 9, np.uint8)).save(folder / "masks" / "case_003.png")
    Image.fromarray(np.zeros((24, 33), np.uint8)).save(folder / "masks" / "case_002.png")
    dataset = open_dataset(folder)
    with pytest.raises(EmitDiffError, match="class id 9.*check-dataset"):
        dataset[3]
    with pytest.raises(EmitDiffError, match="33 x 24 pixels and the image 32 x 24"):
        dataset[2]


def test_nothing_is_written_over_and_nothing_wrong_is_written(folder, tmp_path):
    with pytest.raises(EmitDiffError, match="holds something else: dataset.json, metadata.csv, images/"):
        write_dataset(folder, INFO, [draw_sample(0)])
    (tmp_path / "mine" / "images").mkdir(parents=True)
    (tmp_path / "mine" / "images" / "case_000.png").write_text("mine")
    with pytest.raises(EmitDiffError, match="holds something else: images/case_000.png"):
        write_dataset(tmp_path / "mine", INFO, [draw_sample(0)])
    with pytest.raises(EmitDiffError, match="Two samples are called"):
        write_dataset(tmp_path / "twice", INFO, [draw_sample(0), draw_sample(0)])
    with pytest.raises(EmitDiffError, match="'group' is empty"):
        write_dataset(tmp_path / "no_group", INFO, [draw_sample(0, group="")])
    binary = DatasetInfo("drawn", "MRI", "knee", {"bone": 1})
    with pytest.raises(EmitDiffError, match="class id 2"):
        write_dataset(tmp_path / "label", binary, [draw_sample(1)])
    assert not (tmp_path / "label" / "metadata.csv").exists()
