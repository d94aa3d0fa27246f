"""A study's folder: one record, one table that is there whole or not at all, one page."""

from __future__ import annotations

import json

import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.studies.results_table import (
    RECORD,
    markdown_table,
    open_study,
    read_table,
    write_report,
    write_table,
)


def test_rows_come_back_as_text_with_every_column(tmp_path):
    path = tmp_path / "results.csv"
    assert read_table(path) == []
    write_table(path, [{"arm": "real, all", "dice": 0.5}, {"arm": "ours", "text": 'says "größer"'}])
    assert read_table(path) == [
        {"arm": "real, all", "dice": "0.5", "text": ""},
        {"arm": "ours", "dice": "", "text": 'says "größer"'},
    ]


def test_a_table_that_cannot_be_finished_leaves_the_one_before(tmp_path):
    class Unprintable:
        def __str__(self):
            raise KeyboardInterrupt

    path = tmp_path / "results.csv"
    write_table(path, [{"arm": "real"}])
    with pytest.raises(KeyboardInterrupt):
        write_table(path, [{"arm": "synthetic"}, {"arm": Unprintable()}])
    assert read_table(path) == [{"arm": "real"}]


def test_a_study_goes_on_only_as_it_was_started(tmp_path):
    out = tmp_path / "new" / "study"
    assert open_study(str(out), {"seeds": 3, "arms": ("real", "ours")}) == out
    assert json.loads((out / RECORD).read_text()) == {"seeds": 3, "arms": ["real", "ours"]}
    open_study(out, {"seeds": 3, "arms": ("real", "ours")})
    with pytest.raises(EmitDiffError, match="seeds 3, now 4"):
        open_study(out, {"seeds": 4, "arms": ("real", "ours")})
    assert json.loads((out / RECORD).read_text())["seeds"] == 3


def test_a_report_is_written_twice_and_printed(tmp_path, capsys):
    write_report(tmp_path, {"dice": 0.5}, "# Study\n", as_json=False)
    assert capsys.readouterr().out.strip() == "# Study"
    write_report(tmp_path, {"dice": 0.7}, "# Study\n", as_json=True)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"dice": 0.7}
    assert json.loads((tmp_path / "report.json").read_text()) == {"dice": 0.7}
    assert (tmp_path / "report.md").read_text() == "# Study\n"


def test_a_table_in_markdown_is_straight():
    lines = markdown_table(["arm", "Dice"], [["attention-unet", "0.5"], ["-", "0.71 [0.6, 0.8]"]]).splitlines()
    assert len({len(line) for line in lines}) == 1 and {line.count("|") for line in lines} == {3}
    assert set(lines[1]) == set("|- ") and lines[2].startswith("| attention-unet | 0.5 ")
    assert markdown_table(["arm"], []).splitlines() == ["| arm |", "| --- |"]
