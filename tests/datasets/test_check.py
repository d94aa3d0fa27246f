from __future__ import annotations

import numpy as np
from dataset_files import edit_rows, kinds, set_cell
from PIL import Image

from emitdiff.datasets.check import check_dataset


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
