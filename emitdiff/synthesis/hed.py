"""Holistically-nested edge detection (Xie and Tu, ICCV 2015, arXiv 1504.06375), with the weights ControlNet uses.

Five VGG stages, each with a 1 x 1 side output; the map is the sigmoid of the mean of the five, upsampled.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emitdiff.checkpoints import hed_weights

STAGES = ((3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3))


class Stage(nn.Module):
    """Convolutions of one VGG stage and the side output of its last map."""

    def __init__(self, before: int, width: int, depth: int):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width if i else before, width, 3, padding=1) for i in range(depth))
        self.projection = nn.Conv2d(width, 1, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        for conv in self.convs:
            features = F.relu(conv(features))
        return features, self.projection(features)


class HedNetwork(nn.Module):
    """(B, 3, H, W) in 0..255 to edge strength (B, 1, H, W) in [0, 1]; parameters named as in ControlNetHED.pth."""

    def __init__(self):
        super().__init__()
        self.norm = nn.Parameter(torch.zeros(1, 3, 1, 1))
        for number, stage in enumerate(STAGES, start=1):
            setattr(self, f"block{number}", Stage(*stage))

    def forward(self, image: Tensor) -> Tensor:
        features, sides = image - self.norm, []
        for number in range(1, len(STAGES) + 1):
            if number > 1:
                features = F.max_pool2d(features, 2, 2)
            features, side = getattr(self, f"block{number}")(features)
            sides.append(F.interpolate(side, image.shape[-2:], mode="bilinear", align_corners=False))
        return torch.stack(sides).mean(0).sigmoid()


@cache
def _network() -> HedNetwork:
    network = HedNetwork()
    network.load_state_dict(torch.load(hed_weights(), weights_only=True, map_location="cpu"))
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def hed_edges(image: np.ndarray) -> np.ndarray:
    """HED edges of uint8 (H, W, 3) as uint8 (H, W), neither thresholded nor thinned.

    Raises:
        EmitDiffError: the weights are not on this machine and cannot be fetched.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    return (_network()(tensor)[0, 0] * 255).clamp(0, 255).byte().numpy()
