"""The examples that a few-shot head is taught from: images with masks, drawn, taken from the page or of files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.images import overlay
from emitdiff.ui.drawing import build_canvas, canvas_value, drawn_mask
from emitdiff.ui.events import QUIET
from emitdiff.ui.interface import Callables
from emitdiff.ui.messages import note, notes, sentence
from emitdiff.ui.results import Scan
from emitdiff.ui.segmentation.training_views import step, step_list
from emitdiff.ui.segmentation.truth_panel import BEST_CLASS, Truth, TruthPanel, one_class
from emitdiff.ui.source import SESSION_SECONDS, Source, chosen_scan, selected_slice, slice_index
from emitdiff.ui.views import written_once

MAX_EXAMPLES = 24  # examples of one session
FULL = f"The limit is {MAX_EXAMPLES} examples: for more, use `python -m emitdiff teach` with a folder."


@dataclass(frozen=True)
class LabelledExample:
    """One example: `image` uint8 (H, W, 3), `mask` 0/1 (H, W), all 0 where the image does not show the target."""

    image: np.ndarray
    mask: np.ndarray
    name: str


class ExamplePanel:
    """Lays the examples out inside the current Blocks context; `connect` ties them to the image above. `steps` is the
    line that says how far one is."""

    def __init__(self, calls: Callables, steps: gr.HTML) -> None:
        self.calls, self.steps = calls, steps
        self.examples = gr.State([], time_to_live=SESSION_SECONDS)
        self.opened = gr.State(False)

    def lay_out(self) -> None:
        gr.HTML(
            step(
                1, "The image above with its reference mask, or with a mask drawn here. About five examples are enough."
            )
        )
        self.canvas = build_canvas("Paint over the target")
        with gr.Row(elem_classes="pair"):
            self.add_button = gr.Button("Add as example", size="sm", min_width=100)
            self.empty_button = gr.Button("Add without target", size="sm", min_width=100)
        self.files = gr.File(
            label="Or several at once: images and masks, or a ZIP", file_count="multiple", height=92,
            elem_classes="drop",
        )  # fmt: skip
        self.said = gr.HTML(elem_classes="beside")
        self.gallery = written_once(
            gr.Gallery(
                label="Examples", columns=4, allow_preview=False, interactive=False, object_fit="cover", buttons=[],
                format="png", elem_classes="cards", visible=False,
            )
        )  # fmt: skip
        self.remove_button = gr.Button("Remove the last example", size="sm", visible=False)

    def connect(self, source: Source, truth: TruthPanel, panel: gr.Accordion) -> None:
        """`source` is the panel of the image, `truth` that of its true mask, `panel` what this is folded in."""
        listed = [self.examples, self.gallery, self.remove_button, self.said, self.steps]
        # The slice comes with the event itself: a State changed by an event outside the queue announces no change.
        panel.expand(self.open, inputs_kwargs=source.inputs, outputs=[self.canvas, self.said, self.opened], **QUIET)
        panel.collapse(lambda: False, outputs=self.opened, queue=False, **QUIET)
        gr.on([source.scan.change, source.slice.input, source.window.input], self.fill_canvas,
              inputs_kwargs={"opened": self.opened, **source.inputs}, outputs=[self.canvas, self.said],
              trigger_mode="always_last", **QUIET)  # fmt: skip
        taken = {"examples": self.examples, "canvas": self.canvas, **source.inputs, **truth.inputs}
        self.add_button.click(self.add, inputs_kwargs=taken, outputs=[*listed, self.canvas], **QUIET)
        empty = {"examples": self.examples, **source.inputs}
        self.empty_button.click(self.add_empty, inputs_kwargs=empty, outputs=listed, **QUIET)
        self.files.upload(
            self.add_files, [self.examples, self.files], [*listed, self.files], concurrency_limit=2, **QUIET
        )
        self.remove_button.click(lambda shown: self._list(shown[:-1]), self.examples, listed, **QUIET)

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

    def add_files(self, examples: list[LabelledExample], files: list[str]) -> dict[Any, Any]:
        """Files with images and masks, matched by their names, join the examples; what cannot is listed."""
        taken = list(examples)
        try:
            room = MAX_EXAMPLES - len(examples)
            if room < 1:
                raise EmitDiffError(FULL)
            pairs, left_out = self.calls.read_labelled(files, room)
            lines = list(left_out)
            for image, classes, name in pairs:
                try:
                    one = LabelledExample(image, one_class(classes, BEST_CLASS), name)
                except EmitDiffError:
                    known = ", ".join(str(value) for value in np.unique(classes) if value)
                    lines.append(f"{name}: its mask holds the classes {known}; a head is taught one target.")
                    continue
                if any(np.array_equal(image, other.image) for other in taken):
                    lines.append(f"{name} is an example already.")
                else:
                    taken.append(one)
        except Exception as error:
            return {self.said: note(sentence(error), "error"), self.files: None}
        shown = self._list(taken)
        return {**shown, self.said: shown[self.said] + notes(lines, "warning"), self.files: None}

    def _added(self, examples: list[LabelledExample], one: LabelledExample) -> dict[Any, Any]:
        if len(examples) >= MAX_EXAMPLES:
            raise EmitDiffError(FULL)
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
