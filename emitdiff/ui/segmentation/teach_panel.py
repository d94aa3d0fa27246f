"""Teaching a new target on the page: images with masks, drawn or uploaded, become a head that Find uses at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.images import overlay
from emitdiff.ui.browser_settings import NO_SECRET
from emitdiff.ui.drawing import build_canvas, drawn_mask, ground
from emitdiff.ui.events import QUIET
from emitdiff.ui.interface import HEAD_SUFFIX, Callables, TeachRequest
from emitdiff.ui.messages import duration, figures, finished, note, progress, sentence
from emitdiff.ui.segmentation.truth_panel import BEST, Truth, TruthPanel
from emitdiff.ui.source import KEPT_SECONDS, Source, at_view_size, image_of, slice_index
from emitdiff.ui.views import written_once

TAUGHT = " (taught here)"  # behind the name of a head among the weights
IDLE = "Nothing has been taught yet."
MOST = 24  # examples of one session
SAVE = (
    "A small file, which Find, the command line and this page take again. Without it, the head is gone a day after it "
    "was taught, and the examples when this page is closed or loaded anew."
)
STEPS = ("Add images and masks", "Press Teach", "Watch it learn", "Use it", "Save it")
# What is found is far above on the page.
SHOW_READING = """name => {
  document.querySelector(".reading").scrollIntoView({behavior: "smooth"});
  return name;
}"""


@dataclass(frozen=True)
class Shown:
    """One example: `image` uint8 (H, W, 3), `mask` 0/1 (H, W), all 0 where the image does not show the target."""

    image: np.ndarray
    mask: np.ndarray
    name: str


class TeachPanel:
    """Lays the panel out inside the current Blocks context; `connect` ties it to the tab around it."""

    def __init__(self, calls: Callables) -> None:
        self.calls = calls
        self.shown = gr.State([], time_to_live=KEPT_SECONDS)
        self.heads = gr.State([])  # those of this session: (name, file); whatever is in it becomes a choice
        # The same for the next time the page opens: what comes from there may be anything, and only `restore` reads it.
        self.kept = gr.BrowserState([], storage_key="emitdiff_heads", secret=NO_SECRET, render=False)
        self.opened, self.taught = gr.State(False), gr.State("")
        with gr.Accordion("Teach a new target", open=False, elem_classes="teaching") as self.panel:
            self.walk = gr.HTML(walk(1))
            with gr.Row(elem_classes="walked"):
                with gr.Column(min_width=280):
                    self._lay_out_examples()
                with gr.Column(min_width=280):
                    self._lay_out_lesson()

    def _lay_out_examples(self) -> None:
        gr.HTML(step(1, "The image above with its true mask, or with what you paint over it here. Five or so will do."))
        self.canvas = build_canvas("Paint over the target")
        with gr.Row(elem_classes="pair"):
            self.add_button = gr.Button("Add as example", size="sm", min_width=100)
            self.empty_button = gr.Button("Add: shows no target", size="sm", min_width=100)
        self.said = gr.HTML(elem_classes="beside")
        self.gallery = written_once(
            gr.Gallery(
                label="Examples", columns=4, allow_preview=False, interactive=False, object_fit="cover", buttons=[],
                format="png", elem_classes="cards", visible=False,
            )
        )  # fmt: skip
        self.remove_button = gr.Button("Remove the last example", size="sm", visible=False)

    def _lay_out_lesson(self) -> None:
        words = self.calls.vocabulary
        gr.HTML(step(2, "Say what the masks show: the head will answer to it."))
        self.name = gr.Textbox(label="What the masks show", placeholder="e.g. optic disc", max_lines=1)
        with gr.Row(elem_classes="pair"):
            self.modality = gr.Dropdown(list(words.modalities), value=None, label="Modality", allow_custom_value=True)
            self.organ = gr.Dropdown(list(words.organs), value=None, label="Organ", allow_custom_value=True)
        self.seconds = gr.Slider(10, 300, value=60, step=10, label="Seconds to learn", buttons=[])
        self.teach_button = gr.Button("Teach", variant="primary")
        gr.HTML(step(3, "From four examples on, one is kept aside at first: its Dice shows how far it is."))
        self.progress = gr.HTML(finished(IDLE))
        with gr.Row(elem_classes="lesson"):
            self.figures = gr.HTML(figures({"Loss": "-", "Dice, kept aside": "-"}))
            self.view = written_once(
                gr.Image(
                    label="Kept aside to look at", interactive=False, format="png", buttons=["fullscreen"],
                    elem_classes="view", alt_text="An example not learnt from at first, with the mask found so far",
                )
            )  # fmt: skip
        gr.HTML(step(4, "It is chosen as weights above: choose another image and press Find, or try it at once."))
        self.try_button = gr.Button("Find it in the image above", size="sm", interactive=False)
        gr.HTML(step(5, SAVE))
        self.download = gr.DownloadButton("Download the head", size="sm", interactive=False)
        self.file = gr.File(label="Or load a head (.safetensors)", height=92, elem_classes="drop")
        self.loaded = gr.HTML(elem_classes="beside")

    def connect(self, source: Source, truth: TruthPanel, checkpoint: gr.Dropdown, text: gr.Textbox) -> Any:
        """`source` is the panel of the image, `truth` that of its true mask; a head, taught or loaded, becomes a choice
        of `checkpoint`. Returns the event that puts its target into `text`, to be found.
        """
        self.checkpoint = checkpoint
        listed = [self.shown, self.gallery, self.remove_button, self.said, self.walk]
        # The slice comes with the event itself: a State changed by an event outside the queue announces no change.
        self.panel.expand(
            self.open, inputs_kwargs=source.inputs, outputs=[self.canvas, self.said, self.opened], **QUIET
        )
        self.panel.collapse(lambda: False, outputs=self.opened, queue=False, **QUIET)
        gr.on([source.scan.change, source.slice.input, source.window.input], self.fill_canvas,
              inputs_kwargs={"opened": self.opened, **source.inputs}, outputs=[self.canvas, self.said],
              trigger_mode="always_last", **QUIET)  # fmt: skip
        taken = {"shown": self.shown, "canvas": self.canvas, **source.inputs, **truth.inputs}
        self.add_button.click(self.add, inputs_kwargs=taken, outputs=[*listed, self.canvas], **QUIET)
        empty = {"shown": self.shown, **source.inputs}
        self.empty_button.click(self.add_empty, inputs_kwargs=empty, outputs=listed, **QUIET)
        self.remove_button.click(lambda shown: self._list(shown[:-1]), self.shown, listed, **QUIET)
        used = [self.heads, self.kept, checkpoint, self.walk, self.taught, self.try_button]
        asked = [self.shown, self.name, self.modality, self.organ, self.seconds, self.heads]
        self.teach_button.click(
            lambda: gr.Button(interactive=False), outputs=self.teach_button, queue=False, **QUIET
        ).then(
            self.teach, asked, [self.progress, self.figures, self.view, self.download, *used],
            concurrency_id="device", concurrency_limit=1, **QUIET,
        ).then(lambda: gr.Button(interactive=True), outputs=self.teach_button, queue=False, **QUIET)  # fmt: skip
        self.file.upload(self.load, [self.file, self.heads], [*used, self.loaded], **QUIET)
        self.download.click(lambda: walk(6), outputs=self.walk, queue=False, **QUIET)
        tried = self.try_button.click(
            lambda name: (name, walk(5)), self.taught, [text, self.walk], js=SHOW_READING, queue=False, **QUIET
        )
        return tried

    def open(self, scan: Any, slice_number: float, window: str | None) -> dict[Any, Any]:
        return {**self.fill_canvas(True, scan, slice_number, window), self.opened: True}

    def fill_canvas(self, opened: bool, scan: Any, slice_number: float, window: str | None) -> dict[Any, Any]:
        """The slice shown above, with nothing painted on it yet; left alone while the panel is closed."""
        if scan is None or not opened:
            return {self.canvas: None, self.said: gr.skip()}
        return {self.canvas: ground(image_of(scan, slice_number, window)), self.said: ""}

    def add(self, shown: list[Shown], canvas: dict | None, scan: Any, slice_number: float, window: str | None,
            truth: Truth | None, label: int | None) -> dict[Any, Any]:  # fmt: skip
        """The image with what is painted over it, or else with its true mask, joins the examples."""
        try:
            image = image_of(scan, slice_number, window)
            painted = any(layer is not None and layer[..., 3].any() for layer in (canvas or {}).get("layers", []))
            if truth is not None and not painted:
                mask = _true_mask(truth.at(slice_index(scan, slice_number)), label or BEST)
            else:
                mask = drawn_mask(canvas, image.shape[:2])
            updates = self._added(shown, Shown(image, mask, scan.name))
        except Exception as error:
            return {self.said: note(sentence(error), "error")}
        return {**updates, self.canvas: ground(image)}

    def add_empty(self, shown: list[Shown], scan: Any, slice_number: float, window: str | None) -> dict[Any, Any]:
        """The image joins the examples as one that does not show the target."""
        try:
            image = image_of(scan, slice_number, window)
            return self._added(shown, Shown(image, np.zeros(image.shape[:2], np.uint8), scan.name))
        except Exception as error:
            return {self.said: note(sentence(error), "error")}

    def _added(self, shown: list[Shown], one: Shown) -> dict[Any, Any]:
        if len(shown) >= MOST:
            raise EmitDiffError(f"There are {MOST} examples: for more, use `python -m emitdiff teach` with a folder.")
        if any(np.array_equal(one.image, other.image) for other in shown):
            raise EmitDiffError("This image is among the examples already: choose another image or slice.")
        return self._list([*shown, one])

    def _list(self, shown: list[Shown]) -> dict[Any, Any]:
        cards = [(overlay(one.image, one.mask), one.name if one.mask.any() else f"{one.name}, none") for one in shown]
        return {
            self.shown: shown,
            self.gallery: gr.update(value=cards, visible=bool(cards)),
            self.remove_button: gr.update(visible=bool(cards)),
            self.walk: walk(2 if cards else 1),
            self.said: note(f"{len(shown)} example{'' if len(shown) == 1 else 's'}.") if shown else "",
        }

    def teach(self, shown: list[Shown], name: str, modality: str | None, organ: str | None, seconds: float | None,
              heads: list[tuple[str, str]]) -> Iterator[dict[Any, Any]]:  # fmt: skip
        """Teaches, showing loss and the example kept aside as it goes; the head is then chosen as weights."""
        losses, dice = [], None
        try:
            words = [(text or "").strip() for text in (name, modality, organ)]
            if not words[0]:
                raise EmitDiffError("Say what the masks show, for example optic disc: the head will answer to it.")
            if not shown:
                raise EmitDiffError("There are no examples yet: add at least one image with its mask.")
            yield {self.progress: progress("Looking at the examples.", None), self.view: None, self.walk: walk(3)}
            request = TeachRequest(*words, self.calls.segmentation_checkpoint, seconds=float(seconds or 60))
            for lesson in self.calls.teach([(one.image, one.mask, one.name) for one in shown], request):
                losses.append(lesson.loss)
                dice = dice if lesson.dice is None else lesson.dice
                if lesson.file or lesson.picture is not None or lesson.step % 5 == 0:
                    yield self._told(lesson, losses, dice)
            done = f"Taught “{words[0]}” in {lesson.step} steps, {duration(lesson.seconds)}. Find uses it now."
            told = " ".join([done, lesson.warning] if lesson.warning else [done])
            yield {self.progress: finished(told, "warning" if lesson.warning else "info"),
                   **self._chosen(words[0] + TAUGHT, str(lesson.file), heads),
                   self.download: gr.DownloadButton(value=str(lesson.file), interactive=True)}  # fmt: skip
        except Exception as error:
            yield {self.progress: finished(sentence(error), "error")}

    def _told(self, lesson: Any, losses: list[float], dice: float | None) -> dict[Any, Any]:
        values = {"Loss": f"{lesson.loss:.2f}", "Dice, kept aside": "-" if dice is None else f"{dice:.2f}"}
        updates = {
            self.progress: progress(f"Step {lesson.step} of {lesson.steps}", lesson.step / lesson.steps),
            self.figures: figures(values) + loss_curve(losses),
        }
        return updates if lesson.picture is None else {**updates, self.view: at_view_size(lesson.picture)}

    def load(self, file: str | None, heads: list[tuple[str, str]]) -> dict[Any, Any]:
        """A head that was downloaded before becomes a choice again."""
        try:
            name = Path(file).name
            if Path(file).suffix != HEAD_SUFFIX:
                raise EmitDiffError(f"{name} is no taught head: give the {HEAD_SUFFIX} file that was downloaded here.")
            return {**self._chosen(Path(file).stem, file, heads), self.loaded: note(f"{name} is in use.")}
        except Exception as error:
            return {self.loaded: note(sentence(error), "error")}

    def restore(self, kept: Any, chosen: Any) -> dict[Any, Any]:
        """After a refresh the heads taught here are choices again while their files are there, and so are the weights
        that were `chosen`. Anyone may have changed what the browser kept.
        """
        there = [(name, file) for name, file in pairs_of_text(kept) if self.calls.is_kept(file)]
        choices = self._choices(there)
        again = {"value": chosen} if chosen in [value for _, value in choices] else {}
        updates = {self.heads: there, self.kept: there, self.checkpoint: gr.Dropdown(choices=choices, **again)}
        for name, file in there:
            if file == chosen:
                target = name.removesuffix(TAUGHT)
                updates |= {self.taught: target, self.try_button: gr.Button(interactive=True),
                            self.download: gr.DownloadButton(value=file, interactive=True),
                            self.progress: finished(f"“{target}” was taught here before. Find uses it.")}  # fmt: skip
        return updates

    @property
    def restored(self) -> list[Any]:
        """What `restore` may change."""
        return [self.heads, self.kept, self.checkpoint, self.taught, self.try_button, self.download, self.progress]

    def _choices(self, heads: list[tuple[str, str]]) -> list[tuple[str, str]]:
        known = [(model.name, model.name) for model in self.calls.models() if model.kind == "segmentation"]
        return [*known, *heads]

    def _chosen(self, name: str, file: str, heads: list[tuple[str, str]]) -> dict[Any, Any]:
        targets = self.calls.targets(file)
        heads = [*(head for head in heads if head[0] != name), (name, file)]
        return {
            self.heads: heads,
            self.kept: heads,
            self.checkpoint: gr.Dropdown(choices=self._choices(heads), value=file),
            self.walk: walk(4),
            self.taught: targets[0] if targets else name,
            self.try_button: gr.Button(interactive=True),
        }


def pairs_of_text(kept: Any) -> list[tuple[str, str]]:
    """The pairs of strings in what a browser kept, the last `MOST`; nothing else."""
    listed = kept if isinstance(kept, list) else []
    fits = (one for one in listed if isinstance(one, list | tuple) and len(one) == 2)
    return [(name, file) for name, file in fits if isinstance(name, str) and isinstance(file, str)][-MOST:]


def _true_mask(classes: np.ndarray, label: int) -> np.ndarray:
    """The pixels of one class, 0 and 1. Raises EmitDiffError where it is not clear which."""
    there = [int(value) for value in np.unique(classes) if value]
    if label == BEST and len(there) > 1:
        known = ", ".join(map(str, there))
        raise EmitDiffError(f"The true mask holds the classes {known}: choose one under “Class of the true mask”.")
    return (classes == (there[0] if label == BEST and there else label or 1)).astype(np.uint8)


def walk(now: int) -> str:
    """HTML of the steps as a line, those before `now` (from 1) done, `now` marked."""
    items = "".join(
        f'<li class="{"done" if number < now else "now" if number == now else "later"}"'
        f"{' aria-current=step' if number == now else ''}><b>{number}</b> {name}</li>"
        for number, name in enumerate(STEPS, 1)
    )
    return f'<ol class="walk" aria-label="Steps of teaching">{items}</ol>'


def step(number: int, words: str) -> str:
    """HTML of the heading of step `number` with a sentence about it."""
    return f'<h3 class="step"><b>{number}</b> {STEPS[number - 1]}</h3>' + note(words)


def loss_curve(losses: list[float], size: tuple[int, int] = (280, 48)) -> str:
    """HTML with the losses as a line, from the first on the left to the last on the right."""
    width, height = size
    top = max(losses) or 1.0
    across = max(1, len(losses) - 1)
    points = " ".join(
        f"{1 + (width - 2) * k / across:.1f},{height - 1 - (height - 2) * loss / top:.1f}"
        for k, loss in enumerate(losses)
    )
    words = escape(f"Loss from {losses[0]:.2f} to {losses[-1]:.2f}")
    line = f'<polyline points="{points}" fill="none" stroke="currentColor" vector-effect="non-scaling-stroke"/>'
    box = f'viewBox="0 0 {width} {height}" preserveAspectRatio="none"'
    return f'<svg class="curve" role="img" aria-label="{words}" {box}>{line}</svg>'
