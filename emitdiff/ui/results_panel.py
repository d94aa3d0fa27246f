"""What the synthesis makes: progress, the images as they come, and what is done with them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import gradio as gr

from emitdiff.ui.callables import Callables
from emitdiff.ui.form import check_request
from emitdiff.ui.merging_panel import build_merging_panel
from emitdiff.ui.messages import finished, note, progress, sentence
from emitdiff.ui.preview import given
from emitdiff.ui.runs import Run
from emitdiff.ui.source import KEPT_SECONDS, mirror
from emitdiff.ui.views import written_once

IDLE = "Choose an image, check the words, press Generate."
COLUMNS = {1: 1, 2: 2, 3: 3, 4: 2}  # tiles a row for so many images; more than four: four


class ResultsPanel:
    """Lays the panel out inside the current Blocks context; `connect` joins it to the form."""

    def __init__(self, calls: Callables) -> None:
        self.calls = calls
        self._stops: dict[str, threading.Event] = {}
        self.chosen_seed, self.chosen_index = gr.State(0), gr.State(0)
        self.run = gr.State(None, time_to_live=KEPT_SECONDS, delete_callback=lambda run: run and run.remove())
        self.progress = gr.HTML(finished(IDLE))
        self.gallery = written_once(
            gr.Gallery(
                label="Synthetic images", columns=2, object_fit="contain", format="png", interactive=False,
                buttons=["download", "fullscreen"], elem_classes="painted", height="100%",
            )
        )  # fmt: skip
        with gr.Row(elem_classes="after"):
            self.chosen = gr.HTML(note("Every image keeps its own seed."), elem_classes="beside")
            self.use_seed = gr.Button("Use its seed", size="sm", scale=0, min_width=110, interactive=False)
            self.download = gr.DownloadButton(
                "Download ZIP", size="sm", scale=0, min_width=130, interactive=False, elem_classes="download"
            )
        self.merging = build_merging_panel(self.calls)

    def connect(
        self, inputs: dict[str, Any], form: dict[str, Any], buttons: tuple[gr.Button, gr.Button], line: gr.HTML
    ) -> None:
        """`inputs` holds everything a run depends on by the names of `generate`, `form` those of a request alone;
        `buttons` start and stop, `line` beside them repeats the progress."""
        self.form, (self.generate_button, self.stop_button) = form, buttons
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        buttons = list(buttons)
        # Three events: the buttons answer at once even when the run must queue, and recover whatever happens to it.
        ended = (
            self.generate_button.click(self.begin, outputs=[*buttons, self.progress], queue=False, **quiet)
            .then(
                self.generate,
                inputs_kwargs={"previous": self.run, **inputs},
                outputs=[self.run, self.progress, self.gallery, self.chosen, self.use_seed, self.download],
                concurrency_id="device",
                concurrency_limit=1,
                **quiet,
            )
            .then(self.rest, outputs=buttons, queue=False, **quiet)
        )
        mirror(self.progress, line)
        self.stop_button.click(self.stop, outputs=self.stop_button, queue=False, **quiet)
        chosen = [self.chosen, self.chosen_seed, self.use_seed, self.chosen_index]
        selected = self.gallery.select(self.choose, self.run, chosen, queue=False, **quiet)
        self.merging.connect(self.run, self.chosen_index, ended, selected, quiet)
        self.use_seed.click(lambda seed: seed, self.chosen_seed, form["seed"], queue=False, **quiet)

    def idle(self, request: gr.Request) -> dict[Any, Any]:
        """Another image takes away what was said of the last one, unless a run is being reported there."""
        return {self.progress: gr.skip() if request.session_hash in self._stops else finished(IDLE)}

    def begin(self, request: gr.Request) -> dict[Any, Any]:
        self._stops[request.session_hash] = threading.Event()
        return {
            self.generate_button: gr.update(interactive=False),
            self.stop_button: gr.update(interactive=True),
            self.progress: progress("Waiting for the device.", None),
        }

    def stop(self, request: gr.Request) -> Any:
        if stop := self._stops.get(request.session_hash):
            stop.set()
        return gr.update(interactive=False)

    def rest(self, request: gr.Request) -> tuple[Any, Any]:
        self._stops.pop(request.session_hash, None)
        return gr.update(interactive=True), gr.update(interactive=False)

    def generate(
        self, request: gr.Request, previous: Run | None, scan: Any, slice_number: float, window: str | None,
        mask_file: str | None, **form: Any,
    ) -> Iterator[dict[Any, Any]]:  # fmt: skip
        """Runs the synthesis and keeps the page up to date; every failure ends as a sentence above the gallery."""
        stop = self._stops.get(request.session_hash) or threading.Event()
        try:
            image, mask, stem = given(self.calls, scan, slice_number, window, mask_file, form.get("structure"))
            run = Run(check_request(form), image, mask, stem)
        except Exception as error:
            yield {self.progress: finished(sentence(error), "error")}
            return
        if previous:
            previous.remove()
        columns = COLUMNS.get(run.request.num_images, 4)
        yield {
            self.run: run,
            self.progress: progress(run.words, None),
            self.gallery: gr.Gallery(run.tiles(), columns=columns, selected_index=None),
            self.download: gr.DownloadButton(value=None, interactive=False),
            self.use_seed: gr.Button(interactive=False),
        }
        failure = ""
        try:
            for event in self.calls.synthesize(image, mask, run.request, stop.is_set):
                changed = run.take(event)
                yield {
                    self.progress: progress(run.words, run.fraction),
                    **({self.gallery: run.tiles()} if changed else {}),
                }
        except Exception as error:
            failure = sentence(error)
        yield self._end(run, stop.is_set(), failure)

    def _end(self, run: Run, stopped: bool, failure: str) -> dict[Any, Any]:
        archive = run.archive()
        return {
            self.progress: finished(failure or run.summary(stopped), "error" if failure else "info"),
            self.gallery: run.tiles(waiting=False),
            self.download: gr.DownloadButton(value=str(archive) if archive else None, interactive=archive is not None),
            self.chosen: note("Every image keeps its own seed. The ZIP holds images, masks and a manifest."),
        }

    def choose(self, run: Run | None, event: gr.SelectData) -> dict[Any, Any]:
        """An image of the gallery was selected: its seed and how long it took."""
        if run is None or event.index >= len(run.results):
            return {self.use_seed: gr.Button(interactive=False)}
        result = run.results[event.index]
        text = (
            f"Image {event.index + 1} of {run.request.num_images}: seed {result.seed}, made in {result.seconds:.1f} s."
        )
        return {
            self.chosen: note(text),
            self.chosen_seed: result.seed,
            self.chosen_index: event.index,
            self.use_seed: gr.Button(interactive=True),
        }

    def end_session(self, request: gr.Request) -> None:
        """The page was closed: whatever still runs for it stops."""
        if stop := self._stops.pop(request.session_hash, None):
            stop.set()
