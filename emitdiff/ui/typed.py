"""Text fields that act once they are left.

Gradio keeps the first input of a field to itself, so what is pasted or erased at once is noticed only then. A field
that is left as it was entered does nothing: what it stands for may have been edited elsewhere meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from emitdiff.ui.events import on_other_value


def on_leaving(field: gr.Textbox, fn: Callable, inputs: dict[str, Any], outputs: Any, **how: Any) -> Any:
    """Calls `fn` when `field` is left with other words than it was entered with; see `on_other_value`."""
    return on_other_value([field], [field.blur], fn, inputs, outputs, **how)
