"""Runs of the synthesis: started, shown as they go on, stopped. What is shown where is up to the results panel."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import gradio as gr
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.ui.events import ON_DEVICE, stoppable, stopping
from emitdiff.ui.form import check_limit, check_request
from emitdiff.ui.interface import Callables
from emitdiff.ui.messages import finished, progress, sentence
from emitdiff.ui.results import Scan
from emitdiff.ui.source import mirror
from emitdiff.ui.synthesis.preview import read_inputs as given_to
from emitdiff.ui.synthesis.results_panel import ResultsPanel
from emitdiff.ui.synthesis.runs import Run


class Generation:
    """What Generate, Variations and Stop do; `panel` shows it."""

    def __init__(self, calls: Callables, panel: ResultsPanel) -> None:
        self.calls, self.panel = calls, panel
        self.cancellation = panel.cancellation

    def connect(
        self, given: dict[str, Any], form: dict[str, Any], buttons: tuple[gr.Button, gr.Button], line: gr.HTML,
        quiet: dict[str, Any],
    ) -> list[Any]:  # fmt: skip
        """`given` holds the components of image and mask, `form` those of a request, by name; `buttons` start and
        stop, `line` beside them repeats the progress. Returns the events of a run's end."""
        self.generate_button, self.stop_button = buttons
        panel = self.panel
        states = [*buttons, panel.vary]
        run = {"outputs": panel.outputs, **ON_DEVICE, **quiet}
        starts = {
            self.generate_button: {
                "fn": self.generate,
                "inputs_kwargs": {
                    "previous": panel.run,
                    "outlines": panel.outlines,
                    "large": panel.large,
                    **given,
                    **form,
                },
            },
            panel.vary: {
                "fn": self.vary,
                "inputs_kwargs": {"run": panel.run, "chosen": panel.chosen_index, "wanted": form["num_images"]},
            },
        }
        # Three events: the buttons answer at once even when the run must queue, and recover whatever happens to it.
        ended = [
            button.click(self.start_run, outputs=[*states, panel.progress], queue=False, **quiet)
            .then(**start, **run)
            .then(self.end_run, panel.run, states, queue=False, **quiet)
            for button, start in starts.items()
        ]
        mirror(panel.progress, line)
        self.stop_button.click(self.stop, outputs=self.stop_button, queue=False, **quiet)
        return ended

    def start_run(self, request: gr.Request) -> dict[Any, Any]:
        self.cancellation.begin(request)
        return {
            self.generate_button: gr.update(interactive=False),
            self.stop_button: stoppable(True),
            self.panel.vary: gr.update(interactive=False),
            self.panel.progress: progress("Waiting for the device.", None),
        }

    def stop(self, request: gr.Request) -> Any:
        self.cancellation.cancel(request)
        return stopping()

    def end_run(self, request: gr.Request, run: Run | None) -> dict[Any, Any]:
        self.cancellation.end(request)
        return {
            self.generate_button: gr.update(interactive=True),
            self.stop_button: stoppable(False),
            self.panel.vary: gr.update(interactive=bool(run and run.images)),
        }

    def generate(
        self, request: gr.Request, previous: Run | None, outlines: bool, large: int | None, scan: Scan | None,
        slice_number: float, window: str | None, mask_file: str | None, **form: Any,
    ) -> Iterator[dict[Any, Any]]:  # fmt: skip
        """Runs the synthesis and keeps the page up to date; every failure ends as a sentence above the gallery."""
        try:
            image, mask, stem = given_to(self.calls, scan, slice_number, window, mask_file, form.get("structure"))
            warnings = () if scan is None else tuple(scan.warnings)
            run = Run(check_request(form), image, mask, stem, warnings, outlines=outlines, large=large)
        except Exception as error:
            yield {self.panel.progress: finished(sentence(error), "error")}
            return
        if previous:
            previous.remove()
        yield from self._paint(request, run, image, mask)

    def vary(self, request: gr.Request, run: Run | None, chosen: int, wanted: float) -> Iterator[dict[Any, Any]]:
        """More images like the chosen one: its settings, its own edges and label, new seeds."""
        try:
            if run is None or not run.images:
                raise EmitDiffError("No image yet: generate images, then select one to vary.")
            parent = run.images[min(chosen, len(run.images) - 1)]
            count = check_limit("num_images", wanted)
            run.vary(parent, random.randrange(2**31), int(count))
        except Exception as error:
            yield {self.panel.progress: finished(sentence(error), "error")}
            return
        yield from self._paint(request, run, parent.result.image, parent.result.mask)

    def _paint(
        self, request: gr.Request, run: Run, image: np.ndarray | None, mask: np.ndarray | None
    ) -> Iterator[dict[Any, Any]]:
        panel, stop, failure = self.panel, self.cancellation.event(request), ""
        yield panel.started(run)
        try:
            for event in self.calls.synthesize(image, mask, run.request, stop.is_set):
                changed = run.add_event(event)
                yield panel.progressed(run, changed)
                if run.measure(self.calls.quality):
                    yield panel.progressed(run, True)
        except Exception as error:
            failure = sentence(error)
        run.running = False
        yield panel.ended(run, stop.is_set(), failure)
