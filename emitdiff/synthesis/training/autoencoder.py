"""First stage: the autoencoder, since nothing downstream can be sharper than it.

L1 and gradient losses give the structure. What they alone would average away, speckle and grain, is asked for by two
more: the difference of the radially averaged log power spectra of output and target, which says how much of it there
has to be at each scale, and a patch discriminator (hinge loss, weighted by the ratio of gradients at the last layer, as
in VQGAN, arXiv 2012.09841, eq. 7), which says what it looks like. Some latents are scaled and turned before they are
decoded, and must become the scaled and turned image (EQ-VAE, arXiv 2502.09509): smoother latents, from which the
diffusion network learns faster. Part of the views is coloured or drawn by a program, so that the autoencoder also
serves kinds of images that no dataset here shows; since the datasets are nearly all grey, colour has a path of its own
from the first step on (see `open_colour_path`).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
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
from emitdiff.synthesis.training.warm_start import copy_weights
from emitdiff.training_state import StageState

CROP = 128
BATCH = 8
LEARNING_RATE = 4e-4
ADVERSARIAL_FROM = 0.2  # part of the budget after which the discriminator joins
ADVERSARIAL_WEIGHT = 0.35
SPECTRUM_WEIGHT = 0.02
RINGS = (4, 6, 8, 11, 14, 18, 22, 27, 32, 37, 42, 47, 52, 58, 64)  # cycles a crop
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


class PatchDiscriminator(nn.Sequential):
    """(B, 3, H, W) to one score per patch of about 30 pixels, (B, 1, H/8, W/8); grain is seen at full size first."""

    def __init__(self, width: int = 32):
        norm = nn.utils.spectral_norm
        layers: list[nn.Module] = [norm(nn.Conv2d(3, width, 3, 1, 1)), nn.LeakyReLU(0.2)]
        for before, after in ((width, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [norm(nn.Conv2d(before, after, 4, 2, 1)), nn.LeakyReLU(0.2)]
        super().__init__(*layers, norm(nn.Conv2d(4 * width, 1, 3, 1, 1)))


def gradient_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of horizontal and vertical first differences of two (B, C, H, W) images."""
    error = output - target
    return (error[..., 1:, :] - error[..., :-1, :]).abs().mean() + (error[..., 1:] - error[..., :-1]).abs().mean()


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 at full and half size plus the gradient loss; means over (B, 3, H, W)."""
    small = (F.avg_pool2d(output, 2) - F.avg_pool2d(target, 2)).abs().mean()
    return (output - target).abs().mean() + 0.5 * small + 0.5 * gradient_loss(output, target)


@lru_cache(maxsize=16)
def _window_and_rings(size: int) -> tuple[Tensor, Tensor]:
    """A Hann window (size, size), and the rings of `RINGS` over its real Fourier transform, each summing to 1."""
    hann = torch.hann_window(size, periodic=False)
    radius = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]) * size
    edges = [edge * size / CROP for edge in RINGS]
    rings = torch.stack([((radius >= low) & (radius < high)).float() for low, high in pairwise(edges)])
    return hann[:, None] * hann, rings / rings.sum((1, 2), keepdim=True)


def log_spectrum(images: Tensor) -> Tensor:
    """Natural log of the mean power in each ring of frequencies of square images (B, C, S, S): (B, rings), of grey."""
    window, rings = (part.to(images.device) for part in _window_and_rings(images.shape[-1]))
    grey = images.float().mean(1)
    power = torch.fft.rfft2((grey - grey.mean((1, 2), keepdim=True)) * window).abs().pow(2)
    return torch.log(torch.einsum("bij,kij->bk", power, rings) + 1e-2)  # 1e-2: below the step of eight bits


def spectrum_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the log spectra of (B, C, S, S) images; 0.23 stands for one decibel."""
    return (log_spectrum(output) - log_spectrum(target)).abs().mean()


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
) -> AutoencoderTiny:
    """Trains for `minutes`, resuming from `state_folder`; returns the averaged (EMA) autoencoder in eval mode.

    `start` gives the first weights; it may be narrower and have fewer latent channels (see `copy_weights`).
    """
    torch.manual_seed(seed)
    model = new_autoencoder()
    if start is not None:
        copy_weights(model, start)
    if start is None or start.config.latent_channels < LATENT_CHANNELS:
        open_colour_path(model)
    model = model.to(device, memory_format=torch.channels_last)
    critic = PatchDiscriminator().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # memory_format has no type there
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    critic_optimizer = torch.optim.AdamW(critic.parameters(), lr=LEARNING_RATE, betas=(0.5, 0.9))
    average = EMAModel(model.parameters(), decay=0.998)
    parts = {"model": model, "critic": critic, "optimizer": optimizer, "critic_optimizer": critic_optimizer}
    state = StageState(state_folder / "autoencoder.pt", minutes, {**parts, "average": average}, device)
    rng = np.random.default_rng([seed, state.steps])
    adversarial_from = ADVERSARIAL_FROM if start is None else 0.05
    last_layer = model.decoder.layers[-1].weight

    for step in state.run("autoencoder"):
        warm = min(1.0, (step + 1) / 200)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warm * max(0.05, min(1.0, 2.5 * (1 - state.progress)))
        loss, output, target = _losses(model, batch_of([any_crop(corpus, rng) for _ in range(BATCH)]).to(device), rng)
        if state.progress > adversarial_from:
            loss = loss + _adversarial(critic, critic_optimizer, output, target, loss, last_layer)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.step(model.parameters())
        if step % 50 == 0:
            state.bar.set_postfix(step=step, l1=f"{(output - target).abs().mean():.4f}", refresh=False)

    average.copy_to(model.parameters())
    model.eval()
    model.register_to_config(scaling_factor=float(1 / latent_deviation(model, corpus, seed)))
    return model


