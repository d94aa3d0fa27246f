"""The Synthesis tab: one image becomes labelled synthetic images."""

from __future__ import annotations

import gradio as gr

from emitdiff.ui.callables import Callables
from emitdiff.ui.examples import Example
from emitdiff.ui.results_panel import ResultsPanel
from emitdiff.ui.synthesis_input import SynthesisInput


class SynthesisTab:
    """Lays out the tab inside the current Blocks context and connects it. `checkpoint` is read by the page's status."""

    def __init__(self, calls: Callables, cards: list[Example]) -> None:
        self.input = SynthesisInput(calls, cards)
        with gr.Row(elem_classes="workspace three"):
            with gr.Column(elem_classes="pane"):
                self.input.lay_out_controls()
                self._lay_out_actions()
            with gr.Column(elem_classes="pane views"):
                self.input.lay_out_views()
            with gr.Column(elem_classes="pane results"):
                self.results = ResultsPanel(calls)
        self.form, self.checkpoint = self.input.form, self.input.sampling.checkpoint
        self.input.connect()
        self._connect_results()

    def _lay_out_actions(self) -> None:
        with gr.Column(elem_classes="actions"):
            self.mirror = gr.HTML(elem_classes="mirror")
            with gr.Row():
                self.generate_button = gr.Button("Generate", variant="primary", scale=3, min_width=120)
                self.stop_button = gr.Button("Stop", variant="stop", scale=1, min_width=80, interactive=False)

    def _connect_results(self) -> None:
        source, quiet = self.input.source, {"show_progress": "hidden", "api_visibility": "private"}
        gr.on(
            [source.file.upload, source.examples.select], self.results.idle, outputs=self.results.progress,
            queue=False, **quiet,
        )  # fmt: skip
        buttons = (self.generate_button, self.stop_button)
        self.results.connect(self.input.given, self.form, buttons, self.mirror)
