"""What is done to the training images: nothing, one classical augmentation, a strong stack of them, painted ones.

Single augmentations have the ranges of EMIT-Diff's table; the stack has nnU-Net's defaults in two dimensions
(nnunetv2, nnUNetTrainer.get_training_transforms). All are MONAI's transforms, on images of mean 0 and deviation 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_obj import get_track_meta, set_track_meta
from monai.transforms import (
    Compose,
    MapTransform,
    RandAdjustContrastd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    Randomizable,
    RandRotated,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    RandSimulateLowResolutiond,
    RandZoomd,
)

from emitdiff.errors import EmitDiffError
from emitdiff.studies.unet_baseline import ImageSet, shuffled_batches, standardised
from emitdiff.synthesis.merging import merging_mask

IMAGE, MASK = "image", "mask"
BOTH = [IMAGE, MASK]
Pictures = tuple[torch.Tensor, torch.Tensor]  # images and classes of a batch
PAINTED, MERGED = "painted", "emit-diff"
SINGLE = ("contrast", "gamma", "brightness", "noise", "blur", "mirror", "rotate", "scale")
METHODS = ("none", *SINGLE, "classical", MERGED, PAINTED, "classical+emit-diff", "classical+painted", "painted-only")
ALPHA, SQUARES = 0.6, 6  # of the merging mask, the paper's: part of real squares, squares to a side (64 pixels of 384)
MODES = ("bilinear", "nearest")  # of image and mask


class RandGaussianShiftd(Randomizable, MapTransform):
    """Adds one number, drawn from N(0, `deviation`), to a whole image: EMIT-Diff's brightness, which MONAI's uniform
    shift is not."""

    def __init__(self, keys: KeysCollection, deviation: float):
        super().__init__(keys)
        self.deviation = deviation

    def randomize(self, data: Any = None) -> None:
        self.shift = float(self.R.normal(0, self.deviation))

    def __call__(self, data: dict[Any, Any]) -> dict[Any, Any]:
        self.randomize()
        return data | {key: data[key] + self.shift for key in self.key_iterator(data)}


def make_transform(method: str, seed: int) -> Compose | None:
    """The transform of {"image": float (C, H, W), "mask": (1, H, W)} that a method asks for; None for none."""
    name = method.split("+")[0]
    if name in ("none", MERGED, PAINTED, "painted-only"):
        return None
    return Compose(_stack() if name == "classical" else [_single(name)]).set_random_state(seed)


def _single(name: str) -> Any:
    turn = math.radians(5)
    return {
        "contrast": lambda: RandScaleIntensityFixedMeand(IMAGE, prob=1, factors=(-0.25, 0.25), fixed_mean=True),
        "gamma": lambda: RandAdjustContrastd(IMAGE, prob=1, gamma=(0.7, 1.5)),
        "brightness": lambda: RandGaussianShiftd(IMAGE, 0.5),
        "noise": lambda: RandGaussianNoised(IMAGE, prob=1, std=math.sqrt(0.05)),
        "blur": lambda: RandGaussianSmoothd(IMAGE, prob=1, sigma_x=(0.5, 1.5), sigma_y=(0.5, 1.5)),
        "mirror": lambda: RandFlipd(BOTH, prob=0.75, spatial_axis=1),
        "rotate": lambda: RandRotated(BOTH, turn, prob=1, mode=MODES, padding_mode="border"),
        "scale": lambda: _zoom(0.95, 1.05, 1),
    }[name]()


def _zoom(low: float, high: float, prob: float) -> RandZoomd:
    return RandZoomd(BOTH, prob=prob, min_zoom=low, max_zoom=high, mode=MODES, padding_mode="edge")


def _stack() -> list[Any]:
    return [
        RandRotated(BOTH, math.pi, prob=0.2, mode=MODES, padding_mode="border"),
        _zoom(0.7, 1.4, 0.2),
        RandGaussianNoised(IMAGE, prob=0.1, std=math.sqrt(0.1)),
        RandGaussianSmoothd(IMAGE, prob=0.2, sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0)),
        RandScaleIntensityd(IMAGE, prob=0.15, factors=(-0.25, 0.25)),
        RandScaleIntensityFixedMeand(IMAGE, prob=0.15, factors=(-0.25, 0.25), fixed_mean=True, preserve_range=True),
        RandSimulateLowResolutiond(IMAGE, prob=0.25, zoom_range=(0.5, 1.0), upsample_mode="bicubic"),
        RandAdjustContrastd(IMAGE, prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True),
        RandAdjustContrastd(IMAGE, prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
        RandFlipd(BOTH, prob=0.5, spatial_axis=0),
        RandFlipd(BOTH, prob=0.5, spatial_axis=1),
    ]


def needs_painted(method: str) -> bool:
    """Whether a method trains on painted images."""
    return PAINTED in method or MERGED in method


def check_methods(methods: tuple[str, ...]) -> None:
    """Raises EmitDiffError for a method that is none of `METHODS`."""
    if unknown := [method for method in methods if method not in METHODS]:
        raise EmitDiffError(f"There is no method called '{unknown[0]}': choose among {', '.join(METHODS)}.")


@dataclass(frozen=True)
class Draw:
    """How batches are drawn: `steps` of `batch` images; of a mixed one a part `real_share` is real, rounded, the
    others are painted."""

    steps: int
    batch: int
    real_share: float
    seed: int


def make_batches(method: str, real: ImageSet, painted: ImageSet | None, settings: Draw) -> Iterator[Pictures]:
    """`steps` batches of images, float (B, 3, R, R) of mean 0 and deviation 1 before they are altered, and classes
    uint8 (B, R, R).

    Raises:
        EmitDiffError: the method needs painted images and there are none.
    """
    if needs_painted(method) and (painted is None or not len(painted)):
        raise EmitDiffError(f"The method {method} needs painted images, and there are none.")
    rng, transform = np.random.default_rng(settings.seed), make_transform(method, settings.seed)
    if MERGED in method and painted is not None:
        drawn = merged_batches(real, painted, settings, rng)
    else:
        drawn = pooled_batches(method, real, painted, settings, rng)
    for images, classes in drawn:
        yield alter(standardised(images), classes, transform)


def pooled_batches(
    method: str, real: ImageSet, painted: ImageSet | None, settings: Draw, rng: np.random.Generator
) -> Iterator[Pictures]:
    """Batches of whole images, uint8 (B, 3, R, R), real, painted or both."""
    count = settings.batch
    if method == "painted-only":
        count = 0
    elif needs_painted(method):
        count = min(max(round(settings.batch * settings.real_share), 1), settings.batch - 1)
    parts = [(part, number) for part, number in ((real, count), (painted, settings.batch - count)) if number and part]
    orders = [shuffled_batches(len(part), number, settings.steps, rng) for part, number in parts]
    for chosen in zip(*orders, strict=True):
        pairs = [(part.images[index], part.classes[index]) for (part, _), index in zip(parts, chosen, strict=True)]
        images, classes = (torch.cat(side) for side in zip(*pairs, strict=True))
        yield images, classes


def merged_batches(real: ImageSet, painted: ImageSet, settings: Draw, rng: np.random.Generator) -> Iterator[Pictures]:
    """Batches of real images, uint8 (B, 3, R, R), with squares of one painted from each, as EMIT-Diff merges them; the
    classes of a square are those of the image it is from. A real image that nothing was painted from stays whole."""
    variants: dict[str, list[int]] = {}
    for index, name in enumerate(painted.names):
        variants.setdefault(name, []).append(index)
    side = real.images.shape[-1]
    for chosen in shuffled_batches(len(real), settings.batch, settings.steps, rng):
        images, classes = real.images[chosen].clone(), real.classes[chosen].clone()
        for place, index in enumerate(chosen):
            if own := variants.get(real.names[index]):
                partner = own[int(rng.integers(len(own)))]
                keep = torch.from_numpy(merging_mask(side, side, round(side / SQUARES), ALPHA, rng))
                images[place] = torch.where(keep, images[place], painted.images[partner])
                classes[place] = torch.where(keep, classes[place], painted.classes[partner])
        yield images, classes


def alter(images: torch.Tensor, classes: torch.Tensor, transform: Compose | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Every image of float (B, 3, H, W) with its classes (B, H, W) altered by itself; grey ones stay grey."""
    if transform is None:
        return images, classes
    altered, masks, tracked = [], [], get_track_meta()
    set_track_meta(False)  # where each pixel came from is asked by nobody, and takes as long as the transforms
    try:
        for image, mask in zip(images, classes, strict=True):
            grey = bool((image == image[:1]).all())
            found: Any = transform({IMAGE: image[:1] if grey else image, MASK: mask[None]})
            altered.append(found[IMAGE].expand(3, -1, -1))
            masks.append(found[MASK][0])
    finally:
        set_track_meta(tracked)
    return torch.stack(altered), torch.stack(masks).to(classes.dtype)
