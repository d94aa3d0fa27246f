"""The two charts the studies need, drawn with Pillow: a heat map, and lines with their spread."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emitdiff.images import PALETTE

SCALE = 4  # drawn so many times larger, then halved: smooth edges, and twice the nominal size
INK, FAINT = (30, 30, 30), (218, 218, 218)
# Dark violet to yellow, of rising lightness, so that the order also holds in grey.
RAMP = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], float)
CELL = (64, 30)
PANEL = (300, 220)


@dataclass(frozen=True)
class Point:
    """A mean at `x`, and how far its spread reaches below and above."""

    x: float
    mean: float
    low: float
    high: float


class Canvas:
    """A white picture with nominal coordinates in pixels from the upper left."""

    def __init__(self, width: float, height: float) -> None:
        self.picture = Image.new("RGB", (math.ceil(width) * SCALE, math.ceil(height) * SCALE), "white")
        self.draw = ImageDraw.Draw(self.picture, "RGBA")

    def text(self, x: float, y: float, words: str, anchor: str = "lm", size: int = 12, colour=INK) -> None:
        """`anchor` as in Pillow: l, m, r and a, m, s."""
        font = ImageFont.load_default(size=size * SCALE)
        self.draw.text((x * SCALE, y * SCALE), words, colour, font, anchor)

    def box(self, left: float, top: float, right: float, bottom: float, colour) -> None:
        """A filled rectangle."""
        self.draw.rectangle([left * SCALE, top * SCALE, right * SCALE - 1, bottom * SCALE - 1], colour)

    def line(self, points: Sequence[tuple[float, float]], colour=INK, width: float = 1) -> None:
        """Straight pieces through `points`."""
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self.draw.line(scaled, tuple(colour), round(width * SCALE), joint="curve")

    def area(self, points: Sequence[tuple[float, float]], colour, opacity: int) -> None:
        """A filled polygon, see-through: `opacity` of 255."""
        self.draw.polygon([(x * SCALE, y * SCALE) for x, y in points], (*colour, opacity))

    def dot(self, x: float, y: float, colour, radius: float = 3) -> None:
        """A filled disc."""
        reach = [(x - radius) * SCALE, (y - radius) * SCALE, (x + radius) * SCALE, (y + radius) * SCALE]
        self.draw.ellipse(reach, tuple(colour))

    def save(self, path: Path) -> None:
        """As PNG, whole or not at all."""
        half = (self.picture.width * 2 // SCALE, self.picture.height * 2 // SCALE)
        partial = path.with_suffix(".partial")
        self.picture.resize(half, Image.Resampling.LANCZOS).save(partial, "PNG")
        os.replace(partial, path)


def text_width(words: str, size: int = 12) -> float:
    """Nominal pixels that a text takes."""
    return ImageFont.load_default(size=size * SCALE).getlength(words) / SCALE


def ramp(share: float) -> tuple[int, int, int]:
    """The colour of 0..1."""
    place = min(max(share, 0), 1) * (len(RAMP) - 1)
    below = min(int(place), len(RAMP) - 2)
    return tuple(np.rint(RAMP[below] + (place - below) * (RAMP[below + 1] - RAMP[below])).astype(int).tolist())


def heat_map(path: Path, values: Sequence[Sequence[float | None]], rows: Sequence[str], columns: Sequence[str],
             title: str, across: str) -> None:  # fmt: skip
    """A PNG of `values` (one list a row, None is left blank) with names beside and above them; `across` says what the
    columns are. The colours reach from the least to the greatest value."""
    known = [value for line in values for value in line if value is not None]
    low, reach = min(known, default=0), max(max(known, default=1) - min(known, default=0), 1e-9)
    left = 24 + max(text_width(name) for name in rows)
    canvas = Canvas(max(left + CELL[0] * len(columns) + 16, text_width(title, 15) + 32), 86 + CELL[1] * len(rows))
    canvas.text(16, 22, title, size=15)
    canvas.text(left, 48, across, colour=(90, 90, 90))
    for column, name in enumerate(columns):
        canvas.text(left + (column + 0.5) * CELL[0], 66, name, "mm")
    for row, line in enumerate(values):
        top = 78 + row * CELL[1]
        canvas.text(left - 8, top + CELL[1] / 2, rows[row], "rm")
        for column, value in enumerate(line):
            if value is None:
                continue
            share, x = (value - low) / reach, left + column * CELL[0]
            canvas.box(x, top, x + CELL[0], top + CELL[1], ramp(share))
            ink = INK if share > 0.55 else (255, 255, 255)
            canvas.text(x + CELL[0] / 2, top + CELL[1] / 2, f"{value:.3f}", "mm", 12, ink)
    canvas.save(path)


def line_charts(path: Path, panels: dict[str, dict[str, list[Point]]], across: str, up: str) -> None:
    """A PNG with one panel a dataset, in it one line a name with its spread shaded; `across` and `up` name the axes.

    `x` is spaced logarithmically, its ticks are the values that occur; a name has one colour in all panels.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    colours = {name: tuple(PALETTE[index % len(PALETTE)].tolist()) for index, name in enumerate(names)}
    across_count = min(3, len(panels))
    width, height = PANEL[0] + 76, PANEL[1] + 84
    legend = [text_width(name) + 44 for name in names]
    down = math.ceil(len(panels) / across_count)
    canvas = Canvas(max(width * across_count + 16, sum(legend) + 32), height * down + 44)
    x: float = 20
    for name, reach in zip(names, legend, strict=True):
        canvas.line([(x, 20), (x + 18, 20)], colours[name], 2.5)
        canvas.text(x + 24, 20, name)
        x += reach
    for index, (title, lines) in enumerate(panels.items()):
        corner = (56 + index % across_count * width, 76 + index // across_count * height)
        _panel(canvas, corner, title, lines, colours, (across, up))
    canvas.save(path)


def _panel(canvas: Canvas, corner: tuple[float, float], title: str, lines: dict[str, list[Point]], colours: dict,
           axes: tuple[str, str]) -> None:  # fmt: skip
    points = [point for line in lines.values() for point in line]
    ticks = sorted({point.x for point in points})
    low = math.floor(20 * min(point.low for point in points)) / 20
    high = max(math.ceil(20 * max(point.high for point in points)) / 20, low + 0.05)
    start, reach = math.log(ticks[0]), math.log(ticks[-1] / ticks[0]) or 1

    def place(x: float, y: float) -> tuple[float, float]:
        share = 0.5 if len(ticks) == 1 else 0.04 + 0.92 * (math.log(x) - start) / reach
        return corner[0] + share * PANEL[0], corner[1] + PANEL[1] * (1 - (y - low) / (high - low))

    canvas.text(corner[0], corner[1] - 26, title, size=14)
    canvas.text(corner[0], corner[1] - 10, axes[1], size=11, colour=(90, 90, 90))
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 1) if (high - low) / step <= 7)
    for tick in np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step:
        y = place(ticks[0], tick)[1]
        canvas.line([(corner[0], y), (corner[0] + PANEL[0], y)], FAINT)
        canvas.text(corner[0] - 6, y, f"{tick:.2f}", "rm", 11)
    for tick in ticks:
        canvas.text(place(tick, low)[0], corner[1] + PANEL[1] + 12, f"{tick:g}", "mm", 11)
    canvas.text(corner[0] + PANEL[0] / 2, corner[1] + PANEL[1] + 28, axes[0], "mm", 11, (90, 90, 90))
    for name, line in lines.items():
        line = sorted(line, key=lambda point: point.x)
        edge = [place(point.x, point.high) for point in line] + [place(point.x, point.low) for point in line[::-1]]
        if len(line) > 1:
            canvas.area(edge, colours[name], 46)
        else:
            canvas.line(edge, colours[name], 1.5)
    for name, line in lines.items():
        centres = [place(point.x, point.mean) for point in sorted(line, key=lambda point: point.x)]
        canvas.line(centres, colours[name], 2)
        for centre in centres:
            canvas.dot(*centre, colours[name])
