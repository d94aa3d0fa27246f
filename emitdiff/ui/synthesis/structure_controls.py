"""Controls of the control image: structure, edge detector, and mask edits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from emitdiff.ui.form import EDIT_FIELDS
from emitdiff.ui.interface import Vocabulary

STRUCTURE_SCALE = (
    '<div class="ends" aria-hidden="true"><span>text only</span><span>mask only</span><span>all edges</span></div>'
)
UNCHANGED = (0, 0, 1, 0, 0, 0)
HED_HERE = "hed is the original network here."
HED_NOT_HERE = "The original of hed is not on this machine; hed-mini stands in until it is."


@dataclass(frozen=True)
class StructureControls:
    """The components; those of `fields` are named as in a request."""

    structure: gr.Slider
    detector: gr.Dropdown
    boundary: gr.Checkbox
    thresholds: gr.Group
    low_threshold: gr.Slider
    high_threshold: gr.Slider
    edit_panel: gr.Accordion
    move_x: gr.Slider
    move_y: gr.Slider
    scale: gr.Slider
    rotate: gr.Slider
    deform: gr.Slider
    edit_seed: gr.Number
    reset: gr.Button

    @property
    def fields(self) -> dict[str, Any]:
        names = ("structure", "detector", "boundary", "low_threshold", "high_threshold", *EDIT_FIELDS)
        return {name: getattr(self, name) for name in names}

    def connect(self, quiet: dict[str, Any]) -> None:
        """What happens among the controls themselves."""
        self.detector.input(thresholds_of, self.detector, self.thresholds, **quiet)
        edits = [getattr(self, name) for name in EDIT_FIELDS]
        self.reset.click(lambda: UNCHANGED, outputs=edits, queue=False, **quiet)


def build_structure_controls(vocabulary: Vocabulary, detector: str) -> StructureControls:
    """Lays the controls out inside the current Blocks context."""
    structure = gr.Slider(0, 1, value=1, step=0.05, label="Structure", buttons=[])
    gr.HTML(STRUCTURE_SCALE, elem_classes="under")
    note = HED_HERE if vocabulary.hed_network == "original" else HED_NOT_HERE
    with gr.Accordion("Edges", open=False):
        choice = gr.Dropdown(list(vocabulary.detectors), value=detector, label="Edge detector", info=note)
        boundary = gr.Checkbox(True, label="Add the mask boundary")
        with gr.Group(visible=has_thresholds(detector)) as thresholds:
            low = gr.Slider(0, 255, value=50, step=1, label="Low threshold", buttons=[])
            high = gr.Slider(0, 255, value=120, step=1, label="High threshold", buttons=[])
    with gr.Accordion("Edit the mask", open=False) as panel:
        gr.HTML('<p class="note">The label and the edges of the target are moved together.</p>', elem_classes="beside")
        move_x = gr.Slider(-0.5, 0.5, value=0, step=0.01, label="Move right (of the width)", buttons=[])
        move_y = gr.Slider(-0.5, 0.5, value=0, step=0.01, label="Move down (of the height)", buttons=[])
        scale = gr.Slider(0.25, 3, value=1, step=0.05, label="Scale", buttons=[])
        rotate = gr.Slider(-180, 180, value=0, step=1, label="Rotate (degrees, anticlockwise)", buttons=[])
        deform = gr.Slider(0, 1, value=0, step=0.05, label="Deform", buttons=[])
        edit_seed = gr.Number(0, label="Seed of the deformation")
        reset = gr.Button("Reset", size="sm")
    return StructureControls(
        structure,
        choice,
        boundary,
        thresholds,
        low,
        high,
        panel,
        move_x,
        move_y,
        scale,
        rotate,
        deform,
        edit_seed,
        reset,
    )


def thresholds_of(detector: str) -> gr.Group:
    return gr.Group(visible=has_thresholds(detector))


def has_thresholds(detector: str) -> bool:
    """The networks, hed and hed-mini, have none to set."""
    return not detector.startswith("hed")
