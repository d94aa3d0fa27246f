"""The pixel classifier of TextDiff: all scales side by side, three convolutions, one score per class and pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional


class PixelClassifier(nn.Module):
    """conv3x3 + BN + ReLU, conv3x3 + BN + ReLU, conv3x3. With the paper's sizes (the defaults) 3,576,866 parameters."""

    def __init__(self, in_channels: int = 4 * 768, hidden: Sequence[int] = (128, 32), num_classes: int = 2) -> None:
        super().__init__()
        first, second = hidden
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, first, 3, padding=1),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, second, 3, padding=1),
            nn.BatchNorm2d(second),
            nn.ReLU(inplace=True),
            nn.Conv2d(second, num_classes, 3, padding=1),
        )
        self.apply(self._initialise)

    @staticmethod
    def _initialise(layer: nn.Module) -> None:
        """The paper's initial values: N(0, 0.02) for convolutions, N(1, 0.02) for the scale of a batch norm."""
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)

    def forward(self, features: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """`features`, each (B, C_k, H_k, W_k), to logits (B, num_classes, *size); C_k add up to `in_channels`."""
        grown = [self._grown(part, size) for part in features]
        return self.layers(torch.cat(grown, dim=1))

    @staticmethod
    def _grown(part: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        if part.shape[-2:] == tuple(size):
            return part
        return functional.interpolate(part, size=tuple(size), mode="bilinear", align_corners=False)
