"""Settings that outlive a refresh: they stay in the browser's own storage, where no image and no result goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gradio as gr


def keep_settings(
    demo: gr.Blocks, key: str, fields: dict[str, Any], events: list[Any], restore: Callable[[dict], Any],
    outputs: list[Any],
) -> Any:  # fmt: skip
    """Stores the values of `fields` by name in the browser under `key` at each of `events`, without asking the server.

    When the page opens, `restore` is given what was stored last ({} the first time) and returns updates for `outputs`;
    it must not trust the values, for anyone may have changed them. Returns that event, for what should come after it.
    To be called outside of all tabs: what is in a tab wakes only when the tab is opened.
    """
    kept = gr.BrowserState({}, storage_key=key)
    store = f"(...values) => Object.fromEntries({json.dumps(list(fields))}.map((name, i) => [name, values[i]]))"
    gr.on(events, None, list(fields.values()), kept, js=store, queue=False, api_visibility="private")
    return demo.load(restore, kept, outputs, show_progress="hidden", api_visibility="private")
