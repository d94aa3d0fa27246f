"""Tables and records that are small as files and would fill memory."""

from __future__ import annotations

import json
import tracemalloc
import zipfile

import pytest

from emitdiff.datasets import tables
from emitdiff.datasets.archive import unpack_dataset
from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.tables import read_record, read_table
from emitdiff.errors import EmitDiffError

INFO = {"name": "d", "modality": "CT", "organ": "abdomen", "labels": {"background": 0, "liver": 1}}
NAMES = ("file_name", "mask", "group")


def bomb(path, columns, rows, row="a,b,c\n"):
    """The ZIP of a dataset whose table has many columns, and rows that do not fill them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("d/dataset.json", json.dumps(INFO))
        head = ",".join([*NAMES, *(f"column {number}" for number in range(columns - 3))])
        zipped.writestr("d/metadata.csv", f"{head}\n" + row * rows)
    return path


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("columns", "rows", "row", "words"),
    [
        (5000, 40_000, "a,b,c\n", "5,000 columns"),
        (200, 40_000, "a,b,c\n", "2,000,000 cells"),
        (3, 200_001, "a,b,c\n", "200,000 rows"),
        (3, 20_000, "a,b,c" + 100 * ",xy" + "\n", "2,000,000 cells"),
    ],
    ids=["columns", "short rows", "rows", "long rows"],
)
def test_a_small_zip_does_not_fill_memory(tmp_path, columns, rows, row, words):
    """Once 4 GB, for the first of them, which has 13 kilobytes."""
    folder = unpack_dataset(bomb(tmp_path / "bomb.zip", columns, rows, row), tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(EmitDiffError, match=words):
            open_dataset(folder)
        assert tracemalloc.get_traced_memory()[1] < 256 * 2**20
    finally:
        tracemalloc.stop()


def test_a_row_that_does_not_end_is_not_read_to_its_end(tmp_path):
    path = written(tmp_path / "metadata.csv", "file_name,mask,group\n" + '"\n",' * 2**20)
    with pytest.raises(EmitDiffError, match="a row of more than"):
        read_table(path)


def test_rows_within_the_limits_are_read_as_before(tmp_path):
    lines = 300_000 * "\n" + "a,b,c\n\n" + '"d\nd",e\n' + "f,g,h,i,j\n"
    columns, rows = read_table(written(tmp_path / "metadata.csv", "\ufefffile_name,mask,group\n" + lines))
    assert columns == [*NAMES]
    assert rows == {300_002: ["a", "b", "c"], 300_004: ["d\nd", "e"], 300_006: ["f", "g", "h", "i", "j"]}


def test_files_that_are_too_large_are_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 100)
    monkeypatch.setattr(tables, "MAX_RECORD_BYTES", 100)
    for read in (read_record, read_table):
        with pytest.raises(EmitDiffError, match="the limit is"):
            read(written(tmp_path / "file", 101 * "1"))


def test_a_record_of_nothing_but_brackets_is_answered_with_a_sentence(tmp_path):
    with pytest.raises(EmitDiffError, match="too deeply"):
        read_record(written(tmp_path / "dataset.json", "[" * 10**5))


def test_a_large_record_in_a_zip_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("d/dataset.json", "[" + "{}," * 2**20 + "{}]")
        zipped.writestr("d/metadata.csv", "file_name,mask,group\n")
    with pytest.raises(EmitDiffError, match="more than 1 MiB"):
        unpack_dataset(tmp_path / "bomb.zip", tmp_path / "into")
