"""The mask of the image, which becomes the label: a file, drawn over the slice, or proposed by the segmenter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from emitdiff.ui.drawing import Drawing, build_drawing
from emitdiff.ui.interface import Callables
from emitdiff.ui.source import Source
from emitdiff.ui.synthesis.prompt_panel import PromptPanel
from emitdiff.ui.synthesis.proposal import Proposal, build_proposal


@dataclass(frozen=True)
class MaskPanel:
    """The panel's components; `note` stands beside the file, whichever way it came."""

    calls: Callables
    file: gr.File
    note: gr.HTML
    drawing: Drawing
    proposal: Proposal

    @property
    def outputs(self) -> list[Any]:
        """What `take` changes."""
        return [self.file, self.proposal.text, self.proposal.note]

    def take(self, path: Path | str | None = None, text: str = "") -> dict[Any, Any]:
        """Updates for another image: its mask's file, and what the segmenter may be asked for."""
        return {self.file: str(path) if path else None, self.proposal.text: text or None, self.proposal.note: ""}

    def keep(self) -> dict[Any, Any]:
        """The same for an image that the mask stays with."""
        return {self.proposal.text: None, self.proposal.note: ""}

    def connect(self, source: Source, words: PromptPanel, look: dict[str, Any], quiet: dict[str, Any]) -> None:
        """A mask of the slice of `source`, drawn or proposed for what the words of the prompt name; `look` shows it."""
        said = self.proposal.note  # of the mask that was proposed, as long as it is the one
        gr.on([self.file.upload, self.file.clear], lambda: "", outputs=said, queue=False, **quiet)
        self.drawing.connect(source, self.file, self.note, quiet, outdated=(said,)).then(**look)
        named = {"organ": words.organ, "finding": words.finding}
        self.proposal.connect(source, named, self.file, quiet).then(**look)


def build_mask_panel(calls: Callables) -> MaskPanel:
    """Lays the panel out inside the current Blocks context."""
    file = gr.File(label="Mask (optional): becomes the label", height=92, elem_classes="drop")
    return MaskPanel(calls, file, gr.HTML(elem_classes="beside"), build_drawing(), build_proposal(calls))
