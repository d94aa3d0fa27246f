import json
import pickle
import shutil

import nibabel
import numpy as np
import pytest
from dataset_files import INFO, draw_sample, edit_rows
from PIL import Image

from emitdiff.datasets import folder as datasets
from emitdiff.datasets.check import check_dataset
from emitdiff.datasets.folder import DatasetInfo, open_dataset
from emitdiff.datasets.writing import write_tables
from emitdiff.errors import EmitDiffError


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


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "images/../../x.png", "C:\\x.png", "..\\x.png"])
def test_paths_that_leave_the_folder_are_not_opened(folder, path, monkeypatch):
    opened = []
    monkeypatch.setattr(datasets, "read_scan", lambda path: opened.append(path) or pytest.fail("it was opened"))
    edit_rows(folder, lambda rows: [{**rows[0], "file_name": path, "group": ""}])
    (defects,) = [[defect for defect in check_dataset(folder).defects if defect.kind == "row"]]
    assert len(defects) == 2 and "outside the folder" in defects[1].what
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
        ('{"name": "a", "modality": "CT", "organ": "x", "labels": {"a": 1, "a": 2}}', 'says "a" twice'),
        ('{"name": "a", "modality": "CT", "organ": "x", "labels": {"\u00e9": 1, "e\u0301": 2}}', "a name of its own"),
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
        (b"file_name,mask,group\nL\xe4sion.png,b.png,1\n", "CSV file in UTF-8.*'CSV UTF-8'"),
        (b"\xff\xfe\x00\xd8", "CSV file in UTF-8"),
        ("file_name,mask,group\na,b,c\n".encode("utf-16-le"), "CSV file in UTF-8: it holds bytes of value 0"),
        (b"file_name,mask,mask_file_name,group\na.png,b.png,c.png,1\n", "column 'mask' twice"),
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


@pytest.mark.parametrize("flips", [(), (0,), (0, 1)])
def test_a_nifti_pair_is_laid_over_each_other_in_the_patient(tmp_path, flips):
    """The grids have the same voxels; the mask's axes run the other way."""
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    values = np.random.default_rng(0).integers(0, 100, (12, 10, 1)).astype(np.int16)
    affine = np.diag([-1.0, -1, 1, 1])
    turned = affine.copy()
    for axis in flips:
        turned[:3, 3] += (values.shape[axis] - 1) * affine[:3, axis]
        turned[:3, axis] *= -1
    labels = np.flip((values > 60).astype(np.uint8), flips)
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "images" / "a.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, turned), tmp_path / "masks" / "a.nii.gz")
    row = {"file_name": "images/a.nii.gz", "mask": "masks/a.nii.gz", "group": "p"}
    dataset = write_tables(tmp_path, DatasetInfo("drawn", "CT", "abdomen", {"liver": 1}), [row])
    bright = dataset[0].image[..., 0] > dataset[0].image[dataset[0].mask == 0].max()
    np.testing.assert_array_equal(dataset[0].mask > 0, bright)
    assert check_dataset(tmp_path).ok
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / "masks" / "a.nii.gz")
    assert [defect.kind for defect in check_dataset(tmp_path).defects] == ["other grid"]
    with pytest.raises(EmitDiffError, match="does not match"):
        dataset[0]


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
    with pytest.raises(EmitDiffError, match="33 x 24 pixels, its image 32 x 24.*check-dataset"):
        dataset[2]
