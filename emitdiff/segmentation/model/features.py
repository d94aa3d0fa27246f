"""Features of a frozen diffusion U-Net: what its blocks say about an image at chosen noise levels.

The method of DDPM-seg (Baranchuk et al., ICLR 2022) and TextDiff (MICCAI 2024), with hooks on a stock diffusers model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from emitdiff.errors import EmitDiffError

ASPECT_LIMIT = 2  # longer images than this many short sides are squeezed
MULTIPLE = 32  # what the backbone's strides divide
MAX_SIDE, MAX_SIZES = 1024, 4  # pixels of the short side, and sizes, at which one image is looked at


class _AllCaptured(Exception):
    """Raised by the last hook, so that nothing past the last block needed is computed."""


def decoder_blocks(unet: Any) -> list[str]:
    """Module names of the decoder's blocks in the order DDPM-seg and TextDiff number them, from 0.

    A block is a residual layer, with its attention where there is one, and with the upsampling that may follow it.
    """
    names = []
    for index, stage in enumerate(unet.up_blocks):
        kind = "attentions" if getattr(stage, "attentions", None) else "resnets"
        names += [f"up_blocks.{index}.{kind}.{layer}" for layer in range(len(stage.resnets))]
        if getattr(stage, "upsamplers", None):
            names[-1] = f"up_blocks.{index}.upsamplers.0"
    return names


def stage_ends(unet: Any) -> list[str]:
    """Module names of each decoder stage's last layer, before the upsampling, from the coarsest to the finest."""
    kinds = ["attentions" if getattr(stage, "attentions", None) else "resnets" for stage in unet.up_blocks]
    pairs = zip(kinds, unet.up_blocks, strict=True)
    return [f"up_blocks.{index}.{kind}.{len(stage.resnets) - 1}" for index, (kind, stage) in enumerate(pairs)]


def coordinates(part: torch.Tensor) -> torch.Tensor:
    """Where a position lies, for maps (B, C, H, W): (B, 5, H, W) of x, y, x**2, y**2, x * y with x, y in -1..1.

    A denoiser looks at what is near and cares little where it is; "the left lung" is a matter of where.
    """
    height, width = part.shape[-2:]
    y = ((torch.arange(height, device=part.device) + 0.5) * 2 / height - 1)[:, None].expand(height, width)
    x = ((torch.arange(width, device=part.device) + 0.5) * 2 / width - 1)[None, :].expand(height, width)
    return torch.stack([x, y, x * x, y * y, x * y]).to(part)[None].expand(len(part), -1, -1, -1)


def pooled(maps: Sequence[torch.Tensor], size: tuple[int, int]) -> list[torch.Tensor]:
    """Maps finer than `size` = (H, W) averaged down to it; the others as they are."""
    shrink = nn.functional.adaptive_avg_pool2d
    return [shrink(part, (size[0], size[1])) if part.shape[-2] > size[0] else part for part in maps]


def working_size(size: tuple[int, int], resolution: int) -> tuple[int, int]:
    """The (height, width) the backbone sees: short side `resolution`, aspect kept up to 2 : 1, multiples of 32."""
    scale = resolution / min(size)
    height, width = (min(ASPECT_LIMIT * resolution, max(1, round(side * scale / MULTIPLE)) * MULTIPLE) for side in size)
    return height, width


def sizes_around(resolution: int, factors: Sequence[float]) -> list[int]:
    """`resolution`, then it times each of `factors`, in whole multiples of 32 and at most 1024 pixels; each once."""
    around = [MULTIPLE * max(1, round(resolution * factor / MULTIPLE)) for factor in factors]
    return list(dict.fromkeys([resolution, *(size for size in around if size <= MAX_SIDE)]))[:MAX_SIZES]


def are_valid_sizes(sizes: object, resolution: int | None) -> bool:
    """Whether a record's `sizes` are a list as `sizes_around` gives it, or an empty one; without a `resolution` to
    begin with, any such sizes."""
    if not isinstance(sizes, list) or len(sizes) > MAX_SIZES or not all(type(size) is int for size in sizes):
        return False
    free = sizes[1:] if resolution is not None else sizes
    rest = all(0 < size <= MAX_SIDE and size % MULTIPLE == 0 for size in free)
    return rest and (not sizes or resolution is None or sizes[0] == resolution)


@contextmanager
def capture_blocks(unet: nn.Module, blocks: Sequence[str], stop: bool = False) -> Iterator[dict[str, torch.Tensor]]:
    """While `unet` runs within, its outputs at `blocks` (module names) are gathered; with `stop` nothing past the last
    one needed is computed, and no result comes back.
    """
    modules = dict(unet.named_modules())
    read: dict[str, torch.Tensor] = {}
    hooks = [modules[name].register_forward_hook(_hook_for(name, read, len(set(blocks)), stop)) for name in set(blocks)]
    try:
        yield read
    except _AllCaptured:
        pass
    finally:
        for hook in hooks:
            hook.remove()


def _hook_for(name: str, read: dict[str, torch.Tensor], wanted: int, stop: bool):
    def hook(module: nn.Module, inputs: tuple, output: Any) -> None:
        read[name] = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
        if stop and len(read) == wanted:
            raise _AllCaptured

    return hook


