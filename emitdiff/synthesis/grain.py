"""Grain: the fine random texture of real scans, which a small autoencoder averages away.

A decoder without any random input can only draw grain as strokes. Here each image gets

    y = x + d(x) + sum_k a_k(x) (h_k * n_k)

with a sharpening d(x), white noise n_k, learned filters h_k (size, direction) and learned amplitudes a_k(x) >= 0 that
change slowly over the image: a locally stationary Gaussian texture. Speckle, quantum noise and film grain differ in the
filters and in where they are strong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from emitdiff.errors import EmitDiffError, first_line

GRAIN_FOLDER = "grain"
# Deviations across and down in pixels of the Gaussians that the filters begin as.
SHAPES = (
    (0.4, 0.4), (0.7, 0.7), (1.2, 1.2), (2.0, 2.0), (2.0, 0.6), (0.6, 2.0), (3.0, 0.6), (0.6, 3.0), (1.5, 0.5),
    (0.5, 1.5), (1.0, 0.4), (0.4, 1.0),
)  # fmt: skip
FILTER_SIZE = 9
COARSEST = 8  # pixels; brightness over larger distances is left as it is
MULTIPLE = 8  # the sides of images must be divisible by it
STRENGTHS = {"smooth": 0.4, "noisy": 1.8}  # words of a prompt
STRONGEST = 0.12  # amplitude of one filter's noise; grain beyond that is dirt


class GrainNetwork(ModelMixin, ConfigMixin):
    """Images (B, 3, H, W) in [-1, 1], sides multiples of 8, to what is to be added: sharpening and grain, (B, 1, H, W)
    each."""

    @register_to_config
    def __init__(self, widths: Sequence[int] = (16, 24, 32, 48)):
        super().__init__()
        pairs = list(zip(widths, widths[1:], strict=False))
        self.first = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList(_down(narrow, wide) for narrow, wide in pairs)
        self.middle = _convolutions(widths[-1], widths[-1])
        self.up = nn.ModuleList(_convolutions(narrow + wide, narrow) for narrow, wide in reversed(pairs))
        self.sharpening = nn.Conv2d(widths[0], 1, 3, padding=1)
        nn.init.zeros_(self.sharpening.weight)
        nn.init.zeros_(cast(Tensor, self.sharpening.bias))
        self.amplitudes = nn.Conv2d(widths[-1], len(SHAPES), 3, padding=1)
        nn.init.constant_(cast(Tensor, self.amplitudes.bias), -3.0)  # hardly any grain at first
        self.filters = nn.Parameter(torch.stack([gaussian(*shape) for shape in SHAPES])[:, None])

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The noise is drawn on the CPU from `generator`, so that it is the same on every device."""
        maps = [self.first(images)]
        for layer in self.down:
            maps.append(layer(maps[-1]))
        features = maps[-1] + self.middle(F.leaky_relu(maps[-1], 0.2))
        amplitudes = STRONGEST * self.amplitudes(features).float().sigmoid()
        for layer, skipped in zip(self.up, reversed(maps[:-1]), strict=True):
            enlarged = F.interpolate(features, size=skipped.shape[-2:])
            features = F.leaky_relu(layer(torch.cat([enlarged, skipped], 1)), 0.2)
        return self.sharpening(features).float(), self._grain(amplitudes, images.shape[-2:], generator)

    def _grain(self, amplitudes: Tensor, size: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        height, width = (side + FILTER_SIZE - 1 for side in size)
        noise = torch.randn((len(amplitudes), len(SHAPES), height, width), generator=generator).to(amplitudes.device)
        filters = self.filters.float() / self.filters.float().flatten(1).norm(dim=1)[:, None, None, None]
        strength = F.interpolate(amplitudes, size=size, mode="bilinear", align_corners=False)
        grain = (strength * F.conv2d(noise, filters, groups=len(SHAPES))).sum(1, keepdim=True)
        coarse = F.avg_pool2d(grain, COARSEST)
        return grain - F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)


def _convolutions(before: int, width: int) -> nn.Sequential:
    last = nn.Conv2d(width, width, 3, padding=1)
    return nn.Sequential(nn.Conv2d(before, width, 3, padding=1), nn.LeakyReLU(0.2), last)


def _down(before: int, width: int) -> nn.Sequential:
    first, last = nn.Conv2d(before, width, 3, stride=2, padding=1), nn.Conv2d(width, width, 3, padding=1)
    return nn.Sequential(nn.LeakyReLU(0.2), first, nn.LeakyReLU(0.2), last)


def gaussian(across: float, down: float) -> Tensor:
    """A Gaussian of these deviations in pixels, (FILTER_SIZE, FILTER_SIZE), of norm 1."""
    places = torch.arange(FILTER_SIZE) - FILTER_SIZE // 2
    filled = torch.exp(-(places[:, None] ** 2) / (2 * down**2) - places**2 / (2 * across**2))
    return filled / filled.norm()


def load_grain(folder: Path) -> GrainNetwork | None:
    """The network beside the others of a checkpoint `folder`, on the CPU; None where there is none.

    Raises:
        EmitDiffError: it is damaged.
    """
    if not (folder / GRAIN_FOLDER).is_dir():
        return None
    try:
        return GrainNetwork.from_pretrained(folder / GRAIN_FOLDER, torch_dtype=torch.float32).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise EmitDiffError(
            f"{folder / GRAIN_FOLDER} cannot be read ({first_line(error)}); restore it from where the weights came "
            "from, or remove the folder to generate without grain."
        ) from error


def grain_strength(prompt: str) -> float:
    """By how much the prompt's words multiply the grain: "smooth" weakens it, "noisy" strengthens it, else 1."""
    words = set(re.findall(r"[a-z]+", prompt.lower()))
    return float(np.prod([factor for word, factor in STRENGTHS.items() if word in words]))


@torch.inference_mode()
def add_grain(network: GrainNetwork, image: Tensor, seed: int, strength: float = 1.0) -> Tensor:
    """`image`, float (3, H, W) in [-1, 1], sharpened and with grain that depends on `seed` and the image alone."""
    height, width = image.shape[-2:]
    padding = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
    padded = F.pad(image[None], padding, mode="replicate")
    weight = next(network.parameters())
    sharpening, grain = network(padded.to(weight), torch.Generator().manual_seed(seed))
    added = (sharpening + strength * grain)[0].to(image)
    return (image + added[..., :height, :width]).clamp(-1, 1)
