"""What a synthetic image depends on besides its source, as plain data: the settings, and the edit of its mask."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from emitdiff.errors import EmitDiffError, shown

SCALES = (0.1, 10.0)
TEXTS = ("prompt", "negative_prompt", "detector", "preset", "appearance")
WHOLE = ("num_images", "seed", "num_inference_steps")


@dataclass(frozen=True)
class MaskEdit:
    """What is done to a mask (H, W): scaled and rotated about the middle of what it covers, deformed, then moved.

    `move_x` and `move_y` are fractions of the width and height (right and down are positive), `scale` a factor,
    `rotate` degrees (anticlockwise), `deform` in [0, 1] the strength of a smooth random field drawn with `seed`.
    """

    move_x: float = 0.0
    move_y: float = 0.0
    scale: float = 1.0
    rotate: float = 0.0
    deform: float = 0.0
    seed: int = 0

    @property
    def changes_nothing(self) -> bool:
        return (self.move_x, self.move_y, self.scale, self.rotate, self.deform) == (0, 0, 1, 0, 0)

    def check(self) -> None:
        """Raises EmitDiffError for a number that cannot be used."""
        limits = {
            "move_x": ("move to the right, in widths of the image,", -1, 1),
            "move_y": ("move down, in heights of the image,", -1, 1),
            "scale": ("scale", *SCALES),
            "rotate": ("rotation in degrees", -360, 360),
            "deform": ("deformation", 0, 1),
            "seed": ("seed of the deformation", 0, 2**63 - 1),
        }
        for name, (words, low, high) in limits.items():
            value = getattr(self, name)
            if not (_is_whole(value) if name == "seed" else _is_number(value)):
                kind = "whole number" if name == "seed" else "number"
                raise EmitDiffError(f"The mask's {words} was {shown(value)}; give a {kind} from {low:g} to {high:g}.")
            if not (math.isfinite(value) and low <= value <= high):
                raise EmitDiffError(f"The mask's {words} was {value:g}; give a number from {low:g} to {high:g}.")


@dataclass(frozen=True)
class SynthesisSettings:
    """What an image depends on besides image, mask and checkpoint; None is left to the preset, else to the checkpoint.

    Image i is made with a generator of its own, seeded `seed + i`, so it does not depend on `num_images`.

    Args:
        prompt, negative_prompt: what to generate and what to avoid.
        num_inference_steps, guidance_scale, controlnet_conditioning_scale: as in diffusers.
        detector: the edge detector.
        boundary: whether the mask's outline (and, for "layered" checkpoints, its inside) is joined in.
        low_threshold, high_threshold: for Canny and soft edges, in [0, 255].
        structure: in [0, 1]. 1 follows every edge; towards 0.5 the weaker edges go (see `weaken_edges`); 0.5 leaves
            the mask alone; below, the mask fades with structure / 0.5; 0 is free: text alone, for which neither image
            nor mask is needed, and which has no label.
        edit: what is done to the mask before; the edges of the target go along, and the label is the edited mask.
        preset: a name in PRESETS; what is set here wins over what it sets.
        appearance: a phrase on the look, joined to the prompt or mixed in as the preset says; presets that mix one in
            draw one for each image where none is given.
        size: (height, width) where there is neither image nor mask; None: the checkpoint's square.
    """

    prompt: str = ""
    negative_prompt: str = ""
    num_images: int = 4
    seed: int = 0
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    controlnet_conditioning_scale: float | None = None
    detector: str | None = None
    boundary: bool | None = None
    low_threshold: float = 50
    high_threshold: float = 120
    structure: float = 1.0
    edit: MaskEdit | None = None
    preset: str = "default"
    appearance: str = ""
    size: tuple[int, int] | None = None

    @property
    def mask_share(self) -> float:
        """In [0, 1]: how much of the mask is left; it fades as structure falls from 0.5 to 0."""
        return min(1.0, self.structure / 0.5)

    def check_kinds(self) -> None:
        """Raises EmitDiffError for a value of another kind than the setting's, like a list for the seed."""
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            unset = value is None and (name in ("edit", "size") or self.__dataclass_fields__[name].default is None)
            if not unset and not (name == "edit" and isinstance(value, MaskEdit)) and not _is_of_kind(name, value):
                raise EmitDiffError(f"The setting {name} is {shown(value)}; give {_kind(name)}.")

    def replace(self, **changes: Any) -> SynthesisSettings:
        """The same with other values for some fields; an `edit` or a `size` may be as a record holds it.

        Raises:
            EmitDiffError: a name that is no field, or an edit with a part that none has.
        """
        if unknown := [name for name in changes if name not in self.__dataclass_fields__]:
            known = ", ".join(self.__dataclass_fields__)
            raise EmitDiffError(f"There is no setting called '{unknown[0]}'; the settings are {known}.")
        if isinstance(changes.get("edit"), dict):
            changes["edit"] = _read_edit(changes["edit"])
        if "size" in changes:
            changes["size"] = tuple(changes["size"]) if changes["size"] else None
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> SynthesisSettings:
        """The settings in what a PNG or a manifest says of a synthetic image.

        What else stands there (checkpoint, working_size, edge_weights, ...) is passed over; what an older record does
        not have yet is the default.

        Raises:
            EmitDiffError: a value of another kind than the setting's.
        """
        named = {name: record[name] for name in cls.__dataclass_fields__ if record.get(name) is not None}
        for name, value in named.items():
            if not _is_of_kind(name, value):
                raise EmitDiffError(
                    f"The record's {name} is {shown(value)}, where {_kind(name)} belongs: correct the record."
                )
        return cls().replace(**named)

    def record(self) -> dict[str, Any]:
        """The fields by name, JSON-able; `from_record` gives the settings back."""
        return {**dataclasses.asdict(self), "size": list(self.size) if self.size else None}


def _kind(name: str) -> str:
    """What belongs into a field, in words."""
    others = {"boundary": "True or False", "edit": "a mask edit", "size": "a pair of whole numbers"}
    if name in WHOLE:
        return "a whole number"
    return "text" if name in TEXTS else others.get(name, "a number")


def _is_of_kind(name: str, value: Any) -> bool:
    if name == "edit":
        return isinstance(value, dict) and all(map(_is_number, value.values()))
    if name == "size":
        return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_whole, value))
    if name == "boundary":
        return isinstance(value, bool)
    if name in WHOLE:
        return _is_whole(value)
    return isinstance(value, str) if name in TEXTS else _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _read_edit(edit: dict[str, Any]) -> MaskEdit:
    try:
        return MaskEdit(**edit)
    except TypeError:
        fields = ", ".join(MaskEdit.__dataclass_fields__)
        raise EmitDiffError(f"The mask edit has {', '.join(edit)}; it may have {fields}.") from None
