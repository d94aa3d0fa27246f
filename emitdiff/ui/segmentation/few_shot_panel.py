"""Few-shot training on the page: images with masks, drawn or uploaded, become a head for Find."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from emitdiff.errors import EmitDiffError
from emitdiff.ui.cancellation import Cancellation
from emitdiff.ui.events import QUIET, TEACHING, stoppable, stopping
from emitdiff.ui.interface import Callables, FewShotRequest
from emitdiff.ui.messages import duration, figures, finished, progress, sentence
from emitdiff.ui.results import TrainingProgress
from emitdiff.ui.segmentation.example_panel import ExamplePanel, LabelledExample
from emitdiff.ui.segmentation.heads_panel import Heads, HeadsPanel
from emitdiff.ui.segmentation.training_views import loss_curve, step, step_list
from emitdiff.ui.segmentation.truth_panel import TruthPanel
from emitdiff.ui.source import Source, at_view_size
from emitdiff.ui.views import written_once

IDLE = "No head has been trained yet."
LOOK_FIRST = "Look at the image kept aside, then press Use this head."
NO_LOOK = "No image was kept aside to look at: that takes four or more examples. Use this head, and judge it by Find."
NOT_YET = "Keep learning, or add examples and Teach again."
FOLLOW = "With four or more examples, one is kept aside for two thirds of the steps: its Dice shows the progress."


class FewShotPanel:
    """Lays the panel out inside the current Blocks context; `connect` ties it to the tab around it."""

    def __init__(self, calls: Callables) -> None:
        self.calls, self.cancellation = calls, Cancellation()
        with gr.Accordion("Teach a new target", open=False, elem_classes="teaching") as self.panel:
            self.steps = gr.HTML(step_list(1))
            self.given, self.heads = ExamplePanel(calls, self.steps), HeadsPanel(calls, self.steps)
            with gr.Row(elem_classes="walked"):
                with gr.Column(min_width=280):
                    self.given.lay_out()
                with gr.Column(min_width=280):
                    self._lay_out_training()
                    self.heads.lay_out()

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
        gr.HTML(step(3, FOLLOW))
        self.progress = gr.HTML(finished(IDLE))
        with gr.Row(elem_classes="training"):
            self.figures = gr.HTML(figures({"Loss": "-", "Validation Dice": "-"}))
            self.view = written_once(
                gr.Image(
                    label="Image kept aside", interactive=False, format="png", buttons=["fullscreen"],
                    elem_classes="view", alt_text="The image kept aside: filled what is marked, its own mask as a line",
                )
            )  # fmt: skip

    def connect(self, source: Source, truth: TruthPanel, checkpoint: gr.Dropdown, text: gr.Textbox) -> Any:
        """`source` is the panel of the image, `truth` that of its true mask; a head, trained or loaded, becomes a
        choice of `checkpoint`. Returns the event that puts its target into `text`, to be found.
        """
        self.given.connect(source, truth, self.panel)
        tried, heads = self.heads.connect(checkpoint, text), self.heads
        shown = [self.progress, self.figures, self.view, self.steps, *heads.outputs]
        on_device: dict[str, Any] = {**TEACHING, **QUIET}
        buttons: dict[str, Any] = {
            "outputs": [self.teach_button, heads.keep_button, self.stop_button], "queue": False, **QUIET
        }  # fmt: skip
        asked = [self.given.examples, self.name, self.modality, self.organ, self.seconds, heads.heads]
        self.teach_button.click(self.begin, **buttons).then(self.teach, asked, shown, **on_device).then(
            self.end, heads.latest, **buttons
        )
        further = [heads.latest, self.seconds, heads.heads]
        heads.keep_button.click(self.begin, **buttons).then(self.keep_learning, further, shown, **on_device).then(
            self.end, heads.latest, **buttons
        )
        self.stop_button.click(self.stop, outputs=self.stop_button, queue=False, **QUIET)
        return tried

    def begin(self, request: gr.Request) -> dict[Any, Any]:
        self.cancellation.begin(request)
        waiting = {button: gr.Button(interactive=False) for button in (self.teach_button, self.heads.keep_button)}
        return {**waiting, self.stop_button: stoppable(True)}

    def stop(self, request: gr.Request) -> Any:
        """The training ends with the step it is at; what was learnt by then stays."""
        self.cancellation.cancel(request)
        return stopping()

    def end(self, request: gr.Request, latest: str) -> dict[Any, Any]:
        self.cancellation.end(request)
        ready = {
            self.teach_button: gr.Button(interactive=True),
            self.heads.keep_button: gr.Button(interactive=bool(latest)),
        }
        return {**ready, self.stop_button: stoppable(False)}

    def teach(
        self,
        request: gr.Request,
        examples: list[LabelledExample],
        name: str,
        modality: str | None,
        organ: str | None,
        seconds: float | None,
        heads: Heads,
    ) -> Iterator[dict[Any, Any]]:
        """Teaches, showing loss and the example kept aside as it goes; the head is then offered."""
        try:
            target, kind, part = ((text or "").strip() for text in (name, modality, organ))
            if not target:
                raise EmitDiffError("Name what the masks show, for example optic disc.")
            if not examples:
                raise EmitDiffError("No examples yet: add at least one image with its mask.")
            wanted = FewShotRequest(target, kind, part, self.calls.segmentation_checkpoint, float(seconds or 60))
            stopped = self.cancellation.event(request).is_set
            yield {**self._waiting("Extracting features of the examples."), self.view: None}
            steps = self.calls.teach([(one.image, one.mask, one.name) for one in examples], wanted, stopped)
            yield from self._follow(steps, target, heads)
        except Exception as error:
            yield {self.progress: finished(sentence(error), "error")}

    def keep_learning(
        self, request: gr.Request, latest: str, seconds: float | None, heads: Heads
    ) -> Iterator[dict[Any, Any]]:
        """The head taught last goes on from what it learnt, with the same examples; the result is another head."""
        try:
            target = self.calls.targets(latest)[0]
            yield self._waiting("Going on from what was learnt.")
            stopped = self.cancellation.event(request).is_set
            yield from self._follow(self.calls.keep_teaching(latest, float(seconds or 60), stopped), target, heads)
        except Exception as error:
            yield {self.progress: finished(sentence(error), "error")}

    def _waiting(self, words: str) -> dict[Any, Any]:
        return {self.progress: progress(words, None), self.steps: step_list(3)}

    def _follow(self, steps: Iterator[TrainingProgress], target: str, heads: Heads) -> Iterator[dict[Any, Any]]:
        """Tells of each of the `steps` and offers the head that the last one names."""
        losses: list[float] = []
        dice, first = None, None
        for update in steps:
            losses.append(update.loss)
            first = first or update
            dice = dice if update.dice is None else update.dice
            if update.file or update.preview is not None or update.step % 5 == 0:
                yield self._progress_updates(update, first, losses, dice)
        yield self._finished(target, update, heads)

    def _finished(self, target: str, update: TrainingProgress, heads: Heads) -> dict[Any, Any]:
        """The head becomes a choice of weights; whoever has looked at what it does puts it to use."""
        done = f"Taught “{target}” in {update.step} steps, {duration(update.seconds)}."
        if update.dice is not None and "Dice" not in update.shortfall:
            done += f" Dice {update.dice:.2f} on the image kept aside."
        advice = update.shortfall and f"{update.shortfall} {NOT_YET}"
        told = finished(
            f"{done} {advice or (NO_LOOK if update.preview is None else LOOK_FIRST)}", "warning" if advice else "info"
        )
        offered = self.heads.offer(target, str(update.file), heads, not advice)
        return {self.progress: told, self.steps: step_list(4), **offered}

    def _progress_updates(
        self, update: TrainingProgress, first: TrainingProgress, losses: list[float], dice: float | None
    ) -> dict[Any, Any]:
        values = {"Loss": f"{update.loss:.2f}", "Validation Dice": "-" if dice is None else f"{dice:.2f}"}
        pace = (update.seconds - first.seconds) / max(1, update.step - first.step)
        left = f", about {duration(pace * (update.steps - update.step))} left" if update.step > first.step + 3 else ""
        updates = {
            self.progress: progress(f"Step {update.step} of {update.steps}{left}", update.step / update.steps),
            self.figures: figures(values) + loss_curve(losses),
        }
        return updates if update.preview is None else {**updates, self.view: at_view_size(update.preview)}
