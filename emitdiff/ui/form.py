"""The settings of a run between the page's fields and a checked request: choices, defaults, limits."""

from __future__ import annotations

from typing import Any

from emitdiff.errors import EmitDiffError
from emitdiff.ui.callables import Model, SynthesisRequest

GENERAL = {"num_inference_steps": 20, "guidance_scale": 7.5, "controlnet_conditioning_scale": 1.0}
LIMITS = {
    "num_images": ("The number of images", 1, 8),
    "seed": ("The seed", 0, 2**32 - 1),
    "num_inference_steps": ("The number of steps", 1, 200),
    "guidance_scale": ("The guidance", 0, 30),
    "controlnet_conditioning_scale": ("The control strength", 0, 3),
    "low_threshold": ("The low threshold", 0, 255),
    "high_threshold": ("The high threshold", 0, 255),
}
WHOLE_NUMBERS = {"num_images", "seed", "num_inference_steps", "low_threshold", "high_threshold"}


def check_request(form: dict[str, Any]) -> SynthesisRequest:
    """The form's values by field name as a request; raises EmitDiffError naming the field that cannot be used."""
    values = dict(form)
    for name, (words, low, high) in LIMITS.items():
        value = values.get(name)
        if value is None:
            raise EmitDiffError(f"{words} is empty: enter a value from {low} to {high}.")
        if not low <= value <= high:
            raise EmitDiffError(f"{words} is {value:g}: enter a value from {low} to {high}.")
        values[name] = int(value) if name in WHOLE_NUMBERS else float(value)
    if not str(values["prompt"] or "").strip():
        raise EmitDiffError("The prompt is empty: choose a modality and an organ, or write what to paint.")
    return SynthesisRequest(**values)


def sampling_defaults(model: Model | None) -> dict[str, Any]:
    """The sampling settings that suit a model, those of Stable Diffusion where it names none."""
    return GENERAL | (model.defaults if model else {})


def menu(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """The entries of a drop-down of words that need not be chosen."""
    return [("any", ""), *((word, word) for word in words if word)]
