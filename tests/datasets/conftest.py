from __future__ import annotations

import pytest
from dataset_files import INFO, draw_sample

from emitdiff.datasets.writing import write_dataset


@pytest.fixture
def folder(tmp_path):
    write_dataset(tmp_path / "drawn", INFO, (draw_sample(index) for index in range(8)))
    return tmp_path / "drawn"
