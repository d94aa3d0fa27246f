"""Fair turns on what only one may use at a time, such as the device that computes."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Any


class Turns:
    """A lock, `with turns:`, that the clients who wait for it get in round-robin order: whoever asks for a second turn
    gets it after everybody else's first, however many of their requests wait.

    What is long is cut into turns: it asks anew for each step, or calls `rest` between two. Whoever has the turn must
    not ask for it again.
    """

    def __init__(self, client: Callable[[], Hashable] = threading.get_ident) -> None:
        """`client` says who asks, in the thread that asks."""
        self.client = client
        self._books = threading.Lock()
        self._taken = False
        self._waiting: OrderedDict[Hashable, deque[threading.Event]] = OrderedDict()  # the next one's first

    def __enter__(self) -> None:
        client, called = self.client(), threading.Event()
        with self._books:
            if not self._taken:
                self._taken = True
                return
            self._waiting.setdefault(client, deque()).append(called)
        try:
            called.wait()
        except BaseException:  # Ctrl-C: a turn that nobody would take must not be handed over
            self._give_up(client, called)
            raise

    def __exit__(self, *error: Any) -> None:
        with self._books:
            self._hand_over()

    def rest(self) -> None:
        """Within a turn: everybody else who waits goes first."""
        if self._waiting:
            self.__exit__()
            self.__enter__()

    def _hand_over(self) -> None:
        if not self._waiting:
            self._taken = False
            return
        client, requests = self._waiting.popitem(last=False)
        requests.popleft().set()
        if requests:
            self._waiting[client] = requests  # behind the others

    def _give_up(self, client: Hashable, called: threading.Event) -> None:
        with self._books:
            if called.is_set():
                self._hand_over()
                return
            self._waiting[client].remove(called)
            if not self._waiting[client]:
                del self._waiting[client]
