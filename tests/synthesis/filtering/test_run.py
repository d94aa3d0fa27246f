"""A small real set and images "generated" from it by a program: good ones, and one of each kind of bad ones."""

from __future__ import annotations

import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from emitdiff.datasets.folder import DatasetInfo, Sample, open_dataset
from emitdiff.datasets.writing import write_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.progress import Progress
from emitdiff.provenance import read_synthetic_settings, save_synthetic_png
from emitdiff.synthesis.filtering import report, run
from emitdiff.synthesis.filtering.run import filter_images
from emitdiff.synthesis.filtering.scoring import Filter, follows_all_edges

INFO = DatasetInfo("shapes", "CT", "abdomen", {"background": 0, "liver": 1})
SIDE = 128


def draw(anatomy: int, texture: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright disc (the label) among darker ones, at places that follow from `anatomy`; greys from `texture`."""
    places, greys = np.random.default_rng(anatomy), np.random.default_rng(1000 + texture)
    grey, mask = np.full((SIDE, SIDE), 40, np.float32), np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(6):
        centre, radius = tuple(places.integers(8, SIDE - 8, 2).tolist()), int(places.integers(8, 18))
        cv2.circle(grey, centre, radius, float(greys.uniform(75, 125)), -1)
    cv2.circle(mask, tuple(places.integers(45, SIDE - 45, 2).tolist()), 20, 1, -1)
    shade = cv2.resize(greys.normal(0, 18, (5, 5)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    grey = np.where(mask > 0, 200, grey + shade) + greys.normal(0, 3, grey.shape)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=-1), mask


def find_bright(sample: Sample) -> list[tuple[np.ndarray, np.ndarray]]:
    """A segmenter of sorts: the label is what is bright."""
    return [(sample.image[..., 0] > 165, sample.mask == 1)]


def painted(name: str, anatomy: int, texture: int, **row: str) -> Sample:
    image, mask = draw(anatomy, texture)
    row = {"source": f"images/{anatomy}.png", "provenance": "trainedAlgorithmicMedia", "structure": "1", **row}
    return Sample(image, mask, "", f"case-{anatomy}", "", f"images/{name}.png", row)


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "shapes"
    samples = (Sample(*draw(n, n), "", f"case-{n}", "", f"images/{n}.png", {}) for n in range(8))
    return write_dataset(folder, INFO, samples).folder


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory) -> Path:
    good = [painted(f"good_{n}", n, 50 + n) for n in range(4)]
    copy = replace(good[0], image=(draw(6, 6)[0][:, ::-1] * 0.8).astype(np.uint8), name="images/copy.png")
    shifted = painted("shifted", 4, 61)
    shifted = replace(shifted, mask=np.roll(shifted.mask, 30, axis=1))
    brighter = painted("brighter", 5, 62)
    brighter = replace(brighter, image=np.clip(brighter.image.astype(int) + 50, 0, 255).astype(np.uint8))
    twin = replace(good[1], image=np.clip(good[1].image.astype(int) + 2, 0, 255).astype(np.uint8))
    twin = replace(twin, name="images/twin.png")
    sister = painted("sister", 1, 77)
    other = painted("other_anatomy", 7, 63)
    other = replace(other, image=np.rot90(other.image).copy(), mask=np.rot90(other.mask).copy())
    folder = tmp_path_factory.mktemp("synthetic") / "painted"
    return write_dataset(folder, INFO, [*good, copy, shifted, brighter, twin, sister, other]).folder


@pytest.fixture(scope="module")
def filtered(synthetic, real, tmp_path_factory):
    out = tmp_path_factory.mktemp("filtered") / "out"
    filter_images(Filter(synthetic, real, out), find_bright)
    with (out / "quality.csv").open(newline="") as file:
        rows = {Path(row["file_name"]).stem: row for row in csv.DictReader(file)}
    return out, rows


@pytest.mark.parametrize(
    ("name", "score", "reason"),
    [
        ("copy", "copy", "copies images/6.png, mirrored"),
        ("shifted", "dice", "segmenter's Dice"),
        ("brighter", "histogram", "histogram differs by"),
        ("twin", "duplicate", "duplicates images/good_1.png"),
        ("other_anatomy", "edges", "Edge F1"),
    ],
)
def test_what_is_bad_is_dropped_for_the_right_reason(filtered, name, score, reason):
    row = filtered[1][name]
    assert row["kept"] == "no" and score in row["failed"].split() and reason in row["reason"]


def test_names_are_understood_however_another_system_spells_them(synthetic, real, tmp_path, filtered):
    """Both tables with backslashes, as Windows writes them."""
    for source in (synthetic, real):
        shutil.copytree(source, tmp_path / source.name)
        table = tmp_path / source.name / "metadata.csv"
        head, *rows = table.read_text(encoding="utf-8").splitlines()
        rows = [row.replace("images/", "images\\").replace("masks/", "masks\\") for row in rows]
        table.write_text("\n".join([head, *rows]), encoding="utf-8")
    kept = filter_images(Filter(tmp_path / synthetic.name, tmp_path / real.name, tmp_path / "out"), find_bright)
    assert kept.rows == open_dataset(filtered[0]).rows


def test_what_is_good_is_kept_and_its_scores_go_along(filtered):
    out, rows = filtered
    kept = open_dataset(out)
    names = {Path(row["file_name"]).stem for row in kept.rows}
    assert names == {"good_0", "good_1", "good_2", "good_3", "sister"}
    assert names == {name for name, row in rows.items() if row["kept"] == "yes"}
    for row in kept.rows:
        assert float(row["score_edges"]) > 0.6 and float(row["score_copy"]) < 0.96 and row["source"]
    assert kept[0].mask.any() and rows["sister"]["score_duplicate"] and not rows["good_0"]["score_duplicate"]


def test_the_worst_come_first(filtered):
    margins = [float(row["margin"]) for row in filtered[1].values()]
    assert margins == sorted(margins) and margins[0] < 0 < margins[-1]


def test_files_are_copied_with_their_metadata_and_real_rows_go_along(real, tmp_path):
    one = painted("synthetic_good", 0, 50)
    folder = write_dataset(
        tmp_path / "painted", INFO, [one, Sample(*draw(9, 9), "", "case-9", "", "nine.png", {})]
    ).folder
    save_synthetic_png(one.image, folder / "images" / "synthetic_good.png", {"seed": 5})
    kept = filter_images(Filter(folder, real, tmp_path / "out"))
    assert [row["file_name"] for row in kept.rows] == ["images/synthetic_good.png", "images/nine.png"]
    assert read_synthetic_settings(tmp_path / "out" / "images" / "synthetic_good.png")["seed"] == 5
    assert kept.rows[0]["score_dice"] == "" and kept.rows[1]["score_copy"] == ""


def test_without_anything_good_there_is_a_report_and_no_dataset(synthetic, real, tmp_path):
    out = tmp_path / "out"
    assert filter_images(Filter(synthetic, real, out, min_edges=1.0), find_bright) is None
    assert "<strong>0</strong> of 10" in (out / "report.html").read_text(encoding="utf-8")
    assert (out / "quality.csv").exists() and not (out / "metadata.csv").exists()


@pytest.mark.parametrize("name", ["report.html", "images/mine.png", "augment.json", "metadata.csv"])
def test_beside_other_files_nothing_is_written(name, synthetic, real, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(EmitDiffError, match=f"contains other files: {name}. Give another folder"):
        filter_images(Filter(synthetic, real, tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]
    assert (tmp_path / name).read_text() == "mine"


def test_after_nothing_was_kept_the_folder_may_be_given_again(synthetic, real, tmp_path):
    out = tmp_path / "out"
    assert filter_images(Filter(synthetic, real, out, min_edges=1.0), find_bright) is None
    (out / "notes.txt").write_text("mine")
    with pytest.raises(EmitDiffError, match="contains other files: notes.txt"):
        filter_images(Filter(synthetic, real, out), find_bright)
    (out / "notes.txt").unlink()
    assert len(filter_images(Filter(synthetic, real, out), find_bright)) == 5
    with pytest.raises(EmitDiffError, match="contains other files: dataset.json, metadata.csv, quality.csv and 11"):
        filter_images(Filter(synthetic, real, out), find_bright)


def test_stopped_while_it_copies_it_ends_as_if_never_stopped(filtered, synthetic, real, tmp_path, monkeypatch):
    def files(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(run, "write_tables", stopped)
        filter_images(Filter(synthetic, real, tmp_path, max_copy=1.0, max_duplicate=1.0))  # keeps more
    assert (tmp_path / "images" / "twin.png").exists() and not (tmp_path / "metadata.csv").exists()
    filter_images(Filter(synthetic, real, tmp_path), find_bright)
    assert files(tmp_path) == files(filtered[0])


def test_a_segmenter_that_fails_on_the_source_is_no_segmenter(synthetic, real, tmp_path):
    def blind(sample: Sample):
        return [(np.zeros(sample.mask.shape, bool), sample.mask == 1)]

    filter_images(Filter(synthetic, real, tmp_path / "out"), blind)
    with (tmp_path / "out" / "quality.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["score_dice_share"] for row in rows} == {""} and {row["score_dice_source"] for row in rows} == {
        "0.0000"
    }
    assert not any("dice" in row["failed"] for row in rows)


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({}, True),
        ({"structure": "1", "edit": ""}, True),
        ({"structure": "0.7"}, False),
        ({"edit": '{"move_x": 0.0, "scale": 1.0, "seed": 3}'}, True),
        ({"edit": '{"move_x": 0.1}'}, False),
        ({"edit": "moved by hand"}, False),
    ],
)
def test_edges_count_only_where_all_of_them_were_asked_for(row, asked):
    assert follows_all_edges(row) is asked


def test_the_page_needs_nothing_else_and_shows_every_image_in_order(filtered):
    out, rows = filtered
    page = (out / "report.html").read_text(encoding="utf-8")
    assert (
        not re.search(r'(src|href)="(?!data:image/webp;base64,)', page) and "url(" not in page and "@import" not in page
    )
    assert re.findall(r'class="name" title="images/(\w+)\.png"', page) == list(rows)
    assert page.count('<article class="dropped"') == 5 and page.count('<article class="kept"') == 5
    assert "mirrored" in page and page.count('class="failed"') == sum(
        len(row["failed"].split()) for row in rows.values()
    )
    assert rows["brighter"]["reason"].replace("'", "&#39;") in page


def test_names_from_a_table_cannot_break_the_page(real, tmp_path):
    one = painted("good", 0, 50, prompt='<script>alert("x")</script>')
    folder = write_dataset(tmp_path / "painted", INFO, [one]).folder
    filter_images(Filter(folder, real, tmp_path / "out"))
    assert "<script" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_long_report_says_what_it_leaves_out():
    assert report.choose_shown(200) == list(range(200))
    shown = report.choose_shown(1000)
    assert len(shown) == len(set(shown)) == 200 and shown[:150] == list(range(150)) and shown[-1] == 999
    assert "shows 200 of them" in report._left_out(200, 1000)


def test_folders_and_thresholds_that_cannot_be_used(synthetic, real, tmp_path):
    with pytest.raises(EmitDiffError, match="one of the input folders"):
        filter_images(Filter(synthetic, real, real))
    with pytest.raises(EmitDiffError, match="threshold for copy was 1.5"):
        filter_images(Filter(synthetic, real, tmp_path / "out", max_copy=1.5))
    with pytest.raises(EmitDiffError, match="has no synthetic images"):
        filter_images(Filter(real, synthetic, tmp_path / "out"))
    stranger = shutil.copytree(real, tmp_path / "stranger")
    lines = (stranger / "metadata.csv").read_text().splitlines()
    (stranger / "metadata.csv").write_text(
        "\n".join([lines[0], *(line for line in lines if "/0.png" not in line)][:-1])
    )
    with pytest.raises(EmitDiffError, match="which is not in"):
        filter_images(Filter(synthetic, open_dataset(stranger).folder, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(EmitDiffError, match="cannot be made"):
        filter_images(Filter(synthetic, real, tmp_path / "file"))


def test_the_charts_count_exactly_what_fails(filtered):
    page, rows = (filtered[0] / "report.html").read_text(encoding="utf-8"), filtered[1].values()
    charts = dict(re.findall(r'<div class="chart"><h2>(.+?) <small>(.+?)</small>', page))
    for name, title in report.TITLES.items():
        count = sum(name in row["failed"].split() for row in rows)
        assert charts[title] == (f"{count} fail" if count else "none fail")
    bars = page.split("Duplicate <small>")[1].split("</svg>")[0]
    assert bars.count('class="bad"') == 1, "a bar that holds the threshold is red only for what fails"


def test_whoever_watches_hears_how_far_the_scoring_is_and_may_end_it(synthetic, real, tmp_path):
    told = []
    watch = Progress(lambda done, total: told.append((done, total)), lambda: len(told) == 3)
    assert filter_images(Filter(synthetic, real, tmp_path / "out"), progress=watch) is None
    assert told == [(0, 10), (1, 10), (2, 10)] and not list((tmp_path / "out").iterdir())
