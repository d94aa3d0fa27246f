"""Text fields that act once they are left.

Gradio keeps the first input of a field to itself, so what is pasted or erased at once is noticed only then. A field
that is left as it was entered does nothing: what it stands for may have been edited elsewhere meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from emitdiff.ui.events import QUIET

# The words the field was entered with stay in the page; where they are still the same, it is sent as null.
REMEMBER = "words => {{ window.{key} = words; }}"
COMPARE = """(...values) => {{
  const same = values[{place}] === window.{key};
  window.{key} = values[{place}];
  return same ? values.map((value, place) => place === {place} ? null : value) : values;
}}"""


def on_leaving(field: gr.Textbox, fn: Callable, inputs: dict[str, Any], outputs: Any, **how: Any) -> Any:
    """Calls `fn` with the values of `inputs`, by their names, when `field` is left with other words than it was entered
    with.

    The field must be among the inputs. `how` is passed on to the event, which is returned.
    """
    key, names = f"emitdiff_words_{field._id}", list(inputs)
    (own,) = (name for name in names if inputs[name] is field)
    field.focus(None, field, js=REMEMBER.format(key=key), queue=False, **QUIET)

    def left(**values: Any) -> Any:
        return gr.skip() if values[own] is None else fn(**values)

    return field.blur(
        left, inputs_kwargs=inputs, outputs=outputs, js=COMPARE.format(key=key, place=names.index(own)),
        **{"trigger_mode": "always_last", **QUIET, **how},
    )  # fmt: skip
