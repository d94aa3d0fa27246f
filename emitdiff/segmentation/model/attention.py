"""Cross-modal attention: every image position asks the words of the sentence what to look for (TextDiff, 2024)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class TextAttention(nn.Module):
    """Attention with image positions as queries and text tokens as keys and values; no bias in q, k and v.

    There are thousands of positions and a few tokens, so the query and output projections are folded into the text
    side: scores = x (Wq k), result = softmax (v Wo). The numbers are those of the usual order, up to rounding.
    """

    def __init__(self, dim: int, text_dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, head_dim**-0.5
        self.query = nn.Linear(dim, heads * head_dim, bias=False)
        self.key = nn.Linear(text_dim, heads * head_dim, bias=False)
        self.value = nn.Linear(text_dim, heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, dim)

    def forward(self, x: torch.Tensor, tokens: torch.Tensor, visible: torch.Tensor | None) -> torch.Tensor:
        """`x` (B, N, dim), `tokens` (B, L, text_dim), `visible` (B, L) bool, False on padding: (B, N, dim)."""
        keys, values = self.folded(tokens)
        scores = (x @ keys.flatten(1, 2).transpose(1, 2) * self.scale).unflatten(2, (-1, self.heads))
        if visible is not None:
            scores = scores.masked_fill(~visible[:, None, :, None], float("-inf"))
        return scores.softmax(dim=2).flatten(2).to(values.dtype) @ values.flatten(1, 2) + self.out.bias

    def folded(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(asked, given), each (B, L, heads, dim): a position's scores are its products with the first, not yet
        scaled; its input is the sum of the second, weighted by their softmax over the L words."""
        key, value = (part.unflatten(-1, (self.heads, -1)) for part in (self.key(tokens), self.value(tokens)))
        keys = torch.einsum("blhd,hdc->blhc", key, self.query.weight.unflatten(0, (self.heads, -1)))
        return keys, torch.einsum("blhd,chd->blhc", value, self.out.weight.unflatten(1, (self.heads, -1)))


class CrossModalAttention(nn.Module):
    """Two stacked text attentions and a closing linear layer, each with its residual; shared by all scales.

    h = LN(Linear(attention(LN(h), text))) + h, twice; then Linear(GELU(LN(h))) + h. With the paper's sizes (the
    defaults) 3,745,536 parameters. Image positions do not see each other here, only the words.
    """

    def __init__(self, dim: int = 768, text_dim: int = 768, heads: int = 8, head_dim: int = 64) -> None:
        super().__init__()
        self.before = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.attentions = nn.ModuleList(TextAttention(dim, text_dim, heads, head_dim) for _ in range(2))
        self.after = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, dim)

    def forward(self, features: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """`features` (B, dim, H, W), `tokens` (B, L, text_dim), `mask` (B, L) 1 on real tokens: (B, dim, H, W)."""
        visible = None if mask is None else mask.bool()
        h = features.flatten(2).transpose(1, 2)
        for before, attention, after in zip(self.before, self.attentions, self.after, strict=True):
            h = after(attention(before(h), tokens, visible)) + h
        h = self.linear(functional.gelu(self.norm(h))) + h
        return h.transpose(1, 2).unflatten(2, features.shape[-2:])
