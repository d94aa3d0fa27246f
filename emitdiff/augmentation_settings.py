"""How a dataset is augmented, as plain data: taken by the command, the page and the backend alike."""

from __future__ import annotations

from dataclasses import dataclass

from emitdiff.errors import EmitDiffError
from emitdiff.synthesis_settings import SynthesisSettings

# Below it the mask is no longer followed, and would be no label.
MIN_STRUCTURE = 0.5


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """How many synthetic images are generated from which images, and how.

    Args:
        ratio: synthetic images per real one, above 0 and at most 1000; of a fraction, like 0.5, a part of the images
            (drawn by hash) has one more than the others.
        checkpoint: name, folder or Hub repository of the weights.
        split, limit: those of `choose_rows`, with the fraction and the seed that the checkpoint records.
        seed: every image and variant derives its own from it.
        steps, guidance, control_strength: the checkpoint's or the preset's own where None.
        structure: from 1 (all edges) to 0.5 (the mask alone).
        edit: strength of random mask edits in [0, 1], 0 for none.
        appearance: one or two words like "dark" are drawn for each image.
        include_real: the real images are copied too.
    """

    ratio: float = 1.0
    checkpoint: str = "emitdiff-mini"
    split: str = "all"
    limit: int | None = None
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    control_strength: float | None = None
    structure: float = 1.0
    preset: str = "default"
    edit: float = 0.0
    appearance: bool = False
    include_real: bool = False

    @property
    def of_each_image(self) -> SynthesisSettings:
        """What all images have in common; each has a prompt, a seed and an edit of its own."""
        return SynthesisSettings(
            num_images=1,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            controlnet_conditioning_scale=self.control_strength,
            structure=self.structure,
            preset=self.preset,
        )

    def check(self) -> None:
        """Raises EmitDiffError for numbers out of range."""
        if not MIN_STRUCTURE <= self.structure <= 1:
            raise EmitDiffError(
                f"The structure was {self.structure:g}; give a number from {MIN_STRUCTURE:g} to 1: below, an image "
                "no longer follows its mask, which would not be a valid label."
            )
        if not 0 <= self.edit <= 1:
            raise EmitDiffError(f"The strength of mask edits was {self.edit:g}; give a number from 0 (none) to 1.")
        if not 0 < self.ratio <= 1000:
            raise EmitDiffError(f"The ratio was {self.ratio:g}; give a number above 0 and at most 1000.")
