"""Weights of one network as the start of a wider one of the same kind."""

from __future__ import annotations

import torch
from torch import nn

from emitdiff.errors import EmitDiffError

POOLED_TEXT = "add_embedding."  # diffusers' name for it in U-Net and ControlNet
ADVICE = "start from weights that train-synthesis made, or give --train controlnet."


@torch.no_grad()
def copy_weights(model: nn.Module, source: nn.Module) -> None:
    """Copies every parameter of `source` into `model`, in place; both have the same layers, but for the embedding of
    pooled text (`add_embedding`), which a `source` may lack: then it starts by adding nothing.

    Where `model` is wider, the source's channels come first. New input channels get weights of zero, so that at first
    they change nothing; new output channels keep their random weights.

    Raises:
        EmitDiffError: other layers, or a parameter that is narrower in `model` than in `source`.
    """
    ours, theirs = dict(model.named_parameters()), dict(source.named_parameters())
    pooled_text = {name for name in ours.keys() - theirs.keys() if name.startswith(POOLED_TEXT)}
    for name in pooled_text & {f"{POOLED_TEXT}norm2.weight", f"{POOLED_TEXT}norm2.bias"}:
        ours[name].zero_()
    if other := sorted((ours.keys() ^ theirs.keys()) - pooled_text):
        raise EmitDiffError(f"The weights to start from have other layers ({other[0]}): {ADVICE}")
    for name, given in theirs.items():
        mine = ours[name]
        if mine.ndim != given.ndim or any(wide < narrow for wide, narrow in zip(mine.shape, given.shape, strict=True)):
            raise EmitDiffError(f"{name} {tuple(given.shape)} does not fit into the new network: {ADVICE}")
        if mine.ndim > 1 and mine.shape[1] > given.shape[1]:
            mine[:, given.shape[1] :] = 0
        mine[tuple(slice(length) for length in given.shape)] = given.to(mine)
