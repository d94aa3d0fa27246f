"""Frozen features on disk, in half precision: an epoch over images seen before never touches the backbone.

One safetensors file for an image, a block and a timestep. Its name follows from the prepared pixels, the block, the
step, the noise and the backbone's weights, so nothing stale is ever read; files appear whole, and a stopped run goes on
with what is there. Several processes may fill one folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from emitdiff.errors import EmitDiffError
from emitdiff.files import make_folder, write_atomically
from emitdiff.segmentation.model.features import MULTIPLE, DiffusionFeatures, coordinates, weights_hash

FLOAT16_MAX = 65504.0  # of half precision


class FeatureCache:
    """Called like the `DiffusionFeatures` it is given, and answers the same but for rounding to half precision.

    `computed` counts the passes through the backbone, one for each timestep of an image; `weights` is the hash of its.
    """

    def __init__(self, features: DiffusionFeatures, folder: str | Path) -> None:
        self.features, self.folder, self.computed = features, Path(folder), 0
        self.weights, scheduler = weights_hash(features.unet), features.scheduler.to_json_string()
        self.source = hashlib.sha256(f"{self.weights} {features.seed} {scheduler}".encode()).hexdigest()
        self._alone = {
            step: DiffusionFeatures(features.unet, features.scheduler, features.blocks, (step,), features.seed)
            for step in features.timesteps
        }
        make_folder(self.folder)

    def __call__(self, image: torch.Tensor) -> list[torch.Tensor]:
        """`image` (B, 3, H, W) in [-1, 1] to float16 (B, C_k * steps, H_k, W_k) per block, on the image's device."""
        maps = [torch.cat(rows) for rows in zip(*(self._one(row[None]) for row in image), strict=True)]
        return (
            [torch.cat([part, coordinates(part)], dim=1) for part in maps] if self.features.with_coordinates else maps
        )

    def paths(self, image: torch.Tensor, step: int) -> list[Path]:
        """Where the maps of one image (1, 3, H, W) at one step lie, in the order of the blocks."""
        pixels = image.detach().cpu().float().contiguous()
        shown = hashlib.sha256(f"{tuple(pixels.shape)}".encode() + pixels.numpy().tobytes()).hexdigest()
        keys = [f"{self.source} {shown} {block} {step}" for block in self.features.blocks]
        return [self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.safetensors" for key in keys]

    def _one(self, image: torch.Tensor) -> list[torch.Tensor]:
        steps = [self._step(image, step) for step in self.features.timesteps]
        return [torch.cat(parts, dim=1) for parts in zip(*steps, strict=True)]

    def _step(self, image: torch.Tensor, step: int) -> list[torch.Tensor]:
        paths = self.paths(image, step)
        found = [part for path in paths if (part := _read(path)) is not None]
        if len(found) < len(paths):
            self.computed += 1
            found = [part.clamp(-FLOAT16_MAX, FLOAT16_MAX).half() for part in self._alone[step](image)]
            for path, part in zip(paths, found, strict=True):
                _write(path, part)
        return [part.to(image.device) for part in found]


def feature_shapes(features: DiffusionFeatures, size: tuple[int, int]) -> list[tuple[int, int, int]]:
    """(C_k, H_k, W_k) of every block for an image of `size` = (H, W), multiples of 32; told from one small pass."""
    one_step = DiffusionFeatures(features.unet, features.scheduler, features.blocks, features.timesteps[:1])
    blank = torch.zeros(1, 3, MULTIPLE, MULTIPLE, device=next(features.parameters()).device)
    times, (rows, columns) = len(features.timesteps), (side // MULTIPLE for side in size)
    return [(times * part.shape[1], rows * part.shape[2], columns * part.shape[3]) for part in one_step(blank)]


def disk_size(channels: Sequence[int], sides: Sequence[tuple[int, int]], count: int) -> int:
    """Bytes that the maps of `count` images take: `channels` per block, all steps together, at (height, width)."""
    return 2 * count * sum(c * height * width for c, (height, width) in zip(channels, sides, strict=True))


def _read(path: Path) -> torch.Tensor | None:
    """A map (1, C, H, W); None where there is none or what is there cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)["map"]
    except (OSError, SafetensorError, KeyError):
        return None


def _write(path: Path, part: torch.Tensor) -> None:
    """Whole or not at all, whoever else writes it at the same time."""
    from safetensors.torch import save_file

    try:
        write_atomically(path, lambda partial: save_file({"map": part.cpu().contiguous()}, partial))
    except Exception as error:
        if not isinstance(error, OSError) and "I/O" not in str(error) and "No space" not in str(error):
            raise
        raise EmitDiffError(
            f"The cache {path.parent} cannot be written ({error}): free space, or name another."
        ) from error
