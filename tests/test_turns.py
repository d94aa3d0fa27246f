"""Turns are round-robin by client, handed over after errors, and rested between two."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from emitdiff.turns import Turns


class Queue:
    """Clients that ask for turns in threads, one after the other, while the test itself has one; `order` is theirs."""

    def __init__(self):
        self.asking, self.order = threading.local(), []
        self.turns = Turns(lambda: getattr(self.asking, "client", "the test"))
        self.threads = []

    def ask(self, client, then=lambda: None):
        waiting = self.waiting()

        def work():
            self.asking.client = client
            with suppress(ValueError), self.turns:
                self.order.append(client)
                then()

        self.threads.append(threading.Thread(target=work, daemon=True))
        self.threads[-1].start()
        wait_until(lambda: self.waiting() > waiting)

    def waiting(self):
        return sum(map(len, self.turns._waiting.values()))

    def join(self):
        for thread in self.threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in self.threads)
        return self.order


def wait_until(there):
    for _ in range(500):
        if there():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come about")


def test_clients_get_turns_one_after_the_other_however_much_one_asks_for():
    queue = Queue()
    with queue.turns:
        for client in ("a", "a", "a", "b", "c", "b"):
            queue.ask(client)
    assert queue.join() == ["a", "b", "c", "a", "b", "a"]


def test_an_error_hands_the_turn_over():
    queue = Queue()

    def fail():
        raise ValueError

    with queue.turns:
        queue.ask("a", fail)
        queue.ask("b")
    assert queue.join() == ["a", "b"]
    with queue.turns:
        pass


def test_a_rest_lets_everybody_else_go_first():
    queue = Queue()
    with queue.turns:
        queue.turns.rest()  # nobody is there
        queue.ask("a")
        queue.ask("b")
        queue.turns.rest()
        assert queue.order == ["a", "b"]
    queue.join()


class Interrupt(BaseException):
    """As Ctrl-C, but for pytest, which would end."""


@pytest.mark.parametrize("called", [False, True])
def test_whoever_is_interrupted_while_waiting_keeps_nobody_from_a_turn(monkeypatch, called):
    turns = Turns()

    class Interrupted(threading.Event):
        def wait(self, timeout=None):
            if called:
                turns.__exit__()  # the turn before ends in this moment
            raise Interrupt

    monkeypatch.setattr("emitdiff.turns.threading", SimpleNamespace(Event=Interrupted))
    turns.__enter__()
    with pytest.raises(Interrupt):
        turns.__enter__()
    if not called:
        turns.__exit__()
    with turns:
        pass
