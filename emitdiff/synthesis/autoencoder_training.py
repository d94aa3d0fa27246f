"""First stage: the autoencoder, since nothing downstream can be sharper than it.

L1 and gradient losses give the structure, a patch discriminator (hinge loss, weighted by the ratio of gradients at
the last layer, as in VQGAN, arXiv 2012.09841, eq. 7) gives speckle and grain that L1 alone would average away.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from emitdiff.budget import StageState
from emitdiff.images import image_to_tensor
from emitdiff.synthesis.corpus import Corpus, random_view, vary_tone
from emitdiff.synthesis.inheritance import inherit

CROP = 128
BATCH = 8
LEARNING_RATE = 4e-4
ADVERSARIAL_FROM = 0.35  # part of the budget after which the discriminator joins
ADVERSARIAL_WEIGHT = 0.35
LATENT_NOISE = 0.05
LATENT_CHANNELS = 12


def new_autoencoder() -> AutoencoderTiny:
    """f8, 12 latent channels; without normalization layers, which are what a CPU is slowest at."""
    return AutoencoderTiny(
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        num_encoder_blocks=(1, 2, 4, 6),
        num_decoder_blocks=(10, 6, 3, 1),
        latent_channels=LATENT_CHANNELS,
    )


class PatchDiscriminator(nn.Sequential):
    """(B, 3, H, W) to one score per patch of about 30 pixels, (B, 1, H/8, W/8)."""

    def __init__(self, width: int = 32):
        norm = nn.utils.spectral_norm
        layers: list[nn.Module] = []
        for before, after in ((3, width), (width, 2 * width), (2 * width, 4 * width)):
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


def crops(corpus: Corpus, rng: np.random.Generator, count: int) -> Tensor:
    """(count, 3, CROP, CROP) in [-1, 1]: mostly crops at full size, some whole images made small."""
    views = [vary_tone(random_view(item, CROP, rng, whole=0.35)[0], rng) for item in corpus.draw(count, rng)]
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

    `start` gives the first weights; it may have fewer latent channels (see `inherit`).
    """
    torch.manual_seed(seed)
    model = new_autoencoder()
    if start is not None:
        inherit(model, start)
    model = model.to(device, memory_format=torch.channels_last)
    critic = PatchDiscriminator().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    critic_optimizer = torch.optim.AdamW(critic.parameters(), lr=LEARNING_RATE / 2, betas=(0.5, 0.9))
    average = EMAModel(model.parameters(), decay=0.998)
    parts = {"model": model, "critic": critic, "optimizer": optimizer, "critic_optimizer": critic_optimizer}
    state = StageState(state_folder / "autoencoder.pt", minutes, {**parts, "average": average}, device)
    rng = np.random.default_rng(seed + state.steps)
    adversarial_from = ADVERSARIAL_FROM if start is None else 0.1
    last_layer = model.decoder.layers[-1].weight

    for step in state.run("autoencoder"):
        warm = min(1.0, (step + 1) / 200)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warm * max(0.05, min(1.0, 2.5 * (1 - state.progress)))
        target = crops(corpus, rng, BATCH).to(device)
        with torch.autocast(target.device.type, torch.bfloat16):
            latents = model.encoder(target)
            output = model.decoder(latents + LATENT_NOISE * torch.randn_like(latents)).float()
        loss = reconstruction_loss(output, target) + 1e-3 * latents.float().pow(2).mean()
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
    """Standard deviation of the latents over 64 crops; its inverse becomes the autoencoder's scaling factor."""
    views = crops(corpus, np.random.default_rng(seed), 64).to(model.device)
    return float(model.encode(views).latents.std())
