"""Results of a synthesis run: progress, the generated images, and actions on them."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr
import numpy as np

from emitdiff.images import overlay
from emitdiff.ui.cancellation import Cancellation
from emitdiff.ui.events import QUIET
from emitdiff.ui.interface import Callables
from emitdiff.ui.messages import finished, note, notes, progress
from emitdiff.ui.source import SESSION_SECONDS, at_view_size
from emitdiff.ui.synthesis.download_panel import DownloadPanel
from emitdiff.ui.synthesis.merging_panel import build_merging_panel
from emitdiff.ui.synthesis.runs import GeneratedImage, Run
from emitdiff.ui.views import written_once

IDLE = "Paints new images that keep the label of yours. Choose an image, check the prompt and press Generate."
COLUMNS = {1: 1, 2: 2, 3: 3, 4: 2}  # tiles a row for so many images; up to nine: three; more: four
GRID, BESIDE = "All images", "Side by side"
PAIR_LABEL = "Left: real. Right: synthetic"
SCORES = {"edge_f1": "edge F1", "ms_ssim": "MS-SSIM", "ssim": "SSIM", "mae": "mean absolute error"}
# An error is over once something is changed that may have caused it; a run that goes on is reported on.
CLEAR_ERROR = """html => html.includes("progress still error") ? IDLE : {__type__: "update"}"""
# What is marked beside the real image would fill the box among all images. From the server no null reaches the page.
DESELECT = f"""shown => ({{__type__: "update", ...(shown === "{GRID}" ? {{selected_index: null}} : {{}})}})"""
NOTHING_CHOSEN = "Each image stores its seed and settings."


class ResultsPanel:
    """Lays the panel out inside the current Blocks context; `connect` joins it to the runs."""

    def __init__(self, calls: Callables) -> None:
        self.calls = calls
        self.chosen_index, self.large = gr.State(0), gr.State(None)  # large: the index of the image that fills the box
        self.run = gr.State(None, time_to_live=SESSION_SECONDS, delete_callback=lambda run: run and run.remove())
        self.progress = gr.HTML(finished(IDLE))
        with gr.Row(elem_classes="after looks"):
            self.shown = gr.Radio([GRID, BESIDE], value=GRID, label="Show", container=False)
            self.outlines = gr.Checkbox(False, label="Mask outline", container=False, scale=0, min_width=120)
            self.line = gr.Slider(
                0, 100, value=50, step=1, label="Divider between real and synthetic", buttons=[], visible=False,
                elem_classes="line",
            )  # fmt: skip
        self.gallery = written_once(
            gr.Gallery(
                label="Synthetic images", columns=2, object_fit="contain", format="png", interactive=False,
                buttons=["download", "fullscreen"], elem_classes="painted", height="100%",
            )
        )  # fmt: skip
        self.slider = written_once(
            gr.ImageSlider(
                label=PAIR_LABEL, interactive=False, format="png", buttons=["fullscreen"], visible=False,
                max_height=4096, elem_classes="view pair-view",
            )
        )  # fmt: skip
        self.words = gr.HTML(note(NOTHING_CHOSEN), elem_classes="beside said")
        with gr.Row(elem_classes="after acts"):
            self.kept = gr.Checkbox(True, label="Keep", container=False, interactive=False, scale=0, min_width=70)
            quiet_button: dict[str, Any] = {"size": "sm", "scale": 0, "min_width": 118, "interactive": False}
            self.use_settings = gr.Button("Use these settings", **quiet_button)
            self.vary = gr.Button("Generate variations", **{**quiet_button, "min_width": 150})
            self.send = gr.Button("Send to segmentation", **{**quiet_button, "min_width": 150})
        self.downloads = DownloadPanel(calls)
        self.merging = build_merging_panel(calls)
        self.cancellation = Cancellation()

    @property
    def outputs(self) -> list[Any]:
        """What a run changes."""
        chosen = [self.chosen_index, self.words, self.kept, self.use_settings, self.send]
        views = [self.shown, self.gallery, self.slider, self.line]
        return [self.run, self.progress, *views, *chosen, *self.downloads.outputs]

    def connect(self, ended: list[Any]) -> None:
        """`ended` are the events after which there are other images."""
        at_once: dict[str, Any] = {"queue": False, **QUIET}
        of_image = {"run": self.run, "chosen": self.chosen_index}
        selected = self.gallery.select(
            self.choose,
            inputs_kwargs={"run": self.run, "shown": self.shown},
            outputs=[
                self.chosen_index,
                self.large,
                self.words,
                self.kept,
                self.use_settings,
                self.vary,
                self.send,
                self.slider,
            ],
            **at_once,
        )
        self.gallery.preview_close(self.close, self.run, self.large, **at_once)
        looks: dict[str, Any] = {
            "inputs_kwargs": {**of_image, "shown": self.shown, "outlines": self.outlines},
            "trigger_mode": "always_last", **at_once,
        }  # fmt: skip
        views = [self.gallery, self.slider, self.line]
        self.outlines.input(self.refresh, outputs=views, **looks)
        self.shown.input(self.switch_view, outputs=[*views, self.large], **looks)
        self.shown.change(None, self.shown, self.gallery, js=DESELECT, **at_once)
        # The line can be dragged with a mouse alone; this is its way for the keyboard.
        self.line.input(lambda share: gr.update(slider_position=share), self.line, self.slider, **at_once)
        kept = self.kept.input(
            self.keep,
            inputs_kwargs={**of_image, "kept": self.kept},
            outputs=[self.gallery, self.words],
            **at_once,
        )
        self.downloads.connect(self.run, [*ended, kept], QUIET)
        self.merging.connect(self.run, self.chosen_index, [*ended, selected], QUIET)

    def idle(self, request: gr.Request) -> dict[Any, Any]:
        """Another image takes away what was said of the last one, unless a run is being reported there."""
        return {self.progress: gr.skip() if self.cancellation.running(request) else finished(IDLE)}

    def clear_errors_on(self, events: list[Any], quiet: dict[str, Any]) -> None:
        """Events after which an error no longer stands above the gallery. The server is not asked."""
        js = CLEAR_ERROR.replace("IDLE", json.dumps(finished(IDLE)))
        gr.on(events, None, self.progress, self.progress, js=js, queue=False, **quiet)

    def started(self, run: Run) -> dict[Any, Any]:
        """Updates for `outputs` when a run, or variations of one of its images, begins."""
        tiles = run.tiles()
        columns = COLUMNS.get(len(tiles), 3 if len(tiles) <= 9 else 4)
        return {
            self.run: run,
            self.progress: progress(run.words, None),
            self.shown: GRID,
            self.gallery: gr.update(value=tiles, columns=columns, allow_preview=True),
            self.slider: gr.update(visible=False),
            self.line: gr.update(visible=False),
            **(self._describe_image(run, 0) if not run.images else {}),
            **self.downloads.wait(),
        }

    def progressed(self, run: Run, changed: bool) -> dict[Any, Any]:
        """Updates while it runs; `changed`: the gallery has something new."""
        line = {self.progress: progress(run.words, run.fraction)}
        return {**line, self.gallery: run.tiles()} if changed else line

    def ended(self, run: Run, stopped: bool, failure: str) -> dict[Any, Any]:
        """Updates once nothing runs any more; the chosen image is the one that is large, else the first new one."""
        chosen = min(run.first if run.large is None else run.large, max(len(run.images) - 1, 0))
        return {
            self.progress: finished(failure or run.summary(stopped), "error" if failure else "info"),
            self.gallery: run.tiles(),
            self.chosen_index: chosen,
            **self._describe_image(run, chosen),
        }

    def choose(self, run: Run | None, shown: str, event: gr.SelectData) -> dict[Any, Any]:
        """An image of the gallery was selected: what is known of it, and it beside the real one if that is shown."""
        if run is None or event.index >= len(run.images):
            return {self.words: gr.skip()}
        run.large = event.index
        slider = {self.slider: self._beside(run, event.index)} if shown == BESIDE else {}
        return {
            self.chosen_index: event.index,
            self.large: event.index,
            self.vary: gr.update(interactive=not run.running),
            **self._describe_image(run, event.index),
            **slider,
        }

    def close(self, run: Run | None) -> None:
        """All images are shown again."""
        if run is not None:
            run.large = None

    def _describe_image(self, run: Run, chosen: int) -> dict[Any, Any]:
        """What is known of image `chosen`, and whether anything can be done with it."""
        there = chosen < len(run.images)
        return {
            self.words: describe(run.images[chosen], chosen, len(run.images)) if there else note(NOTHING_CHOSEN),
            self.kept: gr.update(value=run.images[chosen].kept if there else True, interactive=there),
            self.use_settings: gr.update(interactive=there),
            self.send: gr.update(interactive=there),
        }

    def switch_view(self, run: Run | None, chosen: int, shown: str, outlines: bool) -> dict[Any, Any]:
        """Between the two ways to show them; back to all images none is large."""
        if shown == GRID:
            self.close(run)
        return {**self.refresh(run, chosen, shown, outlines), self.large: run.large if run else None}

    def refresh(self, run: Run | None, chosen: int, shown: str, outlines: bool) -> dict[Any, Any]:
        """All images, or the chosen one beside the real one with the others as a strip; outlines or none."""
        beside = shown == BESIDE
        if run is None:
            return {self.slider: gr.update(visible=beside), self.line: gr.update(visible=beside)}
        run.outlines = outlines
        marked: dict[str, Any] = {"selected_index": chosen} if beside else {}
        return {
            self.gallery: gr.update(value=run.tiles(), allow_preview=not beside, **marked),
            self.slider: self._beside(run, chosen) if beside else gr.update(visible=False),
            self.line: gr.update(visible=beside),
        }

    def _beside(self, run: Run, chosen: int) -> dict[str, Any]:
        label = PAIR_LABEL if run.source is not None else PAIR_LABEL.replace("real", "mask")
        return gr.update(value=self._pair(run, chosen), label=label, visible=True)

    def _pair(self, run: Run, chosen: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The real image, or the label where there is none, and the synthetic one; None without either."""
        if chosen >= len(run.images):
            return None
        result = run.images[chosen].result
        synthetic = at_view_size(result.image)
        if run.source is None:
            label = run.label
            return None if label is None else (overlay(np.zeros_like(synthetic), at_view_size(label), 0.6), synthetic)

        def drawn(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
            return overlay(image, at_view_size(mask), 0.0) if run.outlines and mask is not None else image

        return drawn(at_view_size(run.source), run.label), drawn(synthetic, result.mask)

    def keep(self, run: Run | None, chosen: int, kept: bool) -> dict[Any, Any]:
        """The chosen image goes into the download, or is left out."""
        if run is None or chosen >= len(run.images):
            return {self.words: gr.skip()}
        run.images[chosen].kept = kept
        return {self.gallery: run.tiles(), self.words: describe(run.images[chosen], chosen, len(run.images))}


def describe(made: GeneratedImage, index: int, count: int) -> str:
    """HTML of what is known of image `index`, counted from 0, of `count`."""
    result = made.result
    text = f"Image {index + 1} of {count}: seed {result.seed}, generated in {result.seconds:.1f} s"
    if made.parent is not None:
        text += f", variation of the synthetic image with seed {made.parent}"
    scores = ", ".join(f"{words} {made.scores[name]:.2f}" for name, words in SCORES.items() if name in made.scores)
    beside = "Compared with the real image (unedited mask)" if made.edited else "Compared with the real image"
    lines = [f"{text}.", f"{beside}: {scores}." if scores else ""]
    return notes(lines) + note("" if made.kept else "Dropped: excluded from the download.")
