"""The learning rate and the averaged weights, alike in every training."""

from __future__ import annotations

import math

import torch
from torch import nn

EMA_DECAY = 0.998


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int, decay: float = EMA_DECAY) -> None:
    """Exponential moving average of the weights, with a shorter memory in the first steps."""
    decay = min(decay, (1 + step) / (10 + step))
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
    for buffer, value in zip(average.buffers(), model.buffers(), strict=True):
        buffer.copy_(value)


def learning_rate(peak: float, step: int, progress: float, warm_up: int = 100) -> float:
    """Linear warm-up over steps, then a cosine over `progress` in 0..1 down to a fiftieth of `peak`."""
    cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
    return peak * min(1, (step + 1) / warm_up) * cosine
