"""Sentences on the page: what is shown is escaped, and nothing of the server is told."""

from __future__ import annotations

import logging
import re

import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.ui import messages

TAG = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize(
    "html",
    [
        messages.note(TAG),
        messages.notes([TAG, TAG]),
        messages.progress(TAG, 0.5),
        messages.finished(TAG),
        messages.figures({TAG: TAG}, TAG),
    ],
)
def test_what_somebody_else_wrote_is_text_and_no_tag(html):
    assert "<img" not in html and "&lt;img" in html


def test_only_errors_interrupt_a_screen_reader():
    for say in (messages.note, messages.finished):
        assert 'role="alert"' in say("No.", "error")
        assert 'role="alert"' not in say("No.", "warning") + say("No.")
    assert messages.note("") == messages.notes(["", ""]) == ""


@pytest.mark.parametrize(("fraction", "percent"), [(0.0, 0), (0.256, 26), (1.0, 100), (1.7, 100), (-1, 0)])
def test_a_bar_is_as_long_as_it_says(fraction, percent):
    html = messages.progress("Generating", fraction)
    assert f'aria-valuenow="{percent}"' in html and f"width:{percent}%" in html


def test_a_bar_whose_end_is_not_known_moves_and_claims_nothing():
    html = messages.progress("Waiting", None)
    assert "aria-valuenow" not in html and not re.search(r"width:\d", html) and "moving" in html


def test_errors_for_users_are_told_and_others_go_to_the_log(caplog):
    assert messages.sentence(EmitDiffError("Give a number above 0.")) == "Give a number above 0."
    assert not caplog.records
    with caplog.at_level(logging.ERROR):
        said = messages.sentence(ValueError("/home/someone/secret is broken"))
    assert "ValueError" in said and "secret" not in said and "secret" in caplog.text


@pytest.mark.parametrize(
    ("seconds", "said"), [(-2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (80, "1 min 20 s"), (3700, "61 min 40 s")]
)
def test_durations_are_read_aloud(seconds, said):
    assert messages.duration(seconds) == said
