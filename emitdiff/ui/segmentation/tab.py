"""The Segmentation tab: an image and a sentence become a mask, of one slice or of a whole volume."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.ui.browser_settings import persist_settings
from emitdiff.ui.cancellation import Cancellation
from emitdiff.ui.events import QUIET
from emitdiff.ui.examples import Example
from emitdiff.ui.finding import MAPS, Finding, Volume
from emitdiff.ui.form import word_in
from emitdiff.ui.interface import Callables
from emitdiff.ui.messages import duration, finished, note, notes, progress, sentence
from emitdiff.ui.results import Scan
from emitdiff.ui.segmentation.reading_panel import ReadingPanel
from emitdiff.ui.segmentation.sentence_panel import SentencePanel
from emitdiff.ui.segmentation.teach_panel import TeachPanel
from emitdiff.ui.segmentation.truth_panel import TruthPanel
from emitdiff.ui.source import SESSION_SECONDS, build_source, chosen_scan, mirror, selected_slice, slice_index
from emitdiff.ui.synthesis.results_panel import ResultsPanel
from emitdiff.ui.synthesis.runs import Run

LONGEST_TEXT = 2000  # of a text that is taken from the browser's storage
RUNNING = "Segmenting. The first run after a server start loads the weights."
OUTDATED_RESULT = "Result discarded: the image, slice or window was changed during the run. Press Find again."


class SegmentationTab:
    """Lays out the tab inside the current Blocks context and connects it. `checkpoint` is read by the page's status."""

    def __init__(self, calls: Callables, cards: list[Example]) -> None:
        self.calls = calls
        self.cards = [card for card in cards if card.text]
        self.models = {model.name: model for model in calls.models() if model.kind == "segmentation"}
        self.cancellation = Cancellation()
        self.finding, self.volume = (
            gr.State(None, time_to_live=SESSION_SECONDS, delete_callback=lambda kept: kept and kept.remove())
            for _ in range(2)
        )
        # A Finding or Volume, until it is known that the page still shows what was asked about.
        self.result = gr.State(None, time_to_live=SESSION_SECONDS)
        self.reading, self.truth = ReadingPanel(), TruthPanel(calls)
        with gr.Row(elem_classes="workspace"):
            with gr.Column(elem_classes="pane"):
                self._lay_out_controls()
            with gr.Column(elem_classes="pane reading"):
                self.reading.lay_out_views()
            with gr.Column(elem_classes="pane views"):
                self.reading.lay_out_map()
                self.truth.lay_out_scores()
                self.reading.lay_out_file()
        self.teaching = TeachPanel(calls)
        self._connect()

    def _lay_out_controls(self) -> None:
        self.source = build_source(self.calls, self.cards, "Your image")
        self.words = SentencePanel(self.calls)
        self.side = gr.Checkbox(False, label="Compare with the result without text")
        self.truth.lay_out_input()
        with gr.Accordion("Advanced", open=False):
            self.checkpoint = gr.Dropdown(list(self.models), value=self.calls.segmentation_checkpoint, label="Weights")
        with gr.Column(elem_classes="actions"):
            self.mirror = gr.HTML(elem_classes="mirror")
            with gr.Row():
                self.find_button = gr.Button("Find", variant="primary", scale=3, min_width=70)
                self.all_button = gr.Button("All slices", visible=False, scale=3, min_width=110)
                self.stop_button = gr.Button("Stop", variant="stop", visible=False, scale=1, min_width=70)

    def _connect(self) -> None:
        source, reading = self.source, self.reading
        compare = self.truth.connect(source, self.finding, QUIET)
        seen = {"finding": self.finding, "volume": self.volume, **source.inputs, "threshold": reading.threshold}
        results = [self.finding, self.volume, *reading.outputs, self.words.note]
        look = {"fn": self.show_slice, "inputs_kwargs": {**seen, **reading.inputs}, "outputs": results, **QUIET}
        self._arrived = look, compare  # what follows once another image is there
        self._connect_source(look, compare)
        self.words.connect(self.checkpoint, QUIET)
        told = [self.result, reading.progress, self.words.note]
        heavy: dict[str, Any] = {"outputs": told, "concurrency_id": "device", "concurrency_limit": 1, **QUIET}
        asked = {**source.inputs, "threshold": reading.threshold, "text": self.words.text,
                 "checkpoint": self.checkpoint}  # fmt: skip
        settle = {"fn": self.show_result, "inputs_kwargs": {"result": self.result, **seen, **reading.inputs},
                  "outputs": [*results, self.result], **QUIET}  # fmt: skip
        self._connect_runs(asked, heavy, settle, compare)
        self.side.input(
            self.toggle_comparison,
            inputs_kwargs={"finding": self.finding, "side": self.side},
            **{**heavy, "outputs": [self.result, self.finding, *reading.outputs]},
        ).then(**settle).then(**compare)
        reading.connect(self.finding, QUIET)
        again = {"finding": self.finding, "threshold": reading.threshold, **reading.inputs}
        gr.on(
            [reading.threshold.input, reading.form.input],
            self.apply_threshold,
            inputs_kwargs=again,
            outputs=[*reading.outputs, self.finding],
            trigger_mode="always_last",
            **QUIET,
        ).then(**compare)
        mirror(reading.progress, self.mirror)

    @property
    def _of_source(self) -> list[Any]:
        """What another image changes at once."""
        return [*self.source.outputs, self.reading.form, self.truth.file, self.all_button, self.stop_button,
                self.words.kind]  # fmt: skip

    def connect_synthesis(self, results: ResultsPanel, tabs: gr.Tabs) -> None:
        """Send to segmentation: a synthetic image comes with its label as the true mask, and this tab to the front."""
        self.tabs, (look, compare) = tabs, self._arrived
        results.send.click(
            self.take_result, [results.run, results.chosen_index], [tabs, *self._of_source], queue=False, **QUIET
        ).then(**look).then(**compare)

    def persist(self, demo: gr.Blocks) -> None:
        """Words, views and few-shot heads outlive a refresh; images and masks do not."""
        reading, words, heads = self.reading, self.words, self.teaching.stored_heads
        heads.render()
        fields: dict[str, Any] = {
            "text": words.text, "side": self.side, "checkpoint": self.checkpoint, "opacity": reading.opacity,
            "threshold": reading.threshold, "outlined": reading.outlined, "mapped": reading.mapped,
        }  # fmt: skip
        events = [field.change for field in fields.values()]
        self.kept = fields
        outputs = [*(field for field in fields.values() if field is not self.checkpoint), reading.without_view,
                   *self.teaching.restored]  # fmt: skip
        persist_settings(demo, "emitdiff_segmentation", fields, events, self.restore, outputs, [heads])

    def restore(self, kept: Any, heads: Any) -> dict[Any, Any]:
        """Updates from what the browser kept; what cannot be used is left as it is."""
        kept = kept if isinstance(kept, dict) else {}

        def number(low: float, high: float) -> Any:
            return lambda value: isinstance(value, int | float) and low <= value <= high

        usable = {
            "text": lambda value: isinstance(value, str) and len(value) < LONGEST_TEXT,
            "side": lambda value: isinstance(value, bool),
            "opacity": number(0, 100),
            "threshold": number(0.05, 0.95),
            "outlined": lambda value: isinstance(value, bool),
            "mapped": lambda value: value in [*MAPS],
        }
        updates = {
            self.kept[name]: kept[name] for name, allows in usable.items() if name in kept and allows(kept[name])
        }
        beside = {self.reading.without_view: gr.Image(visible=updates.get(self.side, False))}
        return {**updates, **beside, **self.teaching.restore(heads, kept.get("checkpoint"))}

    def _connect_source(self, look: dict[str, Any], compare: dict[str, Any]) -> None:
        source, new = self.source, self._of_source
        source.file.upload(
            self.take_file, source.file, new, concurrency_limit=2, **QUIET
        ).then(**look).then(**compare)  # fmt: skip
        source.file.clear(lambda: {**source.clear(), **self._for_scan(None)}, outputs=new, **QUIET).then(**look).then(
            **compare
        )
        source.examples.select(
            self.take_example, outputs=[*new, self.words.text], **QUIET
        ).then(**look).then(**compare)  # fmt: skip
        gr.on([source.slice.input, source.window.input], trigger_mode="always_last", **look).then(**compare)

    def _connect_runs(
        self, asked: dict[str, Any], heavy: dict[str, Any], settle: dict[str, Any], compare: dict[str, Any]
    ) -> None:
        # Several events: the buttons answer at once even when the run must queue, and recover whatever happens to it;
        # and what is shown in the end is decided by what is chosen then, for nothing keeps anybody from going on.
        buttons = [self.find_button, self.all_button, self.stop_button]
        begin: dict[str, Any] = {"outputs": [*buttons, self.reading.progress], "queue": False, **QUIET}
        rest = {"fn": self.end_run, "outputs": buttons, "queue": False, **QUIET}
        tried = self.teaching.connect(self.source, self.truth, self.checkpoint, self.words.text)
        for start in (self.find_button.click, self.words.text.submit, tried.then):
            start(self.start_run, **begin).then(self.find, inputs_kwargs={**asked, "side": self.side}, **heavy).then(
                **settle
            ).then(**rest).then(**compare)
        self.all_button.click(self.start_all, **begin).then(self.find_all, inputs_kwargs=asked, **heavy).then(
            **settle
        ).then(**rest).then(**compare)
        self.stop_button.click(self.stop, outputs=self.stop_button, queue=False, **QUIET)

    def take_file(self, path: str) -> dict[Any, Any]:
        """A file was chosen: its slices and windows; a true mask chosen for the last image no longer applies."""
        updates = self.source.upload(path)
        if self.source.scan not in updates:
            return updates
        scan = updates[self.source.scan]
        return {**updates, **self._for_scan(scan), **self.words.kind_of(scan.modality)}

    def take_result(self, run: Run | None, chosen: int) -> dict[Any, Any]:
        """Image `chosen` of a run of the synthesis is taken as if its file and its mask had been dropped here."""
        if run is None or chosen >= len(run.images):
            return {self.source.message: gr.skip()}
        made, label = run.images[chosen], run.label_file(chosen)
        updates = self.source.load(made.path)
        return {
            **updates,
            **self._for_scan(updates[self.source.scan]),
            **self.words.kind_of(word_in(made.request.settings.prompt, self.calls.vocabulary.modalities)),
            self.source.file: None,
            self.source.message: note(f"{made.path.name}, a synthetic image generated on this page."),
            self.truth.file: None if label is None else str(label),
            self.tabs: gr.update(selected="segmentation"),
        }

    def take_example(self, event: gr.SelectData) -> dict[Any, Any]:
        """An example card was chosen: its image, its sentence, and its mask as the truth."""
        example, updates = self.source.card(event.index)
        truth = str(example.mask) if example.mask else None
        kind = self.words.kind_of(example.modality)
        offered = self._for_scan(updates[self.source.scan])
        return {**updates, **offered, **kind, self.truth.file: truth, self.words.text: example.text}

    def _for_scan(self, scan: Scan | None) -> dict[Any, Any]:
        """What a new scan allows: buttons for volumes, kinds of mask files; it has no true mask yet."""
        count = 1 if scan is None else scan.num_slices
        volume, words = count > 1, f"All {count} slices" if count > 1 else "All slices"
        return {
            **self.reading.forms(scan),
            self.truth.file: None,
            self.all_button: gr.update(value=words, visible=volume),
            self.stop_button: gr.update(visible=volume, interactive=False),
        }

    def show_slice(
        self, finding: Finding | None, volume: Volume | None, scan: Scan | None, slice_number: float,
        window: str | None, threshold: float, **shown: Any,
    ) -> dict[Any, Any]:  # fmt: skip
        """Another slice is shown, with what was found in it if the whole volume was asked; the same one stays."""
        if volume is not None and volume.scan is not scan:
            volume.remove()
            volume = None
        try:
            image = None if scan is None else selected_slice(scan, slice_number, window)
            index = 0 if scan is None else slice_index(scan, slice_number)
            whole = volume if volume is not None and volume.window == window else None
            if scan is None or image is None:
                found = None
            elif whole is not None:
                found = whole.finding(index, image, threshold) if index in whole.answers else None
            elif finding is not None and finding.belongs_to(scan, index, image, volume):
                return {self.finding: finding}
            else:
                found = None
            views = self.reading.show(found, **shown) if found else self.reading.blank(image, scan)
        except Exception as error:  # a slice that cannot be decoded, a mask that cannot be written
            failed = {self.reading.progress: finished(sentence(error), "error")}
            found, views = None, {**self.reading.blank(None, None), **failed}
        if finding is not None:
            finding.remove()
        return {self.finding: found, self.volume: volume, **views, self.words.note: ""}

    def start_run(self) -> dict[Any, Any]:
        waiting = {button: gr.Button(interactive=False) for button in (self.find_button, self.all_button)}
        return {**waiting, self.reading.progress: progress(RUNNING, None)}

    def start_all(self, request: gr.Request) -> dict[Any, Any]:
        self.cancellation.begin(request)
        return {**self.start_run(), self.stop_button: gr.Button(interactive=True)}

    def stop(self, request: gr.Request) -> Any:
        self.cancellation.cancel(request)
        return gr.Button(interactive=False)

    def end_run(self, request: gr.Request) -> dict[Any, Any]:
        self.cancellation.end(request)
        ready = {button: gr.Button(interactive=True) for button in (self.find_button, self.all_button)}
        return {**ready, self.stop_button: gr.Button(interactive=False)}

    def find(
        self, scan: Scan | None, slice_number: float, window: str | None, threshold: float, text: str, checkpoint: str,
        side: bool,
    ) -> dict[Any, Any]:  # fmt: skip
        """Runs the segmenter once; every failure ends as a sentence above the image."""
        try:
            scan = chosen_scan(scan)
            image, text = self._query(scan, slice_number, window, text)
            output = self.calls.segment(image, text, threshold, checkpoint)
            without = self.calls.segment(image, "", threshold, checkpoint) if side else None
        except Exception as error:
            return {self.result: None, self.words.note: "", self.reading.progress: finished(sentence(error), "error")}
        found = Finding(scan, image, slice_index(scan, slice_number), output, text, threshold, checkpoint, without)
        return {self.result: found, self.words.note: notes(output.warnings, "warning")}

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
            _, text = self._query(scan, slice_number, window, text)
            whole = Volume(scan, window, text, checkpoint)
            for update in self._slices(whole, threshold, stop.is_set):
                yield {line: update}
            if not whole.answers:
                raise EmitDiffError("Stopped before the first slice was finished.")
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
            left = (time.monotonic() - started) / (index + 1) * (total - index - 1)
            yield progress(f"Slice {index + 1} of {total}, about {duration(left)} left", (index + 1) / total)

    def toggle_comparison(self, finding: Finding | None, side: bool) -> Iterator[dict[Any, Any]]:
        """The second view comes or goes; an answer that is there already is compared with one without the text."""
        view = {self.reading.without_view: gr.Image(visible=side)}
        yield view
        if not side or finding is None:
            if finding is not None:
                finding.without = None
                yield {self.finding: finding, self.reading.without_note: ""}
            return
        try:
            finding.without = self.calls.segment(finding.image, "", finding.threshold, finding.checkpoint)
            yield {self.result: finding}
        except Exception as error:
            yield {self.result: None, self.reading.progress: finished(sentence(error), "error")}

    def apply_threshold(self, finding: Finding | None, threshold: float, **shown: Any) -> dict[Any, Any]:
        """Another threshold or kind of file for the same probabilities: a new mask, and no network runs."""
        if finding is None:
            return {self.reading.progress: gr.skip()}
        try:
            again = finding.at(threshold)
            return {self.finding: again, **self.reading.show(again, **shown)}
        except Exception as error:  # no threshold, or a mask file that cannot be written
            return {self.reading.progress: finished(sentence(error), "error")}
