"""The tables and records of datasets, which may come from anyone: bounded while they are read, before they fill memory.

A compressed table of a few kilobytes can unpack to millions of cells, and each takes some hundred bytes once it is a
Python object. So not only the bytes of a file count, but its rows, its columns and their product.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from emitdiff.errors import EmitDiffError

MAX_TABLE_BYTES = 32 * 2**20
MAX_COLUMNS = 256
MAX_ROWS = 200_000
MAX_CELLS = 2_000_000  # rows times columns: 170 MiB of short texts
MAX_ROW_LETTERS = 2**20  # of one row, however many lines it spans
SEPARATORS = ",;\t"
BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")  # UTF-16, as spreadsheets write "Unicode text"
MAX_RECORD_BYTES = 2**20  # of a JSON file, which grows some thirty times when it is read


def read_table(path: Path, suits: Callable[[list[str]], bool] = bool) -> tuple[list[str], dict[int, list[str]]]:
    """(the columns, the cells of each row by the line it begins on) of a CSV file in UTF-8 or, with its mark, UTF-16.

    Of comma, semicolon and tabulator, that one separates whose columns `suits` is true for; none, and it is the comma.
    Rows without anything in them are left out.

    Raises:
        EmitDiffError: the file is larger than the limits, or no such table.
    """
    _check_bytes(path, MAX_TABLE_BYTES)
    try:
        fitting = (separator for separator in SEPARATORS if suits(next(_rows(path, separator), (0, []))[1]))
        table = _rows(path, next(fitting, SEPARATORS[0]))
        _, columns = next(table, (0, []))
        if len(columns) > MAX_COLUMNS:
            raise EmitDiffError(f"'{path}' has {len(columns):,} columns; the limit is {MAX_COLUMNS}.")
        return columns, _bounded(path, table, len(columns))
    except (UnicodeError, csv.Error) as error:
        raise EmitDiffError(
            f"'{path}' is not a CSV file in UTF-8: {error}. Save it as such (in a spreadsheet: 'CSV UTF-8')."
        ) from None


def _bounded(path: Path, table: Iterable[tuple[int, list[str]]], width: int) -> dict[int, list[str]]:
    """The rows, as long as they are within the limits; `width` is the number of columns."""
    rows: dict[int, list[str]] = {}
    count = 0
    for line, cells in table:
        count += max(width, len(cells))
        if len(rows) == MAX_ROWS or count > MAX_CELLS:
            raise EmitDiffError(
                f"'{path}' is too large: the limits are {MAX_ROWS:,} rows and {MAX_CELLS:,} cells, and it has "
                f"{width} columns. Remove columns, or divide the dataset."
            )
        rows[line] = cells
    return rows


def _rows(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of every row that has any, after the line it begins on."""
    with path.open("rb") as file:
        encoding = "utf-16" if file.read(2) in BYTE_ORDER_MARKS else "utf-8-sig"
    with path.open(encoding=encoding, newline="") as text:
        lines = _Lines(text, path)
        reader, begin = csv.reader(lines, delimiter=separator), 1
        for cells in reader:
            line, begin, lines.letters = begin, reader.line_num + 1, 0
            said = [cell for cell in cells if cell.strip()]
            if said and not (line == 1 and said[0].lower().startswith("sep=")):  # a spreadsheet's note of its separator
                yield line, cells


def read_record(path: Path) -> Any:
    """What a JSON file holds. Raises EmitDiffError where it is too large, nested too deeply, no JSON, or says something
    twice."""
    _check_bytes(path, MAX_RECORD_BYTES)
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_without_repeats)  # of bytes, it finds the encoding
    except RecursionError:
        raise EmitDiffError(f"'{path}' is nested too deeply: give a plain record.") from None
    except (OSError, ValueError) as error:
        raise EmitDiffError(f"'{path}' is not valid JSON: {error}.") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f'it says "{next(key for key in keys if keys.count(key) > 1)}" twice')
    return content


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
        if "\0" in line:
            raise csv.Error("it holds bytes of value 0")
        return line
