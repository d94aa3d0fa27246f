from __future__ import annotations

import pytest
from dataset_files import INFO, draw_sample

from emitdiff.datasets.folder import DatasetInfo
from emitdiff.datasets.writing import write_dataset
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
    with pytest.raises(EmitDiffError, match="'group' is empty"):
        write_dataset(tmp_path / "no_group", INFO, [draw_sample(0, group="")])
    binary = DatasetInfo("drawn", "MRI", "knee", {"bone": 1})
    with pytest.raises(EmitDiffError, match="class id 2"):
        write_dataset(tmp_path / "label", binary, [draw_sample(1)])
    assert not (tmp_path / "label" / "metadata.csv").exists()
