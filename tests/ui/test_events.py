"""What the server does with values that the page sends as null where they are unchanged; the rest is in the browser."""

from __future__ import annotations

import gradio as gr
import pytest

from emitdiff.ui.events import on_changed_value, on_choice, on_leaving


@pytest.fixture
def page():
    """A page with one event of each kind, what was called, and the components."""
    called = []

    def record(**values):
        called.append(values)
        return "done"

    with gr.Blocks() as demo:
        text, menu, other, shown = gr.Textbox(), gr.Dropdown(["a", "b"]), gr.Number(3), gr.Textbox()
        inputs = {"number": other, "text": text, "menu": menu}
        on_changed_value([text, menu], [text.submit], record, inputs, shown)
        on_choice([menu], record, {"menu": menu, "number": other}, shown)
        on_leaving(text, record, {"text": text}, shown, queue=False)
    return demo, called, (text, menu, other)


def of_event(demo, component, name):
    """The event that calls Python when `name` happens to `component`."""
    return next(fn for fn in demo.fns.values() if fn.fn and (component._id, name) in fn.targets)


def test_nothing_is_called_where_every_watched_value_is_the_same(page):
    demo, called, (text, menu, _) = page
    answer = of_event(demo, text, "submit").fn(number=3, text=None, menu=None)
    assert answer == gr.skip() and not called
    assert of_event(demo, menu, "input").fn(menu=None, number=7) == gr.skip() and not called


def test_one_changed_value_is_enough_also_where_it_was_emptied(page):
    demo, called, (text, menu, _) = page
    assert of_event(demo, text, "submit").fn(number=3, text="", menu=None) == "done"
    assert of_event(demo, menu, "input").fn(menu="b", number=3) == "done"
    assert called == [{"number": 3, "text": "", "menu": None}, {"menu": "b", "number": 3}]


def test_the_places_that_are_compared_are_those_of_the_watched_fields(page):
    demo, _, (text, menu, _) = page
    assert "[1, 2]" in of_event(demo, text, "submit").js and "[0]" in of_event(demo, menu, "input").js


def test_each_group_of_fields_compares_what_it_remembered(page):
    demo, _, (text, menu, _) = page
    remembered, keys = [fn.js for fn in demo.fns.values() if not fn.fn], []
    for event in (of_event(demo, text, "submit"), of_event(demo, menu, "input")):
        keys.append(next(word for word in event.js.split() if word.startswith("window.")).rstrip(";"))
        assert any(f"{keys[-1]} =" in js for js in remembered)
    assert keys[0] != keys[1]


def test_no_event_of_the_page_is_offered_to_programs(page):
    demo, _, _ = page
    assert all(fn.api_visibility == "private" for fn in demo.fns.values())
    assert of_event(demo, page[2][0], "blur").queue is False, "what is asked for beside is passed on"
