"""The rows of metadata.csv: their columns, one spelling for each cell, and what is wrong with them.

Cells come out in Unicode's composed form (NFC), which most systems type, and paths with `/` between folders, so that a
name is the same on every machine.
"""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

from emitdiff.cells import from_cell
from emitdiff.datasets.names import clean_path, escapes_folder, find_file
from emitdiff.datasets.tables import read_table
from emitdiff.errors import EmitDiffError

REQUIRED_COLUMNS = ("file_name", "mask", "group")
PATH_COLUMNS = ("file_name", "mask")
MASK_COLUMN = "mask_file_name"  # as `mask` is called in files: Hugging Face `datasets` makes a picture of such a column
FIRST_COLUMNS = (*REQUIRED_COLUMNS, "finding", "text")
# the key of cells beyond the last column; an empty key is a column without a name, like pandas' index
EXTRA_CELLS = "\0"


def read_rows(folder: Path) -> dict[int, dict[str, str]]:
    """The rows of metadata.csv by column, unchecked, by the line each begins on. The column `mask_file_name` comes as
    `mask`.

    Raises:
        EmitDiffError: it is no table of images.
    """
    path = folder / "metadata.csv"
    if not path.is_file():
        raise EmitDiffError(
            f"'{folder}' has no metadata.csv with the columns {', '.join(map(_in_file, REQUIRED_COLUMNS))}."
        )
    spelt, rows = read_table(path, lambda names: set(REQUIRED_COLUMNS) <= set(_columns(names)))
    columns = _columns(list(map(from_cell, spelt)))
    if missing := [_in_file(column) for column in REQUIRED_COLUMNS if column not in columns]:
        raise EmitDiffError(f"'{path}' lacks the column(s) {', '.join(missing)}; it has: {', '.join(spelt)}.")
    if repeated := sorted({column for column in columns if columns.count(column) > 1}):
        raise EmitDiffError(
            f"'{path}' has the column '{repeated[0]}' twice ('mask' and '{MASK_COLUMN}' are the same one): keep one."
        )
    if not rows:
        raise EmitDiffError(f"'{path}' lists no images.")
    return {line: _as_row(columns, list(map(from_cell, cells))) for line, cells in rows.items()}


def _in_file(column: str) -> str:
    return MASK_COLUMN if column == "mask" else column


def _columns(names: list[str]) -> list[str]:
    """The names in the first line, `mask` by its short one."""
    columns = (normalize("NFC", name.strip()) for name in names)
    return ["mask" if column == MASK_COLUMN else column for column in columns]


def _as_row(columns: list[str], cells: list[str]) -> dict[str, str]:
    row = {column: normalize("NFC", cell) for column, cell in zip(columns, cells, strict=False)}
    row |= dict.fromkeys(columns[len(cells) :], "")
    row |= {column: clean_path(row[column]) for column in PATH_COLUMNS} | {"group": row["group"].strip()}
    if row.get("provenance", "").strip() and "source" in row:  # the file_name of a real image
        row["source"] = clean_path(row["source"])
    return row if len(cells) <= len(columns) else {**row, EXTRA_CELLS: "".join(cells[len(columns) :])}


def row_problems(row: dict[str, str]) -> list[str]:
    """What is wrong with a row by itself, before any file is looked at."""
    problems = ["it has more cells than columns"] if EXTRA_CELLS in row else []
    problems += [f"the cell '{column}' is empty" for column in REQUIRED_COLUMNS if not row[column].strip()]
    paths = (row[column] for column in PATH_COLUMNS)
    return problems + [f"the path '{path}' is outside the folder" for path in paths if escapes_folder(path)]


def repeated_images(folder: Path, rows: dict[int, dict[str, str]]) -> dict[int, int]:
    """The lines whose image an earlier line names already, with the first that does."""
    spellings: dict[str, set[str]] = {}
    for row in rows.values():
        spellings.setdefault(row["file_name"].casefold(), set()).add(row["file_name"])
    first: dict[str, int] = {}
    repeated = {}
    for line, row in rows.items():
        name = row["file_name"]
        if len(spellings[name.casefold()]) > 1:  # one file or several, as the file system takes capitals
            name = str(find_file(folder, name))
        if name and first.setdefault(name, line) != line:
            repeated[line] = first[name]
    return repeated
