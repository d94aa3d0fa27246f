"""What kind of image was given, said beside it, and the words of the prompt that suit it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import gradio as gr
import numpy as np

from emitdiff.image_kinds import ImageKind, contradiction, fitting_prompt, kind_of_image
from emitdiff.ui.events import QUIET
from emitdiff.ui.examples import Example
from emitdiff.ui.interface import Callables
from emitdiff.ui.messages import note
from emitdiff.ui.results import Scan
from emitdiff.ui.source import SESSION_SECONDS, Source, selected_slice
from emitdiff.ui.synthesis.prompt_panel import PromptPanel

log = logging.getLogger(__name__)
CHOSEN = "The prompt was set to it; change it as you like."
UNKNOWN = "The kind of this image was not recognised: choose its modality and organ."
UNKNOWN_UNCHANGED = "The kind of this image was not recognised, and the prompt still says “{}”: check it."
LONGEST = 60  # letters of a prompt on the button


@dataclass(frozen=True)
class Guess:
    """What `scan` was taken for, None for nothing known; a guess about another image than is shown does not count."""

    scan: Scan
    kind: ImageKind | None


@dataclass(frozen=True)
class KindPanel:
    """The panel's components: the sentence, and the button that puts the fitting words into the prompt. `written`
    holds the prompt that was set here last: one that is still the same is not the user's own."""

    calls: Callables
    guess: gr.State
    written: gr.State
    said: gr.HTML
    use: gr.Button

    @property
    def outputs(self) -> list[Any]:
        """What `know` and `forget` change."""
        return [self.guess, self.said, self.use]

    def connect(self, source: Source, words: PromptPanel, loaded: list[Any]) -> None:
        """After each of the events `loaded` the kind of what is in `source` is guessed; `words` make the prompt."""
        known = {"scan": source.scan, "guess": self.guess, "prompt": words.prompt, "written": self.written}
        chosen = [self.written, *words.words.values(), words.prompt]
        at_once: dict[str, Any] = {"queue": False, **QUIET}
        for event in loaded:
            # Two events: the first may have to load the weights, and somebody may write a prompt meanwhile.
            event.then(
                self.look, inputs_kwargs=source.inputs, outputs=self.guess,
                concurrency_id="kind", concurrency_limit=1, **QUIET,
            ).then(
                lambda **now: self.apply(words, **now), inputs_kwargs=known | words.words,
                outputs=[self.said, self.use, *chosen], **at_once,
            )  # fmt: skip
        words.prompt.change(
            self.describe, inputs_kwargs=known, outputs=[self.said, self.use], trigger_mode="always_last", **at_once
        )
        self.use.click(
            lambda **now: self.correct(words, **now), inputs_kwargs={"guess": self.guess, "prompt": words.prompt},
            outputs=chosen, **at_once,
        )  # fmt: skip

    def forget(self) -> dict[Any, Any]:
        """Updates for `outputs` while nothing is known of the image."""
        return {self.guess: None, **self._said()}

    def know(self, scan: Scan, card: Example) -> dict[Any, Any]:
        """Updates for `outputs` for an example, whose kind stands on its card."""
        kind = ImageKind(card.modality, card.organ, f"The example is {card.title}")
        return {**self._said(), self.guess: Guess(scan, kind) if card.modality else None}

    def look(self, scan: Scan | None, slice_number: float, window: str | None) -> Guess | None:
        """What the slice shown is taken for; the weights are loaded for the first one."""
        if scan is None:
            return None
        return Guess(scan, guess_kind(self.calls, scan, selected_slice(scan, slice_number, window)))

    def apply(
        self, words: PromptPanel, scan: Scan | None, guess: Guess | None, prompt: str, written: str, **fields: str
    ) -> dict[Any, Any]:
        """The kind is said, and a prompt that nobody wrote is set to it. `fields`, by the names of `words.words`, hold
        what may not have reached the prompt yet."""
        kind = guess.kind if guess is not None and guess.scan is scan else None
        begun = self.calls.compose_prompt(*(fields.get(name) or "" for name in words.words))
        if kind is None or any(text.strip() and text != written for text in (prompt, begun)):
            return self.describe(scan, guess, prompt, written)
        chosen = words.set(kind.modality, kind.organ)
        prompt = chosen[words.prompt]
        return {**chosen, self.written: prompt, **self.describe(scan, guess, prompt, prompt)}

    def describe(self, scan: Scan | None, guess: Guess | None, prompt: str, written: str) -> dict[Any, Any]:
        """The sentence beside the image; where the prompt contradicts it, also the button that puts that right."""
        if guess is None or guess.scan is not scan:
            return self._said()
        kind, own = guess.kind, prompt == written
        if kind is None:
            if not prompt.strip():
                return self._said(note(UNKNOWN))
            return self._said(note(UNKNOWN_UNCHANGED.format(prompt), "warning") if own else "")
        if wrong := contradiction(prompt, kind):
            right = shorten(fitting_prompt(prompt, kind, self.calls.vocabulary.findings), LONGEST, placeholder=" …")
            return {self.said: note(wrong, "warning"), self.use: gr.Button(f"Use “{right}”", visible=True)}
        if own and prompt.strip():
            return self._said(note(f"{kind.told}. {CHOSEN}"))
        return self._said(note(f"{kind.told}.") if kind.guessed else "")

    def correct(self, words: PromptPanel, guess: Guess | None, prompt: str) -> dict[Any, Any]:
        """The button: the words that fit, with whatever of the prompt does not contradict them."""
        if guess is None or guess.kind is None:
            return {self.written: gr.skip()}
        right = fitting_prompt(prompt, guess.kind, self.calls.vocabulary.findings)
        return {**words.read(right), self.written: right}

    def _said(self, html: str = "") -> dict[Any, Any]:
        return {self.said: html, self.use: gr.Button(visible=False)}


def guess_kind(calls: Callables, scan: Scan, image: np.ndarray) -> ImageKind | None:
    """The kind of `image` (H, W, 3), a slice of `scan`; without a guess what the file says, None where it does not."""
    try:
        seen = calls.image_kind(image)
    except Exception as error:  # nobody asked for it: the image can be used without
        log.warning("the kind of the image was not guessed: %s", error)
        seen = None
    return kind_of_image(scan.modality, seen)


def build_kind_panel(calls: Callables) -> KindPanel:
    """Lays the panel out inside the current Blocks context."""
    said = gr.HTML(elem_classes="beside")
    use = gr.Button("Use the words that fit", size="sm", visible=False)
    return KindPanel(calls, gr.State(None, time_to_live=SESSION_SECONDS), gr.State(""), said, use)
