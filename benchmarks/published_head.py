"""The published head written down plainly: every map upsampled to full size, queries and keys in the usual order.

Weights come from a `TextDiff`; no method of it is called.
"""

import torch
from torch.nn import functional


def attended(module, h, tokens, mask):
    for before, layer, after in zip(module.before, module.attentions, module.after, strict=True):

        def heads(part, count=layer.heads):
            return part.unflatten(-1, (count, -1)).transpose(1, 2)

        x = functional.layer_norm(h, h.shape[-1:], before.weight, before.bias)
        query, key, value = heads(layer.query(x)), heads(layer.key(tokens)), heads(layer.value(tokens))
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask.bool()[:, None, None], float("-inf"))
        x = layer.out((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
        h = functional.layer_norm(x, x.shape[-1:], after.weight, after.bias) + h
    x = functional.layer_norm(h, h.shape[-1:], module.norm.weight, module.norm.bias)
    return module.linear(functional.gelu(x)) + h


def published_logits(head, features, tokens, mask=None, size=None):
    size, upsampled = tuple(size or features[-1].shape[-2:]), []
    for part, number in zip(features, head.config.projections, strict=True):
        if number is not None:
            projection = head.projections[number]
            part = functional.conv2d(part, projection.weight, projection.bias)
        h = attended(head.attention, part.flatten(2).transpose(1, 2), tokens, mask)
        part = h.transpose(1, 2).unflatten(2, part.shape[-2:])
        upsampled.append(functional.interpolate(part, size=size, mode="bilinear", align_corners=False))
    return head.classifier.layers(torch.cat(upsampled, dim=1))
