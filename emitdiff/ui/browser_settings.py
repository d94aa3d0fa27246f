"""Form settings persisted in the browser's local storage; images and results are not stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

NO_SECRET = "settings of a form"  # one for all starts of the server, so that what was stored can be read after the next
RESTORE_DELAY = 300  # milliseconds after which every field shows what was restored


def persist_settings(
    demo: gr.Blocks, key: str, fields: dict[str, Any], events: list[Any], restore: Callable[..., Any],
    outputs: list[Any], known: Sequence[Any] = (),
) -> Any:  # fmt: skip
    """Stores the values of `fields` by name in the browser under `key`, a name in JavaScript, at each of `events`. The
    server is not asked.

    When the page opens, `restore` is given what was stored last ({} the first time) and the values of `known`, and
    returns updates for `outputs`; it must not trust the values, for anyone may have changed them. Returns that event,
    for what should come after it.
    To be called outside of all tabs: what is in a tab wakes only when the tab is opened.
    """
    stored = gr.BrowserState({}, storage_key=key, secret=NO_SECRET)
    names = json.dumps(list(fields))
    quiet: dict[str, Any] = {"queue": False, "api_visibility": "private"}
    # Fields that take their first values also fire: nothing is stored before what was stored has been read.
    store = (
        f"(kept, ...values) => !window.{key} ? kept : Object.fromEntries({names}.map((name, i) => [name, values[i]]))"
    )
    gr.on(events, None, [stored, *fields.values()], stored, js=store, **quiet)
    opened = demo.load(restore, [stored, *known], outputs, show_progress="hidden", **quiet)
    opened.then(None, js=f"() => {{ setTimeout(() => {{ window.{key} = true; }}, {RESTORE_DELAY}); }}", **quiet)
    return opened
