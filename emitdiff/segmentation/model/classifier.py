"""The pixel classifier of TextDiff: all scales side by side, three convolutions, one score per class and pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class PixelClassifier(nn.Module):
    """conv3x3 + BN + ReLU, conv3x3 + BN + ReLU, conv3x3. With the paper's sizes (the defaults) 3,576,866 parameters.

    Beyond the paper, all optional: `dropout` of whole channels behind each ReLU, whose disagreeing answers tell how
    sure a mask is (`dropout_samples`); `subpixels`, so many logits a side for every position, for masks finer than the
    features; and `light`, the first convolution at every scale's own resolution, its outputs upsampled instead of its
    input.
    """

    def __init__(self, in_channels: int = 4 * 768, hidden: Sequence[int] = (128, 32), num_classes: int = 2,
                 subpixels: int = 1, dropout: float = 0.0, light: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.light, self.has_dropout = light, dropout > 0
        layers: list[nn.Module] = []
        for before, after in zip((in_channels, *hidden), hidden, strict=False):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
            layers += [nn.Dropout2d(dropout)] if dropout else []
        layers.append(nn.Conv2d(hidden[-1], num_classes * subpixels**2, 3, padding=1))
        self.layers = nn.Sequential(*layers, *([nn.PixelShuffle(subpixels)] if subpixels > 1 else []))
        self.apply(self._initialise)

    @staticmethod
    def _initialise(layer: nn.Module) -> None:
        """The paper's initial values: N(0, 0.02) for convolutions, N(1, 0.02) for the scale of a batch norm."""
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)

    def forward(self, features: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """`features`, each (B, C_k, H_k, W_k), to logits (B, num_classes, *size); C_k add up to `in_channels`.

        With subpixels s, `size` is that of the positions and the logits are s times as high and wide.
        """
        return self.last_convolution(self.hidden(features, size))

    def hidden(self, features: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """What the last convolution reads, (B, hidden[-1], *size)."""
        return self.layers[1 : self._last_index](self._first_convolution(features, size))

    def last_convolution(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logits for what `hidden` gave."""
        return self.layers[self._last_index :](hidden)

    @property
    def _last_index(self) -> int:
        """Where the last convolution stands."""
        return max(index for index, layer in enumerate(self.layers) if isinstance(layer, nn.Conv2d))

    @torch.no_grad()
    def dropout_samples(
        self, features: Sequence[torch.Tensor], size: tuple[int, int], count: int, seed: int = 0
    ) -> torch.Tensor:
        """Logits (count, B, num_classes, ...) as `forward` gives them, each with other channels dropped."""
        generator = torch.Generator().manual_seed(seed)
        first = self.layers[1:3](self._first_convolution(features, size))
        return torch.stack([self._dropout_sample(first, generator) for _ in range(count)])

    def _dropout_sample(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        for layer in list(self.layers)[3:]:
            if isinstance(layer, nn.Dropout2d):
                mask = torch.rand((len(x), x.shape[1], 1, 1), generator=generator) >= layer.p
                x = x * (mask.to(x) / (1 - layer.p))
            else:
                x = layer(x)
        return x

    def _first_convolution(self, features: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """What the first convolution answers, (B, hidden[0], *size)."""
        first: Any = self.layers[0]  # a convolution
        if not self.light:
            return first(torch.cat([self._upsample(part, size) for part in features], dim=1))
        weights = first.weight.split([part.shape[1] for part in features], dim=1)
        scales = zip(features, weights, strict=True)
        found = [self._upsample(functional.conv2d(part, weight, padding=1), size) for part, weight in scales]
        return torch.stack(found).sum(0) + first.bias[:, None, None]

    @staticmethod
    def _upsample(part: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        if part.shape[-2:] == tuple(size):
            return part
        return functional.interpolate(part, size=tuple(size), mode="bilinear", align_corners=False)
