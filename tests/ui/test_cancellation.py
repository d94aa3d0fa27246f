from __future__ import annotations

from types import SimpleNamespace

import pytest

from emitdiff.ui.cancellation import Cancellation

MINE, OTHER = SimpleNamespace(session_hash="mine"), SimpleNamespace(session_hash="other")


@pytest.fixture
def runs():
    runs = Cancellation()
    runs.begin(MINE)
    runs.begin(OTHER)
    return runs


def test_stop_reaches_what_still_waits_and_nobody_else(runs):
    runs.cancel(MINE)
    assert runs.event(MINE).is_set(), "asked for only once it begins"
    assert not runs.event(OTHER).is_set() and runs.running(OTHER)


def test_a_stop_of_the_last_run_does_not_stop_the_next(runs):
    runs.cancel(MINE)
    runs.end(MINE)
    runs.begin(MINE)
    assert not runs.event(MINE).is_set()


def test_who_closes_the_page_stops_what_runs_there(runs):
    event = runs.event(MINE)
    assert not event.is_set()
    runs.end(MINE)
    assert event.is_set() and not runs.running(MINE) and not runs.event(OTHER).is_set()


def test_a_session_that_began_nothing_stops_nothing():
    runs = Cancellation()
    runs.cancel(MINE)
    runs.end(MINE)
    assert not runs.running(MINE) and not runs.event(MINE).is_set()


def test_ended_sessions_leave_nothing_behind(runs):
    for session in (MINE, OTHER):
        runs.end(session)
    assert not runs._events
