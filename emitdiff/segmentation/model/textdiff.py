"""TextDiff's trainable head: frozen features and a sentence's tokens to a mask's logits.

The paper's model (MICCAI 2024) and our small embedded one are the same classes at different sizes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from emitdiff.files import write_atomically
from emitdiff.segmentation.model.attention import CrossModalAttention
from emitdiff.segmentation.model.classifier import PixelClassifier
from emitdiff.segmentation.model.refinement import Refinement


@dataclass(frozen=True)
class HeadConfig:
    """Sizes of a head. `feature_channels[k]` is what scale k brings; `projections[k]` numbers the 1 x 1 convolution
    that takes it to `dim`, None where it passes as it is. Scales with one number share a convolution. The paper has
    none of the last five; `presence` adds a layer that says whether the target is in the image at all, in a `light`
    head the last, finest scale, which costs more than all others, does not ask the words, and `detail` is the number
    of channels of a network that looks at the pixels again.
    """

    feature_channels: tuple[int, ...]
    projections: tuple[int | None, ...]
    dim: int = 768
    text_dim: int = 768
    heads: int = 8
    head_dim: int = 64
    hidden: tuple[int, int] = (128, 32)
    num_classes: int = 2
    subpixels: int = 1
    dropout: float = 0.0
    presence: bool = False
    light: bool = False
    detail: int = 0


# Features at three steps of blocks 6, 8, 12, 16 (MoNuSeg) and 4, 6, 8, 12 (QaTa) of ADM 256 x 256.
PAPER_MONUSEG = HeadConfig((1536, 1536, 768, 768), (0, 1, None, None))
PAPER_QATA = HeadConfig((3072, 1536, 1536, 768), (0, 1, 1, None))


class PresenceHead(nn.Module):
    """Presence logit of the target, from mean and maximum of the attended maps."""

    def __init__(self, channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(2 * channels), nn.Linear(2 * channels, hidden), nn.GELU(), nn.Linear(hidden, 1)
        )

    def forward(self, attended: list[torch.Tensor]) -> torch.Tensor:
        """`attended`, each (B, C_k, H_k, W_k), to logits (B,); C_k add up to `channels`."""
        flat = [part.flatten(2) for part in attended]
        pooled = [value for part in flat for value in (part.mean(2), part.amax(2))]
        return self.layers(torch.cat(pooled, dim=1))[:, 0]


class TextDiff(nn.Module):
    """Projection, cross-modal attention at every scale, pixel classifier. The trainable part of the paper's model."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        channels = {number: config.feature_channels[k] for k, number in enumerate(config.projections)}
        numbers = sorted(number for number in channels if number is not None)
        self.projections = nn.ModuleList(nn.Conv2d(channels[number], config.dim, 1) for number in numbers)
        self.attention = CrossModalAttention(config.dim, config.text_dim, config.heads, config.head_dim)
        scales = len(config.feature_channels)
        self.classifier = PixelClassifier(
            scales * config.dim, config.hidden, config.num_classes, config.subpixels, config.dropout, config.light
        )
        self.presence = PresenceHead(scales * config.dim) if config.presence else None
        self.detail = Refinement(config.detail, config.hidden[-1], config.num_classes) if config.detail else None

    def forward(self, features: list[torch.Tensor], tokens: torch.Tensor, mask: torch.Tensor | None = None,
                size: tuple[int, int] | None = None) -> torch.Tensor:  # fmt: skip
        """`features` (B, C_k, H_k, W_k) per scale, `tokens` (B, L, D), `mask` (B, L) 1 on real tokens.

        Logits (B, num_classes, *size), by default at the size of the last, finest scale; without the `detail`.
        """
        return self.classify(self.project(features), tokens, mask, size)

    def project(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Every scale with `dim` channels. Does not depend on the text: several sentences can share it."""
        pairs = zip(features, self.config.projections, strict=True)
        return [part if number is None else self.projections[number](part) for part, number in pairs]

    def classify(self, projected: list[torch.Tensor], tokens: torch.Tensor, mask: torch.Tensor | None = None,
                 size: tuple[int, int] | None = None) -> torch.Tensor:  # fmt: skip
        """What `forward` does after `project`."""
        attended = self.attend(projected, tokens, mask)
        return self.classifier(attended, size or attended[-1].shape[-2:])

    def attend(self, projected: list[torch.Tensor], tokens: torch.Tensor,
               mask: torch.Tensor | None = None) -> list[torch.Tensor]:  # fmt: skip
        """Every projected scale after it has seen the words, in a light head but for the last; shapes stay."""
        *coarse, finest = projected
        return [*(self.attention(part, tokens, mask) for part in coarse),
                finest if self.config.light else self.attention(finest, tokens, mask)]  # fmt: skip

    def encode_pixels(self, image: torch.Tensor) -> torch.Tensor | None:
        """What `predict` needs to know of an `image` (B, 3, H, W) in [-1, 1] beside its features; None without
        `detail`. Does not depend on the text.
        """
        return None if self.detail is None else self.detail.encode_image(image)

    def predict(self, attended: list[torch.Tensor], cells: tuple[int, int],
               pixels: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | float]:  # fmt: skip
        """(logits (B, num_classes, ...) of the maps that `attend` gave, on `cells` positions, and what of them is due
        to the detail that `encode_image` saw, 0 without).
        """
        hidden = self.classifier.hidden(attended, cells)
        logits = self.classifier.last_convolution(hidden)
        correction = 0.0 if self.detail is None else self.detail(pixels, hidden)
        return logits + correction, correction

    def save(self, folder: Path) -> None:
        """config.json and model.safetensors, batch-norm statistics included: in half precision, but for tensors with
        values beyond its range, which stay as they are."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(asdict(self.config), indent=2) + "\n")
        weights = {name: _halved(value).contiguous() for name, value in self.state_dict().items()}
        write_atomically(folder / "model.safetensors", lambda partial: save_file(weights, partial))

    @classmethod
    def load(cls, folder: Path) -> TextDiff:
        """From a folder written by `save`; float32, in evaluation."""
        from safetensors.torch import load_file

        values = json.loads((folder / "config.json").read_text())
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        config = HeadConfig(**fields)
        head = cls(config)
        head.load_state_dict(load_file(folder / "model.safetensors"))
        return head.float().eval()


def _halved(values: torch.Tensor) -> torch.Tensor:
    halves = values.half() if values.is_floating_point() else values
    return values if halves.isinf().any() else halves
