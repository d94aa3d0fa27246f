"""The published ADM U-Net computed plainly from its weights in the original key layout, and such weights at random.

Written from the architecture's description (Dhariwal and Nichol, 2021): BigGAN-style residual layers for changes of
size, adaptive group norm, attention with heads of a fixed width on the three coarsest levels. It shares no code with
what it checks.
"""

import math

import torch
from torch.nn import functional

CLASSES = {"channels": (256, 256, 512, 512, 1024, 1024), "head": 64, "out": 6}
TINY = {"channels": (32, 32, 32, 32, 64, 64), "head": 16, "out": 6}
LAYERS = 2
ATTENDS = (3, 4, 5)  # levels


def _residual(shapes, name, inside, outside, embedding):
    shapes |= {f"{name}.in_layers.0": (inside,), f"{name}.in_layers.2": (outside, inside, 3, 3)}
    shapes |= {f"{name}.emb_layers.1": (2 * outside, embedding), f"{name}.out_layers.0": (outside,)}
    shapes[f"{name}.out_layers.3"] = (outside, outside, 3, 3)
    if inside != outside:
        shapes[f"{name}.skip_connection"] = (outside, inside, 1, 1)


def _attention(shapes, name, width):
    shapes |= {f"{name}.norm": (width,), f"{name}.qkv": (3 * width, width, 1), f"{name}.proj_out": (width, width, 1)}


def shapes_of(size):
    """Name of every layer to the shape of its weight."""
    channels = size["channels"]
    embedding, shapes, widths, number = 4 * channels[0], {}, [channels[0]], 1
    shapes |= {"time_embed.0": (embedding, channels[0]), "time_embed.2": (embedding, embedding)}
    shapes["input_blocks.0.0"] = (channels[0], 3, 3, 3)
    for level, width in enumerate(channels):
        for _ in range(LAYERS):
            _residual(shapes, f"input_blocks.{number}.0", widths[-1], width, embedding)
            if level in ATTENDS:
                _attention(shapes, f"input_blocks.{number}.1", width)
            widths, number = [*widths, width], number + 1
        if level + 1 < len(channels):
            _residual(shapes, f"input_blocks.{number}.0", width, width, embedding)
            widths, number = [*widths, width], number + 1
    width = channels[-1]
    _residual(shapes, "middle_block.0", width, width, embedding)
    _attention(shapes, "middle_block.1", width)
    _residual(shapes, "middle_block.2", width, width, embedding)
    before, number = width, 0
    for level in reversed(range(len(channels))):
        for layer in range(LAYERS + 1):
            place, parts = f"output_blocks.{number}", 1
            _residual(shapes, f"{place}.0", before + widths.pop(), channels[level], embedding)
            if level in ATTENDS:
                _attention(shapes, f"{place}.1", channels[level])
                parts = 2
            if layer == LAYERS and level:
                _residual(shapes, f"{place}.{parts}", channels[level], channels[level], embedding)
            before, number = channels[level], number + 1
    return shapes | {"out.0": (channels[0],), "out.2": (size["out"], channels[0], 3, 3)}


def random_weights(size, seed=0):
    """Weights and biases under their original names, at a scale that keeps activations near 1."""
    generator, weights = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes_of(size).items():
        fan = math.prod(shape[1:]) if len(shape) > 1 else 100
        value = torch.randn(shape, generator=generator) / fan**0.5
        weights[f"{name}.weight"] = value + 1 if len(shape) == 1 else value
        weights[f"{name}.bias"] = torch.randn(shape[0], generator=generator) * 0.1
    return weights


class PublishedAdm:
    """`blocks(x, step, last)` gives the outputs of decoder blocks 0 to `last` for images (B, 3, H, W)."""

    def __init__(self, weights, size):
        self.weights, self.size = weights, size

    def _of(self, name):
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def _norm(self, x, name):
        return functional.group_norm(x, 32, *self._of(name), eps=1e-5)

    def _residual(self, x, embedding, name, resize=None):
        change = {
            "up": lambda part: functional.interpolate(part, scale_factor=2, mode="nearest"),
            "down": lambda part: functional.avg_pool2d(part, 2),
            None: lambda part: part,
        }[resize]
        h = change(functional.silu(self._norm(x, f"{name}.in_layers.0")))
        h = functional.conv2d(h, *self._of(f"{name}.in_layers.2"), padding=1)
        scale, shift = functional.linear(functional.silu(embedding), *self._of(f"{name}.emb_layers.1")).chunk(2, dim=1)
        h = self._norm(h, f"{name}.out_layers.0") * (1 + scale[..., None, None]) + shift[..., None, None]
        h = functional.conv2d(functional.silu(h), *self._of(f"{name}.out_layers.3"), padding=1)
        x = change(x)
        if f"{name}.skip_connection.weight" in self.weights:
            x = functional.conv2d(x, *self._of(f"{name}.skip_connection"))
        return x + h

    def _attention(self, x, name):
        batch, width, height, wide = x.shape
        h = self._norm(x, f"{name}.norm").flatten(2)
        heads = width // self.size["head"]
        mixed = functional.conv1d(h, *self._of(f"{name}.qkv")).reshape(batch, heads, 3, -1, height * wide)
        query, key, value = mixed.unbind(2)  # each (B, heads, head, positions)
        weight = (torch.einsum("bhcq,bhck->bhqk", query, key) / self.size["head"] ** 0.5).softmax(dim=-1)
        h = torch.einsum("bhqk,bhck->bhcq", weight, value).reshape(batch, width, -1)
        return x + functional.conv1d(h, *self._of(f"{name}.proj_out")).reshape(x.shape)

    def _embedding(self, step):
        half = self.size["channels"][0] // 2
        angles = step * torch.exp(-math.log(10000) * torch.arange(half) / half)
        h = functional.linear(torch.cat([angles.cos(), angles.sin()])[None], *self._of("time_embed.0"))
        return functional.linear(functional.silu(h), *self._of("time_embed.2"))

    @torch.no_grad()
    def blocks(self, x, step, last):
        embedding, levels = self._embedding(step), len(self.size["channels"])
        x = functional.conv2d(x, *self._of("input_blocks.0.0"), padding=1)
        kept, number, found = [x], 1, []
        for level in range(levels):
            for _ in range(LAYERS):
                x = self._residual(x, embedding, f"input_blocks.{number}.0")
                x = self._attention(x, f"input_blocks.{number}.1") if level in ATTENDS else x
                kept, number = [*kept, x], number + 1
            if level + 1 < levels:
                x = self._residual(x, embedding, f"input_blocks.{number}.0", "down")
                kept, number = [*kept, x], number + 1
        x = self._residual(x, embedding, "middle_block.0")
        x = self._residual(self._attention(x, "middle_block.1"), embedding, "middle_block.2")
        for number in range(last + 1):
            level, layer = levels - 1 - number // (LAYERS + 1), number % (LAYERS + 1)
            place, parts = f"output_blocks.{number}", 1
            x = self._residual(torch.cat([x, kept.pop()], dim=1), embedding, f"{place}.0")
            if level in ATTENDS:
                x, parts = self._attention(x, f"{place}.1"), 2
            if layer == LAYERS and level:
                x = self._residual(x, embedding, f"{place}.{parts}", "up")
            found.append(x)
        return found
