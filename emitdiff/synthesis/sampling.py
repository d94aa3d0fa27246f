"""The settings of one call of the synthesis pipeline, with defaults filled in and checked, and the text it is given."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.mask_edits import MaskEdit
from emitdiff.synthesis.presets import SamplingPreset, draw_phrase, find_preset
from emitdiff.synthesis.prompts import compose_prompt

LARGEST_SIDE = 4096
NUMBERS = ("num_inference_steps", "guidance_scale", "controlnet_conditioning_scale")


@dataclass(frozen=True)
class Sampling:
    """What an image depends on besides its source; `size` counts where there is neither image nor mask."""

    prompt: str
    negative_prompt: str
    num_images: int
    seed: int
    num_inference_steps: int
    guidance_scale: float
    controlnet_conditioning_scale: float
    detector: str
    boundary: bool
    low_threshold: float
    high_threshold: float
    structure: float = 1.0
    edit: MaskEdit | None = None
    preset: str = "default"
    appearance: str = ""
    size: tuple[int, int] | None = None

    @property
    def preset_settings(self) -> SamplingPreset:
        return find_preset(self.preset)

    @property
    def mask_share(self) -> float:
        """In [0, 1]: how much of the mask is left; it fades as structure falls from 0.5 to 0."""
        return min(1.0, self.structure / 0.5)

    def phrase(self, seed: int) -> str:
        """The appearance phrase of the image made with `seed`: the one given, else the preset's draw."""
        return self.appearance or (draw_phrase(seed) if self.preset_settings.phrase_weight else "")

    def record(self, seed: int) -> dict:
        """Everything needed to make the image of `seed` again, JSON-able; the names are those of the arguments."""
        record = {**asdict(self), "num_images": 1, "seed": seed, "appearance": self.phrase(seed)}
        return {**record, "size": list(self.size) if self.size else None}

    def check(self) -> Sampling:
        """Itself; raises EmitDiffError for settings out of range."""
        for number, words in ((self.num_images, "images"), (self.num_inference_steps, "steps")):
            if not 1 <= number <= 1000:
                raise EmitDiffError(f"{number} {words} were asked for; give a number from 1 to 1000.")
        if not 0 <= self.seed < 2**63 - 1000:
            raise EmitDiffError(f"The seed was {self.seed}; give a whole number from 0 to 2^63 - 1000.")
        for name, value, top in (
            ("guidance scale", self.guidance_scale, 50),
            ("control strength", self.controlnet_conditioning_scale, 5),
            ("structure", self.structure, 1),
        ):
            if not 0 <= value <= top:
                raise EmitDiffError(f"The {name} was {value:g}; give a number from 0 to {top}.")
        if self.size and not all(1 <= side <= LARGEST_SIDE for side in self.size):
            raise EmitDiffError(f"The size was {self.size[0]} x {self.size[1]}; give sides from 1 to {LARGEST_SIDE}.")
        return self


def resolve_edit(edit: MaskEdit | dict | None) -> MaskEdit | None:
    """A checked edit; a dict as a manifest keeps it is taken too. Raises EmitDiffError for one that cannot be used."""
    try:
        resolved = MaskEdit(**edit) if isinstance(edit, dict) else edit
    except TypeError:
        fields = ", ".join(MaskEdit.__dataclass_fields__)
        raise EmitDiffError(
            f"The mask edit has {', '.join(edit if isinstance(edit, dict) else ())}; it may have {fields}."
        ) from None
    if resolved is not None:
        resolved.check()
    return resolved


def text_arguments(pipe, sampling: Sampling, seed: int) -> dict:
    """The arguments of a Stable Diffusion pipeline that carry the text of the image made with `seed`.

    Without a mixture the words themselves, an appearance phrase joined on; else embeddings mixed as the preset says
    (see presets.py). The negative embedding is that of the negative prompt alone, as for plain text.
    """
    preset, phrase = sampling.preset_settings, sampling.phrase(seed)
    if not preset.mixes:
        prompt = compose_prompt(sampling.prompt, appearance=phrase)
        return {"prompt": prompt, "negative_prompt": sampling.negative_prompt or None}
    parts = [
        (preset.prompt_weight, sampling.prompt), (preset.phrase_weight, phrase), (preset.style_weight, preset.style)
    ]  # fmt: skip
    first, *others = (weight * embed(pipe, text).float() for weight, text in parts if weight)
    mixed = sum(others, first)
    negative = embed(pipe, sampling.negative_prompt)
    return {"prompt_embeds": mixed.to(negative.dtype), "negative_prompt_embeds": negative}


def embed(pipe, text: str) -> torch.Tensor:
    """The text encoder's last hidden state, (1, 77, D) for Stable Diffusion 1.5."""
    device = pipe._execution_device  # under offloading the encoder is moved there only when it is called
    return pipe.encode_prompt(text, device, 1, False)[0]
