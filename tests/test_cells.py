"""A spreadsheet that opens a table of ours computes nothing."""

import csv
import io
import json
import shutil

import pytest
from PIL import Image

from emitdiff.cells import from_cell, to_cell, write_cells
from emitdiff.datasets.export import Export, export
from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.writing import write_tables
from emitdiff.studies.results_table import read_table, write_table

FORMULAS = ("=1+1", '=HYPERLINK("http://example.org","x")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1+1")
STARTS = tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20")


@pytest.mark.parametrize(
    "text", [*FORMULAS, "'=1+1", "''=1", "plain", "'quoted'", "", "-3.5", "+2", "1e-5", "-.5e+3", "'-1"]
)
def test_a_cell_is_no_formula_and_comes_back_as_it_was(text):
    cell = to_cell(text)
    assert from_cell(cell) == text
    try:
        float(text)
        assert cell == text, "numbers stay numbers"
    except ValueError:
        assert not cell.startswith(STARTS)


def test_what_is_none_or_lacking_is_empty():
    file = io.StringIO(newline="")
    write_cells(file, ["a", "=b"], [{"a": None, "=b": -1.5}, {"c": 3}])
    assert file.getvalue() == "a,'=b\r\n,-1.5\r\n,\r\n"


@pytest.mark.parametrize("layout", ["nnunet", "paired"])
def test_formulas_in_a_dataset_are_text_in_every_table_made_from_it(dataset_folder, tmp_path, layout):
    folder = shutil.copytree(dataset_folder, tmp_path / "discs")
    record = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**record, "labels": {"background": 0, "=cmd|' /C calc'!A0": 1}}))
    dataset = open_dataset(folder)
    rows = [
        {**row, "text": "=1+1", "finding": "@x", "group": f"-{row['group']}x", "note": "+a"} for row in dataset.rows
    ]
    written = write_tables(folder, dataset.info, rows)
    assert [row["text"] for row in written.rows] == ["=1+1"] * 10
    assert [row["group"] for row in written.rows] == [row["group"] for row in rows]
    exported = export(Export(folder, tmp_path / "out", layout, folds=2)).folder
    tables = [folder / "metadata.csv", *exported.glob("*.csv")]
    assert len(tables) == (3 if layout == "paired" else 2)
    for path in tables:
        for cells in csv.reader(path.open(newline="", encoding="utf-8")):
            assert not [cell for cell in cells if cell.startswith(STARTS)], path.name


def test_a_file_called_like_a_formula_is_still_found(dataset_folder, tmp_path):
    folder = shutil.copytree(dataset_folder, tmp_path / "discs")
    (folder / "images" / "0.png").rename(folder / "=1+1.png")
    dataset = open_dataset(dataset_folder)
    rows = [{**dataset.rows[0], "file_name": "=1+1.png"}]
    sample = write_tables(folder, dataset.info, rows)[0]
    assert sample.name == "=1+1.png" and sample.image.shape[:2] == Image.open(folder / "=1+1.png").size


def test_tables_of_studies_come_back_too(tmp_path):
    write_table(tmp_path / "results.csv", [{"dataset": "=1+1", "dice": -0.5}, {"dataset": "b"}])
    assert read_table(tmp_path / "results.csv") == [{"dataset": "=1+1", "dice": "-0.5"}, {"dataset": "b", "dice": ""}]
    assert "'=1+1" in (tmp_path / "results.csv").read_text()
