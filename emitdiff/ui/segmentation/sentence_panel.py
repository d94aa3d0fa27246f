"""Text input: a sentence, the targets of the loaded head, and example sentences."""

from __future__ import annotations

from typing import Any

import gradio as gr

from emitdiff.errors import EmitDiffError
from emitdiff.ui.interface import Callables

ANY = "any modality"


class SentencePanel:
    """Lays the panel out inside the current Blocks context; `connect` ties it to the choice of weights."""

    def __init__(self, calls: Callables) -> None:
        self.calls = calls
        self.text = gr.Textbox(label="What to find", placeholder="e.g. lung", max_lines=3)
        self.note = gr.HTML(elem_classes="beside")
        first = calls.segmentation_checkpoint
        self.chips = gr.Dataset(
            components=[gr.Textbox(visible=False)], samples=self._samples(calls.targets, first),
            label="Targets of these weights", elem_classes="chips", type="values", samples_per_page=40,
        )  # fmt: skip
        self.everything = gr.Button("What is in here?", size="sm")
        with gr.Accordion("Example sentences", open=False):
            self.kind = gr.Dropdown([ANY, *calls.vocabulary.modalities], value=ANY, label="Image modality")
            self.sentences = gr.Dataset(
                components=[gr.Textbox(visible=False)], samples=self._samples(calls.sentences, first, ""),
                label="Choose one and edit it", elem_classes="chips", type="values", samples_per_page=40,
            )  # fmt: skip

    def connect(self, checkpoint: gr.Dropdown, quiet: dict[str, Any]) -> None:
        """A chip becomes the text; another `checkpoint` or image kind brings other chips."""
        for chips in (self.chips, self.sentences):
            chips.click(lambda sample: sample[0], chips, self.text, queue=False, **quiet)
        gr.on([checkpoint.change, self.kind.change], self.offer, [checkpoint, self.kind],
              [self.chips, self.sentences], **quiet)  # fmt: skip

    def offer(self, checkpoint: str, kind: str | None) -> tuple[gr.Dataset, gr.Dataset]:
        """The words and sentences of these weights, for this image kind."""
        modality = "" if kind in (None, ANY) else kind
        sentences = self._samples(self.calls.sentences, checkpoint, modality)
        return gr.Dataset(samples=self._samples(self.calls.targets, checkpoint)), gr.Dataset(samples=sentences)

    def kind_of(self, modality: str | None) -> dict[Any, Any]:
        """The update for an image that is known to be of `modality`."""
        known = {word.lower(): word for word in self.calls.vocabulary.modalities}
        return {self.kind: known.get(str(modality).lower(), ANY)}

    def _samples(self, ask: Any, *arguments: str) -> list[list[str]]:
        """The chips; none when the weights cannot be asked (the page must come up without them)."""
        try:
            return [[words] for words in ask(*arguments)]
        except EmitDiffError:
            return []
