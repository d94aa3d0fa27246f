"""Named settings: our own default, and those of the EMIT-Diff paper (arXiv 2310.12868) and of its released code.

Paper and code differ in how the text enters. The paper adds the embedding of an appearance phrase to that of the
prompt; the code weights 0.045 CLIP(prompt) + 0.005 CLIP(phrase) + 0.95 CLIP("gray, sketch"), so that the prompt hardly
counts. Both average the decoder's output channels to one grey channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from emitdiff.errors import EmitDiffError

# What a modality's contrast, noise, sharpness and artefacts are called in the field; one is drawn for each image.
APPEARANCE_PHRASES = (
    "low contrast", "high contrast", "dark", "bright", "washed out", "saturated highlights", "noisy", "speckled",
    "grainy", "smooth", "sharp", "blurred", "motion blur", "partial volume", "uneven illumination", "bias field",
    "soft kernel", "bone kernel", "thin slice", "thick slice", "wide window", "narrow window", "contrast enhanced",
    "unenhanced", "low dose", "streak artefact", "ringing", "acoustic shadow", "high gain", "low gain",
)  # fmt: skip
STYLE = "gray, sketch"


@dataclass(frozen=True)
class SamplingPreset:
    """What a preset sets; None leaves it to the checkpoint's card.

    `grey` averages the three channels the decoder gives. The text embedding is `prompt_weight` x E(prompt) +
    `phrase_weight` x E(appearance phrase) + `style_weight` x E(`style`); with no weight but the prompt's the prompt is
    read as it is. `ddim` samples with DDIM (eta 0) whatever the checkpoint's scheduler.
    """

    summary: str
    detector: str | None = None
    boundary: bool | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    controlnet_conditioning_scale: float | None = None
    grey: bool = False
    ddim: bool = False
    prompt_weight: float = 1.0
    phrase_weight: float = 0.0
    style_weight: float = 0.0
    style: str = ""

    @property
    def mixes(self) -> bool:
        return (self.prompt_weight, self.phrase_weight, self.style_weight) != (1.0, 0.0, 0.0)


_PAPERS: dict[str, Any] = {
    "detector": "hed", "boundary": True, "num_inference_steps": 20, "guidance_scale": 9.0,
    "controlnet_conditioning_scale": 1.0, "grey": True, "ddim": True,
}  # fmt: skip
PRESETS = {
    "default": SamplingPreset("what suits the weights"),
    "paper": SamplingPreset(
        "as the EMIT-Diff paper: HED edges, DDIM 20, guidance 9, grey, prompt + appearance phrase",
        phrase_weight=1.0,
        **_PAPERS,
    ),
    "released": SamplingPreset(
        "as EMIT-Diff's released code: the same, but 95 % of the text is “gray, sketch”",
        prompt_weight=0.045,
        phrase_weight=0.005,
        style_weight=0.95,
        style=STYLE,
        **_PAPERS,
    ),
}


def find_preset(name: str) -> SamplingPreset:
    """Raises EmitDiffError for a name that is not in PRESETS."""
    if name not in PRESETS:
        raise EmitDiffError(f"The preset '{name}' is not known; choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def draw_phrase(seed: int) -> str:
    """The appearance phrase of the image made with `seed`, one of APPEARANCE_PHRASES."""
    return APPEARANCE_PHRASES[np.random.default_rng(seed).integers(len(APPEARANCE_PHRASES))]
