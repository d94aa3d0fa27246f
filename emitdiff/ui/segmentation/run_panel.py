"""The buttons Find, All slices and Stop, and the runs that they start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.ui.cancellation import Cancellation
from emitdiff.ui.events import ON_DEVICE, QUIET, stoppable, stopping
from emitdiff.ui.finding import Finding, Volume
from emitdiff.ui.interface import Callables, Untaught
from emitdiff.ui.messages import duration, finished, notes, progress, sentence
from emitdiff.ui.results import Scan
from emitdiff.ui.segmentation.reading_panel import ReadingPanel
from emitdiff.ui.segmentation.sentence_panel import SentencePanel
from emitdiff.ui.segmentation.weights_in_use import WeightsInUse
from emitdiff.ui.source import SESSION_SECONDS, chosen_scan, selected_slice, slice_index

RUNNING = "Segmenting. The first run after a server start loads the weights."
OUTDATED_RESULT = "Result discarded: the image, slice or window was changed during the run. Press Find again."


class RunPanel:
    """Lays out the buttons inside the current Blocks context; `connect` ties them to the tab around. `finding` and
    `volume` hold the result that is shown, which `reading` shows with the notes of `words`."""

    def __init__(
        self, calls: Callables, reading: ReadingPanel, words: SentencePanel, finding: gr.State, volume: gr.State
    ) -> None:
        self.calls, self.reading, self.words = calls, reading, words
        self.finding, self.volume = finding, volume
        self.cancellation = Cancellation()
        # A Finding or Volume, until it is known that the page still shows what was asked about.
        self.result = gr.State(None, time_to_live=SESSION_SECONDS)
        with gr.Column(elem_classes="actions"):
            self.mirror = gr.HTML(elem_classes="mirror")
            self.weights = WeightsInUse(calls)
            with gr.Row():
                self.find_button = gr.Button("Find", variant="primary", scale=3, min_width=70)
                self.all_button = gr.Button("All slices", visible=False, scale=3, min_width=110)
                self.stop_button = gr.Button("Stop", variant="stop", visible=False, scale=1, min_width=70)

    def connect(
        self, seen: dict[str, Any], checkpoint: gr.Dropdown, side: gr.Checkbox, tried: Any, results: list[Any],
        compare: dict[str, Any],
    ) -> None:  # fmt: skip
        """`seen` is what `show_result` needs besides the result, `results` what it updates; `side` asks for a second
        result without the text, `tried` is an event after which Find is pressed, and `compare` follows every run.
        """
        self.weights.connect(checkpoint)
        # Several events: the buttons answer at once even when the run must queue, and recover whatever happens to it;
        # and what is shown in the end is decided by what is chosen then, for nothing keeps anybody from going on.
        asked = {name: seen[name] for name in ("scan", "slice_number", "window", "threshold")}
        asked |= {"text": self.words.text, "checkpoint": checkpoint}
        on_device: dict[str, Any] = {**ON_DEVICE, **QUIET}
        heavy = {"outputs": [self.result, self.reading.progress, self.words.note], **on_device}
        settle = {"fn": self.show_result, "inputs_kwargs": {"result": self.result, **seen},
                  "outputs": [*results, self.result], **QUIET}  # fmt: skip
        buttons = [self.find_button, self.all_button, self.stop_button]
        begin: dict[str, Any] = {"outputs": [*buttons, self.reading.progress], "queue": False, **QUIET}
        rest = {"fn": self.end_run, "outputs": buttons, "queue": False, **QUIET}
        nearest = self.reading.nearest_button.click(
            lambda finding: finding.output.nearest if finding else gr.skip(), self.finding, self.words.text,
            queue=False, **QUIET,
        )  # fmt: skip
        starts = dict.fromkeys((self.find_button.click, self.words.text.submit, tried.then, nearest.then), self.find)
        for start, find in {**starts, self.reading.anyway_button.click: self.find_anyway}.items():
            start(self.start_run, **begin).then(find, inputs_kwargs={**asked, "side": side}, **heavy).then(
                **settle
            ).then(**rest).then(**compare)
        self.all_button.click(self.start_all, **begin).then(self.find_all, inputs_kwargs=asked, **heavy).then(
            **settle
        ).then(**rest).then(**compare)
        self.stop_button.click(self.stop, outputs=self.stop_button, queue=False, **QUIET)
        side.input(
            self.toggle_comparison,
            inputs_kwargs={"finding": self.finding, "side": side},
            outputs=[self.result, self.finding, *self.reading.outputs],
            **on_device,
        ).then(**settle).then(**compare)

    def start_run(self) -> dict[Any, Any]:
        waiting = {button: gr.Button(interactive=False) for button in (self.find_button, self.all_button)}
        return {**waiting, self.reading.progress: progress(RUNNING, None)}

    def start_all(self, request: gr.Request) -> dict[Any, Any]:
        self.cancellation.begin(request)
        return {**self.start_run(), self.stop_button: stoppable(True)}

    def stop(self, request: gr.Request) -> Any:
        self.cancellation.cancel(request)
        return stopping()

    def end_run(self, request: gr.Request) -> dict[Any, Any]:
        self.cancellation.end(request)
        ready = {button: gr.Button(interactive=True) for button in (self.find_button, self.all_button)}
        return {**ready, self.stop_button: stoppable(False)}

    def find(
        self, scan: Scan | None, slice_number: float, window: str | None, threshold: float, text: str, checkpoint: str,
        side: bool, untaught: Untaught = "refuse",
    ) -> dict[Any, Any]:  # fmt: skip
        """Runs the segmenter once; every failure ends as a sentence above the image."""
        try:
            scan = chosen_scan(scan)
            image, text = self._query(scan, slice_number, window, text)
            output = self.calls.segment(image, text, threshold, checkpoint, untaught)
            asked = side and not output.untaught
            without = self.calls.segment(image, "", threshold, checkpoint) if asked else None
        except Exception as error:
            return {self.result: None, self.words.note: "", self.reading.progress: finished(sentence(error), "error")}
        found = Finding(scan, image, slice_index(scan, slice_number), output, text, threshold, checkpoint, without)
        return {self.result: found, self.words.note: notes(output.warnings, "warning")}

    def find_anyway(self, **asked: Any) -> dict[Any, Any]:
        """The same, also for a text that asks for nothing that was taught."""
        return self.find(**asked, untaught="try")

    def show_result(
        self, result: Finding | Volume | None, finding: Finding | None, volume: Volume | None, scan: Scan | None,
        slice_number: float, window: str | None, threshold: float, **shown: Any,
    ) -> dict[Any, Any]:  # fmt: skip
        """A run is over: its answer takes the place of the last one, or is dropped, and that is said, where the page
        shows another image by now. Without an answer nothing changes."""
        if result is None:
            return {self.result: None}
        try:
            updates = self._result_updates(result, volume, scan, slice_number, window, threshold, **shown)
        except Exception as error:
            if result is not finding:
                result.remove()
            return {self.result: None, self.words.note: "", self.reading.progress: finished(sentence(error), "error")}
        for replaced in (finding, volume if isinstance(result, Volume) else None):
            if replaced not in (None, result):
                replaced.remove()
        return {**updates, self.result: None}

    def _result_updates(
        self, result: Finding | Volume, volume: Volume | None, scan: Scan | None, slice_number: float,
        window: str | None, threshold: float, **shown: Any,
    ) -> dict[Any, Any]:  # fmt: skip
        """What is shown of an answer where it is one to the slice that is chosen now; else raises EmitDiffError."""
        if result.scan is not scan:
            raise EmitDiffError(OUTDATED_RESULT)
        index, image = slice_index(scan, slice_number), selected_slice(scan, slice_number, window)
        if isinstance(result, Finding):
            if not result.belongs_to(scan, index, image, volume):
                raise EmitDiffError(OUTDATED_RESULT)
            return {self.finding: result, **self.reading.show(result, **shown)}
        if result.window != window:
            raise EmitDiffError(OUTDATED_RESULT)
        found = result.finding(index, image, threshold) if index in result.answers else None
        views = self.reading.show(found, **shown) if found else self.reading.blank(image, scan)
        said = finished(result.describe(threshold), "info" if result.masks(threshold).any() else "absent")
        return {self.volume: result, self.finding: found, **views, self.reading.progress: said}

    def _query(self, scan: Scan | None, slice_number: float, window: str | None, text: str) -> tuple[np.ndarray, str]:
        image = selected_slice(scan, slice_number, window)
        if not (text or "").strip():
            raise EmitDiffError("No text yet: describe the target, or choose one of the terms below the field.")
        return image, text.strip()

    def find_all(
        self, request: gr.Request, scan: Scan | None, slice_number: float, window: str | None, threshold: float,
        text: str, checkpoint: str,
    ) -> Iterator[dict[Any, Any]]:  # fmt: skip
        """Asks every slice, from the first to the last; after Stop what was found stays, and the rest is empty."""
        stop, line, whole = self.cancellation.event(request), self.reading.progress, None
        try:
            scan = chosen_scan(scan)
            image, text = self._query(scan, slice_number, window, text)
            whole = Volume(scan, window, text, checkpoint)
            for update in self._slices(whole, threshold, stop.is_set):
                yield {line: update}
            if not whole.answers:
                raise EmitDiffError("Stopped before the first slice was finished.")
            if (first := whole.answer(min(whole.answers), threshold)).untaught:
                whole.remove()
                refused = Finding(scan, image, slice_index(scan, slice_number), first, text, threshold, checkpoint)
                yield {self.result: refused, self.words.note: notes(first.warnings, "warning")}
                return
        except Exception as error:
            if whole:
                whole.remove()
            yield {self.result: None, self.words.note: "", line: finished(sentence(error), "error")}
            return
        yield {self.result: whole, self.words.note: notes(whole.answers[min(whole.answers)].warnings, "warning")}

    def _slices(self, whole: Volume, threshold: float, stopped: Any) -> Iterator[str]:
        """Fills `whole`, saying how far it is."""
        started, total = time.monotonic(), whole.scan.num_slices
        for index in range(total):
            if stopped():
                return
            output = self.calls.segment(whole.scan.image(index, whole.window), whole.text, threshold, whole.checkpoint)
            whole.add(index, output)
            if output.untaught:  # in every other slice as well
                return
            left = (time.monotonic() - started) / (index + 1) * (total - index - 1)
            yield progress(f"Slice {index + 1} of {total}, about {duration(left)} left", (index + 1) / total)

    def toggle_comparison(self, finding: Finding | None, side: bool) -> Iterator[dict[Any, Any]]:
        """The second view comes or goes; an answer that is there already is compared with one without the text."""
        view = {self.reading.without_view: gr.Image(visible=side)}
        yield view
        if not side or finding is None or finding.refused:
            if finding is not None:
                finding.without = None
                yield {self.finding: finding, self.reading.without_note: ""}
            return
        try:
            finding.without = self.calls.segment(finding.image, "", finding.threshold, finding.checkpoint)
            yield {self.result: finding}
        except Exception as error:
            yield {self.result: None, self.reading.progress: finished(sentence(error), "error")}
