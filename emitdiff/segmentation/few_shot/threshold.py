"""Where the probabilities of a few-shot head are cut."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import nn

from emitdiff.segmentation.model.textdiff import TextDiff

# probability of being there, below which the target is said to be absent: after a few images a false refusal costs most
FEW_SHOT_PRESENCE_THRESHOLD = 0.1


def decision_threshold(dice: float | None) -> float:
    """Where to cut probabilities for the best Dice: at half of the Dice to be expected (Lipton et al., ECML 2014).

    A head trained on a few images is unsure of much, and cut at 0.5 its masks are too small.
    """
    return 0.35 if dice is None else min(max(dice / 2, 0.3), 0.5)


@torch.no_grad()
def shift_threshold(head: TextDiff, probability: float) -> None:
    """Shifts the logits of `head` so that what had this probability of being the target now has 0.5, and an image with
    `FEW_SHOT_PRESENCE_THRESHOLD` of showing it too."""
    last = [layer for layer in head.classifier.layers if isinstance(layer, nn.Conv2d)][-1]
    bias = cast(torch.Tensor, last.bias)
    bias[len(bias) // head.config.num_classes :] += math.log((1 - probability) / probability)
    if head.presence is not None:
        shift = math.log((1 - FEW_SHOT_PRESENCE_THRESHOLD) / FEW_SHOT_PRESENCE_THRESHOLD)
        cast(nn.Linear, head.presence.layers[-1]).bias.add_(shift)
