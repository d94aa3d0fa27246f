"""`hed-mini`: a small U-shaped network of plain convolutions that draws the edges HED draws.

It is trained by the original network (hed_distillation.py); no normalization layers, so nothing to fold, and any size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from emitdiff.checksums import CHECKSUMS, write_checksums
from emitdiff.errors import EmitDiffError, first_line
from emitdiff.files import write_atomically, write_text
from emitdiff.images import normalize

WIDTHS = (16, 32, 48, 72, 96)  # channels at full size, half, a quarter, ...
BLOCKS = (0, 1, 2, 2, 2)  # residual convolutions at each of them


class Residual(nn.Module):
    """x + conv(relu(x)), (B, C, H, W) as it is."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.conv(F.relu(features))


class Rise(nn.Module):
    """Takes a coarse map up to the size of a finer one and joins the two: a 1 x 1, a sum, a depthwise 3 x 3."""

    def __init__(self, coarse: int, fine: int):
        super().__init__()
        self.project = nn.Conv2d(coarse, fine, 1)
        self.spread = nn.Conv2d(fine, fine, 3, padding=1, groups=fine)
        self.mix = nn.Conv2d(fine, fine, 1)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        risen = F.interpolate(self.project(coarse), fine.shape[-2:], mode="bilinear", align_corners=False)
        joined = fine + risen
        return joined + self.mix(F.relu(self.spread(F.relu(joined))))


class MiniNetwork(nn.Module):
    """(B, 3, H, W) in 0..255 to edge strength (B, 1, H, W) in [0, 1], any H and W of at least 1."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, blocks: tuple[int, ...] = BLOCKS):
        super().__init__()
        self.widths, self.blocks = tuple(widths), tuple(blocks)
        before = (3, *widths)
        self.downs = nn.ModuleList(
            nn.Conv2d(before[level], width, 3, stride=1 if level == 0 else 2, padding=1)
            for level, width in enumerate(widths)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Residual(width) for _ in range(count))) for width, count in zip(widths, blocks, strict=True)
        )
        pairs = list(zip(widths[1:], widths[:-1], strict=True))
        self.rises = nn.ModuleList(Rise(coarse, fine) for coarse, fine in pairs)
        self.sides = nn.ModuleList(nn.Conv2d(width, 1, 3, padding=1) for width in widths)
        self._begin()

    def _begin(self) -> None:
        """Variances that layers keep (He et al., arXiv 1502.01852), branches that add little, maps that are dark."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, Residual | Rise):
                    (module.conv if isinstance(module, Residual) else module.mix).weight.mul_(0.3)
            sides: Any = self.sides
            for side in sides:
                side.weight.mul_(0.1)
                side.bias.fill_(-2.0)

    def logits(self, image: Tensor) -> list[Tensor]:
        """The maps before the sigmoid from full size to a sixteenth, (B, 1, h, w) each; the first is what is drawn, the
        others are for training."""
        features, levels = normalize(image), []
        for level, (down, stage) in enumerate(zip(self.downs, self.stages, strict=True)):
            features = stage(down(features if level == 0 else F.relu(features)))
            levels.append(features)
        risen = [levels[-1]]
        for level in range(len(levels) - 2, -1, -1):
            risen.insert(0, self.rises[level](risen[0], levels[level]))
        return [side(F.relu(features)) for side, features in zip(self.sides, risen, strict=True)]

    def forward(self, image: Tensor) -> Tensor:
        return self.logits(image)[0].sigmoid()


def save_hed_mini(network: MiniNetwork, folder: Path, facts: dict) -> Path:
    """Writes model.safetensors (fp16) and config.json, the widths and `facts` on its making, into `folder`."""
    weights = {name: tensor.detach().cpu().half().contiguous() for name, tensor in network.state_dict().items()}
    (folder / CHECKSUMS).unlink(missing_ok=True)  # until all is written again
    write_atomically(folder / "model.safetensors", lambda path: save_file(weights, path))
    config = {"architecture": "MiniNetwork", "widths": network.widths, "blocks": network.blocks, **facts}
    write_text(folder / "config.json", json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    write_checksums(folder)
    return folder


def load_hed_mini(folder: Path) -> MiniNetwork:
    """The network in a folder that `save_hed_mini` wrote, float32 and in eval mode.

    Raises:
        EmitDiffError: a file is missing or damaged.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        network = MiniNetwork(config["widths"], config["blocks"])
        network.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise EmitDiffError(
            f"{folder} does not hold a small edge detector ({first_line(error)}): restore it from the repository, or "
            "make one with `python -m emitdiff train-hed`."
        ) from error
    return network.float().eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # memory_format has no type there
