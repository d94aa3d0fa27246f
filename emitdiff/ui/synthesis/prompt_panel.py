"""Prompt input: drop-downs, free text and example prompts, and the editable prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from emitdiff.ui.events import on_choice, on_leaving
from emitdiff.ui.form import menu
from emitdiff.ui.interface import Callables
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
    chips: gr.Dataset
    prompt: gr.Textbox
    note: gr.HTML

    @property
    def words(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("modality", "organ", "finding", "appearance", "free_text")}

    def connect(self, checkpoint: gr.Dropdown, quiet: dict[str, Any]) -> None:
        """What happens among the words themselves; `checkpoint` knows how many of them are read."""
        words = list(self.words.values())
        menus = [self.modality, self.organ, self.finding, self.appearance]
        on_choice(menus, self.calls.compose_prompt, self.words, self.prompt, **quiet)
        self.free_text.input(self.calls.compose_prompt, words, self.prompt, trigger_mode="always_last", **quiet)
        on_leaving(self.free_text, self.calls.compose_prompt, self.words, self.prompt, queue=False)
        gr.on(
            [self.prompt.change, checkpoint.change], self.count, [self.prompt, checkpoint], self.note,
            trigger_mode="always_last", **quiet,
        )  # fmt: skip
        self.modality.change(
            lambda modality: gr.Dataset(samples=chips(self.calls, modality)), self.modality, self.chips,
            queue=False, **quiet,
        )  # fmt: skip
        self.chips.click(self.take_chip, self.chips, [*words, self.prompt], queue=False, **quiet)

    def count(self, prompt: str, checkpoint: str) -> str:
        """How many tokens the prompt has, and what the tokenizer would cut off, if anything."""
        try:
            counted = self.calls.token_count(prompt, checkpoint) if prompt else None
            words = "{} of {} tokens".format(*counted) if counted else ""
            return note(words) + note(self.calls.prompt_warning(prompt or "", checkpoint), "warning")
        except Exception as error:
            return note(sentence(error), "warning")

    def take_chip(self, chip: list[str]) -> dict[Any, Any]:
        """A prompt to begin with was pressed: its words are chosen too."""
        for words in self.calls.vocabulary.example_words:
            if self.calls.compose_prompt(*words, "") == chip[0]:
                return self.set(*words)
        return {self.prompt: chip[0]}

    def set(self, modality: str = "", organ: str = "", finding: str = "", appearance: str = "") -> dict[Any, Any]:
        """Updates that choose these words and write their prompt."""
        chosen = (modality, organ, finding, appearance, "")
        prompt = self.calls.compose_prompt(*chosen)
        return {**dict(zip(self.words.values(), chosen, strict=True)), self.prompt: prompt}

    def read(self, prompt: str) -> dict[Any, Any]:
        """Updates that choose the words a prompt was made of, so far as the menus have them; the rest is free text."""
        known, chosen, free = self.calls.vocabulary, dict.fromkeys(self.words, ""), []
        menus = {
            "modality": known.modalities, "organ": known.organs, "finding": known.findings,
            "appearance": known.appearances,
        }  # fmt: skip
        for part in prompt.split(", "):
            places = [name for name, menu in menus.items() if part in menu and not chosen[name]]
            chosen |= {places[0]: part} if places else {}
            free += [] if places else [part]
        chosen["free_text"] = ", ".join(free)
        made = self.calls.compose_prompt(*chosen.values()) == prompt
        return {field: chosen[name] if made else "" for name, field in self.words.items()} | {self.prompt: prompt}


def build_prompt_panel(calls: Callables) -> PromptPanel:
    """Lays the panel out inside the current Blocks context."""
    words = calls.vocabulary
    with gr.Row(elem_classes="pair"):
        modality = gr.Dropdown(menu(words.modalities), value="", label="Modality")
        organ = gr.Dropdown(menu(words.organs), value="", label="Organ")
    with gr.Row(elem_classes="pair"):
        finding = gr.Dropdown(menu(words.findings), value="", label="Finding")
        appearance = gr.Dropdown(menu(words.appearances), value="", label="Appearance")
    free_text = gr.Textbox(label="Additional words", placeholder="e.g. portable, low contrast", max_lines=2)
    examples = gr.Dataset(
        components=[gr.Textbox(visible=False)], samples=chips(calls), label="Example prompts",
        elem_classes="chips", samples_per_page=20, visible=bool(words.example_words),
    )  # fmt: skip
    prompt = gr.Textbox(label="Prompt (editable)", lines=2, max_lines=4)
    counted = gr.HTML(elem_classes="beside")
    return PromptPanel(calls, modality, organ, finding, appearance, free_text, examples, prompt, counted)


def chips(calls: Callables, modality: str | None = "") -> list[list[str]]:
    """The prompts to begin with for images of `modality`; of each kind the first where none is chosen."""
    known = calls.vocabulary.example_words
    first = {words[:2]: words for words in reversed(known)}.values()
    fitting = [words for words in known if words[0] == modality] or list(reversed(first))
    return [[calls.compose_prompt(*words, "")] for words in fitting]
