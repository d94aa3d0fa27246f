"""First stage: the autoencoder, since nothing downstream can be sharper than it.

L1 and gradient losses alone: an adversarial loss and one on the spectrum did bring back the missing power, but as
strokes, for a decoder without random input cannot draw grain. That is left to a network of its own (see grain.py), and
this one keeps what can be kept. Some latents are scaled and turned before they are decoded, and must become the scaled
and turned image (EQ-VAE, arXiv 2502.09509): smoother latents, from which the diffusion network learns faster. Part of
the views is coloured or drawn by a program, so that the autoencoder also serves kinds of images that no dataset here
shows; since the datasets are nearly all grey, colour has a path of its own from the first step on (see
`open_colour_path`).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from emitdiff.images import image_to_tensor
from emitdiff.synthesis.training.corpus import Corpus, jitter_tone, random_view
from emitdiff.synthesis.training.drawn_views import coloured, drawn_picture, stained
from emitdiff.synthesis.training.optimization import optimizer_step
from emitdiff.synthesis.training.warm_start import copy_weights
from emitdiff.synthesis.training.workers import Stream
from emitdiff.training_state import StageState

CROP = 128
BATCH = 8
LEARNING_RATE = 4e-4
COLOURED = 0.4  # part of the views that are coloured, stained or drawn
TRANSFORMED = 0.2  # part of the steps whose latents are scaled and turned
LATENT_NOISE = 0.05
LATENT_CHANNELS = 16
WIDTH = 48
CHROMA_SCALE = 1.5  # brings colour differences in [-1, 1] near the deviation of the other latents


def new_autoencoder() -> AutoencoderTiny:
    """f8, 16 latent channels; without normalization layers, which are what a CPU is slowest at."""
    return AutoencoderTiny(
        encoder_block_out_channels=(WIDTH,) * 4,
        decoder_block_out_channels=(WIDTH,) * 4,
        num_encoder_blocks=(1, 2, 4, 6),
        num_decoder_blocks=(10, 6, 3, 1),
        latent_channels=LATENT_CHANNELS,
    )


@torch.no_grad()
def open_colour_path(model: AutoencoderTiny) -> None:
    """Sets the last four channels and the last two latents to carry red - green and blue - green, means over 8 x 8.

    Each difference takes two channels, one for either sign, so that it passes every ReLU as it is; the blocks add
    nothing to it at first. From random weights a network of this depth had not learnt any colour after 500 steps.
    """
    first, to_latents = model.encoder.layers[0], model.encoder.layers[-1]
    from_latents, last = model.decoder.layers[0], model.decoder.layers[-1]
    own, latents = slice(-4, None), slice(-2, None)
    signs = torch.tensor([[1.0, -1, 0, 0], [0, 0, 1, -1]])
    for layer, rows, columns, weights in (
        (first, own, slice(None), torch.tensor([[1.0, -1, 0], [-1, 1, 0], [0, -1, 1], [0, 1, -1]])),
        (to_latents, latents, own, signs * CHROMA_SCALE),
        (from_latents, own, latents, signs.T / CHROMA_SCALE),
    ):
        layer.weight[rows] = layer.bias[rows] = 0
        layer.weight[rows, columns, 1, 1] = weights
    # Grey is what the other channels give for red, green and blue alike: their mean.
    last.weight[:, own] = 0
    last.weight[:, own, 1, 1] = torch.tensor([[2.0, -2, -1, 1], [-1, 1, -1, 1], [-1, 1, 2, -2]]) / 3
    halves = ((model.encoder, torch.tensor([0, 0.5, 0.5])), (model.decoder, torch.tensor([0.25, 0.5, 0.25])))
    for half, taps in halves:
        for layer in half.layers[1:-1]:
            if isinstance(layer, AutoencoderTinyBlock):
                layer.conv[-1].weight[own] = layer.conv[-1].bias[own] = 0
            elif isinstance(layer, nn.Conv2d):
                layer.weight[own] = 0
                layer.weight[range(-4, 0), range(-4, 0)] = taps[:, None] * taps


def gradient_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of horizontal and vertical first differences of two (B, C, H, W) images."""
    error = output - target
    return (error[..., 1:, :] - error[..., :-1, :]).abs().mean() + (error[..., 1:] - error[..., :-1]).abs().mean()


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 at full and half size plus the gradient loss; means over (B, 3, H, W)."""
    small = (F.avg_pool2d(output, 2) - F.avg_pool2d(target, 2)).abs().mean()
    return (output - target).abs().mean() + 0.5 * small + 0.5 * gradient_loss(output, target)


def transformed(latents: Tensor, target: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Latents (B, C, h, w) and images (B, 3, 8h, 8w) turned by the same right angle and brought to the same scale."""
    turns, side = int(rng.integers(4)), int(rng.integers(latents.shape[-1] // 2, latents.shape[-1] + 1))
    latents, target = torch.rot90(latents, turns, (2, 3)), torch.rot90(target, turns, (2, 3))
    if side < latents.shape[-1]:
        latents, target = (
            F.interpolate(images.float(), (length, length), mode="bilinear", antialias=True)
            for images, length in ((latents, side), (target, 8 * side))
        )
    return latents, target


def medical_crop(corpus: Corpus, rng: np.random.Generator) -> np.ndarray:
    """uint8 (CROP, CROP, 3): mostly cut at full size, some whole images made small."""
    return jitter_tone(random_view(corpus.draw(1, rng)[0], CROP, rng, whole=0.35)[0], rng)


def any_crop(corpus: Corpus, rng: np.random.Generator) -> np.ndarray:
    """A `medical_crop`, or in a share of `COLOURED` one that is coloured or stained, or a drawn picture."""
    view = medical_crop(corpus, rng)
    if rng.random() >= COLOURED:
        return view
    way = rng.random()
    if way < 0.25:
        return stained(view, medical_crop(corpus, rng), rng)
    return coloured(view if way < 0.8 else drawn_picture(CROP, rng), rng)


def crops(corpus: Corpus, count: int, rng: np.random.Generator) -> Tensor:
    """`any_crop`, uint8 (count, 3, CROP, CROP)."""
    return torch.from_numpy(np.stack([any_crop(corpus, rng) for _ in range(count)])).permute(0, 3, 1, 2)


def batch_of(views: list[np.ndarray]) -> Tensor:
    """uint8 (S, S, 3) pictures as (B, 3, S, S) in [-1, 1]."""
    return torch.cat([image_to_tensor(view) for view in views]).to(memory_format=torch.channels_last)


def train_autoencoder(
    corpus: Corpus,
    state_folder: Path,
    minutes: float,
    seed: int,
    device: torch.device,
    start: AutoencoderTiny | None = None,
    batch: int = BATCH,
    workers: int = 0,
) -> AutoencoderTiny:
    """Trains for `minutes`, resuming from `state_folder`; returns the averaged (EMA) autoencoder in eval mode.

    `start` gives the first weights; it may be narrower and have fewer latent channels (see `copy_weights`). With
    `workers`, other processes make the crops.
    """
    torch.manual_seed(seed)
    model = new_autoencoder()
    if start is not None:
        copy_weights(model, start)
    if start is None or start.config.latent_channels < LATENT_CHANNELS:
        open_colour_path(model)
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    average = EMAModel(model.parameters(), decay=0.998)
    parts = {"model": model, "optimizer": optimizer, "average": average}
    state = StageState(state_folder / "autoencoder.pt", minutes, parts, device)
    rng = np.random.default_rng([seed, state.steps])
    make = partial(crops, corpus, batch)
    stream = Stream(make, workers, seed + state.steps, device) if workers else None

    for step in state.run("autoencoder"):
        warm = min(1.0, (step + 1) / 200)
        rate = LEARNING_RATE * warm * max(0.05, min(1.0, 2.5 * (1 - state.progress)))
        views = (stream.next() if stream else make(rng)).to(device, non_blocking=True)
        loss = _loss(model, (views / 127.5 - 1).to(memory_format=torch.channels_last), rng)
        optimizer_step(loss, model, optimizer, average, rate)
        if step % 50 == 0:
            state.bar.set_postfix(step=step, loss=f"{loss:.4f}", refresh=False)

    if stream:
        stream.close()
    average.copy_to(model.parameters())
    model.eval()
    model.register_to_config(scaling_factor=float(1 / latent_deviation(model, corpus, seed)))
    return model


def _loss(model: AutoencoderTiny, target: Tensor, rng: np.random.Generator) -> Tensor:
    """Of images (B, 3, S, S) in [-1, 1], which are scaled and turned in some of the steps."""
    with torch.autocast(target.device.type, torch.bfloat16):
        latents = model.encoder(target)
    decay = 1e-3 * latents.float().pow(2).mean()
    if rng.random() < TRANSFORMED:
        latents, target = transformed(latents, target, rng)
    with torch.autocast(target.device.type, torch.bfloat16):
        output = model.decoder(latents + LATENT_NOISE * torch.randn_like(latents)).float()
    return reconstruction_loss(output, target) + decay


@torch.no_grad()
def latent_deviation(model: AutoencoderTiny, corpus: Corpus, seed: int) -> float:
    """Standard deviation of the latents over 64 medical crops; its inverse becomes the autoencoder's scaling factor."""
    rng = np.random.default_rng(seed)
    views = batch_of([medical_crop(corpus, rng) for _ in range(64)]).to(model.device)
    return float(model.encode(views).latents.std())
