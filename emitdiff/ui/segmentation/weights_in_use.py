"""The weights that Find asks, named beside it, and the way back from a head that was taught or loaded here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from emitdiff.ui.events import QUIET
from emitdiff.ui.interface import HEAD_SUFFIX, Callables
from emitdiff.ui.messages import note


class WeightsInUse:
    """Lays a line out inside the current Blocks context; `connect` ties it to the choice of weights."""

    def __init__(self, calls: Callables) -> None:
        self.first = calls.segmentation_checkpoint
        with gr.Row():
            self.name = gr.HTML(note(f"Weights: {self.first}"), elem_classes="beside")
            self.back = gr.Button(f"Back to {Path(self.first).name}", size="sm", scale=0, min_width=150, visible=False)

    def connect(self, checkpoint: gr.Dropdown) -> None:
        at_once: dict[str, Any] = {"queue": False, **QUIET}
        checkpoint.change(self.show, checkpoint, [self.name, self.back], **at_once)
        self.back.click(lambda: self.first, outputs=checkpoint, **at_once)

    def show(self, chosen: str | None) -> dict[Any, Any]:
        """The weights that are `chosen`; other ones than the page began with can be left with the button."""
        chosen = chosen or self.first
        taught = chosen.endswith(HEAD_SUFFIX)
        name = f"{Path(chosen).stem} (few-shot head)" if taught else chosen
        return {self.name: note(f"Weights: {name}"), self.back: gr.Button(visible=chosen != self.first)}
