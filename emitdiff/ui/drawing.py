"""A mask drawn by hand: the slice as the ground, one brush, and a button that makes the strokes the mask file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.files import file_stem, write_png
from emitdiff.images import PALETTE, resize_mask
from emitdiff.ui.archive import answer_folder
from emitdiff.ui.events import QUIET
from emitdiff.ui.messages import note, sentence
from emitdiff.ui.results import Scan
from emitdiff.ui.source import Source, at_view_size, selected_slice

# The arguments of an event that closes the panel, in the browser: nobody opens it while the server is asked.
CLOSE: dict[str, Any] = {"fn": None, "js": "() => ({__type__: 'update', open: false})", "queue": False, **QUIET}


@dataclass(frozen=True)
class Drawing:
    """The panel's components, in an accordion that fetches the slice when it is opened."""

    panel: gr.Accordion
    canvas: gr.ImageEditor
    use: gr.Button
    note: gr.HTML

    def connect(
        self, source: Source, file: gr.File, beside: gr.HTML, quiet: dict[str, Any], outdated: tuple[gr.HTML, ...] = ()
    ) -> Any:
        """Drawing over the slice of `source` makes a mask `file`; what was said `beside` that, or of another mask
        (`outdated`), goes. Returns the event.

        The canvas holds one slice: with another one it closes, and fetches anew when it is opened.
        """
        self.panel.expand(self.open, inputs_kwargs=source.inputs, outputs=[self.canvas, self.note], **quiet)
        taken: dict[str, Any] = {"scan": source.scan, "drawing": self.canvas}
        return self.use.click(
            lambda **drawn: self.take(file, (beside, *outdated), **drawn), inputs_kwargs=taken,
            outputs=[file, self.note, beside, *outdated], **quiet,
        )  # fmt: skip

    def open(self, scan: Scan | None, slice_number: float, window: str | None) -> dict[Any, Any]:
        """The canvas gets the slice shown; what was painted on another one goes."""
        try:
            return {self.canvas: canvas_value(selected_slice(scan, slice_number, window)), self.note: ""}
        except Exception as error:
            return {self.note: note(sentence(error), "error")}

    def take(
        self, file: gr.File, outdated: tuple[gr.HTML, ...], scan: Scan | None, drawing: dict[str, Any] | None
    ) -> dict[Any, Any]:
        """The strokes become the mask file, as if it had been uploaded."""
        try:
            if scan is None:
                raise EmitDiffError("No image yet: choose an example or upload a file first.")
            path = save_drawing(drawing, scan.size, file_stem(scan.name))
            return {file: str(path), **dict.fromkeys((self.note, *outdated), "")}
        except Exception as error:
            return {self.note: note(sentence(error), "error")}


def build_drawing(title: str = "Draw the mask", use: str = "Use the drawing as mask") -> Drawing:
    with gr.Accordion(title, open=False) as panel:
        gr.HTML(note("Paint over the target."), elem_classes="beside")
        canvas = build_canvas("Canvas")  # in a narrow pane no more has room beside the tools
        button = gr.Button(use, size="sm")
        said = gr.HTML(elem_classes="beside")
    return Drawing(panel, canvas, button, said)


def build_canvas(label: str) -> gr.ImageEditor:
    """An editor with one brush and an eraser; `canvas_value` is its value."""
    colour = "#" + bytes(PALETTE[0]).hex()
    return gr.ImageEditor(
        label=label, type="numpy", image_mode="RGBA", format="png", sources=[], transforms=[], layers=False,
        brush=gr.Brush(default_size=24, colors=[colour], color_mode="fixed"), eraser=gr.Eraser(default_size=24),
        buttons=["fullscreen"], elem_classes="canvas", height=380,
    )  # fmt: skip


def canvas_value(image: np.ndarray) -> dict[str, Any]:
    """The value of an editor that shows uint8 (H, W, 3) with nothing painted on it yet."""
    large = at_view_size(image)
    return {"background": large, "layers": [], "composite": large}


def drawn_mask(value: dict[str, Any] | None, size: tuple[int, int]) -> np.ndarray:
    """The painted pixels of an editor's value as 0/1 class ids at `size` = (H, W); EmitDiffError for none."""
    layers = [layer for layer in (value or {}).get("layers", []) if layer is not None]
    painted = [resize_mask((layer[..., 3] > 127).astype(np.uint8), size) for layer in layers]
    mask = np.any(painted, axis=0) if painted else np.zeros(size, bool)
    if not mask.any():
        raise EmitDiffError("Nothing is drawn yet: paint over the target, then press the button.")
    return mask.astype(np.uint8)


def save_drawing(value: dict[str, Any] | None, size: tuple[int, int], stem: str) -> Path:
    """Writes the drawing as a mask file (0 and 255) and returns its path; raises EmitDiffError for an empty one."""
    return save_mask_file(drawn_mask(value, size), f"{stem}_drawn_mask")


def save_mask_file(mask: np.ndarray, stem: str) -> Path:
    """Writes 0/1 (H, W) as a PNG of 0 and 255 that a file field takes, and returns its path."""
    return write_png(answer_folder() / f"{stem}.png", mask * 255)
