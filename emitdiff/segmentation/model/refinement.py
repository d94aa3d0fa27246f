"""Refinement: a small network on the pixels that corrects the classifier's logits at edges finer than the features.

The backbone's finest maps have one position for 4 x 4 pixels, too coarse for touching nuclei or a thin wall. Looking
at the image does not depend on the words, so several sentences share it, as they share the features.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

FOLD = 2  # pixels a side that become channels


class Residual(nn.Module):
    """x + conv3x3(SiLU(norm(conv3x3(SiLU(norm(x)))))), the first convolution `dilation` wide."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        norms = [nn.GroupNorm(min(8, channels), channels) for _ in range(2)]
        first = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        last = nn.Conv2d(channels, channels, 3, padding=1)
        self.layers = nn.Sequential(norms[0], nn.SiLU(), first, norms[1], nn.SiLU(), last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same shape."""
        return x + self.layers(x)


class Refinement(nn.Module):
    """What `encode_image` saw in the pixels, with the classifier's hidden maps of a sentence, to logits for every
    pixel.

    Its last layer begins at zero: put onto a few-shot head, it changes nothing before it has learnt something.
    """

    def __init__(self, channels: int, hidden: int, num_classes: int = 2) -> None:
        super().__init__()
        self.opening = nn.Conv2d(3 * FOLD**2, channels, 3, padding=1)
        self.looking = nn.Sequential(Residual(channels), Residual(channels, dilation=2))
        self.meaning = nn.Conv2d(hidden, channels, 1)
        self.joining = Residual(channels)
        last = nn.Conv2d(channels, num_classes * FOLD**2, 3, padding=1)
        self.closing = nn.Sequential(
            nn.GroupNorm(min(8, channels), channels), nn.SiLU(), last, nn.PixelShuffle(FOLD)
        )  # fmt: skip
        for values in last.parameters():
            nn.init.zeros_(values)

    @torch.no_grad()
    def copy_image_branch(self, other: Refinement) -> None:
        """Copies the image branch of `other`, where it has as many channels."""
        if other.opening.weight.shape == self.opening.weight.shape:
            self.opening.load_state_dict(other.opening.state_dict())
            self.looking.load_state_dict(other.looking.state_dict())

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        """`image` (B, 3, H, W) in [-1, 1], sides even, to what it shows, (B, channels, H / 2, W / 2)."""
        return self.looking(self.opening(functional.pixel_unshuffle(image, FOLD)))

    def forward(self, pixels: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """`pixels` as `encode_image` gives it, `hidden` (B, hidden, h, w) the maps behind the classifier's last logits.

        (B, num_classes, H, W): what to add to those logits.
        """
        text = functional.interpolate(self.meaning(hidden), pixels.shape[-2:], mode="bilinear", align_corners=False)
        return self.closing(self.joining(pixels + text))
