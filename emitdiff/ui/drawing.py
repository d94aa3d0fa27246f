"""A mask drawn by hand: the slice as the ground, one brush, and a button that makes the strokes the mask file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.images import PALETTE, resize_mask
from emitdiff.ui.archive import answer_folder
from emitdiff.ui.source import at_view_size


@dataclass(frozen=True)
class Drawing:
    """The panel's components, in an accordion that fetches the slice when it is opened."""

    panel: gr.Accordion
    canvas: gr.ImageEditor
    use: gr.Button


def build_drawing() -> Drawing:
    colour = "#" + bytes(PALETTE[0]).hex()
    with gr.Accordion("Draw the mask", open=False) as panel:
        canvas = gr.ImageEditor(
            label="Paint over what the label should cover", type="numpy", image_mode="RGBA", format="png", sources=[],
            transforms=[], layers=False, brush=gr.Brush(default_size=24, colors=[colour], color_mode="fixed"),
            eraser=gr.Eraser(default_size=24), buttons=["fullscreen"], elem_classes="canvas", height=380,
        )  # fmt: skip
        use = gr.Button("Use the drawing as mask", size="sm")
    return Drawing(panel, canvas, use)


def ground(image: np.ndarray) -> dict[str, Any]:
    """The value of an editor that shows uint8 (H, W, 3) with nothing painted on it yet."""
    large = at_view_size(image)
    return {"background": large, "layers": [], "composite": large}


def drawn_mask(value: dict[str, Any] | None, size: tuple[int, int]) -> np.ndarray:
    """The painted pixels of an editor's value as 0/1 class ids at `size` = (H, W); EmitDiffError for none."""
    layers = [layer for layer in (value or {}).get("layers", []) if layer is not None]
    painted = [resize_mask((layer[..., 3] > 127).astype(np.uint8), size) for layer in layers]
    mask = np.any(painted, axis=0) if painted else np.zeros(size, bool)
    if not mask.any():
        raise EmitDiffError("Nothing is painted yet: paint over what the label should cover, then press the button.")
    return mask.astype(np.uint8)


def save_drawing(value: dict[str, Any] | None, size: tuple[int, int], stem: str) -> Path:
    """Writes the drawing as a mask file (0 and 255) and returns its path; raises EmitDiffError for an empty one."""
    mask = drawn_mask(value, size)
    path = answer_folder() / f"{stem}_drawn_mask.png"
    cv2.imwrite(str(path), mask * 255)
    return path
