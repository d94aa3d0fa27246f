"""Segmentation result: overlay with and without text, probability and uncertainty maps, mask file."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np

from emitdiff.ui.finding import MAPS, Finding
from emitdiff.ui.messages import finished, note
from emitdiff.ui.results import Scan
from emitdiff.ui.source import at_view_size, with_edge_letters
from emitdiff.ui.views import written_once

IDLE = "Marks what a sentence names. Choose an image, describe the target and press Find."


class ReadingPanel:
    """`lay_out_views` and `lay_out_side` lay out its halves; `outputs` is what `show` and `blank` update."""

    def lay_out_views(self) -> None:
        self.progress = gr.HTML(finished(IDLE))
        with gr.Row(elem_classes="after asks", visible=False) as self.asks:  # where a text asks for nothing taught
            self.nearest_button = gr.Button("Find the nearest", size="sm", scale=0, min_width=120)
            self.anyway_button = gr.Button("Look anyway", size="sm", scale=0, min_width=120)
        with gr.Row(elem_classes="side-by-side"):
            self.view = _view("Image and mask", "The chosen slice with the mask that was found", "large")
            self.without_view = _view("Without the text", "The slice with the mask found without any text", "large",
                                      visible=False)  # fmt: skip
        self.without_note = gr.HTML(elem_classes="beside")
        with gr.Row(elem_classes="after"):
            self.opacity = gr.Slider(0, 100, value=40, step=1, label="Mask opacity, %", buttons=[], min_width=160)
            self.threshold = gr.Slider(0.05, 0.95, value=0.5, step=0.05, label="Threshold", buttons=[], min_width=160)
            self.outlined = gr.Checkbox(True, label="Outline", min_width=90, scale=0)

    def lay_out_map(self) -> None:
        self.map_view = _view("0 (black) to 1 (white)", "Probability or uncertainty map")
        self.mapped = gr.Radio(list(MAPS), value="Probability", label="Map")

    def lay_out_file(self) -> None:
        self.form = gr.Dropdown([], label="Mask file", visible=False)
        self.download = gr.DownloadButton("Download mask", size="sm", interactive=False, elem_classes="download")
        self.download_note = gr.HTML(elem_classes="beside")

    @property
    def inputs(self) -> dict[str, Any]:
        """What `show` needs besides the finding."""
        return {"opacity": self.opacity, "outlined": self.outlined, "mapped": self.mapped, "form": self.form}

    @property
    def outputs(self) -> list[Any]:
        views = [self.view, self.without_view, self.without_note, self.map_view]
        return [self.progress, self.asks, self.nearest_button, *views, self.download, self.download_note]

    def connect(self, finding: gr.State, quiet: dict[str, Any]) -> None:
        """What needs no network and no file: opacity, outline, the map that is chosen."""
        shown = {"finding": finding, "opacity": self.opacity, "outlined": self.outlined}
        gr.on(
            [self.opacity.input, self.outlined.input],
            self.blend,
            inputs_kwargs=shown,
            outputs=[self.view, self.without_view],
            trigger_mode="always_last",
            concurrency_id="preview",
            concurrency_limit=2,
            **quiet,
        )
        self.mapped.input(
            lambda finding, mapped: finding.map(mapped) if finding else gr.skip(),
            [finding, self.mapped],
            self.map_view,
            **quiet,
        )

    def show(self, finding: Finding, opacity: float, outlined: bool, mapped: str, form: str | None) -> dict[Any, Any]:
        """Everything about a finding. Raises EmitDiffError where its mask cannot be written."""
        saved, words = None, ""
        if not finding.refused:
            saved = finding.save(form if form in finding.scan.mask_forms else None)
            words = f"{saved.name}: 1 inside, 0 outside; size and geometry of {finding.scan.name}."
        if finding.volume is not None:
            words = f"{finding.volume.describe(finding.threshold)} {words}"
        nearest = finding.output.nearest if finding.refused else None
        return {
            self.progress: finished(finding.describe(), "info" if finding.output.found else "absent"),
            self.asks: gr.update(visible=finding.refused),
            self.nearest_button: gr.update(value=f"Find “{nearest}”", visible=nearest is not None),
            **self.blend(finding, opacity, outlined),
            self.without_note: note(finding.compare_without()),
            self.map_view: finding.map(mapped),
            self.download: gr.update(value=None if saved is None else str(saved), interactive=saved is not None),
            self.download_note: note(words),
        }

    def blend(self, finding: Finding | None, opacity: float, outlined: bool) -> dict[Any, Any]:
        """The image with its masks laid over it; nothing is computed again."""
        if finding is None:
            return {self.view: gr.skip()}
        without = finding.picture(opacity, outlined, without=True) if finding.without is not None else None
        return {self.view: finding.picture(opacity, outlined), self.without_view: without}

    def blank(self, image: np.ndarray | None, scan: Scan | None) -> dict[Any, Any]:
        """The slice uint8 (H, W, 3) of `scan` with nothing found in it, or nothing at all."""
        return {
            self.progress: finished(IDLE),
            self.asks: gr.update(visible=False),
            self.view: None if image is None else with_edge_letters(at_view_size(image), scan),
            self.without_view: None,
            self.without_note: "",
            self.map_view: None,
            self.download: gr.update(value=None, interactive=False),
            self.download_note: "",
        }

    def forms(self, scan: Scan | None) -> dict[Any, Any]:
        """The kinds of mask file that the scan allows, to be chosen from where there are several."""
        forms = list(scan.mask_forms) if scan is not None else []
        return {self.form: gr.update(choices=forms, value=forms[0] if forms else None, visible=len(forms) > 1)}


def _view(label: str, alternative: str, size: str = "", visible: bool = True) -> gr.Image:
    buttons: list[Any] = ["download", "fullscreen"] if size else ["fullscreen"]
    return written_once(
        gr.Image(label=label, interactive=False, format="png", buttons=buttons, elem_classes=["view", size],
                 alt_text=alternative, visible=visible)
    )  # fmt: skip
