"""Tables and names as other programs and systems write them: found, or refused with what to do."""

from __future__ import annotations

import csv
import shutil
import unicodedata
from pathlib import Path

import pytest
from dataset_files import edit_rows, kinds, set_cell

from emitdiff.datasets.check import check_dataset
from emitdiff.datasets.export import Export, export
from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.names import find_file
from emitdiff.errors import EmitDiffError

ACCENTED = "Läsion é 病变.png"


@pytest.fixture
def table(folder) -> Path:
    return folder / "metadata.csv"


def rewrite(table: Path, separator: str = ",", end: str = "\n", encoding: str = "utf-8", before: str = "") -> None:
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    with table.open("w", encoding=encoding, newline="") as file:
        file.write(before)
        csv.writer(file, delimiter=separator, lineterminator=end).writerows(rows)


@pytest.mark.parametrize(
    "form",
    [
        {"separator": ";", "end": "\r\n", "encoding": "utf-8-sig"},  # a spreadsheet where numbers have decimal commas
        {"separator": ";", "before": "sep=;\r\n"},
        {"separator": "\t", "end": "\r\n", "encoding": "utf-16"},  # "Unicode text"
        {"end": "\r"},
        {"before": "\n,,\n"},
    ],
)
def test_every_spreadsheet_s_table_is_read(folder, table, form):
    before = open_dataset(folder).rows
    rewrite(table, **form)
    assert open_dataset(folder).rows == before and check_dataset(folder).ok


@pytest.mark.parametrize("column", ["mask", "mask_file_name", " mask "])
def test_the_mask_s_column_has_a_short_and_a_long_name(folder, table, column):
    table.write_text(table.read_text().replace("mask_file_name", column, 1))
    assert open_dataset(folder).rows[0]["mask"] == "masks/case_000.png" and check_dataset(folder).ok


def test_lines_are_those_of_the_file(folder, table):
    first, *others = table.read_text().splitlines()
    table.write_text("\n".join([first, others[0], "", ",,,", others[1].replace("patient 0", " ")]))
    with pytest.raises(EmitDiffError, match="line 5: the cell 'group' is empty"):
        open_dataset(folder)


def rename(folder: Path, name: str) -> None:
    (folder / "images" / "case_000.png").rename(folder / "images" / name)


@pytest.mark.parametrize(
    ("on_disk", "in_table"),
    [
        (unicodedata.normalize("NFD", ACCENTED), f"images/{ACCENTED}"),
        (ACCENTED, f"images/{unicodedata.normalize('NFD', ACCENTED)}"),
        ("a b.png", "images\\a b.png"),
        ("a.png", ".\\images\\\\a.png"),
        ("Case 1.PNG", " Images/case 1.png "),
    ],
)
def test_a_file_is_found_however_another_system_spells_it(folder, tmp_path, on_disk, in_table):
    rename(folder, on_disk)
    set_cell(folder, 0, "file_name", in_table)
    assert check_dataset(folder).ok and open_dataset(folder)[0].image.shape == (24, 32, 3)
    written = export(Export(folder, tmp_path / "out", "paired", folds=0))
    assert written.images == 8 == len(list((written.folder / "image").iterdir()))


def test_backslashes_that_became_part_of_a_name_are_understood(folder):
    (folder / "images" / "case_000.png").rename(folder / "images\\case_000.png")
    assert find_file(folder, "images/case_000.png") == folder / "images\\case_000.png"


def test_a_name_that_may_be_two_files_is_refused(folder):
    shutil.copy(folder / "images/case_000.png", folder / "images/CASE_000.png")
    set_cell(folder, 0, "file_name", "images/Case_000.png")
    with pytest.raises(EmitDiffError, match="may be 'CASE_000.png' or 'case_000.png': spell it"):
        open_dataset(folder)[0]
    assert "spell it" in str(check_dataset(folder))


def test_two_masks_of_one_image_are_refused(folder, tmp_path):
    edit_rows(folder, lambda rows: [*rows, {**rows[0], "file_name": "images\\case_000.png", "mask": rows[2]["mask"]}])
    sentence = "lines 2 and 10 name the same image, images/case_000.png.*one file, with an id for each class"
    with pytest.raises(EmitDiffError, match=sentence):
        open_dataset(folder)
    with pytest.raises(EmitDiffError, match=sentence):
        export(Export(folder, tmp_path / "out", "coco", folds=0))
    assert kinds(folder) == {"duplicate": 1} and "lines 2 and 10" in str(check_dataset(folder))


def test_capitals_tell_images_apart_only_where_there_are_two_files(folder):
    edit_rows(folder, lambda rows: [*rows, {**rows[0], "file_name": "images/CASE_000.png"}])
    with pytest.raises(EmitDiffError, match="lines 2 and 10 name the same image"):
        open_dataset(folder)
    shutil.copy(folder / "images/case_001.webp", folder / "images/CASE_000.png")
    assert len(open_dataset(folder)) == 9


def test_groups_are_the_same_however_their_letters_are_composed(folder):
    edit_rows(folder, lambda rows: [{**row, "group": ("Mu\u0308ller", "M\u00fcller ")[place % 2]}
                                    for place, row in enumerate(rows)])  # fmt: skip
    assert set(open_dataset(folder).groups) == {"M\u00fcller"} and check_dataset(folder).num_groups == 1


@pytest.mark.parametrize("other", ["Patient 0", "patient  0", "patient\u200b 0"])
def test_groups_that_look_alike_are_a_defect(folder, other):
    set_cell(folder, 0, "group", other)
    assert kinds(folder) == {"similar groups": 1}
