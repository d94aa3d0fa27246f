"""The arguments of the endpoints, each said once: its type, its default, what it means. Signatures are made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, Signature, isgeneratorfunction
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from emitdiff.errors import EmitDiffError, shown
from emitdiff.ui.form import BLANK_FORM, LIMITS, WHOLE_NUMBERS
from emitdiff.ui.interface import Callables

REQUIRED = Parameter.empty  # the default of an argument that has none
FILE, TEXT, NUMBER, WHOLE = "file", "text", "number", "whole number"
SCAN = "PNG, JPEG, WebP, TIFF, DICOM, NIfTI or a zip of one DICOM series"
MAX_TEXT = 10_000  # characters of a text; no text encoder reads more than some hundred words
DEFAULT_HINT = "default: from preset and checkpoint"


@dataclass(frozen=True)
class Argument:
    """One argument of an endpoint. `choices` are told to callers; what is not among them is refused by a sentence."""

    description: str
    kind: str = TEXT
    default: Any = None
    choices: tuple[str, ...] = ()

    def component(self, name: str) -> gr.components.Component:
        """The hidden component that gives the argument its type where Gradio describes the endpoint."""
        value = None if self.default is REQUIRED else self.default
        if self.kind == FILE:
            file = gr.File(label=name)
            file.data_model = _file_model()
            read = file.preprocess
            file.preprocess = lambda payload: payload if isinstance(payload, NoFile) else read(payload)
            return file
        found: gr.components.Component
        if self.choices:
            found = gr.Dropdown(list(self.choices), value=value, label=name, allow_custom_value=True)
        elif self.kind == TEXT:
            found = gr.Textbox(value, label=name)
        else:
            found = gr.Number(value, label=name, precision=0 if self.kind == WHOLE else None)
        # Gradio would round 1.5, make text of a list, and say nothing where it can do neither: `check` looks instead.
        found.preprocess = lambda payload: payload
        return found

    def check(self, name: str, value: Any) -> None:
        """Raises EmitDiffError for a value of another kind than this argument's; None is left to the default."""
        if value is None and self.default is not REQUIRED:
            return
        if isinstance(value, NoFile):
            raise EmitDiffError(f"{name} is {value.sent}: give a file, uploaded first.")
        if self.kind == FILE and isinstance(value, str):
            return
        if self.kind == TEXT and isinstance(value, str):
            if len(value) > MAX_TEXT:
                raise EmitDiffError(f"{name} has {len(value):,} characters: give at most {MAX_TEXT:,}.")
            return
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
        if self.kind == NUMBER and number or self.kind == WHOLE and number and value == int(value):
            return
        expected = {FILE: "a file", TEXT: "text", NUMBER: "a number", WHOLE: "a whole number"}[self.kind]
        raise EmitDiffError(f"{name} is {shown(value) if value is not None else 'missing'}: give {expected}.")


Arguments = dict[str, Argument]


def documented(function: Callable[..., Any], arguments: Arguments) -> Callable[..., Any]:
    """`function` with `arguments` as its signature, defaults and docstring, which Gradio and MCP clients read. What is
    left out, or None, is the default.

    The docstring of `function` is "sentence" or "sentence, Returns: and one line for each output".
    """

    def given(values: dict[str, Any]) -> dict[str, Any]:
        try:
            return checked(arguments, values)
        except EmitDiffError as error:
            raise gr.Error(str(error), print_exception=False) from error

    if isgeneratorfunction(function):  # Gradio looks at the outermost function alone

        @wraps(function)
        def endpoint(**values: Any) -> Any:
            yield from function(**given(values))
    else:

        @wraps(function)
        def endpoint(**values: Any) -> Any:
            return function(**given(values))

    kind = Parameter.KEYWORD_ONLY
    parameters = [Parameter(name, kind, default=one.default) for name, one in arguments.items()]
    endpoint.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # what inspect.signature looks at
    endpoint.__annotations__ = {}
    sentence, marker, returns = (function.__doc__ or "").partition("Returns:")
    lines = "\n".join(f"    {name}: {argument.description}" for name, argument in arguments.items())
    endpoint.__doc__ = f"{sentence.strip()}\nParameters:\n{lines}\n{marker}{returns}"
    return endpoint


