"""Who asks: a page in a browser, or a program's client."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from gradio.context import LocalContext


def current_client() -> Hashable:
    """Whose request this thread answers, by Gradio's name for the session; the thread itself where there is none, as
    for what goes on in the background."""
    request = LocalContext.request.get(None)
    return (request and request.session_hash) or threading.get_ident()
