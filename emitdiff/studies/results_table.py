"""A study's results: one row a run in a CSV file, written whole as each run ends, so that a stopped study goes on."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from emitdiff.cells import from_cell, write_cells
from emitdiff.datasets.fingerprint import HASHES, check_hashes
from emitdiff.datasets.folder import DatasetFolder
from emitdiff.files import begin_record, check_writable, write_atomically, write_text

RECORD = "study.json"
RESULTS = "results.csv"


def open_study(
    out: Path, record: dict, weights: Mapping[str, str] | None = None, datasets: Iterable[DatasetFolder] = ()
) -> Path:
    """The folder of a study with `record`, all that its rows depend on, saved in it; so are the sha256 of `weights`, by
    name, and of `datasets`.

    Raises:
        EmitDiffError: the folder cannot be made, or holds a study started with another record, other weights or images.
    """
    check_writable(out)
    begin_record(Path(out) / RECORD, record, out)
    check_hashes(Path(out) / HASHES, out, weights or {}, datasets)
    return Path(out)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none where there is no file yet."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {from_cell(name): from_cell(cell) for name, cell in row.items()} for row in csv.DictReader(file, restval="")
        ]


def write_table(path: Path, rows: list[dict]) -> None:
    """All rows with every column that occurs, at once or not at all."""

    def write(partial: Path) -> None:
        with partial.open("w", encoding="utf-8", newline="") as file:
            write_cells(file, list(dict.fromkeys(key for row in rows for key in row)), rows)

    write_atomically(path, write)


def write_report(out: Path, report: dict, page: str, as_json: bool) -> None:
    """Writes report.json and the `page`, report.md, into `out`; prints the page and, `as_json`, the report last."""
    write_text(out / "report.json", json.dumps(report, indent=1) + "\n")
    write_text(out / "report.md", page)
    print(page)
    if as_json:
        print(json.dumps(report))


def markdown_table(columns: list[str], rows: list[list[str]]) -> str:
    """A table in markdown, its columns padded so that it reads well as it is."""
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    lines = [columns, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
