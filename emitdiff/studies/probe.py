"""A light probe: logistic regression from the features of pixels to labels, and the Dice of what it finds.

A linear map commutes with bilinear upsampling, so a probe trained on features upsampled to the image's size is applied
to the small maps, and only its few scores are upsampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

L2 = 1e-3
ITERATIONS = 60


@dataclass(frozen=True)
class Probe:
    """`weights` (K, C_k) for each map it reads, `bias` (K,), and the score (K,) from which a pixel belongs."""

    weights: tuple[torch.Tensor, ...]
    bias: torch.Tensor
    threshold: torch.Tensor

    def scores(self, maps: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Scores (K, *size) of maps (1, C_k, H_k, W_k), above 0 where a pixel belongs."""
        upsampled = [
            functional.interpolate(torch.einsum("kc,bchw->bkhw", weight, part.float()), size, mode="bilinear")
            for weight, part in zip(self.weights, maps, strict=True)
        ]
        return sum(upsampled[1:], upsampled[0])[0] + (self.bias - self.threshold)[:, None, None]


def pixels_at(part: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Features (P, C) of one map (1, C, H, W) at `places` (P, 2), x and y in 0..1 of the image, bilinearly."""
    grid = (places.to(part) * 2 - 1)[None, None]
    return functional.grid_sample(part, grid, padding_mode="border", align_corners=False)[0, :, 0].T


def fit_probe(pixels: Sequence[torch.Tensor], labels: torch.Tensor) -> Probe:
    """One logistic regression for each label on the pixels of one or several maps, standardised together.

    `pixels` (N, C_k) for each map, `labels` (N, K) bool. The threshold is the one with the best Dice on these pixels; a
    label that none of them has is found nowhere.
    """
    joined = torch.cat([part.float() for part in pixels], dim=1)
    deviation, mean = torch.std_mean(joined, dim=0)
    deviation = deviation + 1e-5
    joined, wanted = (joined - mean) / deviation, labels.float()
    weight = torch.zeros(labels.shape[1], joined.shape[1], device=joined.device, requires_grad=True)
    bias = torch.zeros(labels.shape[1], device=joined.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(joined @ weight.T + bias, wanted) + L2 * weight.pow(2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        scores = joined @ weight.T + bias
        threshold = torch.stack([best_threshold(*pair) for pair in zip(scores.T, labels.T, strict=True)])
        unscaled = weight / deviation
        return Probe(unscaled.split([part.shape[1] for part in pixels], dim=1), bias - unscaled @ mean, threshold)


def best_threshold(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The value that scores (N,) must pass for the best Dice with labels (N,) bool; infinite where none is true."""
    if not labels.any():
        return torch.full((), torch.inf, device=scores.device)
    falling, order = scores.sort(descending=True)
    found = labels[order].cumsum(0)
    dice = 2 * found / (torch.arange(1, len(scores) + 1, device=scores.device) + labels.sum())
    best = int(dice.argmax())
    after = falling[best + 1] if best + 1 < len(scores) else falling[best] - 1
    return (falling[best] + after) / 2
