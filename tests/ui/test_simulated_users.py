"""Many users at once: the page on fakes, and whether the simulation would notice that answers are mixed up."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import fake_callables, segment

from benchmarks.application import application
from benchmarks.simulated_users import Report, list_requests, simulate
from emitdiff.ui.demo import build_demo, launch_settings


def test_everybody_gets_an_own_answer(served):
    requests = [request for request in list_requests() if request.endpoint != "/synthesize"][::3]
    report = simulate(served, 6, 3, requests)
    assert report.answered, "\n".join(report.lines())
    assert sum(report.answers.values()) >= 6


def test_answers_of_others_are_noticed():
    last: list = []

    def careless(*question):
        """Answers what another asked before."""
        others = [asked for asked in last if asked[1] != question[1] or not np.array_equal(asked[0], question[0])]
        last.append(question)
        return segment(*(others or [question])[-1])

    demo = build_demo(fake_callables(segment=careless))
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_settings())
    requests = [request for request in list_requests() if request.endpoint == "/segment"][:4]
    report = simulate(url, 4, 2, requests)
    demo.close()
    assert not report.answered and report.mixed_up + report.different


@pytest.mark.slow
def test_twenty_users_of_the_application():
    with application() as (address, pid):
        report = simulate(address, 20, 20, list_requests(), pid)
    assert report.answered, "\n".join(report.lines())
    assert report.memory, "how memory goes takes minutes to tell: see benchmarks/simulated_users.py"


def test_memory_is_level_where_it_rises_by_no_more_than_a_twentieth():
    def of(last: float) -> Report:
        return Report(memory=[(second, 1000.0 if second < 80 else last) for second in range(1, 101)])

    assert of(1040).good and not of(1060).good and of(1060).answered
    assert of(1060).levels == (1000.0, 1060.0)


def test_memory_that_was_not_read_is_not_level():
    for report in (Report(), Report(memory=[(1, 1000.0)])):
        assert not report.good and "memory      not known" in "\n".join(report.lines())
