"""Weights of one network as the start of a wider one of the same kind."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def inherit(model: nn.Module, source: nn.Module) -> None:
    """Copies every parameter of `source` into `model`, in place; both have the same layers.

    Where `model` is wider, the source's channels come first. New input channels get weights of zero, so that at first
    they change nothing; new output channels keep their random weights.

    Raises:
        ValueError: a parameter is missing in `model`, or narrower than in `source`.
    """
    ours = dict(model.named_parameters())
    for name, given in source.named_parameters():
        mine = ours.get(name)
        if mine is None or any(wide < narrow for wide, narrow in zip(mine.shape, given.shape, strict=True)):
            raise ValueError(f"{name} {tuple(given.shape)} does not fit into the new network.")
        if mine.ndim > 1 and mine.shape[1] > given.shape[1]:
            mine[:, given.shape[1] :] = 0
        mine[tuple(slice(length) for length in given.shape)] = given.to(mine)
