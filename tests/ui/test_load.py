"""The measurement of waits, on the page with fakes."""

from __future__ import annotations

from benchmarks.load import Waits, draw_dataset, measure, percentiles
from emitdiff.datasets.archive import unpack_dataset
from emitdiff.datasets.check import check_dataset


def test_everybodys_waits_are_told(served):
    waits = measure(served, 6, 1)
    assert not waits.errors and set(waits.seconds) == {"/evaluate", "/synthesize", "/segment"}
    assert len(waits.seconds["/segment"]) >= 4
    assert any(line.startswith("/segment") and "p95" in line for line in waits.lines())


def test_what_fails_is_told(served, monkeypatch):
    monkeypatch.setattr("benchmarks.load.long_work", lambda archive: [("/segment", {"image": None, "text": ""})])
    waits = measure(served, 1, 0)
    assert len(waits.errors) == 1 and "image is missing" in "\n".join(waits.lines())


def test_the_percentiles_of_few_waits_lie_between_them():
    assert percentiles([2.0]) == (2.0, 2.0)
    assert percentiles([float(number) for number in range(101)]) == (50.0, 95.0)
    assert list(Waits().lines()) == ["errors                  0"]


def test_the_drawn_dataset_is_one_without_defects(tmp_path):
    folder = unpack_dataset(draw_dataset(tmp_path, 3), tmp_path / "there")
    report = check_dataset(folder)
    assert report.num_images == 3 and not report.defects
