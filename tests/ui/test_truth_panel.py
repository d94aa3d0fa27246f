"""The true mask and the scores, called as Gradio calls them."""

from __future__ import annotations

import csv
from dataclasses import replace

import cv2
import gradio as gr
import nibabel
import numpy as np
import pytest
from fakes import fake_callables, scan_that_saves

from emitdiff.ui.finding import Finding, Volume
from emitdiff.ui.segmentation.truth_panel import COLUMNS, Truth, TruthPanel


@pytest.fixture(scope="module")
def panel():
    panel = TruthPanel(fake_callables())
    with gr.Blocks():
        panel.lay_out_input()
        panel.lay_out_scores()
    return panel


@pytest.fixture
def finding(example):
    scan = scan_that_saves(example.image)
    output = fake_callables().segment(scan.image(0), "lung", 0.5, "textdiff-mini")
    return Finding(scan, scan.image(0), 0, output, "lung", 0.5, "textdiff-mini")


def rows_of(updates, panel):
    with open(updates[panel.csv]["value"], newline="") as file:
        return list(csv.DictReader(file))


def written(tmp_path, classes):
    cv2.imwrite(str(tmp_path / "truth.png"), classes)
    return str(tmp_path / "truth.png")


def test_a_true_mask_gives_the_figures_and_a_file(panel, finding, tmp_path):
    taken = panel.take(written(tmp_path, finding.output.mask * 255), finding.scan, 1)
    assert not taken[panel.label]["visible"]
    updates = panel.compare(finding, taken[panel.truth], 0)
    assert updates[panel.figures].count("1.000") == 2 and "HD95, px" in updates[panel.figures]
    (row,) = rows_of(updates, panel)
    assert tuple(row) == COLUMNS and (row["text"], row["dice"], row["hd95"]) == ("lung", "1.0", "0.0")
    assert row["notice"].startswith("research use only")


def test_each_class_has_a_line_and_the_one_that_fits_best_is_meant(panel, finding, tmp_path):
    classes = finding.output.mask * 2
    classes[:10, :10] = 1
    taken = panel.take(written(tmp_path, classes), finding.scan, 1)
    assert [value for _, value in taken[panel.label]["choices"]] == [0, 1, 2]
    updates = panel.compare(finding, taken[panel.truth], 0)
    assert "class 2 (best match)" in updates[panel.figures] and updates[panel.table].count("<tr") == 3
    chosen = panel.compare(finding, taken[panel.truth], 1)
    assert "class 1</p>" in chosen[panel.figures] and "0.000" in chosen[panel.figures]


def test_without_the_text_is_scored_too(panel, finding):
    empty = replace(finding.output, mask=np.zeros_like(finding.output.mask))
    updates = panel.compare(replace(finding, without=empty), Truth(finding.output.mask[None]), 0)
    assert "without the text" in updates[panel.table]
    assert [(row["text"], row["dice"]) for row in rows_of(updates, panel)] == [("lung", "1.0"), ("", "0.0")]


def test_an_empty_truth_is_said_to_be_empty_beside_its_scores(panel, finding, tmp_path):
    taken = panel.take(written(tmp_path, np.zeros_like(finding.output.mask)), finding.scan, 1)
    updates = panel.compare(finding, taken[panel.truth], 0)
    assert "The reference mask is empty" in taken[panel.note] and updates[panel.note] == taken[panel.note]


def test_a_truth_of_another_size_is_named_beside_it(panel, finding, tmp_path):
    taken = panel.take(written(tmp_path, np.zeros((10, 12), np.uint8)), finding.scan, 1)
    assert "truth.png" in taken[panel.note] and taken[panel.truth] is None
    assert "before its reference mask" in panel.take(written(tmp_path, finding.output.mask), None, 1)[panel.note]


@pytest.fixture
def volume(tmp_path):
    """What was found in four slices of 1 x 0.5 mm, 2 mm apart: a block in the last two."""
    values = np.zeros((30, 20, 4), np.float32)
    values[8:24, 4:16, 2:] = 200
    nibabel.save(nibabel.Nifti1Image(values, np.diag([0.5, 1, 2, 1])), tmp_path / "scan.nii.gz")
    scan = scan_that_saves(tmp_path / "scan.nii.gz")
    whole = Volume(scan, None, "lung", "textdiff-mini")
    for index in range(4):
        output = fake_callables().segment(scan.image(index), "lung", 0.5, "textdiff-mini")
        block = (scan.image(index)[..., 0] > 100).astype(np.float32)
        whole.add(index, replace(output, probability=block))
    yield whole
    whole.remove()


def test_a_volume_is_scored_as_one_body_in_millimetres(panel, volume, tmp_path):
    scan = volume.scan
    there = volume.masks(0.5).copy()
    there[1] = there[2]  # one slice more: 2 mm
    truth = panel.take(str(scan.save_mask(there, tmp_path)), scan, 1)[panel.truth]
    updates = panel.compare(volume.finding(1, scan.image(1), 0.5), truth, 0)
    assert "all slices" in updates[panel.table] and "HD95, mm" in updates[panel.figures]
    rows = rows_of(updates, panel)
    assert [row["slice"] for row in rows] == ["all", "2", "3", "4"]
    assert [row["dice"] for row in rows] == ["0.8", "0.0", "1.0", "1.0"]
    assert rows[0]["hd95"] == "2.0" and rows[0]["hd95_unit"] == "mm" and rows[1]["hd95"] == ""


def test_a_truth_of_one_slice_is_not_taken_for_another(panel, volume, tmp_path):
    scan = volume.scan
    truth = panel.take(written(tmp_path, volume.masks(0.5)[2]), scan, 3)[panel.truth]
    assert truth.index == 2
    assert "1.000" in panel.compare(volume.finding(2, scan.image(2), 0.5), truth, 0)[panel.figures]
    elsewhere = panel.compare(volume.finding(1, scan.image(1), 0.5), truth, 0)
    assert "to slice 3" in elsewhere[panel.note] and not elsewhere[panel.csv]["interactive"]
