"""Drop-downs that act when another value is chosen.

Gradio's tell of an input also when they are only left, for example with the tabulator key. What resets other fields
must not do so then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from emitdiff.ui.events import QUIET

# What was chosen when a menu was entered is kept in the page; where it is still the same, the menus are sent as null.
REMEMBER = "(...values) => {{ window.{key} = JSON.stringify(values); }}"
COMPARE = """(...values) => {{
  const places = [{places}];
  const now = JSON.stringify(places.map(place => values[place]));
  const same = now === window.{key};
  window.{key} = now;
  return same ? values.map((value, place) => places.includes(place) ? null : value) : values;
}}"""


def on_choice(menus: Sequence[gr.Dropdown], fn: Callable, inputs: dict[str, Any], outputs: Any, **how: Any) -> Any:
    """Calls `fn` with the values of `inputs`, by their names, when a person chose another value in one of `menus`.

    The menus must be among the inputs. `how` is passed on to `gr.on`, whose event is returned.
    """
    names = [name for name, field in inputs.items() if field in menus]
    key = f"emitdiff_menu_{menus[0]._id}"
    places = ", ".join(str(place) for place, name in enumerate(inputs) if name in names)
    known = [inputs[name] for name in names]
    for menu in menus:
        menu.focus(None, known, js=REMEMBER.format(key=key), queue=False, **QUIET)

    def chosen(**values: Any) -> Any:
        return fn(**values) if any(values[name] is not None for name in names) else gr.skip()

    events = [menu.input for menu in menus]
    return gr.on(
        events, chosen, inputs_kwargs=inputs, outputs=outputs, js=COMPARE.format(key=key, places=places),
        **{"trigger_mode": "always_last", **QUIET, **how},
    )  # fmt: skip
