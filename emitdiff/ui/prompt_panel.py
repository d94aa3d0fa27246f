"""What to paint, in words: drop-downs and free text that make the prompt, and the prompt itself, edited freely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from emitdiff.ui.callables import Callables
from emitdiff.ui.form import menu
from emitdiff.ui.messages import note, sentence


@dataclass(frozen=True)
class PromptPanel:
    """The panel's components; `words` are those that make the prompt, in the order in which they do."""

    calls: Callables
    modality: gr.Dropdown
    organ: gr.Dropdown
    finding: gr.Dropdown
    appearance: gr.Dropdown
    free_text: gr.Textbox
    prompt: gr.Textbox
    note: gr.HTML

    @property
    def words(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("modality", "organ", "finding", "appearance", "free_text")}

    def connect(self, checkpoint: gr.Dropdown, quiet: dict[str, Any]) -> None:
        """What happens among the words themselves; `checkpoint` knows how many of them are read."""
        words = list(self.words.values())
        gr.on(
            [word.input for word in words], self.calls.compose_prompt, words, self.prompt,
            trigger_mode="always_last", **quiet,
        )  # fmt: skip
        gr.on(
            [self.prompt.change, checkpoint.change], self.warn, [self.prompt, checkpoint], self.note,
            trigger_mode="always_last", **quiet,
        )  # fmt: skip

    def warn(self, prompt: str, checkpoint: str) -> str:
        """What the tokenizer would cut off the prompt, if anything."""
        try:
            return note(self.calls.prompt_warning(prompt or "", checkpoint), "warning")
        except Exception as error:
            return note(sentence(error), "warning")

    def set(self, modality: str = "", organ: str = "", finding: str = "", appearance: str = "") -> dict[Any, Any]:
        """Updates that choose these words and write their prompt."""
        chosen = (modality, organ, finding, appearance, "")
        prompt = self.calls.compose_prompt(*chosen)
        return {**dict(zip(self.words.values(), chosen, strict=True)), self.prompt: prompt}


def build_prompt_panel(calls: Callables) -> PromptPanel:
    """Lays the panel out inside the current Blocks context."""
    words = calls.vocabulary
    with gr.Row(elem_classes="pair"):
        modality = gr.Dropdown(menu(words.modalities), value="", label="Modality")
        organ = gr.Dropdown(menu(words.organs), value="", label="Organ")
    with gr.Row(elem_classes="pair"):
        finding = gr.Dropdown(menu(words.findings), value="", label="Finding")
        appearance = gr.Dropdown(menu(words.appearances), value="", label="Appearance")
    free_text = gr.Textbox(label="More words", placeholder="e.g. portable, low contrast", max_lines=2)
    prompt = gr.Textbox(label="Prompt (edit freely)", lines=2, max_lines=4)
    return PromptPanel(
        calls, modality, organ, finding, appearance, free_text, prompt, gr.HTML(elem_classes="beside")
    )  # fmt: skip
