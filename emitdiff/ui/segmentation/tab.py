"""The Segmentation tab: an image and a sentence become a mask, of one slice or of a whole volume."""

from __future__ import annotations

from typing import Any

import gradio as gr

from emitdiff.ui.browser_settings import persist_settings
from emitdiff.ui.events import QUIET
from emitdiff.ui.examples import Example
from emitdiff.ui.finding import MAPS, Finding, Volume
from emitdiff.ui.form import word_in
from emitdiff.ui.interface import Callables
from emitdiff.ui.messages import finished, note, sentence
from emitdiff.ui.results import Scan
from emitdiff.ui.segmentation.few_shot_panel import FewShotPanel
from emitdiff.ui.segmentation.overview_panel import OverviewPanel
from emitdiff.ui.segmentation.reading_panel import ReadingPanel
from emitdiff.ui.segmentation.run_panel import RunPanel
from emitdiff.ui.segmentation.sentence_panel import SentencePanel
from emitdiff.ui.segmentation.truth_panel import TruthPanel
from emitdiff.ui.source import SESSION_SECONDS, build_source, mirror, selected_slice, slice_index
from emitdiff.ui.synthesis.results_panel import ResultsPanel
from emitdiff.ui.synthesis.runs import Run

LONGEST_TEXT = 2000  # of a text that is taken from the browser's storage


class SegmentationTab:
    """Lays out the tab inside the current Blocks context and connects it. `checkpoint` is read by the page's status."""

    def __init__(self, calls: Callables, cards: list[Example]) -> None:
        self.calls = calls
        self.cards = [card for card in cards if card.text]
        self.models = {model.name: model for model in calls.models() if model.kind == "segmentation"}
        self.finding, self.volume = (
            gr.State(None, time_to_live=SESSION_SECONDS, delete_callback=lambda kept: kept and kept.remove())
            for _ in range(2)
        )
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
        self.teaching = FewShotPanel(calls)
        self._connect()

    def _lay_out_controls(self) -> None:
        self.source = build_source(self.calls, self.cards, "Your image")
        self.words = SentencePanel(self.calls)
        self.overview = OverviewPanel(self.calls, self.reading, self.words)
        self.side = gr.Checkbox(False, label="Compare with the result without text")
        self.truth.lay_out_input()
        with gr.Accordion("Expert", open=False):
            self.checkpoint = gr.Dropdown(list(self.models), value=self.calls.segmentation_checkpoint, label="Weights")
        self.runs = RunPanel(self.calls, self.reading, self.words, self.finding, self.volume)

    def _connect(self) -> None:
        source, reading = self.source, self.reading
        compare = self.truth.connect(source, self.finding, QUIET)
        seen = {"finding": self.finding, "volume": self.volume, **source.inputs, "threshold": reading.threshold}
        results = [self.finding, self.volume, *reading.outputs, self.words.note]
        refresh = {"fn": self.show_slice, "inputs_kwargs": {**seen, **reading.inputs}, "outputs": results, **QUIET}
        self._arrived = refresh, compare  # what follows once another image is there
        self._connect_source(refresh, compare)
        self.words.connect(self.checkpoint, QUIET)
        tried = self.teaching.connect(source, self.truth, self.checkpoint, self.words.text)
        self.runs.connect({**seen, **reading.inputs}, self.checkpoint, self.side, tried, results, compare)
        self.overview.connect({**seen, **reading.inputs}, self.checkpoint, self.finding, compare)
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
        mirror(reading.progress, self.runs.mirror)

    @property
    def _of_source(self) -> list[Any]:
        """What another image changes at once."""
        return [*self.source.outputs, self.reading.form, self.truth.file, self.runs.all_button, self.runs.stop_button,
                self.words.kind]  # fmt: skip

    def connect_synthesis(self, results: ResultsPanel, tabs: gr.Tabs) -> None:
        """Send to segmentation: a synthetic image comes with its label as the true mask, and this tab to the front."""
        self.tabs, (refresh, compare) = tabs, self._arrived
        results.send.click(
            self.take_result, [results.run, results.chosen_index], [tabs, *self._of_source], queue=False, **QUIET
        ).then(**refresh).then(**compare)

    def persist(self, demo: gr.Blocks) -> None:
        """Words, views and few-shot heads outlive a refresh; images and masks do not."""
        reading, words, heads = self.reading, self.words, self.teaching.heads.stored_heads
        heads.render()
        fields: dict[str, Any] = {
            "text": words.text, "side": self.side, "checkpoint": self.checkpoint, "opacity": reading.opacity,
            "threshold": reading.threshold, "outlined": reading.outlined, "mapped": reading.mapped,
        }  # fmt: skip
        events = [field.change for field in fields.values()]
        self.kept = fields
        outputs = [*(field for field in fields.values() if field is not self.checkpoint), reading.without_view,
                   *self.teaching.heads.restored]  # fmt: skip
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
        return {**updates, **beside, **self.teaching.heads.restore(heads, kept.get("checkpoint"))}

    def _connect_source(self, refresh: dict[str, Any], compare: dict[str, Any]) -> None:
        source, new = self.source, self._of_source
        source.file.upload(
            self.take_file, source.file, new, concurrency_limit=2, **QUIET
        ).then(**refresh).then(**compare)  # fmt: skip
        source.file.clear(lambda: {**source.clear(), **self._for_scan(None)}, outputs=new, **QUIET).then(
            **refresh
        ).then(**compare)
        source.examples.select(
            self.take_example, outputs=[*new, self.words.text], **QUIET
        ).then(**refresh).then(**compare)  # fmt: skip
        gr.on([source.slice.input, source.window.input], trigger_mode="always_last", **refresh).then(**compare)
        source.on_time_point(QUIET).then(**refresh).then(**compare)

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
        synthetic, label = run.images[chosen], run.label_file(chosen)
        updates = self.source.load(synthetic.path)
        return {
            **updates,
            **self._for_scan(updates[self.source.scan]),
            **self.words.kind_of(word_in(synthetic.request.settings.prompt, self.calls.vocabulary.modalities)),
            self.source.file: None,
            self.source.message: note(f"{synthetic.path.name}, a synthetic image generated on this page."),
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
            self.runs.all_button: gr.update(value=words, visible=volume),
            self.runs.stop_button: gr.update(visible=volume, interactive=False),
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

    def apply_threshold(self, finding: Finding | None, threshold: float, **shown: Any) -> dict[Any, Any]:
        """Another threshold or kind of file for the same probabilities: a new mask, and no network runs."""
        if finding is None:
            return {self.reading.progress: gr.skip()}
        try:
            again = finding.at(threshold)
            return {self.finding: again, **self.reading.show(again, **shown)}
        except Exception as error:  # no threshold, or a mask file that cannot be written
            return {self.reading.progress: finished(sentence(error), "error")}
