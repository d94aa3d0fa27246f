"""A grid of results over one or two settings: its cells, which come one by one, and its table on the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from emitdiff.ui.comparison.axes import Axis

CellIndex = tuple[int, int]  # row, column


@dataclass(frozen=True)
class Cell:
    """One result: `picture` uint8 (H, W, 3) and the `file` that shows it, or neither and why in `message`."""

    picture: np.ndarray | None
    file: str
    measures: dict[str, str] = field(default_factory=dict)
    message: str = ""


@dataclass(eq=False)
class Grid:
    """`fixed` are the settings all cells share, by field; `across` and `down` the values of the two axes.

    Without `rows` there is one row. `measures` are the names of those every cell will have. `corner` is the image
    compared, with the outline of its mask, in the same form as a cell; None where nothing but words is given.
    """

    columns: Axis
    across: list[Any]
    rows: Axis | None
    down: list[Any]
    fixed: dict[str, Any]
    measures: tuple[str, ...] = ()
    corner: Cell | None = None
    cells: dict[CellIndex, Cell] = field(default_factory=dict)

    def places(self) -> list[CellIndex]:
        """Every cell in the order of the work: row by row, but with one set of weights after the other."""
        everywhere = [(row, column) for row in range(len(self.down)) for column in range(len(self.across))]
        weights = list(dict.fromkeys(self.settings(place).get("checkpoint") for place in everywhere))
        return sorted(everywhere, key=lambda place: weights.index(self.settings(place).get("checkpoint")))

    def settings(self, place: CellIndex) -> dict[str, Any]:
        """What the cell at `place` is made with."""
        row, column = place
        varied = {self.columns.field: self.across[column]}
        if self.rows is not None:
            varied[self.rows.field] = self.down[row]
        return {**self.fixed, **varied}

    def words(self, place: CellIndex) -> str:
        """ "Guidance 2, Steps 8"."""
        row, column = place
        parts = [f"{self.columns.name} {self.columns.show(self.across[column])}"]
        if self.rows is not None:
            parts.insert(0, f"{self.rows.name} {self.rows.show(self.down[row])}")
        return ", ".join(parts)

    @property
    def size(self) -> str:
        """ "3 x 2 = 6 cells"."""
        rows, columns = len(self.down), len(self.across)
        count = f"{rows * columns} cell{'s' if rows * columns > 1 else ''}"
        return count if self.rows is None else f"{columns} across, {rows} down: {count}"


def table(grid: Grid, being_made: CellIndex | None = None) -> str:
    """HTML of the grid as far as it is. Pictures are buttons that show themselves large.

    The page changes only what differs, so cells keep their places and pictures while others arrive.
    """
    varied = escape(grid.columns.name if grid.rows is None else f"{grid.columns.name} across, {grid.rows.name} down")
    heads = "".join(_head("col", grid.columns, value) for value in grid.across)
    rows = "".join(f"<tr>{''.join(_row(grid, row, being_made))}</tr>" for row in range(len(grid.down)))
    caption = f"<caption>{varied}</caption>"
    return (
        f'<div class="grid" role="region" aria-label="Comparison: {varied}" tabindex="0" '
        f'style="--across:{len(grid.across)}"><table>{caption}'
        f"<thead><tr><td>{_corner(grid.corner)}</td>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _head(scope: str, axis: Axis, value: Any) -> str:
    return f'<th scope="{scope}"><span>{escape(axis.name)}</span> {escape(axis.show(value))}</th>'


def _row(grid: Grid, row: int, being_made: CellIndex | None) -> Iterator[str]:
    yield '<th scope="row"></th>' if grid.rows is None else _head("row", grid.rows, grid.down[row])
    for column in range(len(grid.across)):
        place = (row, column)
        yield f"<td>{_cell(grid, place, place == being_made)}</td>"


def _cell(grid: Grid, place: CellIndex, being_made: bool) -> str:
    cell = grid.cells.get(place)
    shape = f'style="aspect-ratio:{_aspect(grid)}"'
    below = _measures(grid, cell)
    if cell is None:
        moving = '<div class="bar"><span class="moving"></span></div>' if being_made else ""
        return f'<div class="tile" {shape}>{moving}</div>{below}'
    said = f'<p class="said">{escape(cell.message)}</p>' if cell.message else ""
    if cell.picture is None:
        return f'<div class="tile" {shape}>{said}</div>{below}'
    words = grid.words(place)
    told = [f"{name} {cell.measures[name]}" for name in grid.measures if name in cell.measures]
    large = ". ".join([words, *([cell.message.rstrip(".")] if cell.message else []), ", ".join(told)]) + "."
    return _enlargeable(f"cell-{place[0]}-{place[1]}", cell.file, words, large, shape, said) + below


def _measures(grid: Grid, cell: Cell | None) -> str:
    """The names stand there before their values, so that nothing moves when these come."""
    known = cell.measures if cell else {}
    spans = " ".join(f"<span>{escape(name)} <b>{escape(known.get(name, '-'))}</b></span>" for name in grid.measures)
    return f'<p class="measures">{spans}</p>'


def _corner(cell: Cell | None) -> str:
    if cell is None or cell.picture is None:
        return ""
    words = "Source image, with the outline of its mask if given"
    return _enlargeable("cell-source", cell.file, words, words, f'style="aspect-ratio:{aspect(cell.picture)}"', "")


def _enlargeable(name: str, file: str, words: str, large: str, shape: str, said: str) -> str:
    """A picture that is a button, and the same picture large, the words `large` beneath it, in a layer above the page
    until Escape or a click."""
    source, words = escape(f"gradio_api/file={file}", quote=True), escape(words, quote=True)
    return (
        f'<button class="tile" {shape} popovertarget="{name}" aria-label="Enlarge: {words}">'
        f'<img src="{source}" alt="{words}">{said}</button>'
        f'<div id="{name}" class="enlarged" popover><button popovertarget="{name}" aria-label="Close: {words}">'
        f'<img src="{source}" alt="" loading="lazy"></button><p>{escape(large)}</p></div>'
    )


def _aspect(grid: Grid) -> str:
    """The shape of every tile: that of the image compared, or of the first result, before either a square."""
    known = [cell.picture for cell in (grid.corner, *grid.cells.values()) if cell and cell.picture is not None]
    return aspect(known[0]) if known else "1"


def aspect(picture: np.ndarray) -> str:
    """Width / height in CSS, of a strip no longer than 3 : 1."""
    return f"{min(max(picture.shape[1] / picture.shape[0], 1 / 3), 3):.4g}"
