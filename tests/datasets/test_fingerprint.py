"""A run goes on with the images that it began with, and with no others of the same names."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from emitdiff.datasets.fingerprint import check_hashes, dataset_sha256
from emitdiff.datasets.folder import open_dataset
from emitdiff.errors import EmitDiffError


@pytest.fixture
def folder(dataset_folder, tmp_path):
    return shutil.copytree(dataset_folder, tmp_path / "discs")


def change_one_pixel(path):
    pixels = np.array(Image.open(path))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("name", ["images/3.png", "masks/3.png"])
def test_one_pixel_makes_another_dataset(folder, name):
    before = dataset_sha256(open_dataset(folder))
    assert dataset_sha256(open_dataset(folder)) == before
    change_one_pixel(folder / name)
    assert dataset_sha256(open_dataset(folder)) != before


def test_labels_and_rows_count_too_and_a_missing_file_is_no_error(folder):
    dataset = open_dataset(folder)
    hashes = {dataset_sha256(dataset), dataset_sha256(dataset.subset([0, 1]))}
    record = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**record, "labels": {"background": 0, "cyst": 1}}))
    hashes.add(dataset_sha256(open_dataset(folder)))
    (folder / "images" / "3.png").unlink()
    hashes.add(dataset_sha256(open_dataset(folder)))
    assert len(hashes) == 4


def test_a_run_is_kept_from_going_on_with_others(folder, tmp_path):
    path, dataset = tmp_path / "run" / "hashes.json", open_dataset(folder)
    check_hashes(path, tmp_path / "run", {"mini": "a" * 64}, [])
    merged = check_hashes(path, tmp_path / "run", {}, [dataset])  # what is new is added
    assert merged == json.loads(path.read_text()) and set(merged["datasets"]) == {"discs"}
    with pytest.raises(EmitDiffError, match=r"The weights mini are not those that .*run was started with \(sha256 aaa"):
        check_hashes(path, tmp_path / "run", {"mini": "b" * 64}, [])
    change_one_pixel(folder / "images" / "3.png")
    with pytest.raises(EmitDiffError, match="The datasets discs are not those"):
        check_hashes(path, tmp_path / "run", {}, [dataset])
