"""The clock and the file of a training stage, with a clock that a test moves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from emitdiff import training_state
from emitdiff.training_state import StageState, time_spent


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    moved = Clock()
    monkeypatch.setattr(training_state, "time", SimpleNamespace(monotonic=moved.monotonic))
    return moved


@pytest.fixture
def file(tmp_path):
    return tmp_path / "state" / "stage.pt"


def train(state, clock, seconds_per_step: float, stop_after: int | None = None) -> list[int]:
    """The numbers of the steps done, each of which adds one to the weight "sum"."""
    done = []
    for step in state.run("stage"):
        if stop_after is not None and len(done) == stop_after:
            raise KeyboardInterrupt
        with torch.no_grad():
            state.parts["model"].weight.add_(1)
        clock.now += seconds_per_step
        done.append(step)
    return done


def stage(file, minutes: float) -> StageState:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    return StageState(file, minutes, {"model": model})


def test_a_stage_ends_with_its_budget_and_a_longer_one_goes_on_from_there(file, clock):
    assert train(stage(file, 1), clock, 15) == [0, 1, 2, 3] and time_spent(file) == (60, 4)
    assert train(stage(file, 1), clock, 15) == [], "nothing is left of its minute"
    longer = stage(file, 2)
    assert longer.progress == 0.5 and longer.parts["model"].weight.item() == 4
    assert train(longer, clock, 15) == [4, 5, 6, 7] and longer.parts["model"].weight.item() == 8
    assert longer.progress == 1


def test_time_between_two_runs_is_not_spent(file, clock):
    train(stage(file, 1), clock, 15)
    clock.now += 86400
    assert len(train(stage(file, 2), clock, 15)) == 4


def test_a_kill_costs_at_most_a_minute(file, clock):
    killed = stage(file, 60)
    with pytest.raises(KeyboardInterrupt):
        train(killed, clock, 25, stop_after=7)
    assert killed.seconds == 175
    again = stage(file, 60)
    assert killed.seconds - again.seconds < 60 + 25, "a minute, and the step that was on"
    assert again.steps == again.parts["model"].weight.item() == again.seconds / 25


def test_a_kill_while_saving_leaves_what_was_saved_before(file, clock, monkeypatch):
    train(stage(file, 1), clock, 15)

    def half(stored, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(torch, "save", half)
        train(stage(file, 2), clock, 15)
    assert stage(file, 2).steps == 4


def test_whoever_waits_for_a_saving_is_told_once_it_is_there(file, clock):
    saved, state = [], stage(file, 5)
    state.after_save = lambda: saved.append(time_spent(file))
    train(state, clock, 45)
    assert saved == [(90, 2), (180, 4), (270, 6), (315, 7)]


def test_without_a_budget_or_a_file_nothing_is_done(file):
    assert stage(file, 0).progress == 1 and time_spent(file) == (0, 0)
