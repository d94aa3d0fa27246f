"""The settings of one call of the synthesis pipeline, with defaults filled in and checked, and the text it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.card import CheckpointCard
from emitdiff.synthesis.presets import draw_phrase, find_preset
from emitdiff.synthesis.prompts import compose_prompt
from emitdiff.synthesis_settings import SynthesisSettings

if TYPE_CHECKING:
    import torch

    class ResolvedSettings(SynthesisSettings):
        """What `resolve` returns, for type checkers alone: these are never None."""

        num_inference_steps: int
        guidance_scale: float
        controlnet_conditioning_scale: float
        detector: str
        boundary: bool


LARGEST_SIDE = 4096
DEFAULTS = {  # where neither preset nor card says otherwise
    "boundary": True, "num_inference_steps": 20, "guidance_scale": 7.5, "controlnet_conditioning_scale": 1.0
}  # fmt: skip


def resolve(settings: SynthesisSettings, card: CheckpointCard) -> ResolvedSettings:
    """What is set, else the preset's, else the card's, checked. No field is None after it but an `edit` that is not
    wanted and the `size` of the checkpoint; resolved again, they stay the same.

    Raises:
        EmitDiffError: an unknown preset, or a number out of range.
    """
    settings.check_kinds()
    preset = find_preset(settings.preset)
    of_card = {"detector": card.detector, **DEFAULTS, **card.defaults}
    missing = [name for name in ("detector", *DEFAULTS) if getattr(settings, name) is None]
    of_preset = {name: value for name in missing if (value := getattr(preset, name)) is not None}
    filled = settings.replace(**{name: of_card[name] for name in missing} | of_preset)
    resolved = cast("ResolvedSettings", filled)
    _check(resolved)
    return resolved


def _check(settings: ResolvedSettings) -> None:
    """Raises EmitDiffError for resolved settings out of range."""
    if settings.edit is not None:
        settings.edit.check()
    for number, words in ((settings.num_images, "images"), (settings.num_inference_steps, "steps")):
        if not 1 <= number <= 1000:
            raise EmitDiffError(f"{number} {words} were asked for; give a number from 1 to 1000.")
    if not 0 <= settings.seed < 2**63 - 1000:
        raise EmitDiffError(f"The seed was {settings.seed}; give a whole number from 0 to 2^63 - 1000.")
    for name, value, top in (
        ("guidance scale", settings.guidance_scale, 50),
        ("control strength", settings.controlnet_conditioning_scale, 5),
        ("structure", settings.structure, 1),
    ):
        if not 0 <= value <= top:
            raise EmitDiffError(f"The {name} was {value:g}; give a number from 0 to {top}.")
    if settings.size and not all(1 <= side <= LARGEST_SIDE for side in settings.size):
        height, width = settings.size
        raise EmitDiffError(f"The size was {height} x {width}; give sides from 1 to {LARGEST_SIDE}.")


def phrase_of(settings: SynthesisSettings, seed: int) -> str:
    """The appearance phrase of the image made with `seed`: the one given, else the preset's draw."""
    return settings.appearance or (draw_phrase(seed) if find_preset(settings.preset).phrase_weight else "")


def text_arguments(pipe, settings: SynthesisSettings, seed: int) -> dict:
    """The arguments of a Stable Diffusion pipeline that carry the text of the image made with `seed`.

    Without a mixture the words themselves, an appearance phrase joined on; else embeddings mixed as the preset says
    (see presets.py). The negative embedding is that of the negative prompt alone, as for plain text.
    """
    preset, phrase = find_preset(settings.preset), phrase_of(settings, seed)
    if not preset.mixes:
        prompt = compose_prompt(settings.prompt, appearance=phrase)
        return {"prompt": prompt, "negative_prompt": settings.negative_prompt or None}
    parts = [
        (preset.prompt_weight, settings.prompt), (preset.phrase_weight, phrase), (preset.style_weight, preset.style)
    ]  # fmt: skip
    first, *others = (weight * embed(pipe, text).float() for weight, text in parts if weight)
    mixed = sum(others, first)
    negative = embed(pipe, settings.negative_prompt)
    return {"prompt_embeds": mixed.to(negative.dtype), "negative_prompt_embeds": negative}


def embed(pipe, text: str) -> torch.Tensor:
    """The text encoder's last hidden state, (1, 77, D) for Stable Diffusion 1.5."""
    device = pipe._execution_device  # under offloading the encoder is moved there only when it is called
    return pipe.encode_prompt(text, device, 1, False)[0]
