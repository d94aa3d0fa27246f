"""Runs in threads of their own, so that a page that is reloaded finds the run it began."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any
from weakref import WeakValueDictionary

from emitdiff.ui.messages import sentence
from emitdiff.ui.synthesis.runs import Run

GRACE = 60.0  # seconds after the last page of a run was closed: by then it was no reload
PATIENCE = 1.0  # seconds that a run waits for its page to take in a step


class BackgroundRun:
    """A run, and the pages that follow it. `events` gives its steps and images until the function it is given is true,
    `quality` the scores of an image. `given` is what it was generated from, by the parameters of a handler, for a page
    that has to show it again."""

    def __init__(
        self, run: Run, events: Callable[[Callable[[], bool]], Iterator[Any]], quality: Callable[..., Any],
        stop: threading.Event, given: dict[str, Any],
    ) -> None:  # fmt: skip
        self.run, self.stop, self.given, self.failure = run, stop, given, ""
        self._events, self._quality = events, quality
        self._pages: set[str | None] = set()
        self._changed = threading.Condition()
        self._told = self._taken = self._pictures = 0
        self._thread: threading.Thread | None = None

    @property
    def over(self) -> bool:
        return self._thread is not None and not self.run.running

    def follow(self, page: str | None) -> Iterator[bool]:
        """Whenever something happened, until all is over: whether the gallery has something new. Begins the run at
        first; while one page follows, each step waits until it was taken in, so that none is skipped."""
        self._pages.add(page)
        with self._changed:
            told, pictures = self._told, self._pictures
            if self._thread is None:
                # The thread asks for the device in the name of the page, as this one would.
                self._thread = threading.Thread(target=copy_context().run, args=(self._work,), daemon=True)
                self._thread.start()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda seen=told: self._told > seen or self.over)  # type: ignore[misc]
                    if self._told == told:
                        return
                    new = self._pictures > pictures
                    told, pictures = self._told, self._pictures
                yield new
                with self._changed:
                    self._taken = told
                    self._changed.notify_all()
        finally:
            self._pages.discard(page)

    def leave(self, page: str | None) -> None:
        """The page was closed. The run ends soon, unless the page comes back."""
        self._pages.discard(page)
        if self.over or self._pages:
            return
        timer = threading.Timer(GRACE, lambda: None if self._pages else self.stop.set())
        timer.daemon = True
        timer.start()

    def _work(self) -> None:
        try:
            for event in self._events(self.stop.is_set):
                self._tell(self.run.add_event(event))
                if self.run.measure(self._quality):
                    self._tell(True)
        except Exception as error:
            self.failure = sentence(error)
        with self._changed:
            self.run.running, self.run.finished = False, time.monotonic()
            self._changed.notify_all()

    def _tell(self, new_picture: bool) -> None:
        with self._changed:
            self._told += 1
            self._pictures += new_picture
            self._changed.notify_all()
            if self._pages and not self._changed.wait_for(lambda: self._taken == self._told, PATIENCE):
                self._taken = self._told  # that page is slow, or gone


class KeptRuns:
    """The last runs by names that nobody can guess. A browser keeps the name; images stay here, for as long as the
    session that made them is remembered."""

    def __init__(self) -> None:
        self._runs: WeakValueDictionary[str, Run] = WeakValueDictionary()

    def add(self, run: Run) -> str:
        name = secrets.token_urlsafe(24)
        self._runs[name] = run
        return name

    def find(self, name: Any) -> Run | None:
        return self._runs.get(name) if isinstance(name, str) else None
