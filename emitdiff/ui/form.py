"""The settings of a run between the page's fields and a checked request: choices, defaults, limits."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from emitdiff.errors import EmitDiffError, shown
from emitdiff.synthesis_settings import MaskEdit, SynthesisSettings
from emitdiff.ui.interface import ModelInfo, PresetOption, SynthesisRequest

# A form has no field within a field: what is done to the mask stands beside the other settings, by field of the form.
EDIT_FIELDS = {
    "move_x": "move_x", "move_y": "move_y", "scale": "scale", "rotate": "rotate", "deform": "deform",
    "edit_seed": "seed",
}  # fmt: skip
NO_FIELDS = ("edit", "appearance", "size")  # settings that the page has no field of that name for
DEFAULT_SAMPLING = {"num_inference_steps": 20, "guidance_scale": 7.5, "controlnet_conditioning_scale": 1.0}
RANDOM_SEED = -1
LIMITS = {
    "num_images": ("The number of images", 1, 8),
    "seed": ("The seed", RANDOM_SEED, 2**32 - 1),
    "num_inference_steps": ("The number of steps", 1, 200),
    "guidance_scale": ("The guidance", 0, 30),
    "controlnet_conditioning_scale": ("The control strength", 0, 3),
    "low_threshold": ("The low threshold", 0, 255),
    "high_threshold": ("The high threshold", 0, 255),
    "structure": ("The structure", 0, 1),
    "move_x": ("The mask's move to the right", -1, 1),
    "move_y": ("The mask's move down", -1, 1),
    "scale": ("The mask's scale", 0.1, 10),
    "rotate": ("The mask's rotation", -360, 360),
    "deform": ("The mask's deformation", 0, 1),
    "edit_seed": ("The seed of the deformation", 0, 2**32 - 1),
}
WHOLE_NUMBERS = {"num_images", "seed", "num_inference_steps", "low_threshold", "high_threshold", "edit_seed"}


def read_form(form: dict[str, Any]) -> SynthesisRequest:
    """The form's values by field name as a request; what is not among them is the default."""
    edit = MaskEdit(**{part: form[name] for name, part in EDIT_FIELDS.items() if name in form})
    settings = {name: value for name, value in form.items() if name not in (*EDIT_FIELDS, "checkpoint")}
    request = SynthesisRequest(SynthesisSettings(**settings, edit=edit))
    return replace(request, checkpoint=form.get("checkpoint", request.checkpoint))


def fill_form(request: SynthesisRequest) -> dict[str, Any]:
    """The values of the form by field name that `read_form` makes `request` of again."""
    settings = {name: value for name, value in vars(request.settings).items() if name not in NO_FIELDS}
    edit = request.settings.edit or MaskEdit()
    return {
        **settings,
        "checkpoint": request.checkpoint,
        **{name: getattr(edit, part) for name, part in EDIT_FIELDS.items()},
    }


# Before anything is chosen; what depends on weights and preset is None.
BLANK_FORM = fill_form(SynthesisRequest(SynthesisSettings(boundary=True)))


def check_request(form: dict[str, Any]) -> SynthesisRequest:
    """The form's values by field name as a request, with a seed drawn where it is `RANDOM_SEED`; raises EmitDiffError
    naming the field that cannot be used."""
    values = dict(form)
    for name in LIMITS:
        values[name] = check_limit(name, values.get(name))
    if values["seed"] == RANDOM_SEED:
        values["seed"] = random.randrange(2**31)
    for name in ("prompt", "negative_prompt", "checkpoint", "preset", "detector"):
        if not isinstance(values.get(name) or "", str):
            raise EmitDiffError(f"The {name.replace('_', ' ')} is {shown(values[name])}: enter text.")
    if not (values["prompt"] or "").strip():
        raise EmitDiffError("The prompt is empty: choose a modality and an organ, or write a prompt.")
    return read_form(values)


def check_limit(name: str, value: Any) -> float:
    """The value of the field `name`, one of `LIMITS`; raises EmitDiffError naming what is wrong with it."""
    words, low, high = LIMITS[name]
    return check_number(words, value, low, high, name in WHOLE_NUMBERS)


def check_number(words: str, value: float | None, low: float, high: float, whole: bool) -> float:
    """The value of the field called `words`, an int where it must be `whole`; raises EmitDiffError naming what is
    wrong with it."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise EmitDiffError(f"{words} is {shown(value)}: enter a value from {low} to {high}.")
    if value is None or not low <= value <= high:
        given = "empty" if value is None else f"{value:g}"
        raise EmitDiffError(f"{words} is {given}: enter a value from {low} to {high}.")
    if whole and value != int(value):
        raise EmitDiffError(f"{words} is {value:g}: enter a whole number.")
    return int(value) if whole else float(value)


def sampling_defaults(model: ModelInfo | None, preset: PresetOption | None = None) -> dict[str, Any]:
    """The preset's settings, before those that suit the model, before Stable Diffusion's; with the edge detector."""
    suits = {"detector": model.detector, **model.defaults} if model else {"detector": "soft"}
    return DEFAULT_SAMPLING | suits | (preset.settings if preset else {})


def find_preset(presets: tuple[PresetOption, ...], name: str) -> PresetOption:
    """Raises EmitDiffError for a name that none of them has."""
    for preset in presets:
        if preset.name == name:
            return preset
    known = ", ".join(preset.name for preset in presets)
    raise EmitDiffError(f"No preset is called {name!r}: give one of {known}.")


def menu(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """The entries of a drop-down of words that need not be chosen."""
    return [("any", ""), *((word, word) for word in words if word)]


def form_values(settings: dict[str, Any], choices: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The form's values that `settings` name, and the names of those that cannot be used here.

    `settings` come from outside, as a synthetic image or the browser kept them: a mask edit may stand in "edit", and
    nothing in them is trusted. `choices` holds what may be chosen, by field name.
    """
    if "edit" in settings:
        edit = settings["edit"] if isinstance(settings["edit"], dict) else {}
        settings = settings | {name: edit.get(part, BLANK_FORM[name]) for name, part in EDIT_FIELDS.items()}
    if settings.get("negative_prompt", "") is None:  # as an image says that it was generated without one
        settings = settings | {"negative_prompt": ""}
    named = {name: settings[name] for name in BLANK_FORM if name in settings}
    values = {name: value for name, value in named.items() if _is_usable(name, value, choices)}
    return values, [name for name in named if name not in values]


def _is_usable(name: str, value: Any, choices: dict[str, Any]) -> bool:
    if name in choices:
        return isinstance(value, str) and value in choices[name]
    if name in LIMITS:
        _, low, high = LIMITS[name]
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    return isinstance(value, bool if name == "boundary" else str)


def word_in(prompt: str, words: tuple[str, ...]) -> str:
    """The longest of the words that the prompt contains, "" for none."""
    return max((word for word in words if word and word.lower() in prompt.lower()), key=len, default="")
