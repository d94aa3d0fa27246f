"""The mask of the image, which becomes the label: a file, or drawn over the slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from emitdiff.errors import EmitDiffError
from emitdiff.images import file_stem
from emitdiff.ui.callables import Callables
from emitdiff.ui.drawing import Drawing, build_drawing, ground, save_drawing
from emitdiff.ui.messages import note, sentence
from emitdiff.ui.source import Source, image_of


@dataclass(frozen=True)
class MaskPanel:
    """The panel's components; `note` stands beside the file, whichever way it came."""

    calls: Callables
    file: gr.File
    note: gr.HTML
    drawing: Drawing

    def connect(self, source: Source, look: dict[str, Any], quiet: dict[str, Any]) -> None:
        """Drawing over the slice of `source`; `look` shows the new mask."""
        self.drawing.panel.expand(
            self.open_drawing, inputs_kwargs=source.inputs, outputs=[self.drawing.canvas, self.note], **quiet
        )
        self.drawing.use.click(
            self.use_drawing,
            inputs_kwargs={"scan": source.scan, "drawing": self.drawing.canvas},
            outputs=[self.file, self.note],
            **quiet,
        ).then(**look)

    def open_drawing(self, scan: Any, slice_number: float, window: str | None) -> dict[Any, Any]:
        """The canvas gets the slice shown; what was painted on another one goes."""
        try:
            return {self.drawing.canvas: ground(image_of(scan, slice_number, window))}
        except Exception as error:
            return {self.note: note(sentence(error), "error")}

    def use_drawing(self, scan: Any, drawing: dict[str, Any] | None) -> dict[Any, Any]:
        """The strokes become the mask file, as if it had been uploaded."""
        try:
            if scan is None:
                raise EmitDiffError("No image yet: choose an example or drop a file first.")
            return {self.file: str(save_drawing(drawing, scan.size, file_stem(scan.name))), self.note: ""}
        except Exception as error:
            return {self.note: note(sentence(error), "error")}


def build_mask_panel(calls: Callables) -> MaskPanel:
    """Lays the panel out inside the current Blocks context."""
    file = gr.File(label="Its mask (optional): becomes the label", height=92, elem_classes="drop")
    return MaskPanel(calls, file, gr.HTML(elem_classes="beside"), build_drawing())
