"""Progress reports and cancellation of a long run, and how those of a download read."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field


def _ignore(done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class Progress:
    """`report(done, total)` is called after every piece of work; `cancelled()` is asked before the next, and within one
    where it has steps: once it answers True the run ends, with what is finished kept."""

    report: Callable[[int, int], None] = _ignore
    cancelled: Callable[[], bool] = lambda: False


NO_PROGRESS = Progress()


@dataclass
class Pace:
    """How fast a download goes, over the last half minute, so that a line that was slow at first is forgiven."""

    window: float = 30.0
    _marks: list[tuple[float, int]] = field(default_factory=list)

    def add(self, done: int) -> None:
        now = time.monotonic()
        self._marks = [mark for mark in self._marks if now - mark[0] < self.window] + [(now, done)]

    def seconds_left(self, total: int) -> float | None:
        """None while it is not known: before two reports that are a second apart, or while nothing arrives."""
        if not self._marks:
            return None
        (first, before), (last, done) = self._marks[0], self._marks[-1]
        return None if last - first < 1 or done <= before else (total - done) * (last - first) / (done - before)


def download_words(done: int, total: int, seconds_left: float | None) -> str:
    """ "1.2 of 2.9 GB, 4 min left"."""
    unit, size = ("GB", 1e9) if total >= 1e9 else ("MB", 1e6)
    left = "" if seconds_left is None or done >= total else f", {_about(seconds_left)} left"
    return f"{done / size:.1f} of {total / size:.1f} {unit}{left}"


def _about(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class DownloadLines:
    """Shows a download of `name` on stderr: one line that is written over on a terminal, else a new line now and then.

    Call it with (done, total) in bytes.
    """

    EVERY = 10.0  # seconds between lines in a file

    def __init__(self, name: str):
        self.name, self.pace = name, Pace()
        self.shown = -float("inf")

    def __call__(self, done: int, total: int) -> None:
        terminal, now = sys.stderr.isatty(), time.monotonic()
        self.pace.add(done)
        if now - self.shown < (0.2 if terminal else self.EVERY) and done < total:
            return
        self.shown = now
        words = f"Downloading {self.name}: {download_words(done, total, self.pace.seconds_left(total))}"
        end = "\n" if done >= total or not terminal else ""
        print(f"\r{words:<79}" if terminal else words, end=end, file=sys.stderr, flush=True)
