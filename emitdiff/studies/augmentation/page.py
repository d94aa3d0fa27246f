"""The report of `study augmentation` as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emitdiff.files import write_text


@dataclass(frozen=True)
class Cell:
    """What a cell of a table says; `kind` is "good", "bad" or nothing, a colour."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Section:
    """A table with its heading, a line of facts above it and sentences below."""

    title: str
    facts: str
    rows: Sequence[Sequence[Cell]]
    verdicts: Sequence[str]


@dataclass(frozen=True)
class Page:
    """All that the page says; `chart` is a PNG."""

    title: str
    how: str
    notes: Sequence[str]
    columns: Sequence[str]
    sections: Sequence[Section]
    meaning: str
    chart: Path


def write_page(path: Path, page: Page) -> None:
    """The page as HTML with its chart in it; what is put into it is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("emitdiff.studies", "augmentation")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    chart = "data:image/png;base64," + base64.b64encode(page.chart.read_bytes()).decode()
    write_text(path, environment.get_template("page.html").render({**vars(page), "chart": chart}))
