"""Progress reports and cancellation of a long run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _ignore(done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class Progress:
    """`report(done, total)` is called after every piece of work; `cancelled()` is asked before the next, and within one
    where it has steps: once it answers True the run ends, with what is finished kept."""

    report: Callable[[int, int], None] = _ignore
    cancelled: Callable[[], bool] = lambda: False


NO_PROGRESS = Progress()