class DiffusionFeatures(nn.Module):
    """Outputs of `blocks` of a frozen `UNet2DModel` or `UNet2DConditionModel` at `timesteps`, steps concatenated.

    `blocks` are module names ("up_blocks.1.resnets.0") or numbers of `decoder_blocks`. One noise image, fixed by
    `seed`, is shared by all images of a size. With `with_coordinates`, the five maps of `coordinates` follow the
    channels of every block. The U-Net is set to evaluation and its weights never change.
    """

    def __init__(self, unet: Any, scheduler: Any, blocks: Sequence[str | int], timesteps: Sequence[int],
                 seed: int = 0, with_coordinates: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.unet: Any = unet.eval().requires_grad_(False)
        self.scheduler = scheduler
        numbered = decoder_blocks(unet)
        known = dict(unet.named_modules())
        self.blocks = tuple(self._block_name(block, numbered, known) for block in blocks)
        steps = scheduler.config.num_train_timesteps
        if not timesteps or not all(0 <= step < steps for step in timesteps):
            given = " ".join(map(str, timesteps))
            raise EmitDiffError(f"Timesteps {given} were given: name one or more from 0 to {steps - 1}.")
        self.timesteps, self.seed, self.with_coordinates = tuple(timesteps), seed, with_coordinates

    @staticmethod
    def _block_name(block: str | int, numbered: list[str], known: dict) -> str:
        if isinstance(block, int) and 0 <= block < len(numbered):
            return numbered[block]
        if isinstance(block, str) and block in known and block:
            return block
        raise EmitDiffError(
            f"The backbone has no block {block!r}: give a number from 0 to {len(numbered) - 1} "
            f"or a module name such as {numbered[0]!r}."
        )

    def train(self, mode: bool = True) -> DiffusionFeatures:
        """The backbone stays in evaluation whatever the rest of the model does."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None) -> list[torch.Tensor]:
        """`image` (B, 3, H, W) in [-1, 1] to one (B, C_k * steps, H_k, W_k) per block, in the order of `blocks`.

        For a latent U-Net give latents instead of the image; for a conditional one, (B, L, D) hidden states.
        """
        clean = fold(image, fold_factor(self.unet))
        noise = self._noise(clean.shape[1:]).to(clean)
        per_step = [self._at(step, clean, noise, encoder_hidden_states) for step in self.timesteps]
        joined = [torch.cat(maps, dim=1) for maps in zip(*per_step, strict=True)]
        return [torch.cat([part, coordinates(part)], dim=1) for part in joined] if self.with_coordinates else joined

    def _noise(self, shape: torch.Size) -> torch.Tensor:
        return torch.randn((1, *shape), generator=torch.Generator().manual_seed(self.seed))

    def _at(self, step: int, clean: torch.Tensor, noise: torch.Tensor, states: torch.Tensor | None) -> list:
        timesteps = torch.full((len(clean),), step, dtype=torch.long, device=clean.device)
        noisy = self.scheduler.add_noise(clean, noise.expand_as(clean), timesteps)
        if clean.shape[1] > 4 or clean.device.type == "cuda":  # convolutions of few channels gain nothing from it
            noisy = noisy.contiguous(memory_format=torch.channels_last)
        with capture_blocks(self.unet, self.blocks, stop=True) as read:
            self.unet(noisy, timesteps, **({} if states is None else {"encoder_hidden_states": states}))
        return [read[name] for name in self.blocks]


def load_features(folder: Path, blocks: Sequence[str | int] | None, timesteps: Sequence[int], seed: int = 0,
                  with_coordinates: bool = True) -> DiffusionFeatures:  # fmt: skip
    """The frozen backbone of a checkpoint folder, float32, by default read at the end of every decoder stage.

    Raises EmitDiffError where there is none.
    """
    from diffusers import DDPMScheduler, UNet2DModel

    if not (folder / "config.json").exists():
        raise EmitDiffError(
            f"{folder} holds no backbone: name the `backbone` folder of a segmenter, or one that convert-adm wrote, or "
            "train one with `train-segmentation --stage backbone` first."
        )
    unet = UNet2DModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).float()
    scheduler = DDPMScheduler.from_pretrained(folder, local_files_only=True)
    unet = unet.to(memory_format=torch.channels_last)
    return DiffusionFeatures(unet, scheduler, blocks or stage_ends(unet), timesteps, seed, with_coordinates)


def fold_factor(unet: Any) -> int:
    """Side of the pixel square that the backbone reads as one position: 1 for 3 input channels, 2 for 12, 4 for 48."""
    return max(1, round((unet.config.in_channels / 3) ** 0.5))


def fold(image: torch.Tensor, factor: int) -> torch.Tensor:
    """(B, 3, H, W) to (B, 3 * factor**2, H / factor, W / factor)."""
    return functional.pixel_unshuffle(image, factor) if factor > 1 else image


def weights_hash(module: nn.Module) -> str:
    """sha256 over the names, types, shapes and values of all weights and buffers, in their order."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
