"""Runs of the synthesis: started, shown as they go on, stopped, and found again by a page that was reloaded. What is
shown where is up to the results panel."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import gradio as gr

from emitdiff.errors import EmitDiffError
from emitdiff.ui.events import ON_DEVICE, stoppable, stopping
from emitdiff.ui.form import check_limit, check_request
from emitdiff.ui.interface import Callables
from emitdiff.ui.messages import finished, progress, sentence
from emitdiff.ui.results import Scan
from emitdiff.ui.source import mirror
from emitdiff.ui.synthesis.background import BackgroundRun, KeptRuns
from emitdiff.ui.synthesis.preview import read_inputs as given_to
from emitdiff.ui.synthesis.results_panel import ResultsPanel
from emitdiff.ui.synthesis.runs import Run


class Generation:
    """What Generate, Variations and Stop do; `panel` shows it."""

    def __init__(self, calls: Callables, panel: ResultsPanel) -> None:
        self.calls, self.panel = calls, panel
        self.cancellation = panel.cancellation
        self.kept_runs = KeptRuns()
        self._runs: dict[str | None, Run] = {}  # that go on, by session
        # Not in the tab: what is there has no value in the browser before the tab is opened.
        self.ticket = gr.BrowserState("", storage_key="emitdiff_run", render=False)

    def connect(
        self, given: dict[str, Any], form: dict[str, Any], buttons: tuple[gr.Button, gr.Button], line: gr.HTML,
        quiet: dict[str, Any],
    ) -> list[Any]:  # fmt: skip
        """`given` holds the components of image and mask, `form` those of a request, by name; `buttons` start and
        stop, `line` beside them repeats the progress. Returns the events of a run's end."""
        self.generate_button, self.stop_button = buttons
        panel = self.panel
        states = [*buttons, panel.vary]
        self.outputs = [*states, *panel.outputs]
        run = {"outputs": [*panel.outputs, self.ticket], **ON_DEVICE, **quiet}
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
        return {**self._buttons(True), self.panel.progress: progress("Waiting for the device.", None)}

    def _buttons(self, running: bool, some: bool = False) -> dict[Any, Any]:
        """Updates of the buttons while something runs and after it; `some`: there are images to vary."""
        return {
            self.generate_button: gr.update(interactive=not running),
            self.stop_button: stoppable(running),
            self.panel.vary: gr.update(interactive=some and not running),
        }

    def stop(self, request: gr.Request) -> Any:
        self.cancellation.cancel(request)
        return stopping()

    def end_run(self, request: gr.Request, run: Run | None) -> dict[Any, Any]:
        self.cancellation.end(request)
        return self._buttons(False, bool(run and run.images))

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
        given = {"scan": scan, "slice_number": slice_number, "window": window, "mask_file": mask_file}
        yield from self._paint(request, run, image, mask, given)

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
        given = run.background.given if run.background else {}
        yield from self._paint(request, run, parent.result.image, parent.result.mask, given)

    def _paint(
        self, request: gr.Request, run: Run, image: Any, mask: Any, given: dict[str, Any]
    ) -> Iterator[dict[Any, Any]]:
        """Begins `run` on `image` (H, W, 3) and `mask` (H, W), either of which may be None, and shows it."""
        stop = self.cancellation.event(request)
        events = lambda cancelled: self.calls.synthesize(image, mask, run.request, cancelled)  # noqa: E731
        run.background = BackgroundRun(run, events, self.calls.quality, stop, given)
        yield {**self.panel.started(run), self.ticket: self.kept_runs.add(run)}
        yield from self._show(request, run)

    def _show(self, request: gr.Request, run: Run) -> Iterator[dict[Any, Any]]:
        background = run.background
        self._runs[request.session_hash] = run
        for changed in background.follow(request.session_hash):
            yield self.panel.progressed(run, changed)
        self._runs.pop(request.session_hash, None)
        yield self.panel.ended(run, background.stop.is_set(), background.failure)

    def resume(self, request: gr.Request, run: Run) -> Iterator[dict[Any, Any]]:
        """A page was opened again: the run it began is shown, and followed as long as it goes on."""
        run.holders += 1
        running = not run.background.over
        if running:
            self.cancellation.adopt(request, run.background.stop)
        yield {**self.panel.started(run), **self._buttons(running)}
        yield from self._show(request, run)
        yield self.end_run(request, run)

    def leave(self, request: gr.Request) -> None:
        """A page was closed. What it runs ends soon, unless the page is there again by then."""
        run = self._runs.pop(request.session_hash, None)
        if run is None or run.background.over:
            self.cancellation.end(request)
            return
        self.cancellation.release(request)
        run.background.leave(request.session_hash)
