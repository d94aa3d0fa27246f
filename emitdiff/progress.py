"""Someone who waits for a long run: hears how far it is, and may end it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _hears_nothing(done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class Watch:
    """`told(done, total)` is called after every piece of work; `cancelled()` is asked before the next, and within one
    where it has steps: once it answers True the run ends, with what is finished kept."""

    told: Callable[[int, int], None] = _hears_nothing
    cancelled: Callable[[], bool] = lambda: False


NOBODY = Watch()
