"""The mask of the image, which becomes the label: a file, or drawn over the slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from emitdiff.ui.callables import Callables
from emitdiff.ui.drawing import Drawing, build_drawing
from emitdiff.ui.source import Source


@dataclass(frozen=True)
class MaskPanel:
    """The panel's components; `note` stands beside the file, whichever way it came."""

    calls: Callables
    file: gr.File
    note: gr.HTML
    drawing: Drawing

    def connect(self, source: Source, look: dict[str, Any], quiet: dict[str, Any]) -> None:
        """Drawing over the slice of `source`; `look` shows the new mask."""
        self.drawing.connect(source, self.file, self.note, quiet).then(**look)


def build_mask_panel(calls: Callables) -> MaskPanel:
    """Lays the panel out inside the current Blocks context."""
    file = gr.File(label="Its mask (optional): becomes the label", height=92, elem_classes="drop")
    return MaskPanel(calls, file, gr.HTML(elem_classes="beside"), build_drawing())
