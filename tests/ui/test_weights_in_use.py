"""The weights named beside Find, and the button that leads back to the first ones."""

from __future__ import annotations

import gradio as gr
from fakes import fake_callables

from emitdiff.ui.segmentation.weights_in_use import WeightsInUse


def test_a_head_is_named_beside_find_and_can_be_left():
    with gr.Blocks() as demo:
        checkpoint = gr.Dropdown(["textdiff-mini", "/tmp/x/optic-disc.safetensors"], value="textdiff-mini")
        line = WeightsInUse(fake_callables())
        line.connect(checkpoint)
    assert "Weights: textdiff-mini" in line.name.value and not line.back.visible
    taught = line.show("/tmp/x/optic-disc.safetensors")
    assert "Weights: optic-disc (few-shot head)" in taught[line.name] and "/tmp" not in taught[line.name]
    assert taught[line.back].visible
    again = line.show("textdiff-mini")
    assert "Weights: textdiff-mini" in again[line.name] and not again[line.back].visible
    (click,) = [one for one in demo.fns.values() if one.outputs == [checkpoint]]
    assert click.fn() == "textdiff-mini"
