"""How much one address may ask for in how much time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from threading import Lock

from cachetools import LRUCache

MAX_ADDRESSES = 10_000  # that are remembered


class Allowance:
    """So many a minute for every address, and `burst` at once of those it did not use before."""

    def __init__(self, per_minute: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second, self.burst, self.clock = per_minute / 60, burst, clock
        self._left: LRUCache[str, tuple[float, float]] = LRUCache(MAX_ADDRESSES)
        self._lock = Lock()

    def take(self, address: str, amount: float = 1) -> int:
        """0 where there is enough left, which is taken; else the seconds until there will be."""
        now = self.clock()
        with self._lock:
            left, since = self._left.get(address, (self.burst, now))
            left = min(self.burst, left + (now - since) * self.per_second)
            missing = min(amount, self.burst) - left
            self._left[address] = (left if missing > 0 else left - amount, now)
        return math.ceil(missing / self.per_second) if missing > 0 else 0
