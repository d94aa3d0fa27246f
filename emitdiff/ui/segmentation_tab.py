"""The Segmentation tab: an image and a sentence become a mask."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.images import overlay
from emitdiff.ui.callables import Callables
from emitdiff.ui.examples import Example
from emitdiff.ui.messages import figures, finished, note, notes, progress, sentence
from emitdiff.ui.source import KEPT_SECONDS, at_view_size, build_source, image_of, mirror, slice_index
from emitdiff.ui.teach_panel import TeachPanel
from emitdiff.ui.views import written_once

# what the second view shows: white is 1
MAPS = {"Probability": "probability", "Uncertainty": "uncertainty"}
IDLE = "Choose an image, say what to find, press Find."


@dataclass(eq=False)
class Finding:
    """One finished segmentation; `folder` holds its mask file and is removed with it."""

    scan: Any
    image: np.ndarray
    index: int
    output: Any
    text: str
    threshold: float
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="emitdiff_")))

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class SegmentationTab:
    """Lays out the tab inside the current Blocks context and connects it. `checkpoint` is read by the page's status."""

    def __init__(self, calls: Callables, cards: list[Example]) -> None:
        self.calls = calls
        self.cards = [card for card in cards if card.text]
        self.models = {model.name: model for model in calls.models() if model.kind == "segmentation"}
        self.finding = gr.State(
            None, time_to_live=KEPT_SECONDS, delete_callback=lambda finding: finding and finding.remove()
        )
        with gr.Row(elem_classes="workspace three"):
            with gr.Column(elem_classes="pane"):
                self._lay_out_controls()
            with gr.Column(elem_classes="pane reading"):
                self._lay_out_reading()
            with gr.Column(elem_classes="pane views"):
                self._lay_out_side()
        self.teaching = TeachPanel(calls)
        self._connect()

    def _lay_out_controls(self) -> None:
        self.source = build_source(self.calls, self.cards, "Your image")
        self.text = gr.Textbox(label="What to find", placeholder="e.g. lung", max_lines=3)
        self.chips = gr.Dataset(
            components=[gr.Textbox(visible=False)], samples=self._samples(self.calls.segmentation_checkpoint),
            label="This head was taught", elem_classes="chips", type="values", samples_per_page=40,
        )  # fmt: skip
        self.text_note = gr.HTML(elem_classes="beside")
        self.truth_file = gr.File(label="True mask (optional): gives Dice", height=92, elem_classes="drop")
        self.truth_note = gr.HTML(elem_classes="beside")
        self.truth_class = gr.Dropdown([], label="Class of the true mask", visible=False)
        with gr.Accordion("Advanced", open=False):
            self.checkpoint = gr.Dropdown(list(self.models), value=self.calls.segmentation_checkpoint, label="Weights")
        with gr.Column(elem_classes="actions"):
            self.mirror = gr.HTML(elem_classes="mirror")
            self.find_button = gr.Button("Find", variant="primary", min_width=120)

    def _lay_out_reading(self) -> None:
        self.progress = gr.HTML(finished(IDLE))
        self.view = written_once(
            gr.Image(
                label="Image and mask", interactive=False, format="png", buttons=["download", "fullscreen"],
                elem_classes="view large", alt_text="The chosen slice with the mask that was found",
            )
        )  # fmt: skip
        with gr.Row(elem_classes="after"):
            self.opacity = gr.Slider(0, 100, value=40, step=1, label="Mask opacity, %", buttons=[], min_width=160)
            self.threshold = gr.Slider(0.05, 0.95, value=0.5, step=0.05, label="Threshold", buttons=[], min_width=160)
            self.outlined = gr.Checkbox(True, label="Outline", min_width=90, scale=0)

    def _lay_out_side(self) -> None:
        self.probability_view = written_once(
            gr.Image(
                label="0 (black) to 1 (white)", interactive=False, format="png", buttons=["fullscreen"],
                elem_classes="view", alt_text="Map of the probability, or of how unsure it is",
            )
        )  # fmt: skip
        self.mapped = gr.Radio(list(MAPS), value="Probability", label="Map", elem_classes="inline")
        self.figures = gr.HTML(figures({"Dice": "-", "IoU": "-"}, "Add a true mask to compare with."))
        self.download = gr.DownloadButton("Download mask", size="sm", interactive=False, elem_classes="download")
        self.download_note = gr.HTML(elem_classes="beside")

    def _samples(self, checkpoint: str) -> list[list[str]]:
        """The chips; none when the weights cannot be asked (the page must come up without them)."""
        try:
            return [[target] for target in self.calls.targets(checkpoint)]
        except EmitDiffError:
            return []

    def _connect(self) -> None:
        source, quiet = self.source, {"show_progress": "hidden", "api_visibility": "private"}
        shown = {"finding": self.finding, "opacity": self.opacity, "outlined": self.outlined}
        truth = {"truth_file": self.truth_file, "truth_class": self.truth_class}
        results = [self.finding, self.progress, self.view, self.download, self.download_note]
        found = [*results, self.probability_view, self.text_note]
        clear = {
            "fn": self.clear,
            "inputs_kwargs": {"finding": self.finding, **source.inputs},
            "outputs": [*found, self.figures],
            **quiet,
        }
        run = {
            "fn": self.find,
            "inputs_kwargs": {
                "previous": self.finding, **source.inputs, "text": self.text, "threshold": self.threshold,
                "checkpoint": self.checkpoint, "opacity": self.opacity, "outlined": self.outlined,
                "mapped": self.mapped,
            },
            "outputs": found,
            "concurrency_id": "device",
            "concurrency_limit": 1,
            **quiet,
        }  # fmt: skip
        compare = {
            "fn": self.compare,
            "inputs_kwargs": {"finding": self.finding, **truth},
            "outputs": [self.figures, self.truth_note, self.truth_class],
            **quiet,
        }
        source.file.upload(
            self.take_file,
            source.file,
            [*source.outputs, self.truth_file, self.truth_class],
            concurrency_limit=2,
            **quiet,
        ).then(**clear)
        source.file.clear(
            lambda finding: {**source.clear(), **self._blank(finding)},
            self.finding,
            [*source.outputs, *found, self.figures],
            **quiet,
        )
        source.examples.select(
            self.take_example, outputs=[*source.outputs, self.truth_file, self.truth_class, self.text], **quiet
        ).then(**clear)
        gr.on([source.slice.input, source.window.input], trigger_mode="always_last", **clear)
        self.chips.click(lambda sample: sample[0], self.chips, self.text, queue=False, **quiet)
        for start in (self.find_button.click, self.text.submit):
            start(self.begin, outputs=[self.find_button, self.progress], queue=False, **quiet).then(**run).then(
                lambda: gr.Button(interactive=True), outputs=self.find_button, queue=False, **quiet
            ).then(**compare)
        gr.on([self.opacity.input, self.outlined.input], self.blend, inputs_kwargs=shown, outputs=self.view,
              trigger_mode="always_last", concurrency_id="preview", concurrency_limit=2, **quiet)  # fmt: skip
        self.mapped.input(self.map, [self.finding, self.mapped], self.probability_view, **quiet)
        mirror(self.progress, self.mirror)
        rethink = {**shown, "scan": source.scan, "threshold": self.threshold}
        self.threshold.input(
            self.rethink, inputs_kwargs=rethink, outputs=results, trigger_mode="always_last", **quiet
        ).then(**compare)
        gr.on([self.truth_file.upload, self.truth_file.clear, self.truth_class.input], **compare)
        self.checkpoint.input(
            lambda name: gr.Dataset(samples=self._samples(name)), self.checkpoint, self.chips, **quiet
        )

        self.teaching.connect(source, truth, self.checkpoint, self.chips)

    def take_file(self, path: str) -> dict[Any, Any]:
        """A file was chosen: its slices and windows; a true mask chosen for the last image no longer applies."""
        updates = self.source.upload(path)
        taken = {self.truth_file: None, self.truth_class: gr.update(visible=False, value=None)}
        return {**updates, **taken} if self.source.scan in updates else updates

    def take_example(self, event: gr.SelectData) -> dict[Any, Any]:
        """An example card was chosen: its image, its sentence, and its mask as the truth."""
        example, updates = self.source.card(event.index)
        truth = str(example.mask) if example.mask else None
        hidden = gr.update(visible=False, value=None)
        return {**updates, self.truth_file: truth, self.truth_class: hidden, self.text: example.text}

    def clear(self, finding: Finding | None, scan: Any, slice_number: float, window: str | None) -> dict[Any, Any]:
        """Another slice is shown: what was found on the last one goes. The same one again changes nothing."""
        if scan is None:
            return self._blank(finding)
        image = image_of(scan, slice_number, window)
        if finding is not None and np.array_equal(finding.image, image):
            return {self.finding: finding}
        return {**self._blank(finding), self.view: at_view_size(image)}

    def _blank(self, finding: Finding | None) -> dict[Any, Any]:
        """Nothing found any more; `finding` leaves no file behind."""
        if finding:
            finding.remove()
        return {
            self.finding: None,
            self.progress: finished(IDLE),
            self.view: None,
            self.probability_view: None,
            self.figures: figures({"Dice": "-", "IoU": "-"}, "Add a true mask to compare with."),
            self.download: gr.DownloadButton(value=None, interactive=False),
            self.download_note: "",
            self.text_note: "",
        }

    def begin(self) -> dict[Any, Any]:
        waiting = progress("Looking. The first time after a start the weights are loaded.", None)
        return {self.find_button: gr.Button(interactive=False), self.progress: waiting}

    def find(
        self, previous: Finding | None, scan: Any, slice_number: float, window: str | None, text: str, threshold: float,
        checkpoint: str, opacity: float, outlined: bool, mapped: str,
    ) -> dict[Any, Any]:  # fmt: skip
        """Runs the segmenter once; every failure ends as a sentence above the image."""
        finding = None
        try:
            image = image_of(scan, slice_number, window)
            if not (text or "").strip():
                raise EmitDiffError("No sentence yet: write what to find, or press one of the words below the field.")
            output = self.calls.segment(image, text.strip(), threshold, checkpoint)
            finding = Finding(scan, image, slice_index(scan, slice_number), output, text.strip(), threshold)
            shown = self._show(finding, scan, opacity, outlined)
        except Exception as error:
            if finding:
                finding.remove()
            return {self.progress: finished(sentence(error), "error")}
        if previous:
            previous.remove()
        shown[self.probability_view] = self.map(finding, mapped)
        return {**shown, self.text_note: notes(output.warnings, "warning")}

    def map(self, finding: Finding | None, mapped: str) -> Any:
        """The second view: one of `MAPS` in greys."""
        if finding is None:
            return gr.skip()
        grey = np.rint(np.clip(getattr(finding.output, MAPS[mapped]), 0, 1) * 255).astype(np.uint8)
        return at_view_size(np.repeat(grey[..., None], 3, axis=-1))

    def rethink(
        self, finding: Finding | None, scan: Any, threshold: float, opacity: float, outlined: bool
    ) -> dict[Any, Any]:
        """Another threshold for the same probabilities: a new mask, and no network runs."""
        if finding is None or scan is None:
            return {self.progress: gr.skip()}
        return self._show(
            replace(finding, output=finding.output.at(threshold), threshold=threshold), scan, opacity, outlined
        )

    def _show(self, finding: Finding, scan: Any, opacity: float, outlined: bool) -> dict[Any, Any]:
        saved = scan.save_mask({finding.index: finding.output.mask}, finding.folder)
        words = f"{saved.name}: 1 inside, 0 outside, size and geometry of {scan.name}."
        return {
            self.finding: finding,
            self.progress: finished(describe_finding(finding), "info" if finding.output.found else "absent"),
            self.view: self.blend(finding, opacity, outlined),
            self.download: gr.DownloadButton(value=str(saved), interactive=True),
            self.download_note: note(words),
        }

    def blend(self, finding: Finding | None, opacity: float, outlined: bool) -> Any:
        """The image with the mask laid over it; nothing is computed anew."""
        if finding is None:
            return gr.skip()
        image, mask = at_view_size(finding.image), at_view_size(finding.output.mask)
        return overlay(image, mask, opacity / 100, thickness=2 if outlined else 0)

    def compare(self, finding: Finding | None, truth_file: str | None, truth_class: int | None) -> dict[Any, Any]:
        """Dice and IoU of what was found against the uploaded mask, of one class where it has several."""
        blank = figures({"Dice": "-", "IoU": "-"}, "Add a true mask to compare with." if not truth_file else "")
        if finding is None or not truth_file:
            return {self.figures: blank, self.truth_note: ""}
        try:
            truth = self.calls.read_mask(truth_file, finding.scan, finding.index)
            classes = [int(label) for label in np.unique(truth) if label]
            chosen = truth_class if truth_class in classes else (classes[0] if classes else 1)
            scores = self.calls.score(finding.output.mask, (truth == chosen).astype(np.uint8))
        except Exception as error:
            return {self.figures: blank, self.truth_note: note(sentence(error), "error")}
        shown = {"Dice": f"{scores['dice']:.3f}", "IoU": f"{scores['iou']:.3f}"}
        words = f"“{finding.text}” against the true mask" + (f", class {chosen}" if len(classes) > 1 else "")
        menu = gr.Dropdown(choices=classes, value=chosen, visible=len(classes) > 1)
        return {self.figures: figures(shown, words), self.truth_note: "", self.truth_class: menu}


def describe_finding(finding: Finding) -> str:
    """What was found, in a sentence that says "not found" when nothing was."""
    output = finding.output
    if not output.found:
        highest = float(np.max(output.probability))
        limits = f"highest probability {highest:.2f}, threshold {finding.threshold:.2f}"
        if output.absent:
            limits = f"probability that the image shows it {output.present:.2f}"
        return f"Not found: nothing here answers to “{finding.text}” ({limits})."
    meant = f", read as “{output.target}”" if output.target and output.target.lower() != finding.text.lower() else ""
    area = 100 * float(np.mean(output.mask > 0))
    return f"Found “{finding.text}”{meant}: {area:.1f} % of the image, in {output.seconds:.1f} s."
