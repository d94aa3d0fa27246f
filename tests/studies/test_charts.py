import numpy as np
from PIL import Image

from emitdiff.images import PALETTE
from emitdiff.studies.charts import Bar, Point, bar_charts, heat_map, line_charts, ramp


def test_a_heat_map_shows_each_value_in_its_colour(tmp_path):
    heat_map(tmp_path / "map.png", [[0.2, 0.8], [0.5, None]], ["0", "1"], ["20", "50"], "discs", "timestep")
    seen = {tuple(colour) for colour in np.asarray(Image.open(tmp_path / "map.png")).reshape(-1, 3)}
    assert {ramp(0), ramp(0.5), ramp(1)} <= seen and not (tmp_path / "map.partial").exists()


def test_values_that_are_all_alike_can_be_drawn(tmp_path):
    heat_map(tmp_path / "map.png", [[0.4]], ["0"], ["20"], "discs", "timestep")
    line_charts(tmp_path / "lines.png", {"discs": {"unet": [Point(5, 0.4, 0.4, 0.4)]}}, "images", "Dice")
    assert all(Image.open(tmp_path / name).size[0] > 100 for name in ("map.png", "lines.png"))


def test_one_panel_a_dataset_one_colour_a_line(tmp_path):
    lines = {name: [Point(5, mean, mean - 0.05, mean + 0.05), Point(10, mean + 0.1, mean, mean + 0.2)]
             for name, mean in (("ours", 0.6), ("unet", 0.4))}  # fmt: skip
    line_charts(tmp_path / "one.png", {"a": lines}, "labelled images", "Dice")
    line_charts(tmp_path / "four.png", dict.fromkeys("abcd", lines), "labelled images", "Dice")
    one, four = (np.asarray(Image.open(tmp_path / name)) for name in ("one.png", "four.png"))
    assert four.shape[0] > 1.5 * one.shape[0] and four.shape[1] > 2 * one.shape[1]
    for colour in PALETTE[:2]:
        assert (one == colour).all(axis=2).any()


def test_bars_of_one_name_have_one_colour_and_an_interval(tmp_path):
    bars = {"none": Bar(0.5, 0.4, 0.6), "painted": Bar(0.6, 0.5, 0.7)}
    bar_charts(
        tmp_path / "bars.png", {"a": {"10": bars, "20": {"painted": bars["painted"]}}}, "labelled images", "Dice"
    )
    drawn = np.asarray(Image.open(tmp_path / "bars.png"))
    first, second = ((drawn == colour).all(axis=2) for colour in PALETTE[:2])
    assert second.sum() > 1.5 * first.sum() > 0
    bar_charts(tmp_path / "two.png", {"a": {"10": bars}, "b": {"10": bars}}, "labelled images", "Dice")
    assert Image.open(tmp_path / "two.png").size[1] > 1.5 * drawn.shape[0]
