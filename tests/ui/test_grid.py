"""Lists of values, the grid they make, its table and its figure."""

from __future__ import annotations

import re

import numpy as np
import pytest
from fakes import fake_callables
from PIL import Image

from emitdiff.errors import EmitDiffError
from emitdiff.provenance import read_synthetic_settings
from emitdiff.ui.comparison.axes import NO_TEXT, segmentation_axes, synthesis_axes
from emitdiff.ui.comparison.figure import draw_figure, save_figure
from emitdiff.ui.comparison.grid import Cell, Grid, aspect, table

CALLS = fake_callables()
AXES = synthesis_axes(CALLS, {model.name: model for model in CALLS.models() if model.kind == "synthesis"})


def grid_of(across=(1, 2), down=(0, 7), **fixed):
    corner = Cell(np.full((40, 60, 3), 90, np.uint8), "/cache/source/image.png")
    return Grid(AXES["Guidance"], list(across), AXES["Seed"], list(down), fixed, ("edges", "time"), corner)


def test_lists_are_read_with_commas_or_lines():
    assert AXES["Steps"].read("4, 8,\n16;") == [4, 8, 16]
    assert AXES["Guidance"].read("1.5") == [1.5]
    assert AXES["Prompt"].read("X-ray, chest\n\n CT, abdomen ") == ["X-ray, chest", "CT, abdomen"]
    assert AXES["Edge detector"].read("canny, soft") == ["canny", "soft"]
    text = segmentation_axes(("textdiff-mini", "disc"), "disc")["Text"]
    assert text.read(f"the left, upper lung\n{NO_TEXT}") == ["the left, upper lung", ""]
    assert text.show("") == NO_TEXT


@pytest.mark.parametrize(
    ("axis", "typed", "words"),
    [
        ("Steps", "", "has no values yet"),
        ("Steps", "1,2,3,4,5,6,7", "7 values; the maximum is 6"),
        ("Steps", "4.5", "enter whole numbers from 1 to 200"),
        ("Guidance", "1, much", "cannot be “much”"),
        ("Guidance", "nan", "from 0 to 30"),
        ("Structure", "1, 1.0", "has 1 twice"),
        ("Structure", "2", "from 0 to 1"),
        ("Edge detector", "sobel", "choose from soft, canny, hed"),
        ("Weights", "mini", "choose from emitdiff-mini, sd15-canny"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(axis, typed, words):
    with pytest.raises(EmitDiffError, match=re.escape(words)):
        AXES[axis].read(typed)


def test_axes_begin_with_lists_that_can_be_used():
    for axis in AXES.values():
        assert axis.sentences or axis.read(axis.default_text)
    assert AXES["Weights"].default_text == "emitdiff-mini", "weights that are not on this machine would be fetched"


def test_every_cell_has_its_settings():
    grid = grid_of(prompt="CT", seed=3)
    assert grid.settings((1, 0)) == {"prompt": "CT", "guidance_scale": 1, "seed": 7}
    assert grid.words((1, 0)) == "Seed 7, Guidance 1" and grid.size == "2 across, 2 down: 4 cells"
    assert grid.places() == [(0, 0), (0, 1), (1, 0), (1, 1)]
    one_row = Grid(AXES["Seed"], [1, 2, 3], None, [None], {})
    assert one_row.places() == [(0, 0), (0, 1), (0, 2)] and one_row.size == "3 cells"


def test_weights_are_loaded_one_after_the_other():
    grid = Grid(AXES["Weights"], ["a", "b"], AXES["Seed"], [0, 1], {})
    assert grid.places() == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_the_table_keeps_its_shape_while_cells_come():
    grid = grid_of()
    empty = table(grid, being_made=(0, 1))
    assert empty.count("<td>") == 5 and empty.count('class="moving"') == 1 and empty.count("aspect-ratio:1.5") == 5
    grid.cells[0, 0] = Cell(np.zeros((40, 60, 3), np.uint8), '/cache/"x"/image.png', {"edges": "0.90", "time": "1 s"})
    grid.cells[1, 1] = Cell(None, "", message="No <weights> here.")
    html = table(grid)
    assert html.count("<td>") == 5 and html.count("edges <b>-</b>") == 3 and "edges <b>0.90</b>" in html
    assert "No &lt;weights&gt; here." in html and 'file=/cache/"' not in html
    assert html.count("Enlarge: Seed 0, Guidance 1") == 1 and html.count('id="cell-0-0"') == 1
    for scope in ('scope="col"', 'scope="row"'):
        assert html.count(scope) == 2


def test_strips_do_not_make_endless_tiles():
    assert aspect(np.zeros((10, 1000, 3))) == "3" and aspect(np.zeros((1000, 10, 3))) == "0.3333"


def test_the_figure_holds_every_cell_and_says_what_it_is(tmp_path):
    grid = grid_of(prompt="CT", checkpoint="emitdiff-mini")
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = 255
    blank = draw_figure(grid, "Synthesis of a scan", "")
    grid.cells = {place: Cell(red, "", {"edges": "0.90", "time": "1.2 s"}) for place in grid.places()}
    path = save_figure(grid, "Synthesis of a scan", True, tmp_path / "synthetic_comparison_scan.png")
    picture = np.asarray(Image.open(path))
    assert ((picture == (255, 0, 0)).all(-1)).sum() == 4 * 300 * 200
    assert (picture[-40:] < 128).any(), "the line on research use"
    assert blank.shape == picture.shape
    settings = read_synthetic_settings(path)
    assert settings["comparison"] == {"guidance_scale": [1, 2], "seed": [0, 7]} and settings["checkpoint"]


def test_a_figure_without_rows_and_without_an_image(tmp_path):
    grid = Grid(AXES["Seed"], [0], None, [None], {}, ("time",))
    grid.cells[0, 0] = Cell(None, "", message="It failed. " * 20)
    path = save_figure(grid, "a title that is much longer than one tile is wide " * 3, False, tmp_path / "figure.png")
    assert "emitdiff" not in Image.open(path).text and Image.open(path).width < 400
