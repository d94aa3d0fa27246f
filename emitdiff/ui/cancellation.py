"""Cancellation of runs, one event per browser session."""

from __future__ import annotations

import threading

import gradio as gr


class Cancellation:
    """One event for each session that has something waiting or running."""

    def __init__(self) -> None:
        self._events: dict[str | None, threading.Event] = {}

    def begin(self, request: gr.Request) -> None:
        """A button was pressed: from now on `cancel` reaches what it starts, also while that still waits."""
        self._events[request.session_hash] = threading.Event()

    def adopt(self, request: gr.Request, event: threading.Event) -> None:
        """What another session began goes on in this one."""
        self._events[request.session_hash] = event

    def release(self, request: gr.Request) -> None:
        """The session is over, but what it began goes on."""
        self._events.pop(request.session_hash, None)

    def event(self, request: gr.Request) -> threading.Event:
        """Set once the session's run should end; one that nobody can set where nothing was started."""
        return self._events.get(request.session_hash) or threading.Event()

    def running(self, request: gr.Request) -> bool:
        """Whether something of the session waits or runs."""
        return request.session_hash in self._events

    def cancel(self, request: gr.Request) -> None:
        if event := self._events.get(request.session_hash):
            event.set()

    def end(self, request: gr.Request) -> None:
        """The run is over, or its page was closed: whatever is left of it stops."""
        if event := self._events.pop(request.session_hash, None):
            event.set()
