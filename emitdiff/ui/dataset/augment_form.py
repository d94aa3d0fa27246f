"""The settings of a dataset's augmentation: components named as in the request, and the request they make."""

from __future__ import annotations

from typing import Any

import gradio as gr

from emitdiff.augmentation_settings import MIN_STRUCTURE
from emitdiff.ui.form import LIMITS, check_number
from emitdiff.ui.interface import AugmentRequest, Callables

SPLITS = {"all": "all", "training groups of the checkpoint": "train", "held-out groups of the checkpoint": "held-out"}
# field: (what it is called in a sentence, lowest, highest)
NUMBERS = {
    "ratio": ("The ratio", 0.01, 1000),
    "structure": ("The structure", MIN_STRUCTURE, 1),
    "edit": ("The strength of mask edits", 0, 1),
    "limit": ("The number of source images", 1, 100_000),
    "seed": ("The seed", 0, LIMITS["seed"][2]),
    "steps": LIMITS["num_inference_steps"],
    "guidance": LIMITS["guidance_scale"],
    "control_strength": LIMITS["controlnet_conditioning_scale"],
}
WHOLE = {"limit", "seed", "steps"}
# 0 leaves these to the weights or the preset, and takes all images. (An empty field becomes 0 when it is unfolded.)
LEFT_OPEN = {"limit", "steps", "guidance", "control_strength"}


class AugmentForm:
    """Lays the settings out inside the current Blocks context; `fields` are the components by name."""

    def __init__(self, calls: Callables) -> None:
        self.calls = calls
        weights = [model.name for model in calls.models() if model.kind == "synthesis"]
        presets = [preset.name for preset in calls.vocabulary.presets]
        self.fields: dict[str, Any] = {
            "ratio": gr.Slider(0.5, 10, value=1, step=0.5, label="Synthetic images per real image", buttons=[]),
            "structure": gr.Slider(
                MIN_STRUCTURE, 1, value=1, step=0.05, label="Structure: from mask only to all edges", buttons=[]
            ),
            "edit": gr.Slider(0, 1, value=0, step=0.05, label="Strength of random mask edits", buttons=[]),
        }
        with gr.Column(elem_classes="ticks"):
            self.fields |= {
                "appearance": gr.Checkbox(False, label="Vary appearance words (dark, noisy, ...)", container=False),
                "include_real": gr.Checkbox(True, label="Include the real images", container=False),
                "segmenter": gr.Checkbox(False, label="Check labels with the segmenter (slow)", container=False),
            }
        with gr.Accordion("Expert", open=False):
            self.fields |= self._lay_out_advanced(weights, presets)

    def _lay_out_advanced(self, weights: list[str], presets: list[str]) -> dict[str, Any]:
        return {
            "checkpoint": gr.Dropdown(weights, value=self.calls.synthesis_checkpoint, label="Weights"),
            "preset": gr.Dropdown(presets, value=presets[0], label="Preset"),
            "steps": gr.Number(0, label="Steps (0: checkpoint default)"),
            "guidance": gr.Number(0, label="Guidance scale (0: checkpoint default)"),
            "control_strength": gr.Number(0, label="ControlNet conditioning scale (0: checkpoint default)"),
            "split": gr.Dropdown(list(SPLITS.items()), value="all", label="Groups to augment"),
            "limit": gr.Number(0, label="Maximum number of source images (0: all)"),
            "seed": gr.Number(0, label="Seed"),
        }

    def request(self, form: dict[str, Any]) -> AugmentRequest:
        """The values by field name as a request; raises EmitDiffError naming the field that cannot be used."""
        values = dict(form)
        for name, (words, low, high) in NUMBERS.items():
            value = values[name]
            if not value and name in LEFT_OPEN:
                values[name] = None
            else:
                values[name] = check_number(words, value, low, high, name in WHOLE)
        asked = self.calls.segmentation_checkpoint if values["segmenter"] else ""
        return AugmentRequest(**{**values, "segmenter": asked})

    def values(self, request: AugmentRequest) -> dict[Any, Any]:
        """Updates that put the settings of a job back into the form."""
        values = {name: getattr(request, name) for name in self.fields}
        values |= {name: values[name] or 0 for name in LEFT_OPEN} | {"segmenter": bool(request.segmenter)}
        return {field: values[name] for name, field in self.fields.items()}
