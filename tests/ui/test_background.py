"""Runs that go on without their page, and are found again by it."""

from __future__ import annotations

import time
from types import SimpleNamespace

import gradio as gr
import pytest
from fakes import fake_callables, filled_form, scan_that_saves, synthesize

from emitdiff.ui.examples import read_examples
from emitdiff.ui.synthesis import background
from emitdiff.ui.synthesis.tab import SynthesisTab

FIRST, AGAIN = SimpleNamespace(session_hash="first"), SimpleNamespace(session_hash="again")
FORM = filled_form("X-ray, chest", num_images=3, seed=5)


@pytest.fixture
def tab():
    with gr.Blocks():
        return SynthesisTab(fake_callables(), read_examples())


def begin(tab, example, page=FIRST, **changes):
    """A run that is followed until its first image is there; its name, the run, and what goes on following it."""
    tab.generation.start_run(page)
    arguments = {"previous": None, "outlines": False, "large": None, "slice_number": 1, "window": None}
    arguments |= {"scan": scan_that_saves(example.image), "mask_file": str(example.mask)}
    updates = tab.generation.generate(page, **arguments, **{**FORM, **changes})
    started = next(updates)
    run = started[tab.results.run]
    while not run.images:
        next(updates)
    return started[tab.generation.ticket], run, updates


def test_a_page_that_is_reloaded_follows_its_run_to_the_end(tab, example):
    ticket, run, updates = begin(tab, example)
    updates.close()
    tab.generation.leave(FIRST)
    first, *others = list(tab.resume(AGAIN, ticket))
    assert first[tab.results.run] is run and first[tab.input.source.scan].name == example.image.name
    assert first[tab.input.mask.file] == str(example.mask) and first[tab.input.preview.source_view] is not None
    assert not first[tab.generate_button]["interactive"] and first[tab.stop_button]["interactive"]
    said = [update[tab.results.progress] for update in others if tab.results.progress in update]
    assert len(run.images) == 3 and "3 synthetic images in" in said[-1]
    assert others[-1][tab.generate_button]["interactive"] and not tab.generation.cancellation.running(AGAIN)


def test_a_run_that_is_over_is_shown_with_its_images(tab, example):
    ticket, run, updates = begin(tab, example)
    list(updates)
    took = run.summary(False)
    tab.generation.end_run(FIRST, run)
    tab.generation.leave(FIRST)
    time.sleep(0.1)
    first, *_, last, buttons = list(tab.resume(AGAIN, ticket))
    assert first[tab.generate_button]["interactive"] and len(last[tab.results.gallery]) == 3
    assert took in last[tab.results.progress], "as long as it took, not until now"
    assert buttons[tab.results.vary]["interactive"]


def test_the_page_that_came_back_can_stop_it(tab, example):
    ticket, run, updates = begin(tab, example, num_images=8)
    updates.close()
    tab.generation.leave(FIRST)
    resumed = tab.resume(AGAIN, ticket)
    next(resumed)
    tab.generation.stop(AGAIN)
    *_, last, _ = list(resumed)
    assert "Stopped: " in last[tab.results.progress] and len(run.images) < 8


def test_a_run_whose_page_does_not_come_back_ends(example, monkeypatch):
    def slow(image, mask, request, cancelled):
        for event in synthesize(image, mask, request, cancelled):
            yield event
            time.sleep(0.05)

    monkeypatch.setattr(background, "GRACE", 0.1)
    with gr.Blocks():
        tab = SynthesisTab(fake_callables(synthesize=slow), read_examples())
    _, run, updates = begin(tab, example, num_images=8)
    updates.close()
    tab.generation.leave(FIRST)
    until = time.monotonic() + 20
    while not run.background.over:
        assert time.monotonic() < until, "nobody stopped it"
        time.sleep(0.02)
    assert run.background.stop.is_set() and len(run.images) < 8


def test_files_stay_until_the_last_page_that_shows_them_is_gone(tab, example):
    ticket, run, updates = begin(tab, example)
    list(updates)
    list(tab.resume(AGAIN, ticket))
    run.remove()  # the first session is forgotten
    assert run.images[0].path.is_file()
    run.remove()
    assert not run.folder.exists()


@pytest.mark.parametrize("ticket", ["", "guessed", None, 3, ["x"]])
def test_a_name_that_is_not_known_changes_nothing(tab, ticket):
    (update,) = tab.resume(AGAIN, ticket)
    assert update == {tab.results.run: gr.skip()}


def test_a_failure_is_told_to_the_page_that_follows(example):
    def failing(image, mask, request, cancelled):
        raise RuntimeError("the device is gone")
        yield

    with gr.Blocks():
        tab = SynthesisTab(fake_callables(synthesize=failing), read_examples())
    arguments = {"previous": None, "outlines": False, "large": None, "slice_number": 1, "window": None}
    arguments |= {"scan": scan_that_saves(example.image), "mask_file": None}
    *_, last = tab.generation.generate(FIRST, **arguments, **FORM)
    assert "error" in last[tab.results.progress]
