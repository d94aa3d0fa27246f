"""How a few-shot head is built and trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from emitdiff.segmentation.model.text import TextEncoder
from emitdiff.segmentation.model.textdiff import HeadConfig, TextDiff
from emitdiff.segmentation.training.head import init_head

REFINE_BELOW = 0.9  # Dice of the masks with themselves drawn on cells: what comes out so coarse needs the pixels again


@dataclass(frozen=True)
class Recipe:
    """How the head is built and trained; the defaults were the best found at five images of six kinds in a minute."""

    views: int = 120  # altered images, all together, but at least one and at most `views_per_image` of each
    views_per_image: int = 24
    components: int = 16  # principal components of each scale
    whitening: float = 0.5
    dim: int = 16
    hidden: tuple[int, int] = (32, 24)
    refinement_channels: int = 32  # channels of the network that looks at the pixels again, where masks are fine
    window: int = 128  # pixels a side of the part of every view that it looks at in a step: it costs most
    dropout: float = 0.1
    steps: int = 450
    batch: int = 8
    rate: float = 1e-2
    weight_decay: float = 0.02
    average: float = 0.97

    def with_time(self, seconds: float) -> Recipe:
        """More time than a minute buys more views and steps, up to four minutes.

        With ten images of liver, prostate or breast lesions four times the views and 1000 steps gained .02 to .06 of
        Dice.
        """
        factor = min(max(seconds / 60, 1.0), 4.0)
        return replace(self, views=round(self.views * factor), views_per_image=round(self.views_per_image * factor),
                       steps=round(self.steps * factor**0.58))  # fmt: skip

    def for_masks(self, coarse_dice: float) -> Recipe:
        """Without a second look at the pixels where masks drawn on cells are as good, of `dice_on_cells`."""
        return replace(self, refinement_channels=0) if coarse_dice >= REFINE_BELOW else self


def build_few_shot_head(maps: Sequence[torch.Tensor], text: TextEncoder, recipe: Recipe, cell: int,
                     presence: bool) -> TextDiff:  # fmt: skip
    """A light head for reduced maps, one logit for every pixel of a cell."""
    channels = tuple(part.shape[1] for part in maps)
    config = HeadConfig(channels, tuple(range(len(maps))), recipe.dim, text.dim, 2, 16, recipe.hidden, 2, cell,
                        recipe.dropout, presence, light=True, detail=recipe.refinement_channels)  # fmt: skip
    return init_head(config)
