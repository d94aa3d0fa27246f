"""The settings a comparison can vary, and what a user types as their values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from emitdiff.errors import EmitDiffError
from emitdiff.ui.form import LIMITS, WHOLE_NUMBERS
from emitdiff.ui.interface import Callables, ModelInfo

MAX_VALUES = 6  # values of one axis
NO_TEXT = "(no text)"  # typed for the empty sentence, which a list could not show
THRESHOLD = ("The threshold", 0.01, 0.99)


@dataclass(frozen=True)
class Axis:
    """One setting: `field` names it for the functions, `name` for users; `default_text` is what its list begins with.

    Values are one of `choices` where there are any, numbers within `limits` (a name, the lowest, the highest) where
    those are given, and otherwise sentences, which stand one to a line because they hold commas.
    """

    field: str
    name: str
    default_text: str = ""
    choices: tuple[str, ...] = ()
    limits: tuple[str, float, float] | None = None

    @property
    def sentences(self) -> bool:
        return not self.choices and self.limits is None

    @property
    def format_hint(self) -> str:
        """How its values are written, for the field's label."""
        return "one per line" if self.sentences else "separated by commas or lines"

    def read(self, typed: str | None) -> list[Any]:
        """The values in a typed list, in order; raises EmitDiffError for none, too many, or one that cannot be used."""
        parts = [part.strip() for part in re.split(r"\n" if self.sentences else r"[,;\n]", typed or "")]
        values = [self._value(part) for part in parts if part]
        if not values:
            raise EmitDiffError(f"{self.name} has no values yet: enter up to {MAX_VALUES}, {self.format_hint}.")
        if len(values) > MAX_VALUES:
            raise EmitDiffError(
                f"{self.name} has {len(values)} values; the maximum is {MAX_VALUES}: remove {len(values) - MAX_VALUES}."
            )
        twice = [value for index, value in enumerate(values) if value in values[:index]]
        if twice:
            raise EmitDiffError(f"{self.name} has {self.show(twice[0])} twice: remove one.")
        return values

    def _value(self, part: str) -> Any:
        if self.choices:
            if part not in self.choices:
                raise EmitDiffError(f"{self.name} cannot be “{part}”: choose from {', '.join(self.choices)}.")
            return part
        if self.limits is None:
            return "" if part == NO_TEXT else part
        return self._number(part, *self.limits)

    def _number(self, part: str, words: str, low: float, high: float) -> float | int:
        whole = self.field in WHOLE_NUMBERS
        try:
            value = int(part) if whole else float(part)
        except ValueError:
            kind = "whole numbers" if whole else "numbers"
            raise EmitDiffError(f"{words} cannot be “{part}”: enter {kind} from {low} to {high}.") from None
        if not low <= value <= high:
            raise EmitDiffError(f"{words} cannot be {part}: enter values from {low} to {high}.")
        return value

    def show(self, value: Any) -> str:
        """A value as it was typed."""
        return (value or NO_TEXT) if isinstance(value, str) else f"{value:g}" if value < 1e6 else str(value)


def synthesis_axes(calls: Callables, models: dict[str, ModelInfo]) -> dict[str, Axis]:
    """By name; `models` are those that generate."""
    detectors = calls.vocabulary.detectors
    here = [name for name, model in models.items() if model.status.startswith("ready")]
    axes = (
        Axis("structure", "Structure", "1, 0.75, 0.5", limits=LIMITS["structure"]),
        Axis("guidance_scale", "Guidance", "1, 2, 4", limits=LIMITS["guidance_scale"]),
        Axis("controlnet_conditioning_scale", "Control strength", "0.7, 1, 1.4",
             limits=LIMITS["controlnet_conditioning_scale"]),
        Axis("num_inference_steps", "Steps", "4, 8, 16", limits=LIMITS["num_inference_steps"]),
        Axis("prompt", "Prompt"),
        Axis("detector", "Edge detector", ", ".join(detectors[:2]), choices=detectors),
        Axis("checkpoint", "Weights", ", ".join(here[:MAX_VALUES]), choices=tuple(models)),
        Axis("seed", "Seed", "0, 1", limits=LIMITS["seed"]),
    )  # fmt: skip
    return {axis.name: axis for axis in axes}


def segmentation_axes(names: tuple[str, ...], typed: str) -> dict[str, Axis]:
    """By name; `names` are the weights and heads that may be compared, `default_text` those to begin with."""
    axes = (
        Axis("text", "Text"),
        Axis("threshold", "Threshold", "0.3, 0.5, 0.7", limits=THRESHOLD),
        Axis("checkpoint", "Weights", typed, choices=names),
    )
    return {axis.name: axis for axis in axes}