def checked(arguments: Arguments, values: dict[str, Any]) -> dict[str, Any]:
    """The `values` with defaults for what was left out or is None; raises EmitDiffError as `check_arguments` does."""
    check_arguments(arguments, values)
    defaults = {name: one.default for name, one in arguments.items() if one.default is not REQUIRED}
    whole = {name for name, one in arguments.items() if one.kind == WHOLE}
    given = {name: value for name, value in values.items() if value is not None or name not in defaults}
    return defaults | {name: int(value) if name in whole else value for name, value in given.items()}


def check_arguments(arguments: Arguments, values: dict[str, Any]) -> None:
    """Raises EmitDiffError for the first of the `values`, by name, that is of another kind than its argument's."""
    for name, value in values.items():
        arguments[name].check(name, value)


class NoFile(FileData):
    """What a caller sent in place of a file; `check` refuses it by a sentence."""

    sent: str


def _file_model() -> type[FileData]:
    """Gradio's own model of a file, which keeps what is none for `check`, before the request is queued."""

    class File(FileData):
        @classmethod
        def model_validate(cls, obj: Any, **how: Any) -> Any:
            try:
                return super().model_validate(obj, **how)
            except ValueError:
                return NoFile(path="", sent=shown(obj))

    File.__name__ = FileData.__name__  # by which Gradio describes its type to callers
    return File


def checkpoint_argument(calls: Callables, kind: str) -> Argument:
    """The name of weights of `kind`, by default those chosen at the start."""
    first = calls.synthesis_checkpoint if kind == "synthesis" else calls.segmentation_checkpoint
    names = tuple(model.name for model in calls.models() if model.kind == kind)
    return Argument("name of the weights, see models", TEXT, first, names)


def structure_arguments(calls: Callables) -> Arguments:
    """What /synthesize and /edges share: everything that the control image depends on besides the image."""
    presets = tuple(preset.name for preset in calls.vocabulary.presets)
    return {
        "mask": Argument(
            "class ids at the size of the image; used as the label, and its outline is added to the edges", FILE
        ),
        "slice_number": Argument("slice of a volume; 1 is the first", WHOLE, 1),
        "checkpoint": checkpoint_argument(calls, "synthesis"),
        "preset": Argument("named settings; explicit arguments override them", TEXT, presets[0], presets),
        "detector": Argument(f"edge detector; {DEFAULT_HINT}", choices=calls.vocabulary.detectors),
        "low_threshold": _field("low_threshold", "of the detector canny"),
        "high_threshold": _field("high_threshold", "of the detector canny"),
        "structure": _field("structure", "1: all edges, 0.5: mask only, 0: text only"),
        "move_x": _field("move_x", "shift of the target to the right, fraction of the width"),
        "move_y": _field("move_y", "shift down, fraction of the height"),
        "scale": _field("scale", "scale factor"),
        "rotate": _field("rotate", "rotation, degrees anticlockwise"),
        "deform": _field("deform", "strength of a smooth deformation"),
        "edit_seed": _field("edit_seed", "seed of the deformation"),
        "time_point": Argument("volume of a file that holds several; 1 is the first, which is also the default", WHOLE),
    }


def sampling_arguments() -> Arguments:
    """What only /synthesize has, besides image and prompt."""
    return {
        "num_images": _field("num_images", "number of images; image i uses seed + i", 1),
        "seed": _field("seed", "seed of the first image, -1 for a random one"),
        "num_inference_steps": _field("num_inference_steps", f"denoising steps; {DEFAULT_HINT}", None),
        "guidance_scale": _field("guidance_scale", f"guidance scale; {DEFAULT_HINT}", None),
        "controlnet_conditioning_scale": _field(
            "controlnet_conditioning_scale", f"ControlNet conditioning scale; {DEFAULT_HINT}", None
        ),
        "negative_prompt": Argument("what to avoid", default=""),
    }


def _field(name: str, words: str, *default: Any) -> Argument:
    """A number of the request: its limits in words; without `default`, the form's own."""
    _, low, high = LIMITS[name]
    value = default[0] if default else BLANK_FORM[name]
    return Argument(f"{words}; {low} to {high}", WHOLE if name in WHOLE_NUMBERS else NUMBER, value)
