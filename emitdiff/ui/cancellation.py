"""Stop buttons: for each open page, whether what it started was asked to stop."""

from __future__ import annotations

import threading

import gradio as gr


class Stops:
    """One event for each session that has something waiting or running."""

    def __init__(self) -> None:
        self._asked: dict[str, threading.Event] = {}

    def begin(self, request: gr.Request) -> None:
        """A button was pressed: from now on `stop` reaches what it starts, also while that still waits."""
        self._asked[request.session_hash] = threading.Event()

    def of(self, request: gr.Request) -> threading.Event:
        """Set once the session's run should end; one that nobody can set where nothing was begun."""
        return self._asked.get(request.session_hash) or threading.Event()

    def running(self, request: gr.Request) -> bool:
        """Whether something of the session waits or runs."""
        return request.session_hash in self._asked

    def stop(self, request: gr.Request) -> None:
        if asked := self._asked.get(request.session_hash):
            asked.set()

    def end(self, request: gr.Request) -> None:
        """The run is over, or its page was closed: whatever is left of it stops."""
        if asked := self._asked.pop(request.session_hash, None):
            asked.set()
