"""A memory- and time-efficient implementation of the head of TextDiff with the same logits.

Exact rearrangements, equal to `TextDiff.forward` up to rounding:

* Convolving and bilinear growing are both linear: the first convolution's nine taps are applied to a small map, and
  their outputs upsampled and shifted, instead of upsampling 768 channels first.
* An image position attends to words only, never to other positions: positions are taken a band of rows at a time, and
  what a band's gradient needs is computed again instead of kept.
* Words are few: queries and outputs are folded into them (model/attention.py), and so is the norm's scale before them.
  Words that are hidden are left out.

Kept are the features, the classifier's own maps of 128 channels, and what goes into its first convolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from emitdiff.segmentation.model.attention import CrossModalAttention, TextAttention
from emitdiff.segmentation.model.textdiff import TextDiff

MAX_POSITIONS = 4096  # at once; their temporary tensors then take about 100 MB and stay close to the processor
ONEDNN_BATCH = 16  # from so many on, PyTorch convolves 1 x 1 with oneDNN even on a single core


def efficient_logits(
    head: TextDiff,
    features: list[torch.Tensor],
    tokens: torch.Tensor,
    mask: torch.Tensor | None = None,
    size: tuple[int, int] | None = None,
    positions: int = MAX_POSITIONS,
) -> torch.Tensor:
    """What `head(features, tokens, mask, size)` answers: logits (B, num_classes, *size).

    `features` (B, C_k, H_k, W_k) per scale, also in half precision, `tokens` (B, L, D), `mask` (B, L) 1 on real
    tokens. At most `positions` image positions are worked on at once.
    """
    height, width = size or features[-1].shape[-2:]
    words = tokens if mask is None else [row[visible] for row, visible in zip(tokens, mask.bool(), strict=True)]
    rows = [_first_layer(head, [part[index] for part in features], one, (height, width), positions)
            for index, one in enumerate(words)]  # fmt: skip
    first, *others = cast(Iterable[Any], head.classifier.layers)
    total = torch.stack(rows) + first.bias[:, None, None]
    for layer in others:
        total = layer(total)
    return total


def _first_layer(head: TextDiff, features: Sequence[torch.Tensor], words: torch.Tensor, size: tuple[int, int],
                 positions: int) -> torch.Tensor:  # fmt: skip
    """The classifier's first convolution, without its bias, of one image's attended maps: (hidden, *size)."""
    module: Any = head.attention
    first: Any = head.classifier.layers[0]
    total: Any = 0
    folded = [part for pair in zip(module.attentions, module.before, strict=True) for part in _folded(*pair, words)]
    weights = first.weight.split(head.config.dim, dim=1)
    for part, number, weight in zip(features, head.config.projections, weights, strict=True):
        projection: Any = None if number is None else head.projections[number]
        same = part.shape[-2:] == size
        taps = None if same else weight.permute(2, 3, 0, 1).flatten(0, 2)  # (row tap x column tap x hidden, dim)
        found = _by_bands(module, projection, taps, part, folded, positions)
        if same:
            total = total + functional.conv2d(found[None].permute(0, 3, 1, 2), weight, padding=1)[0]
        else:
            total = total + _sum_taps(found.unflatten(-1, (3, 3, -1)), size)
    return total


def _folded(attention: TextAttention, before: nn.LayerNorm, words: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What takes a position's normed values to scores, (L * heads, dim) and offsets (L * heads), and these back."""
    keys, values = (part[0].flatten(0, 1) for part in attention.folded(words[None]))
    keys = keys * attention.scale
    return keys * before.weight, keys @ before.bias, values.T


def _by_bands(attention: CrossModalAttention, projection: nn.Conv2d | None, taps: torch.Tensor | None,
              part: torch.Tensor, folded: Sequence[torch.Tensor], positions: int) -> torch.Tensor:  # fmt: skip
    """Projection, attention and taps of (C, h, w) a band of rows at a time: (h, w, dim), or with `taps` (h, w, taps).

    Only the result is kept; the way there is gone again for the gradients.
    """

    layers: list[Any] = list(zip(attention.before, attention.attentions, attention.after, strict=True))

    def band(rows: torch.Tensor, *folded: torch.Tensor) -> torch.Tensor:
        h = rows.permute(1, 2, 0).flatten(0, 1).to(folded[0]).contiguous()  # each position's channels side by side
        h = h if projection is None else _pointwise(h, projection.weight.flatten(1), projection.bias)
        for k, (before, layer, after) in enumerate(layers):
            keys, offsets, values = folded[3 * k : 3 * k + 3]
            normed = functional.layer_norm(h, h.shape[-1:], eps=before.eps)
            scores = _pointwise(normed, keys, offsets).unflatten(1, (-1, layer.heads))
            weights = scores.softmax(dim=1).flatten(1)
            h = after(_pointwise(weights, values, layer.out.bias)).add_(h)
        h = _pointwise(functional.gelu(attention.norm(h)), attention.linear.weight, attention.linear.bias) + h
        return h if taps is None else _pointwise(h, taps)

    height = max(1, positions // part.shape[-1])
    bands = [checkpoint(band, rows, *folded, use_reentrant=False) for rows in part.split(height, dim=-2)]
    return (torch.cat(bands) if len(bands) > 1 else bands[0]).unflatten(0, tuple(part.shape[-2:]))


def _pointwise(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`functional.linear` of positions (N, C), on a processor as a 1 x 1 convolution of 16 images.

    The numbers are the same; oneDNN, which convolves, is twice as fast on AMD's processors as MKL, which multiplies.
    """
    if x.device.type != "cpu" or len(x) % ONEDNN_BATCH:
        return functional.linear(x, weight, bias)
    images = x.reshape(ONEDNN_BATCH, 1, -1, x.shape[1]).permute(0, 3, 1, 2)
    return functional.conv2d(images, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(len(x), -1)


class _ByConstant(torch.autograd.Function):
    """`_pointwise` with a matrix that learns nothing, so that `x` need not be kept for its gradient."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        ctx.matrix = matrix
        return _pointwise(x, matrix)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _pointwise(gradient.contiguous(), ctx.matrix.T.contiguous()), None


def _sum_taps(taps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Grow the answers (h, w, row tap, column tap, C) of a convolution's taps to `size`, shift each to its place and
    add them up: (C, *size).

    Growing and shifting are matrices, one for rows and one for columns: the sum over the three columns' taps is one
    product, that over the three rows' another.
    """
    height, width, channels = taps.shape[0], taps.shape[1], taps.shape[-1]
    rows, columns = (_upsampling_matrix(*pair).to(taps) for pair in zip((height, width), size, strict=True))
    wide = _ByConstant.apply(taps.permute(4, 2, 0, 3, 1).reshape(-1, 3 * width), columns)
    tall = wide.view(channels, 3 * height, size[1]).transpose(1, 2).reshape(-1, 3 * height)
    return _ByConstant.apply(tall, rows).view(channels, size[1], size[0]).transpose(1, 2)


@lru_cache(maxsize=16)
def _upsampling_matrix(small: int, large: int) -> torch.Tensor:
    """(large, 3 * small): bilinear growing of a line of `small` values, seen by the taps before, at and after it."""
    line = torch.eye(small, dtype=torch.float64)[None]
    upsampled = functional.interpolate(line, size=large, mode="linear", align_corners=False)[0].T
    shifted = functional.pad(upsampled, (0, 0, 1, 1))
    return torch.cat([shifted[offset : offset + large] for offset in range(3)], dim=1)
