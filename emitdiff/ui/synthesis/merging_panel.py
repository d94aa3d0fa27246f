"""The merging mask as a preview: the squares of a training image that are real, the others synthetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.images import overlay
from emitdiff.ui.interface import Callables
from emitdiff.ui.messages import note, sentence
from emitdiff.ui.source import at_view_size
from emitdiff.ui.synthesis.runs import Run
from emitdiff.ui.views import written_once


@dataclass(frozen=True)
class MergingPanel:
    """The panel's components, in an accordion below the results."""

    calls: Callables
    panel: gr.Accordion
    alpha: gr.Slider
    patch: gr.Number
    seed: gr.Number
    view: gr.Image
    words: gr.HTML

    @property
    def inputs(self) -> list[Any]:
        return [self.alpha, self.patch, self.seed]

    def connect(self, run: gr.State, chosen: gr.State, changes: list[Any], quiet: dict[str, Any]) -> None:
        """Shows the mixture of the chosen image of `run` after each of the events that change one of them, and
        whenever a setting has changed."""
        look = {"fn": self.look, "inputs": [run, chosen, *self.inputs], "outputs": [self.view, self.words], **quiet}
        for event in changes:
            event.then(**look)
        gr.on([self.panel.expand, *(one.input for one in self.inputs)], trigger_mode="always_last", **look)

    def look(
        self, run: Run | None, chosen: int, alpha: float | None, patch: float | None, seed: float | None
    ) -> dict[Any, Any]:
        """Image `chosen` of the run mixed with its source, as a segmenter's trainer sees it, the label outlined."""
        try:
            picture, label, share = self._mix(run, chosen, alpha, patch, seed)
        except Exception as error:
            return {self.view: None, self.words: note(sentence(error), "error" if run else "info")}
        shown = at_view_size(picture)
        outlined = shown if label is None else overlay(shown, at_view_size(label), 0.0)
        return {self.view: outlined, self.words: note(f"{share:.0%} real. The outline shows the label.")}

    def _mix(self, run: Run | None, chosen: int, alpha, patch, seed) -> tuple[np.ndarray, np.ndarray | None, float]:
        if run is None or not run.results:
            raise EmitDiffError("Generate images first to see one mixed with the real image.")
        if run.source is None:
            raise EmitDiffError("These images were generated without a real image, so there is nothing to mix.")
        for name, value, low, high in (("alpha", alpha, 0, 1), ("patch", patch, 1, 4096), ("seed", seed, 0, 2**32 - 1)):
            if value is None or not low <= value <= high:
                raise EmitDiffError(f"The {name} of the merging mask must be a number from {low} to {high}.")
        result = run.results[min(chosen, len(run.results) - 1)]
        height, width = run.source.shape[:2]
        real = self.calls.merging_mask(height, width, int(patch), float(alpha), np.random.default_rng(int(seed)))
        picture = np.where(real[..., None], run.source, result.image)
        label = None if run.label is None or result.mask is None else np.where(real, run.label, result.mask)
        return picture, label, float(real.mean())


def build_merging_panel(calls: Callables) -> MergingPanel:
    """Lays the panel out inside the current Blocks context."""
    with gr.Accordion("Merging mask", open=False, elem_classes="merging") as panel:
        gr.HTML(note("Patches of real and synthetic images mixed in one training image, as in EMIT-Diff."))
        with gr.Row(elem_classes="settings"):
            alpha = gr.Slider(0, 1, value=0.6, step=0.05, label="Alpha: fraction of real patches", buttons=[])
            patch = gr.Number(64, label="Patch size, pixels", precision=0, min_width=90)
            seed = gr.Number(0, label="Seed", precision=0, min_width=90)
        words = gr.HTML(elem_classes="beside")
        view = written_once(
            gr.Image(
                label="Mixed", interactive=False, format="png", buttons=["fullscreen"], elem_classes="view",
                alt_text="Squares of the real and of the synthetic image mixed, with the outline of the label",
            )
        )  # fmt: skip
    return MergingPanel(calls, panel, alpha, patch, seed, view, words)
