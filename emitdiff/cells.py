"""Cells of CSV files that a spreadsheet may open: text stays text, and never becomes a formula."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

# What spreadsheets take for the beginning of a formula, also in its full-width forms, which some make plain.
FORMULA = re.compile(r"'*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def to_cell(value: Any) -> str:
    """A value for a cell; an apostrophe before what would be a formula says that it is text, numbers stay as they are.
    `from_cell` gives it back."""
    text = "" if value is None else str(value)
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def from_cell(cell: str) -> str:
    """What `to_cell` was given."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def write_cells(file: TextIO, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A table into a file opened with newline="": the names of the columns, then a line for each row; what a row lacks
    is empty, what is in no column left out."""
    table = csv.writer(file)
    table.writerow(map(to_cell, columns))
    table.writerows([to_cell(row.get(column)) for column in columns] for row in rows)
