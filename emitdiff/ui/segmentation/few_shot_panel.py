"""Few-shot training on the page: images with masks, drawn or uploaded, become a head for Find."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.images import overlay
from emitdiff.ui.browser_settings import NO_SECRET
from emitdiff.ui.cancellation import Cancellation
from emitdiff.ui.drawing import build_canvas, canvas_value, drawn_mask
from emitdiff.ui.events import QUIET, stoppable, stopping
from emitdiff.ui.interface import HEAD_SUFFIX, Callables, FewShotRequest
from emitdiff.ui.messages import duration, figures, finished, note, progress, sentence
from emitdiff.ui.results import Scan, TrainingProgress
from emitdiff.ui.segmentation.training_views import loss_curve, step, step_list
from emitdiff.ui.segmentation.truth_panel import BEST_CLASS, Truth, TruthPanel, one_class
from emitdiff.ui.source import SESSION_SECONDS, Source, at_view_size, chosen_scan, selected_slice, slice_index
from emitdiff.ui.views import written_once

HEAD_LABEL = " (trained here)"  # behind the name of a head among the weights
IDLE = "No head has been trained yet."
NOT_IN_USE = (
    "So it is not in use: Find keeps its weights. Teach for longer or add examples, or choose it under Weights."
)
MAX_EXAMPLES = 24  # examples of one session
SAVE = (
    "A small file that Find, the command line and this page can load. The server deletes the head a day after "
    "training, and the examples when this page is closed or reloaded."
)
# What is found is far above on the page.
SHOW_READING = """name => {
  document.querySelector(".reading").scrollIntoView({behavior: "smooth"});
  return name;
}"""


@dataclass(frozen=True)
class LabelledExample:
    """One example: `image` uint8 (H, W, 3), `mask` 0/1 (H, W), all 0 where the image does not show the target."""

    image: np.ndarray
    mask: np.ndarray
    name: str


class FewShotPanel:
    """Lays the panel out inside the current Blocks context; `connect` ties it to the tab around it."""

    def __init__(self, calls: Callables) -> None:
        self.calls, self.cancellation = calls, Cancellation()
        self.examples = gr.State([], time_to_live=SESSION_SECONDS)
        self.heads = gr.State([])  # those of this session: (name, file); whatever is in it becomes a choice
        # The same for the next time the page opens: what comes from there may be anything, and only `restore` reads it.
        self.stored_heads = gr.BrowserState([], storage_key="emitdiff_heads", secret=NO_SECRET, render=False)
        self.opened, self.taught = gr.State(False), gr.State("")
        with gr.Accordion("Teach a new target", open=False, elem_classes="teaching") as self.panel:
            self.steps = gr.HTML(step_list(1))
            with gr.Row(elem_classes="walked"):
                with gr.Column(min_width=280):
                    self._lay_out_examples()
                with gr.Column(min_width=280):
                    self._lay_out_training()

    def _lay_out_examples(self) -> None:
        gr.HTML(
            step(
                1, "The image above with its reference mask, or with a mask drawn here. About five examples are enough."
            )
        )
        self.canvas = build_canvas("Paint over the target")
        with gr.Row(elem_classes="pair"):
            self.add_button = gr.Button("Add as example", size="sm", min_width=100)
            self.empty_button = gr.Button("Add without target", size="sm", min_width=100)
        self.said = gr.HTML(elem_classes="beside")
        self.gallery = written_once(
            gr.Gallery(
                label="Examples", columns=4, allow_preview=False, interactive=False, object_fit="cover", buttons=[],
                format="png", elem_classes="cards", visible=False,
            )
        )  # fmt: skip
        self.remove_button = gr.Button("Remove the last example", size="sm", visible=False)

    def _lay_out_training(self) -> None:
        words = self.calls.vocabulary
        gr.HTML(step(2, "Name what the masks show: this becomes the target of the head."))
        self.name = gr.Textbox(label="What the masks show", placeholder="e.g. optic disc", max_lines=1)
        with gr.Row(elem_classes="pair"):
            self.modality = gr.Dropdown(list(words.modalities), value=None, label="Modality", allow_custom_value=True)
            self.organ = gr.Dropdown(list(words.organs), value=None, label="Organ", allow_custom_value=True)
        self.seconds = gr.Slider(10, 300, value=60, step=10, label="Training time, seconds", buttons=[])
        with gr.Row(elem_classes="pair"):
            self.teach_button = gr.Button("Teach", variant="primary", min_width=100)
            self.stop_button = gr.Button("Stop", variant="stop", min_width=80, interactive=False)
        gr.HTML(step(3, "With four or more examples, one is held out at first: its Dice shows the progress."))
        self.progress = gr.HTML(finished(IDLE))
        with gr.Row(elem_classes="training"):
            self.figures = gr.HTML(figures({"Loss": "-", "Validation Dice": "-"}))
            self.view = written_once(
                gr.Image(
                    label="Validation example", interactive=False, format="png", buttons=["fullscreen"],
                    elem_classes="view", alt_text="The held-out example with the current mask",
                )
            )  # fmt: skip
        gr.HTML(step(4, "It is selected as weights above: choose another image and press Find, or try it now."))
        self.try_button = gr.Button("Segment the image above", size="sm", interactive=False)
        gr.HTML(step(5, SAVE))
        self.download = gr.DownloadButton("Download the head", size="sm", interactive=False)
        self.file = gr.File(label="Load a saved head (.safetensors)", height=92, elem_classes="drop")
        self.loaded = gr.HTML(elem_classes="beside")

    def connect(self, source: Source, truth: TruthPanel, checkpoint: gr.Dropdown, text: gr.Textbox) -> Any:
        """`source` is the panel of the image, `truth` that of its true mask; a head, trained or loaded, becomes a
        choice of `checkpoint`. Returns the event that puts its target into `text`, to be found.
        """
        self.checkpoint = checkpoint
        listed = [self.examples, self.gallery, self.remove_button, self.said, self.steps]
        # The slice comes with the event itself: a State changed by an event outside the queue announces no change.
        self.panel.expand(
            self.open, inputs_kwargs=source.inputs, outputs=[self.canvas, self.said, self.opened], **QUIET
        )
        self.panel.collapse(lambda: False, outputs=self.opened, queue=False, **QUIET)
        gr.on([source.scan.change, source.slice.input, source.window.input], self.fill_canvas,
              inputs_kwargs={"opened": self.opened, **source.inputs}, outputs=[self.canvas, self.said],
              trigger_mode="always_last", **QUIET)  # fmt: skip
        taken = {"examples": self.examples, "canvas": self.canvas, **source.inputs, **truth.inputs}
        self.add_button.click(self.add, inputs_kwargs=taken, outputs=[*listed, self.canvas], **QUIET)
        empty = {"examples": self.examples, **source.inputs}
        self.empty_button.click(self.add_empty, inputs_kwargs=empty, outputs=listed, **QUIET)
        self.remove_button.click(lambda shown: self._list(shown[:-1]), self.examples, listed, **QUIET)
        used = [self.heads, self.stored_heads, checkpoint, self.steps, self.taught, self.try_button]
        asked = [self.examples, self.name, self.modality, self.organ, self.seconds, self.heads]
        buttons: dict[str, Any] = {"outputs": [self.teach_button, self.stop_button], "queue": False, **QUIET}
        self.teach_button.click(self.begin, **buttons).then(
            self.teach, asked, [self.progress, self.figures, self.view, self.download, *used],
            concurrency_id="device", concurrency_limit=1, **QUIET,
        ).then(self.end, **buttons)  # fmt: skip
        self.stop_button.click(self.stop, outputs=self.stop_button, queue=False, **QUIET)
        self.file.upload(self.load, [self.file, self.heads], [*used, self.loaded], **QUIET)
        self.download.click(lambda: step_list(6), outputs=self.steps, queue=False, **QUIET)
        tried = self.try_button.click(
            lambda name: (name, step_list(5)), self.taught, [text, self.steps], js=SHOW_READING, queue=False, **QUIET
        )
        return tried

    def open(self, scan: Scan | None, slice_number: float, window: str | None) -> dict[Any, Any]:
        return {**self.fill_canvas(True, scan, slice_number, window), self.opened: True}

    def fill_canvas(self, opened: bool, scan: Scan | None, slice_number: float, window: str | None) -> dict[Any, Any]:
        """The slice shown above, with nothing painted on it yet; left alone while the panel is closed."""
        if scan is None or not opened:
            return {self.canvas: None, self.said: gr.skip()}
        return {self.canvas: canvas_value(selected_slice(scan, slice_number, window)), self.said: ""}

    def add(
        self,
        examples: list[LabelledExample],
        canvas: dict | None,
        scan: Scan | None,
        slice_number: float,
        window: str | None,
        truth: Truth | None,
        label: int | None,
    ) -> dict[Any, Any]:
        """The image with what is painted over it, or else with its true mask, joins the examples."""
        try:
            scan = chosen_scan(scan)
            image = selected_slice(scan, slice_number, window)
            painted = any(layer is not None and layer[..., 3].any() for layer in (canvas or {}).get("layers", []))
            if truth is not None and not painted:
                mask = one_class(truth.at(slice_index(scan, slice_number)), label or BEST_CLASS)
            else:
                mask = drawn_mask(canvas, image.shape[:2])
            updates = self._added(examples, LabelledExample(image, mask, scan.name))
        except Exception as error:
            return {self.said: note(sentence(error), "error")}
        return {**updates, self.canvas: canvas_value(image)}

    def add_empty(
        self, examples: list[LabelledExample], scan: Scan | None, slice_number: float, window: str | None
    ) -> dict[Any, Any]:
        """The image joins the examples as one that does not show the target."""
        try:
            scan = chosen_scan(scan)
            image = selected_slice(scan, slice_number, window)
            return self._added(examples, LabelledExample(image, np.zeros(image.shape[:2], np.uint8), scan.name))
        except Exception as error:
            return {self.said: note(sentence(error), "error")}

    def _added(self, examples: list[LabelledExample], one: LabelledExample) -> dict[Any, Any]:
        if len(examples) >= MAX_EXAMPLES:
            raise EmitDiffError(
                f"The limit is {MAX_EXAMPLES} examples: for more, use `python -m emitdiff teach` with a folder."
            )
        if any(np.array_equal(one.image, other.image) for other in examples):
            raise EmitDiffError("This image is already an example: choose another image or slice.")
        return self._list([*examples, one])

    def _list(self, examples: list[LabelledExample]) -> dict[Any, Any]:
        cards = [
            (overlay(one.image, one.mask), one.name if one.mask.any() else f"{one.name}, none") for one in examples
        ]
        return {
            self.examples: examples,
            self.gallery: gr.update(value=cards, visible=bool(cards)),
            self.remove_button: gr.update(visible=bool(cards)),
            self.steps: step_list(2 if cards else 1),
            self.said: note(f"{len(examples)} example{'' if len(examples) == 1 else 's'}.") if examples else "",
        }

    def begin(self, request: gr.Request) -> dict[Any, Any]:
        self.cancellation.begin(request)
        return {self.teach_button: gr.Button(interactive=False), self.stop_button: stoppable(True)}

    def stop(self, request: gr.Request) -> Any:
        """The training ends with the step it is at; what was learnt by then stays."""
        self.cancellation.cancel(request)
        return stopping()

    def end(self, request: gr.Request) -> dict[Any, Any]:
        self.cancellation.end(request)
        return {self.teach_button: gr.Button(interactive=True), self.stop_button: stoppable(False)}

    def teach(
        self,
        request: gr.Request,
        examples: list[LabelledExample],
        name: str,
        modality: str | None,
        organ: str | None,
        seconds: float | None,
        heads: list[tuple[str, str]],
    ) -> Iterator[dict[Any, Any]]:
        """Teaches, showing loss and the example held out as it goes; the head is then chosen as weights."""
        losses: list[float] = []
        dice = None
        try:
            target, kind, part = ((text or "").strip() for text in (name, modality, organ))
            if not target:
                raise EmitDiffError("Name what the masks show, for example optic disc.")
            if not examples:
                raise EmitDiffError("No examples yet: add at least one image with its mask.")
            yield {
                self.progress: progress("Extracting features of the examples.", None),
                self.view: None,
                self.steps: step_list(3),
            }
            wanted = FewShotRequest(target, kind, part, self.calls.segmentation_checkpoint, float(seconds or 60))
            stopped = self.cancellation.event(request).is_set
            for update in self.calls.teach([(one.image, one.mask, one.name) for one in examples], wanted, stopped):
                losses.append(update.loss)
                dice = dice if update.dice is None else update.dice
                if update.file or update.preview is not None or update.step % 5 == 0:
                    yield self._progress_updates(update, losses, dice)
            yield self._finished(target, update, heads)
        except Exception as error:
            yield {self.progress: finished(sentence(error), "error")}

    def _finished(self, target: str, update: TrainingProgress, heads: list[tuple[str, str]]) -> dict[Any, Any]:
        """The head becomes a choice of weights, and the one chosen unless it falls short."""
        name, file = target + HEAD_LABEL, str(update.file)
        done = f"Trained on “{target}” in {update.step} steps, {duration(update.seconds)}."
        if update.shortfall:
            told = finished(f"{done} {update.shortfall} {NOT_IN_USE}", "warning")
            chosen = self._offered(name, file, heads)
        else:
            told, chosen = finished(f"{done} Find uses it now."), self._chosen(name, file, heads)
        return {self.progress: told, **chosen, self.download: gr.DownloadButton(value=file, interactive=True)}

    def _progress_updates(self, update: TrainingProgress, losses: list[float], dice: float | None) -> dict[Any, Any]:
        values = {"Loss": f"{update.loss:.2f}", "Validation Dice": "-" if dice is None else f"{dice:.2f}"}
        updates = {
            self.progress: progress(f"Step {update.step} of {update.steps}", update.step / update.steps),
            self.figures: figures(values) + loss_curve(losses),
        }
        return updates if update.preview is None else {**updates, self.view: at_view_size(update.preview)}

    def load(self, file: str, heads: list[tuple[str, str]]) -> dict[Any, Any]:
        """A head that was downloaded before becomes a choice again."""
        try:
            name = Path(file).name
            if Path(file).suffix != HEAD_SUFFIX:
                raise EmitDiffError(
                    f"{name} is not a few-shot head: choose a {HEAD_SUFFIX} file downloaded from this page."
                )
            return {**self._chosen(Path(file).stem, file, heads), self.loaded: note(f"{name} is in use.")}
        except Exception as error:
            return {self.loaded: note(sentence(error), "error")}

    def restore(self, kept: Any, chosen: Any) -> dict[Any, Any]:
        """After a refresh the heads trained here are choices again while their files are there, and so are the weights
        that were `chosen`. Anyone may have changed what the browser kept.
        """
        there = [(name, file) for name, file in pairs_of_text(kept) if self.calls.head_exists(file)]
        choices = self._choices(there)
        again = {"value": chosen} if chosen in [value for _, value in choices] else {}
        updates = {self.heads: there, self.stored_heads: there, self.checkpoint: gr.Dropdown(choices=choices, **again)}
        for name, file in there:
            if file == chosen:
                target = name.removesuffix(HEAD_LABEL)
                updates |= {self.taught: target, self.try_button: gr.Button(interactive=True),
                            self.download: gr.DownloadButton(value=file, interactive=True),
                            self.progress: finished(f"“{target}” was trained here before. Find uses it.")}  # fmt: skip
        return updates

    @property
    def restored(self) -> list[Any]:
        """What `restore` may change."""
        return [
            self.heads,
            self.stored_heads,
            self.checkpoint,
            self.taught,
            self.try_button,
            self.download,
            self.progress,
        ]

    def _choices(self, heads: list[tuple[str, str]]) -> list[tuple[str, str]]:
        known = [(model.name, model.name) for model in self.calls.models() if model.kind == "segmentation"]
        return [*known, *heads]

    def _offered(self, name: str, file: str, heads: list[tuple[str, str]]) -> dict[Any, Any]:
        """A head joins the choices; the weights that are chosen stay."""
        heads = [*(head for head in heads if head[0] != name), (name, file)]
        choices = gr.Dropdown(choices=self._choices(heads))
        return {self.heads: heads, self.stored_heads: heads, self.checkpoint: choices}

    def _chosen(self, name: str, file: str, heads: list[tuple[str, str]]) -> dict[Any, Any]:
        targets, updates = self.calls.targets(file), self._offered(name, file, heads)
        return {
            **updates,
            self.checkpoint: gr.Dropdown(choices=self._choices(updates[self.heads]), value=file),
            self.steps: step_list(4),
            self.taught: targets[0] if targets else name,
            self.try_button: gr.Button(interactive=True),
        }


def pairs_of_text(kept: Any) -> list[tuple[str, str]]:
    """The pairs of strings in what a browser kept, the last `MAX_EXAMPLES`; nothing else."""
    listed = kept if isinstance(kept, list) else []
    fits = (one for one in listed if isinstance(one, list | tuple) and len(one) == 2)
    return [(name, file) for name, file in fits if isinstance(name, str) and isinstance(file, str)][-MAX_EXAMPLES:]
