"""The charts the studies need, drawn with matplotlib: a heat map, lines with their spread, bars with intervals."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from emitdiff.files import write_atomically
from emitdiff.images import PALETTE

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160
CELL = (0.75, 0.36)  # inches, as all sizes here
PANEL = (4.2, 3.2)
BAR = 0.22
GREY, FAINT = "0.35", "0.86"


@dataclass(frozen=True)
class Point:
    """A mean at `x`, and how far its spread reaches below and above."""

    x: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Bar:
    """A mean, and where its interval begins and ends."""

    mean: float
    low: float
    high: float


def ramp(share: float) -> tuple[int, int, int]:
    """The colour of 0..1, of rising lightness, so that the order also holds in grey."""
    from matplotlib import colormaps

    red, green, blue, _ = colormaps["viridis"](float(share), bytes=True)
    return int(red), int(green), int(blue)


def heat_map(path: Path, values: Sequence[Sequence[float | None]], rows: Sequence[str], columns: Sequence[str],
             title: str, across: str) -> None:  # fmt: skip
    """A PNG of `values` (one list a row, None is left blank) with names beside and above them; `across` says what the
    columns are. The colours reach from the least to the greatest value."""
    from matplotlib.figure import Figure

    table = np.array(values, float)
    figure = Figure((CELL[0] * len(columns), CELL[1] * len(rows)), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))  # names and title stand outside it, and what is saved grows to hold them
    known = table[~np.isnan(table)]
    shares = (table - known.min(initial=np.inf)) / max(np.ptp(known) if known.size else 0, 1e-9)
    axes.imshow(shares.round(6), cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="none")
    for (row, column), share in np.ndenumerate(shares):
        if not np.isnan(share):
            ink = "black" if share > 0.55 else "white"
            axes.text(column, row, f"{table[row, column]:.3f}", ha="center", va="center", color=ink, fontsize=9)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(across, color=GREY, loc="left")
    axes.set_title(title, loc="left", pad=10)
    axes.spines[:].set_visible(False)
    _save(figure, path)


def line_charts(path: Path, panels: dict[str, dict[str, list[Point]]], across: str, up: str) -> None:
    """A PNG with one panel a dataset, in it one line a name with its spread shaded; `across` and `up` name the axes.

    `x` is spaced logarithmically, its ticks are the values that occur; a name has one colour in all panels.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    colours = {name: PALETTE[index % len(PALETTE)] / 255 for index, name in enumerate(names)}
    beside = min(3, len(panels))
    down = -(-len(panels) // beside)
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure((PANEL[0] * beside, PANEL[1] * down), dpi=DPI, layout=layout)
    places = figure.subplots(down, beside, squeeze=False).ravel()
    for axes, (title, lines) in zip(places, panels.items(), strict=False):
        _panel(axes, title, lines, colours)
        axes.set_xlabel(across, color=GREY)
        axes.set_ylabel(up, color=GREY)
    for axes in places[len(panels) :]:
        axes.remove()
    handles = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    figure.legend([handles[name] for name in names], names, loc="outside upper left", ncols=2 * beside, frameon=False)
    _save(figure, path)


def _panel(axes: Axes, title: str, lines: dict[str, list[Point]], colours: dict[str, np.ndarray]) -> None:
    from matplotlib.ticker import NullLocator

    for name, points in lines.items():
        line = sorted(points, key=lambda point: point.x)
        x, mean, low, high = zip(*((point.x, point.mean, point.low, point.high) for point in line), strict=True)
        axes.fill_between(x, low, high, color=colours[name], alpha=0.18, linewidth=0)
        if len(line) == 1:
            axes.vlines(x, low, high, color=colours[name], linewidth=1.5)
        axes.plot(x, mean, color=colours[name], marker="o", markersize=5, linewidth=2, label=name)
    ticks = sorted({point.x for points in lines.values() for point in points})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:.2f}")
    axes.grid(axis="y", color=FAINT)
    axes.set_axisbelow(True)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(title, loc="left")


def bar_charts(path: Path, panels: dict[str, dict[str, dict[str, Bar]]], across: str, up: str) -> None:
    """A PNG with one panel a row, in it a cluster of bars for each key (`across` says what keys are), their intervals
    as lines; a name has one colour in all panels."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    names = list(dict.fromkeys(name for keys in panels.values() for bars in keys.values() for name in bars))
    clusters = max(map(len, panels.values()))
    size = (max(6.0, 1.6 + BAR * clusters * (len(names) + 1)), PANEL[1] * len(panels))
    figure = Figure(size, dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    handles: dict[str, Artist] = {}
    for axes, (title, keys) in zip(figure.subplots(len(panels), 1, squeeze=False).ravel(), panels.items(), strict=True):
        for index, name in enumerate(names):
            found = [(place, own[name]) for place, own in enumerate(keys.values()) if name in own]
            if not found:
                continue
            x = [place + (index - (len(names) - 1) / 2) / (len(names) + 1) for place, _ in found]
            mean, low, high = zip(*((bar.mean, bar.low, bar.high) for _, bar in found), strict=True)
            colour = PALETTE[index % len(PALETTE)] / 255
            bars = axes.bar(x, mean, width=0.9 / (len(names) + 1), color=colour)
            handles.setdefault(name, bars.patches[0])
            axes.vlines(x, low, high, color="black", linewidth=1)
        axes.set_xticks(range(len(keys)), list(keys))
        axes.set_xlabel(across, color=GREY)
        axes.set_ylabel(up, color=GREY)
        axes.set_title(title, loc="left")
        axes.grid(axis="y", color=FAINT)
        axes.set_axisbelow(True)
        axes.spines[["left", "top", "right"]].set_visible(False)
        axes.tick_params(length=0)
    figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=5, frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """As PNG, whole or not at all."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight", pad_inches=0.15)
    write_atomically(path, lambda partial: Image.open(drawn).convert("RGB").save(partial, "PNG"))
