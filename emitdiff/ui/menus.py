"""Drop-downs that act when another value is chosen.

Gradio's tell of an input also when they are only left, for example with the tabulator key. What resets other fields
must not do so then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from emitdiff.ui.events import on_other_value


def on_choice(menus: Sequence[gr.Dropdown], fn: Callable, inputs: dict[str, Any], outputs: Any, **how: Any) -> Any:
    """Calls `fn` when a person chose another value in one of `menus`; see `on_other_value`."""
    return on_other_value(menus, [menu.input for menu in menus], fn, inputs, outputs, **how)
