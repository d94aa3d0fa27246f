"""What the events of the page have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

# Nothing on the page flickers while one runs, and programs are offered the named endpoints alone.
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# Events that compute. Many run at a time and take turns, so that nobody waits for the end of another's; as many threads
# are left for everything else.
ON_DEVICE: dict[str, Any] = {"concurrency_id": "device", "concurrency_limit": 20}
TEACHING: dict[str, Any] = {"concurrency_id": "teaching", "concurrency_limit": 4}  # each keeps features in memory
# The values with which a field was entered are kept in the page; where they are still the same, they are sent as null.
REMEMBER = "(...values) => {{ window.{key} = JSON.stringify(values); }}"
COMPARE = """(...values) => {{
  const places = [{places}];
  const now = JSON.stringify(places.map(place => values[place]));
  const same = now === window.{key};
  window.{key} = now;
  return same ? values.map((value, place) => places.includes(place) ? null : value) : values;
}}"""


def on_changed_value(
    fields: Sequence[gr.Dropdown | gr.Textbox], events: Sequence[Any], fn: Callable, inputs: dict[str, Any],
    outputs: Any, **how: Any,
) -> Any:  # fmt: skip
    """Calls `fn` with the values of `inputs`, by their names, at one of `events` if `fields` have other values by then
    than when one of them was entered.

    The fields must be among the inputs. `how` is passed on to `gr.on`, whose event is returned.
    """
    names = [name for name, field in inputs.items() if field in fields]
    key = f"emitdiff_entered_{fields[0]._id}"
    places = ", ".join(str(place) for place, name in enumerate(inputs) if name in names)
    known = [inputs[name] for name in names]
    for field in fields:
        field.focus(None, known, js=REMEMBER.format(key=key), queue=False, **QUIET)

    def changed(**values: Any) -> Any:
        return fn(**values) if any(values[name] is not None for name in names) else gr.skip()

    return gr.on(
        events, changed, inputs_kwargs=inputs, outputs=outputs, js=COMPARE.format(key=key, places=places),
        **{"trigger_mode": "always_last", **QUIET, **how},
    )  # fmt: skip


def on_choice(menus: Sequence[gr.Dropdown], fn: Callable, inputs: dict[str, Any], outputs: Any, **how: Any) -> Any:
    """Calls `fn` when a user chose another value in one of `menus`; see `on_changed_value`.

    Gradio's drop-downs tell of an input also when they are only left, for example with the tabulator key. What resets
    other fields must not do so then.
    """
    return on_changed_value(menus, [menu.input for menu in menus], fn, inputs, outputs, **how)


def on_leaving(field: gr.Textbox, fn: Callable, inputs: dict[str, Any], outputs: Any, **how: Any) -> Any:
    """Calls `fn` when `field` is left with other words than it was entered with; see `on_changed_value`.

    Gradio keeps the first input of a field to itself, so what is pasted or erased at once is noticed only then. A field
    that is left as it was entered does nothing: what it stands for may have been edited elsewhere meanwhile.
    """
    return on_changed_value([field], [field.blur], fn, inputs, outputs, **how)


def stoppable(running: bool) -> dict[str, Any]:
    """The update of a Stop button before and during a run."""
    return gr.update(value="Stop", interactive=running)


def stopping() -> dict[str, Any]:
    """The update of a Stop button once it is pressed, until what runs has ended with the step it is at."""
    return gr.update(value="Stopping …", interactive=False)
