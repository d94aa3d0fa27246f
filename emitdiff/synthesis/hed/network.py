"""Holistically-nested edge detection (Xie and Tu, ICCV 2015, arXiv 1504.06375): the original network, or a small one.

The original: five VGG stages, each with a 1 x 1 side output; the map is the sigmoid of the mean of the five, upsampled.
Its weights come from `convert-hed` or the Hub. `hed-mini` (see mini.py) was trained by it and is embedded.
"""

from __future__ import annotations

import os
import pickle
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from emitdiff.checksums import check_checksums
from emitdiff.errors import EmitDiffError, first_line
from emitdiff.synthesis.hed.mini import load_hed_mini
from emitdiff.synthesis.hed.weights import hed_mini_folder, hed_weights

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
    """(B, 3, H, W) in 0..255 to edge strength (B, 1, H, W) in [0, 1]; parameters named as in ControlNetHED.pth.

    An odd side is pooled with its last pixel alone, as the original networks in Caffe and Keras do.
    """

    def __init__(self):
        super().__init__()
        self.norm = nn.Parameter(torch.zeros(1, 3, 1, 1))
        for number, stage in enumerate(STAGES, start=1):
            setattr(self, f"block{number}", Stage(*stage))

    def forward(self, image: Tensor) -> Tensor:
        features, sides = image - self.norm, []
        for number in range(1, len(STAGES) + 1):
            if number > 1:
                features = F.max_pool2d(features, 2, 2, ceil_mode=True)
            features, side = getattr(self, f"block{number}")(features)
            sides.append(F.interpolate(side, image.shape[-2:], mode="bilinear", align_corners=False))
        return torch.stack(sides).mean(0).sigmoid()


def load_hed(path: Path) -> HedNetwork:
    """The network in eval mode, with the weights of a .safetensors file that `convert-hed` wrote or ControlNetHED.pth.

    Raises:
        EmitDiffError: the file is damaged or holds another network.
    """
    network = HedNetwork()
    try:
        safe = path.suffix == ".safetensors"
        network.load_state_dict(load_file(path) if safe else torch.load(path, weights_only=True, map_location="cpu"))
    except (OSError, EOFError, RuntimeError, ValueError, TypeError, pickle.UnpicklingError, SafetensorError) as error:
        raise EmitDiffError(
            f"{path} does not hold the weights of HED ({first_line(error)}): remove it, or run "
            "`python -m emitdiff convert-hed FILE` again."
        ) from error
    return network.eval().requires_grad_(False)


@lru_cache(maxsize=2)
def _network(path: Path, written: int) -> nn.Module:
    """Loaded once for each file as it was `written`, in nanoseconds."""
    if path.parent != hed_mini_folder():
        return load_hed(path)
    check_checksums(path.parent, required="EMITDIFF_CHECKPOINTS" not in os.environ)
    return load_hed_mini(path.parent)


@torch.inference_mode()
def hed_edges(image: np.ndarray, detector: str = "hed") -> np.ndarray:
    """Edges of uint8 (H, W, 3) as uint8 (H, W), neither thresholded nor thinned. Fetches nothing.

    Args:
        detector: "hed", the original network where it is on this machine and else the embedded one; or "hed-mini".

    Raises:
        EmitDiffError: weights that are damaged or, of the embedded network, not there.
    """
    path = (hed_weights() if detector == "hed" else None) or hed_mini_folder() / "model.safetensors"
    if not path.is_file():
        raise EmitDiffError(
            f"The weights of hed-mini are not in {path.parent}: set EMITDIFF_CHECKPOINTS to the checkpoints folder of "
            "the repository, or choose another edge detector (soft or canny)."
        )
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    return (_network(path, path.stat().st_mtime_ns)(tensor)[0, 0] * 255).clamp(0, 255).byte().numpy()
