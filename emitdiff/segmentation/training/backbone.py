"""A pixel-space diffusion model, trained without labels: the backbone whose frozen features TextDiff reads.

A stock diffusers UNet2DModel. With 48 input channels it sees each 4 x 4 square of RGB pixels as one position
("folded"): nothing is lost, and the costly finest level works on a sixteenth of the positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from emitdiff.images import images_to_tensor, resize_image
from emitdiff.segmentation.model.features import fold, fold_factor
from emitdiff.segmentation.training.schedule import learning_rate, update_average
from emitdiff.training_state import StageState

if TYPE_CHECKING:
    from diffusers import DDPMScheduler, UNet2DModel


def build_backbone(channels: Sequence[int] = (48, 96, 160, 224), sample_size: int = 256, side: int = 4) -> UNet2DModel:
    """A fresh U-Net (10.5 M parameters by default) folded by `side`, with self-attention at its coarsest level.

    For images (B, 3, H, W), H and W divisible by `side` * 2 ** (levels - 1): 32 by default.
    """
    from diffusers import UNet2DModel

    plain = len(channels) - 1
    return UNet2DModel(
        sample_size=sample_size // side,
        in_channels=3 * side**2,
        out_channels=3 * side**2,
        layers_per_block=1,
        block_out_channels=tuple(channels),
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
        norm_num_groups=8,
        attention_head_dim=32,
    )


def build_scheduler() -> DDPMScheduler:
    """The linear schedule of ADM and DDPM (beta 1e-4 to 0.02, 1000 steps), with v-prediction."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, prediction_type="v_prediction")


def square_crop(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A random `side` x `side` square of uint8 (H, W, 3), at source scale or with the short side shrunk to fit."""
    if rng.random() < 0.6 or min(image.shape[:2]) < side:
        scale = side / min(image.shape[:2])
        image = resize_image(image, tuple(max(side, round(length * scale)) for length in image.shape[:2]))
    top, left = (int(rng.integers(length - side + 1)) for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def image_batch(images: Sequence[np.ndarray], side: int, count: int, rng: np.random.Generator) -> torch.Tensor:
    """`count` random squares with a little contrast and brightness jitter: (count, 3, side, side) in [-1, 1]."""
    chosen = [square_crop(images[index], side, rng) for index in rng.integers(len(images), size=count)]
    batch = images_to_tensor(np.stack(chosen))
    gain = torch.from_numpy(rng.uniform(0.8, 1.2, (count, 1, 1, 1))).float()
    shift = torch.from_numpy(rng.uniform(-0.1, 0.1, (count, 1, 1, 1))).float()
    return (batch * gain + shift).clamp(-1, 1)


def diffusion_loss(unet: nn.Module, scheduler: DDPMScheduler, images: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the predicted velocity; early steps, whose features are read later, come more often."""
    draws = torch.rand(len(images), device=images.device) ** 1.5
    timesteps = (draws * scheduler.config.num_train_timesteps).long()
    clean = fold(images, fold_factor(unet)).contiguous(memory_format=torch.channels_last)
    noise = torch.randn_like(clean)
    noisy = scheduler.add_noise(clean, noise, timesteps)
    with torch.autocast(images.device.type, torch.bfloat16):
        predicted = unet(noisy, timesteps).sample
    return functional.mse_loss(predicted.float(), scheduler.get_velocity(clean, noise, timesteps))


def batch_plan(progress: float, step: int, resolution: int) -> tuple[int, int]:
    """(side, count): small squares first, then four of five batches at the full resolution."""
    small = progress < 0.35 or step % 5 == 0
    return (resolution // 2, 16) if small else (resolution, 4)


def train_backbone(images: Sequence[np.ndarray], folder: Path, minutes: float, resolution: int = 256, seed: int = 0,
                   peak_rate: float = 8e-4, device: torch.device | str = "cpu") -> UNet2DModel:  # fmt: skip
    """Train on `images` (uint8 (H, W, 3), no labels) for `minutes`; returns the averaged weights, frozen.

    Resumes from `folder`/state.pt; leaves the averaged weights there in diffusers layout with a sample sheet.
    """
    torch.manual_seed(seed)
    unet, average = (build_backbone(sample_size=resolution).to(device, memory_format=torch.channels_last) for _ in "ab")
    average.load_state_dict(unet.state_dict())
    optimizer = torch.optim.AdamW(unet.parameters(), lr=peak_rate, weight_decay=0.01)
    scheduler = build_scheduler()
    parts = {"model": unet, "average": average, "optimizer": optimizer}
    state = StageState(folder / "state.pt", minutes, parts, device)
    state.after_save = lambda: average.save_pretrained(folder)
    rng, _ = np.random.default_rng((seed, state.steps)), torch.manual_seed(seed + state.steps)
    losses: list[float] = []
    for step in state.run("backbone"):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(peak_rate, step, state.progress)
        batch = image_batch(images, *batch_plan(state.progress, step, resolution), rng).to(device)
        loss = diffusion_loss(unet, scheduler, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        update_average(average, unet, step)
        losses = [*losses[-99:], loss.item()]
        state.bar.set_postfix(step=step, loss=f"{np.mean(losses):.4f}", refresh=False)
    scheduler.save_pretrained(folder)
    return average.eval().requires_grad_(False)


def export_backbone(unet: nn.Module, scheduler: DDPMScheduler, folder: Path) -> None:
    """The backbone in half precision, with its scheduler, in diffusers layout."""
    half: Any = deepcopy(unet).half()
    half.register_to_config(_name_or_path="")  # not where it lay on the machine that trained it
    half.save_pretrained(folder)
    scheduler.save_pretrained(folder)
