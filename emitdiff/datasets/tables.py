"""The tables and records of datasets, which may come from anyone: bounded while they are read, before they fill memory.

A compressed table of a few kilobytes can unpack to millions of cells, and each takes some hundred bytes once it is a
Python object. So not only the bytes of a file count, but its rows, its columns and their product.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from emitdiff.errors import EmitDiffError

MAX_TABLE_BYTES = 32 * 2**20
MAX_COLUMNS = 256
MAX_ROWS = 200_000
MAX_CELLS = 2_000_000  # rows times columns: 170 MiB of short texts
MAX_ROW_LETTERS = 2**20  # of one row, however many lines it spans
MAX_RECORD_BYTES = 2**20  # of a JSON file, which grows some thirty times when it is read


def read_table(path: Path, extra_cells: str) -> tuple[list[str], list[dict[str, str]]]:
    """(the columns, the rows by column) of a CSV file in UTF-8; cells that a row lacks are "", those beyond the last
    column a list under the key `extra_cells`.

    Raises:
        EmitDiffError: the file is larger than the limits, or no such table.
    """
    _check_bytes(path, MAX_TABLE_BYTES)
    rows: list[dict[str, str]] = []
    cells = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = _Lines(file, path)
            reader = csv.DictReader(lines, restkey=extra_cells, restval="")
            columns = list(reader.fieldnames or [])
            if len(columns) > MAX_COLUMNS:
                raise EmitDiffError(f"'{path}' has {len(columns):,} columns; the limit is {MAX_COLUMNS}.")
            for row in reader:
                lines.letters = 0
                cells += len(columns) + len(row.get(extra_cells, ()))
                if len(rows) == MAX_ROWS or cells > MAX_CELLS:
                    raise EmitDiffError(
                        f"'{path}' is too large: the limits are {MAX_ROWS:,} rows and {MAX_CELLS:,} cells, and it has "
                        f"{len(columns)} columns. Remove columns, or divide the dataset."
                    )
                rows.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise EmitDiffError(f"'{path}' is not a CSV file in UTF-8: {error}.") from None
    return columns, rows


def read_record(path: Path) -> Any:
    """What a JSON file holds. Raises EmitDiffError where it is too large, nested too deeply, or no JSON."""
    _check_bytes(path, MAX_RECORD_BYTES)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise EmitDiffError(f"'{path}' is nested too deeply: give a plain record.") from None
    except (OSError, ValueError) as error:
        raise EmitDiffError(f"'{path}' is not valid JSON: {error}.") from None


def _check_bytes(path: Path, limit: int) -> None:
    if (size := path.stat().st_size) > limit:
        raise EmitDiffError(
            f"'{path}' has {size / 2**20:,.1f} MiB; the limit is {limit / 2**20:.0f} MiB. Remove what is not needed."
        )


class _Lines(Iterator[str]):
    """The lines of a file; whoever has read a whole row sets `letters` back to 0."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self.file, self.path, self.letters = file, path, 0

    def __next__(self) -> str:
        line = self.file.readline(MAX_ROW_LETTERS + 1 - self.letters)
        self.letters += len(line)
        if self.letters > MAX_ROW_LETTERS:
            raise EmitDiffError(f"'{self.path}' has a row of more than {MAX_ROW_LETTERS:,} letters: is it a table?")
        if not line:
            raise StopIteration
        return line
