"""A comparison as one picture to keep: every cell with its settings and measures, and what the images are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emitdiff.images import resize_image
from emitdiff.provenance import save_synthetic_png
from emitdiff.ui.comparison.grid import Grid

INK, FAINT, GROUND = (24, 28, 32), (96, 104, 112), (255, 255, 255)
TILE = 300  # pixels of a tile's longer side
GAP, MARGIN, LABELS = 14, 28, 170
LINE = {13: 18, 15: 21, 20: 28}  # height of a line of text, by its size
FOOTER = "Research use only. Not a medical device."


def save_figure(grid: Grid, title: str, synthetic: bool, path: Path) -> Path:
    """Writes the figure as a PNG and returns its path; one of `synthetic` images says so, also in its metadata."""
    made = "Synthetic images made by a generative model. " if synthetic else ""
    picture = draw_figure(grid, title, made + FOOTER)
    if synthetic:
        varied = {axis.field: values for axis, values in ((grid.columns, grid.across), (grid.rows, grid.down)) if axis}
        return save_synthetic_png(picture, path, {**grid.fixed, "comparison": varied})
    Image.fromarray(picture).save(path, format="PNG")
    return path


def draw_figure(grid: Grid, title: str, footer: str) -> np.ndarray:
    """uint8 (H, W, 3): `title` above, the settings of columns and rows at the edges, `footer` below."""
    width, height = _tile_size(grid)
    left = LABELS if grid.rows is not None or grid.corner is not None else 0
    across = left + len(grid.across) * (width + GAP) - GAP
    heads = [_wrapped(f"{grid.columns.name} {grid.columns.show(value)}", width, 15) for value in grid.across]
    above = _wrapped(title, across, 20)
    beneath = max((len(_below(grid, place, width)) for place in grid.places()), default=1)
    row_height = height + 6 + beneath * LINE[13] + GAP
    top = MARGIN + len(above) * LINE[20] + GAP
    source = grid.corner.picture if grid.corner is not None else None
    corner = None if source is None else _scaled(source, LABELS - GAP)
    head_height = max(max(map(len, heads)) * LINE[15] + 8, 0 if corner is None else corner.shape[0] + GAP)
    size = (2 * MARGIN + across, top + head_height + len(grid.down) * row_height + LINE[13] + MARGIN)
    sheet = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(sheet)
    _write(draw, MARGIN, MARGIN, above, 20)
    if corner is not None:
        sheet.paste(Image.fromarray(corner), (MARGIN, top))
    for column, head in enumerate(heads):
        bottom = top + head_height - 8 - len(head) * LINE[15]
        _write(draw, MARGIN + left + column * (width + GAP), bottom, head, 15)
    for row, value in enumerate(grid.down):
        y = top + head_height + row * row_height
        if grid.rows is not None:
            _write(draw, MARGIN, y, _wrapped(f"{grid.rows.name} {grid.rows.show(value)}", LABELS - GAP, 15), 15)
        for column in range(len(grid.across)):
            _paste_cell(sheet, draw, grid, (row, column), (MARGIN + left + column * (width + GAP), y), (width, height))
    _write(draw, MARGIN, size[1] - MARGIN - LINE[13] // 2, [footer], 13, FAINT)
    return np.asarray(sheet)


def _paste_cell(sheet: Image.Image, draw: ImageDraw.ImageDraw, grid: Grid, place, at, size) -> None:
    """The picture of the cell at `place`, or an empty box, with its lines beneath."""
    (x, y), (width, height) = at, size
    cell = grid.cells.get(place)
    draw.rectangle([x, y, x + width - 1, y + height - 1], fill=(0, 0, 0) if cell and cell.picture is not None else
                   (236, 238, 240))  # fmt: skip
    if cell is not None and cell.picture is not None:
        tile = _scaled(cell.picture, width, height)
        sheet.paste(Image.fromarray(tile), (x + (width - tile.shape[1]) // 2, y + (height - tile.shape[0]) // 2))
    _write(draw, x, y + height + 6, _below(grid, place, width), 13, FAINT)


def _below(grid: Grid, place, width: int) -> list[str]:
    """The lines beneath a cell: what was said of it, and its measures."""
    cell = grid.cells.get(place)
    if cell is None:
        return ["not made"]
    measures = "   ".join(f"{name} {cell.measures[name]}" for name in grid.measures if name in cell.measures)
    return [line for text in (cell.message, measures) if text for line in _wrapped(text, width, 13)]


def _tile_size(grid: Grid) -> tuple[int, int]:
    """(width, height) of every tile: the shape of the first picture there is, with `TILE` as its longer side."""
    known = [cell.picture for cell in (grid.corner, *grid.cells.values()) if cell and cell.picture is not None]
    height, width = known[0].shape[:2] if known else (1, 1)
    return max(TILE // 3, round(TILE * width / max(height, width))), round(TILE * height / max(height, width))


def _scaled(picture: np.ndarray, width: int, height: int | None = None) -> np.ndarray:
    """uint8 (h, w, 3) fitted into the width, and the height where one is given."""
    scale = min(width / picture.shape[1], height / picture.shape[0] if height else np.inf)
    return resize_image(picture, (max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale))))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _wrapped(text: str, width: float, size: int) -> list[str]:
    """Lines of words no longer than `width` pixels; a single word may be."""
    font, lines = _font(size), list[str]()
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _write(draw: ImageDraw.ImageDraw, x: float, y: float, lines: list[str], size: int, colour=INK) -> None:
    for index, line in enumerate(lines):
        draw.text((x, y + index * LINE[size]), line, colour, _font(size))
