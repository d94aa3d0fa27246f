"""The Synthesis tab: one image becomes labelled synthetic images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from emitdiff.files import file_stem
from emitdiff.ui.events import ON_DEVICE, QUIET
from emitdiff.ui.examples import Example
from emitdiff.ui.form import fill_form
from emitdiff.ui.interface import Callables
from emitdiff.ui.messages import finished
from emitdiff.ui.synthesis.input_panel import SynthesisInput
from emitdiff.ui.synthesis.painting import Generation
from emitdiff.ui.synthesis.results_panel import ResultsPanel
from emitdiff.ui.synthesis.runs import Run


class SynthesisTab:
    """Lays out the tab inside the current Blocks context and connects it. `checkpoint` is read by the page's status."""

    def __init__(self, calls: Callables, cards: list[Example]) -> None:
        self.input = SynthesisInput(calls, cards)
        with gr.Row(elem_classes="workspace"):
            with gr.Column(elem_classes="pane"):
                self.input.lay_out_controls()
                self._lay_out_actions()
            with gr.Column(elem_classes="pane views"):
                self.input.lay_out_views()
            with gr.Column(elem_classes="pane results"):
                self.results = ResultsPanel(calls)
        self.generation = Generation(calls, self.results)
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
        source = self.input.source
        source.file.upload(self.results.idle, outputs=self.results.progress, queue=False, **QUIET)
        changed = [field.change for field in self.form.values()]
        self.results.clear_errors_on([*changed, self.input.mask.file.change], QUIET)
        source.clear_errors_on([self.generate_button.click], QUIET)
        stored = source.examples.select(
            self.show_stored, [self.checkpoint, self.results.run, self.results.large],
            [*self.results.outputs, self.results.vary], queue=False, **QUIET,
        )  # fmt: skip
        buttons = (self.generate_button, self.stop_button)
        ended = self.generation.connect(self.input.given, self.form, buttons, self.mirror, QUIET)
        self.results.connect([*ended, stored])
        self.results.use_settings.click(
            self.take_settings, [self.results.run, self.results.chosen_index], self.input.restored, queue=False, **QUIET
        ).then(**self.input.preview_event)

    def outlive(self, demo: gr.Blocks) -> None:
        """A page that is reloaded comes back to its run. To be called outside of all tabs."""
        generation, given = self.generation, self.input
        generation.ticket.render()
        shown = [*generation.outputs, *given.source.outputs, *given.mask.outputs, *given.preview.outputs]
        demo.load(self.resume, generation.ticket, shown, **ON_DEVICE, **QUIET)
        demo.unload(generation.leave)

    def resume(self, request: gr.Request, ticket: Any) -> Iterator[dict[Any, Any]]:
        """The run of that name with what it was generated from, as far as both are still here."""
        run = self.generation.kept_runs.find(ticket)
        if run is None:
            yield {self.results.run: gr.skip()}
            return
        updates = self.generation.resume(request, run)
        yield {**self.input.show_again(fill_form(run.request), **run.background.given), **next(updates)}
        yield from updates

    def take_settings(self, run: Run | None, chosen: int) -> dict[Any, Any]:
        """Everything the chosen image was generated with goes back into the form, its own seed as the first one."""
        settings = run.settings(chosen) if run else {}
        return self.input.restore(settings)[0] or {self.form["seed"]: gr.skip()}

    def show_stored(
        self, checkpoint: str, previous: Run | None, large: int | None, event: gr.SelectData, request: gr.Request
    ) -> dict[Any, Any]:
        """An example was chosen: what was made of it earlier stands in the gallery at once; no network runs."""
        image, mask, stored = self.input.example(event.index, checkpoint)
        if stored is None or self.results.cancellation.running(request):
            return self.results.idle(request)
        if previous:
            previous.remove()
        run = stored.run(image, mask, file_stem(self.input.cards[event.index].image.name))
        run.large = large
        shown = {**self.results.started(run), **self.results.ended(run, False, "")}
        said = f"Precomputed results: {len(run.images)} images generated earlier. Press Generate to recompute them."
        return {**shown, self.results.progress: finished(said), self.results.vary: gr.Button(interactive=True)}
