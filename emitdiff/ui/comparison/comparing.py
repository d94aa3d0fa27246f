"""Fills a comparison grid: generates or segments with the settings of each cell and computes the metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.images import overlay, resize_image, resize_mask
from emitdiff.ui.comparison.axes import MAX_VALUES
from emitdiff.ui.comparison.grid import Cell, CellIndex, Grid
from emitdiff.ui.form import BLANK_FORM, check_request
from emitdiff.ui.interface import Callables
from emitdiff.ui.messages import duration, sentence
from emitdiff.ui.results import SegmentationOutput, SyntheticImage, is_image
from emitdiff.ui.views import picture_file

CELL_SIDE = 768  # pixels of the longer side that a cell keeps at most
SCORES = {"edges": "edge_f1", "MS-SSIM": "ms_ssim"}  # names beneath a cell, and in the answer of `quality`


@dataclass(frozen=True)
class ComparisonInput:
    """What all cells are made from: `image` uint8 (H, W, 3) and `mask`, class ids (H, W), either of them or neither.

    `cache` is the folder from which the page is served its pictures.
    """

    image: np.ndarray | None
    mask: np.ndarray | None
    name: str
    cache: Path


@dataclass(frozen=True)
class CellProgress:
    """How far a comparison is: the cell being made, and a line about it; `changed` when the table has news."""

    place: CellIndex
    text: str
    fraction: float
    changed: bool = False


def measures(task: str, given: ComparisonInput) -> tuple[str, ...]:
    """The names of what is measured in every cell."""
    if task == "Synthesis":
        return (*(SCORES if given.image is not None else ()), "time")
    return (*(("Dice",) if given.mask is not None else ()), "area", "presence")


def source_cell(given: ComparisonInput) -> Cell | None:
    """The image with the outline of its mask, or the mask alone."""
    if given.mask is None:
        return None if given.image is None else _cell(given.image, given.cache)
    image = np.zeros((*given.mask.shape, 3), np.uint8) if given.image is None else given.image
    return _cell(_outlined(image, given.mask, 0.0), given.cache)


def generate_cells(
    calls: Callables, grid: Grid, given: ComparisonInput, stopped: Callable[[], bool]
) -> Iterator[CellProgress]:
    """Generates one image for each cell; one that cannot be generated says why, and the next one comes."""
    places, done, first = grid.places(), 0, None
    steps = [int(grid.settings(place)["num_inference_steps"] or 1) for place in places]  # an empty field fails below
    for index, place in enumerate(places):
        before, words = sum(steps[:index]), f"Cell {index + 1} of {len(places)}"
        yield CellProgress(place, f"{words}: {grid.words(place)}", before / sum(steps), changed=True)
        try:
            request = check_request({**BLANK_FORM, **grid.settings(place), "num_images": 1})
            for event in calls.synthesize(given.image, given.mask, request, stopped):
                if is_image(event):
                    grid.cells[place] = _generated_cell(calls, event, given)
                    continue
                done, first = before + event.step, first or time.monotonic()
                left = _remaining(time.monotonic() - first, (done - 1) / (sum(steps) - 1) if done > 3 else 0.0)
                yield CellProgress(place, f"{words}, step {event.step} of {event.steps}{left}", done / sum(steps))
        except Exception as error:
            grid.cells[place] = Cell(None, "", message=sentence(error))
        if stopped():
            return


def _generated_cell(calls: Callables, result: SyntheticImage, given: ComparisonInput) -> Cell:
    measured, said = {"time": f"{result.seconds:.1f} s"}, ""
    if given.image is not None:
        try:
            scores = calls.quality(given.image, result.image)
            measured |= {name: f"{scores[key]:.2f}" for name, key in SCORES.items()}
        except Exception as error:
            said = sentence(error)
    return _cell(_fitted(result.image), given.cache, measured, said)


def segment_cells(
    calls: Callables, grid: Grid, given: ComparisonInput, files: dict[str, str], stopped: Callable[[], bool]
) -> Iterator[CellProgress]:
    """Asks for each cell; `files` are the heads among the weights, by name, and `given.mask` the truth, 0 and 1."""

    image = given.image
    if image is None:
        raise EmitDiffError("No image yet: choose an example or upload a file first.")

    @lru_cache(maxsize=MAX_VALUES)  # another threshold is no other question
    def answer(text: str, checkpoint: str) -> SegmentationOutput:
        return calls.segment(image, text, 0.5, files.get(checkpoint, checkpoint))

    places, started = grid.places(), time.monotonic()
    for index, place in enumerate(places):
        if stopped():
            return
        words, fraction = f"Cell {index + 1} of {len(places)}: {grid.words(place)}", index / len(places)
        yield CellProgress(place, words + _remaining(time.monotonic() - started, fraction), fraction, changed=True)
        settings = grid.settings(place)
        try:
            output = answer(settings["text"], settings["checkpoint"]).at(settings["threshold"])
            grid.cells[place] = _segmented_cell(calls, output, image, given)
        except Exception as error:
            grid.cells[place] = Cell(None, "", message=sentence(error))


def _segmented_cell(calls: Callables, output: SegmentationOutput, image: np.ndarray, given: ComparisonInput) -> Cell:
    if output.untaught:
        nearest = f" Nearest: {output.nearest}?" if output.nearest else ""
        return _cell(_fitted(image), given.cache, message=f"Not taught, not looked for.{nearest}")
    measured = {"area": f"{100 * float(np.mean(output.mask > 0)):.1f} %", "presence": f"{output.present:.2f}"}
    if given.mask is not None:
        measured["Dice"] = f"{calls.score(output.mask, given.mask)['dice']:.3f}"
    said = {"found": "", "unsure": "Unsure"}.get(output.answer, "Not present" if output.absent else "Not found")
    return _cell(_outlined(image, output.mask, 0.35, output.answer == "unsure"), given.cache, measured, said)


def _remaining(elapsed: float, fraction: float) -> str:
    return f", about {duration(elapsed / fraction * (1 - fraction))} left" if fraction else ""


def _cell(picture: np.ndarray, cache: Path, measured: dict[str, str] | None = None, message: str = "") -> Cell:
    return Cell(picture, picture_file(picture, cache), measured or {}, message)


def _fitted(image: np.ndarray) -> np.ndarray:
    """No side longer than `CELL_SIDE`."""
    return resize_image(image, _size(image.shape, min(1.0, CELL_SIDE / max(image.shape[:2]))))


def _outlined(image: np.ndarray, mask: np.ndarray, opacity: float, dashed: bool = False) -> np.ndarray:
    """The mask over the image, enlarged or shrunk to `CELL_SIDE` first, so that its outline is as fine everywhere."""
    size = _size(image.shape, CELL_SIDE / max(image.shape[:2]))
    return overlay(resize_image(image, size), resize_mask(mask, size), opacity, thickness=3, dashed=dashed)


def _size(shape: tuple[int, ...], scale: float) -> tuple[int, int]:
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
