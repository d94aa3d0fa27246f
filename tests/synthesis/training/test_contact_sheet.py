from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from emitdiff.datasets.folder import DatasetInfo
from emitdiff.images import resize_image
from emitdiff.synthesis.loading import load_synthesizer
from emitdiff.synthesis.training.contact_sheet import contact_sheet
from emitdiff.synthesis.training.corpus import Item

INFO = DatasetInfo("discs", "Ultrasound", "breast", {"background": 0, "lesion": 1})


@pytest.fixture
def pipeline(tiny_synthesis_folder, tmp_path):
    folder = shutil.copytree(tiny_synthesis_folder, tmp_path / "tiny")
    (folder / "emitdiff.json").write_text(json.dumps({"area": 32 * 32, "multiple": 16}))
    return load_synthesizer(str(folder), device="cpu")


def test_each_row_is_real_control_and_two_that_were_generated(pipeline, disc):
    image, mask = disc
    sheet = contact_sheet(pipeline, [Item(image, mask, INFO, "benign", "a")], tile=48)
    assert sheet.shape == (48, 8 * 48, 3) and sheet.dtype == np.uint8
    real, control, full, free, *rest = np.split(sheet, 8, axis=1)
    np.testing.assert_array_equal(real, resize_image(resize_image(image, (32, 32)), (48, 48)))
    assert control.any() and not np.array_equal(control, real)
    assert full.std() > 1 and free.std() > 1 and not np.array_equal(full, real)
    assert not np.any(rest), "where the rows cannot be shared evenly, the last place is black"
