"""Trains the grain of real images onto what an autoencoder has left of them.

Grain is random, so it is not compared pixel by pixel: asked for are the power at each scale and in each direction of
the whole view, and how strong the finest textures are at each place, away from edges. What pixels can tell, the
sharpening learns. Half of the views are blurred a little before, as generated images are a little smoother than decoded
ones.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.training_utils import EMAModel
from torch import Tensor

from emitdiff.synthesis.grain import GrainNetwork
from emitdiff.synthesis.training.autoencoder import CROP, batch_of, gradient_loss, medical_crop
from emitdiff.synthesis.training.corpus import Corpus
from emitdiff.synthesis.training.optimization import optimizer_step
from emitdiff.training_state import StageState

BATCH = 8
LEARNING_RATE = 2e-3
BLURRED = 0.5  # part of the views
BLUR = (0.3, 1.1)  # deviation in pixels
POOL = 40  # batches of decoded views that are kept, each used about twice
RINGS = (4, 6, 8, 11, 14, 18, 22, 27, 32, 37, 42, 47, 52, 58, 64)  # cycles a view
WIDE_RINGS, SECTORS = (6, 12, 20, 30, 44, 64), 4
WINDOWS = (16, 8, 4)  # pixels over which the strength of each band is averaged, finest band first
EDGE = 0.03  # change from pixel to pixel that is half an edge
SPECTRUM_WEIGHT, SHARPENING_WEIGHT = 0.75, 5.0


@lru_cache(maxsize=1)
def _spectral_weights() -> tuple[Tensor, Tensor]:
    """A Hann window (CROP, CROP), and rings and sectors of its real Fourier transform, each summing to 1."""
    hann = torch.hann_window(CROP, periodic=False)
    down, across = torch.fft.fftfreq(CROP)[:, None] * CROP, torch.fft.rfftfreq(CROP)[None] * CROP
    radius, angle = torch.hypot(down, across), torch.atan2(down, across) + torch.pi / (2 * SECTORS)
    sector = torch.floor((angle % torch.pi) / (torch.pi / SECTORS))
    parts = [(radius >= low) & (radius < high) for low, high in pairwise(RINGS)]
    parts += [
        (radius >= low) & (radius < high) & (sector == number)
        for low, high in pairwise(WIDE_RINGS) for number in range(SECTORS)
    ]  # fmt: skip
    weights = torch.stack(parts).float()
    return hann[:, None] * hann, weights / weights.sum((1, 2), keepdim=True)


def log_spectrum(images: Tensor) -> Tensor:
    """Natural log of the mean power of the grey of (B, C, CROP, CROP) in [-1, 1]: in each ring of frequencies, then in
    each sector of wider rings, (B, 14 + 20)."""
    window, weights = (part.to(images.device) for part in _spectral_weights())
    grey = images.float().mean(1)
    power = torch.fft.rfft2((grey - grey.mean((1, 2), keepdim=True)) * window).abs().pow(2)
    return torch.log(torch.einsum("bij,kij->bk", power, weights) + 1e-2)  # 1e-2: below the step of eight bits


def spectrum_loss(output: Tensor, spectrum: Tensor) -> Tensor:
    """Mean absolute difference of the log spectrum of (B, C, CROP, CROP) from another; 0.23 stands for one decibel."""
    return (log_spectrum(output) - spectrum).abs().mean()


def log_energies(images: Tensor) -> list[Tensor]:
    """Natural log of the local power of (B, C, H, W)'s grey in three bands an octave apart, finest first."""
    grey, energies = images.float().mean(1, keepdim=True), []
    for window in WINDOWS:
        smooth = F.avg_pool2d(F.pad(grey, (1, 1, 1, 1), mode="reflect"), 3, 1)
        energies.append(torch.log(F.avg_pool2d((grey - smooth).pow(2), window, window // 2) + 2e-6))
        grey = F.avg_pool2d(smooth, 2)
    return energies


def flatness(images: Tensor) -> Tensor:
    """(B, 1, H, W) in [0, 1] of (B, C, H, W) in [-1, 1]: 1 where nothing changes over some pixels, near 0 at edges."""
    smooth = F.avg_pool2d(F.pad(images.float().mean(1, keepdim=True), (2, 2, 2, 2), mode="reflect"), 5, 1)
    across = F.pad((smooth[..., 1:] - smooth[..., :-1]).abs(), (0, 1, 0, 0))
    down = F.pad((smooth[..., 1:, :] - smooth[..., :-1, :]).abs(), (0, 0, 0, 1))
    return 1 / (1 + ((across + down) / EDGE).square())


def local_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the log energies of two (B, C, H, W), weighted by the target's flatness: an edge that
    is missing is not to be made up for by grain."""
    losses, flat = [], flatness(target)
    for ours, theirs, window in zip(log_energies(output), log_energies(target), WINDOWS, strict=True):
        weight = F.avg_pool2d(flat, window, window // 2)
        losses.append(((ours - theirs).abs() * weight).sum() / weight.sum())
        flat = F.avg_pool2d(flat, 2)
    return torch.stack(losses).mean()


def blurred(images: Tensor, deviation: float) -> Tensor:
    """(B, 3, H, W) under a Gaussian of that deviation in pixels, below 1.2."""
    kernel = torch.exp(-(torch.arange(-3, 4) ** 2) / (2 * deviation**2))
    kernel = (kernel / kernel.sum()).to(images)
    planes = F.pad(images.flatten(0, 1)[:, None], (3, 3, 3, 3), mode="reflect")
    return F.conv2d(planes, (kernel[:, None] * kernel)[None, None]).view_as(images)


class DecodedViews:
    """Batches (target, decoded, log spectrum of the target) of views (BATCH, 3, CROP, CROP); every second draw is a new
    one."""

    def __init__(self, corpus: Corpus, autoencoder: AutoencoderTiny, rng: np.random.Generator):
        self.corpus, self.autoencoder, self.rng = corpus, autoencoder, rng
        self.batches: list[tuple[Tensor, Tensor, Tensor]] = []

    def draw(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        if step % 2 and self.batches:
            return self.batches[int(self.rng.integers(len(self.batches)))]
        target = batch_of([medical_crop(self.corpus, self.rng) for _ in range(BATCH)]).to(self.autoencoder.device)
        self.batches = [*self.batches, (target, self._decoded(target), log_spectrum(target))][-POOL:]
        return self.batches[-1]

    @torch.no_grad()
    def _decoded(self, target: Tensor) -> Tensor:
        with torch.autocast(target.device.type, torch.bfloat16):
            decoded = self.autoencoder.decoder(self.autoencoder.encoder(target))
        decoded = decoded.float().clamp(-1, 1)
        for index in np.flatnonzero(self.rng.random(len(decoded)) < BLURRED):
            decoded[index] = blurred(decoded[index : index + 1], self.rng.uniform(*BLUR))[0]
        return decoded


def _pixel_loss(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).abs().mean() + 0.5 * gradient_loss(output, target)


def train_grain(
    corpus: Corpus, autoencoder: AutoencoderTiny, state_file: Path, minutes: float, seed: int
) -> GrainNetwork:
    """Trains for `minutes`, resuming from `state_file`; returns the averaged (EMA) network in eval mode."""
    torch.manual_seed(seed)
    device = autoencoder.device
    network = GrainNetwork().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, betas=(0.5, 0.95), weight_decay=1e-4)
    average = EMAModel(network.parameters(), decay=0.995)
    parts = {"network": network, "optimizer": optimizer, "average": average}
    state = StageState(state_file, minutes, parts, device)
    views = DecodedViews(corpus, autoencoder, np.random.default_rng([seed, state.steps]))
    for step in state.run("grain"):
        rate = LEARNING_RATE * min(1.0, (step + 1) / 20) * max(0.03, min(1.0, 2 * (1 - state.progress)))
        target, decoded, spectrum = views.draw(step)
        with torch.autocast(device.type, torch.bfloat16):
            sharpening, grain = network(decoded)
        sharpened = decoded + sharpening
        output = sharpened.detach() + grain
        loss = SPECTRUM_WEIGHT * spectrum_loss(output, spectrum) + local_loss(output, target)
        loss = loss + SHARPENING_WEIGHT * _pixel_loss(sharpened, target)
        optimizer_step(loss, network, optimizer, average, rate)
        if step % 50 == 0:
            state.bar.set_postfix(step=step, loss=f"{loss:.3f}", refresh=False)
    average.copy_to(network.parameters())
    return network.eval()