def _losses(model: AutoencoderTiny, target: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(all losses but the adversarial one, output, target), the latter two scaled and turned in some of the steps."""
    with torch.autocast(target.device.type, torch.bfloat16):
        latents = model.encoder(target)
    decay = 1e-3 * latents.float().pow(2).mean()
    if rng.random() < TRANSFORMED:
        latents, target = transformed(latents, target, rng)
    with torch.autocast(target.device.type, torch.bfloat16):
        output = model.decoder(latents + LATENT_NOISE * torch.randn_like(latents)).float()
    loss = reconstruction_loss(output, target) + SPECTRUM_WEIGHT * spectrum_loss(output, target)
    return loss + decay, output, target


def _adversarial(critic, critic_optimizer, output: Tensor, target: Tensor, loss: Tensor, last_layer: Tensor) -> Tensor:
    """One step of the critic; returns the weighted generator term."""
    with torch.autocast(target.device.type, torch.bfloat16):
        real, fake = critic(target), critic(output.detach())
    critic_loss = F.relu(1 - real).float().mean() + F.relu(1 + fake).float().mean()
    critic_optimizer.zero_grad(set_to_none=True)
    critic_loss.backward()
    critic_optimizer.step()
    with torch.autocast(target.device.type, torch.bfloat16):
        generator_loss = -critic(output).float().mean()
    wanted = torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm()
    given = torch.autograd.grad(generator_loss, last_layer, retain_graph=True)[0].norm()
    return ADVERSARIAL_WEIGHT * (wanted / (given + 1e-6)).clamp(max=10.0).detach() * generator_loss


@torch.no_grad()
def latent_deviation(model: AutoencoderTiny, corpus: Corpus, seed: int) -> float:
    """Standard deviation of the latents over 64 medical crops; its inverse becomes the autoencoder's scaling factor."""
    rng = np.random.default_rng(seed)
    views = batch_of([medical_crop(corpus, rng) for _ in range(64)]).to(model.device)
    return float(model.encode(views).latents.std())
