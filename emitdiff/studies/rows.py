"""A study's results: one row a run in a CSV file, written whole as each run ends, so that a stopped study goes on."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from emitdiff.files import begin_record

RECORD = "study.json"
RESULTS = "results.csv"


def begin(out: Path, record: dict) -> Path:
    """The folder of a study with `record`, all that its rows depend on, saved in it.

    Raises:
        EmitDiffError: the folder cannot be made, or holds a study begun with another record.
    """
    begin_record(Path(out) / RECORD, record, out)
    return Path(out)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none where there is no file yet."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_table(path: Path, rows: list[dict]) -> None:
    """All rows with every column that occurs, at once or not at all."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), restval="")
        table.writeheader()
        table.writerows(rows)
    os.replace(partial, path)


def markdown_table(columns: list[str], rows: list[list[str]]) -> str:
    """A table in markdown, its columns padded so that it reads well as it is."""
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    lines = [columns, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
