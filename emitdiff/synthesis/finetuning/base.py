"""The checkpoint that fine-tuning starts from: its locked networks, what they want to be given, and the loss."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionControlNetPipeline
from torch import Tensor

from emitdiff.checkpoints import Checkpoint, fetch_weights, find_checkpoint, local_folder
from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.card import CheckpointCard, read_card
from emitdiff.synthesis.loading import read_pipeline

FULL_SIZE = 200_000_000  # parameters of a U-Net from which it is one of Stable Diffusion's size
# One 512 x 512 image forth and back through Stable Diffusion 1.5 with its ControlNet and autoencoder, and how far
# convolutions stay behind a product of large matrices.
OPERATIONS, EFFICIENCY = 3.3e12, 0.5


@dataclass
class BaseCheckpoint:
    """A checkpoint whose ControlNet is to learn. `folder` holds the base; `side` is that of square views in pixels."""

    found: Checkpoint
    folder: Path
    pipe: StableDiffusionControlNetPipeline
    card: CheckpointCard
    side: int
    schedule: DDPMScheduler

    @property
    def full_size(self) -> bool:
        """Whether this is of Stable Diffusion's size, and not a small model for CPUs."""
        return sum(parameter.numel() for parameter in self.pipe.unet.parameters()) >= FULL_SIZE

    def seconds_a_step(self, images: int) -> float:
        """About how long a full-size model takes on this CPU for a step of so many images."""
        matrix = torch.ones(1024, 1024)
        matrix @ matrix  # the first product also sets threads up
        started = time.perf_counter()
        matrix @ matrix
        speed = 2 * 1024**3 / (time.perf_counter() - started)
        return images * OPERATIONS * (self.side / 512) ** 2 / (EFFICIENCY * speed)

    def freeze(self, device: torch.device, dtype: torch.dtype) -> None:
        """Takes gradients off everything but the ControlNet and moves it to `device` as `dtype`."""
        for network in (self.pipe.vae, self.pipe.text_encoder, self.pipe.unet):
            network.requires_grad_(False).eval().to(device, dtype)
        self.pipe.unet.to(memory_format=torch.channels_last)

    def loss(self, controlnet: Callable, batch: dict) -> Tensor:
        """Mean squared error of what the U-Net predicts beside `controlnet`, where the views show an image.

        `batch` holds views as in views.py. What is to be predicted, noise or v, and the noise levels are those
        that the checkpoint's scheduler names.
        """
        with torch.no_grad():
            latents, tokens = self._encoded(batch["image"]), self._tokens(batch["caption"])
        noise, timesteps = self._noise(batch["seed"], latents)
        noisy, dtype = self.schedule.add_noise(latents, noise, timesteps), self.pipe.unet.dtype
        down, middle = controlnet(noisy, timesteps, tokens, controlnet_cond=batch["control"], return_dict=False)
        predicted = self.pipe.unet(
            noisy.to(dtype), timesteps, tokens.to(dtype), mid_block_additional_residual=middle.to(dtype),
            down_block_additional_residuals=[residual.to(dtype) for residual in down],
        ).sample  # fmt: skip
        target = noise
        if self.schedule.config.prediction_type == "v_prediction":
            target = self.schedule.get_velocity(latents, noise, timesteps)
        counted = F.interpolate(batch["inside"], latents.shape[-2:], mode="area")
        errors = ((predicted.float() - target) ** 2).mean(1, keepdim=True) * counted
        return (errors.sum((1, 2, 3)) / counted.sum((1, 2, 3))).mean()

    def _encoded(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to latents (B, C, h, w), float32. Of a distribution its middle is taken: it is narrow."""
        encoded = self.pipe.vae.encode(images.to(self.pipe.vae.dtype))
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return latents.float() * self.pipe.vae.config.scaling_factor

    def _tokens(self, captions: list[str]) -> Tensor:
        """Captions to tokens (B, L, D), as in the sampling pipeline."""
        ids = self.pipe.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return self.pipe.text_encoder(ids.to(self.pipe.text_encoder.device))[0]

    def _noise(self, seeds: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Noise and timesteps that follow from the views alone; a batch's timesteps cover the schedule evenly."""
        noise, timesteps = [], []
        for place, seed in enumerate(seeds.tolist()):
            generator = torch.Generator().manual_seed(seed)
            noise.append(torch.randn(latents.shape[1:], generator=generator))
            part = (place + torch.rand((), generator=generator)) / len(seeds)
            timesteps.append((part * self.schedule.config.num_train_timesteps).long())
        return torch.stack(noise).to(latents), torch.stack(timesteps).to(latents.device)


def open_base_checkpoint(name: str, resolution: int | None) -> BaseCheckpoint:
    """Loads a checkpoint by any name that `load_synthesizer` knows, onto the CPU in float32.

    `resolution` is the side to train at in pixels; None for the area that the checkpoint's card gives.

    Raises:
        EmitDiffError: no such weights, a side they cannot be given, or a kind of prediction that is not known.
    """
    found = find_checkpoint(name, "synthesis")
    fetch_weights(found)
    pipe, folder = read_pipeline(found), local_folder(found)
    card = read_card(found, folder)
    side = resolution or max(1, round(card.area**0.5 / card.multiple)) * card.multiple
    if side % card.multiple or side < card.multiple:
        raise EmitDiffError(f"The resolution was {side}; {name} takes multiples of {card.multiple}.")
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    if schedule.config.prediction_type not in ("epsilon", "v_prediction"):
        raise EmitDiffError(
            f"{name} predicts '{schedule.config.prediction_type}'; only weights that predict the noise (epsilon) or "
            "v (v_prediction) can be fine-tuned."
        )
    return BaseCheckpoint(found, folder, pipe, replace(card, area=side**2), side, schedule)
