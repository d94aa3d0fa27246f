"""Training examples for the head: labelled pictures in memory, altered at random, and sentences about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from tqdm import tqdm

from emitdiff.datasets.folder import DatasetFolder, DatasetInfo, Sample
from emitdiff.datasets.symmetry import may_mirror
from emitdiff.images import images_to_tensor, resize_image, resize_mask
from emitdiff.segmentation.vocabulary import (
    BY_PHRASE,
    absent_targets,
    compose_sentence,
    image_kind_of,
    target_masks,
    targets_of,
)

# How often a scene is turned by any angle: a smear has no upright, and short-axis views of the heart lie as they were
# scanned.
ROTATED = {"microscopy": 0.7, "cardiac MRI": 0.5}


@dataclass(frozen=True)
class LabelledImage:
    """`image` uint8 (H, W, 3), short side at the training resolution; `masks` bool (H, W) by target phrase."""

    image: np.ndarray
    masks: dict[str, np.ndarray]
    info: DatasetInfo


def read_labelled(datasets: Sequence[DatasetFolder], resolution: int) -> list[list[LabelledImage]]:
    """Every image of every dataset at `resolution`, kept in memory: one list per dataset."""
    loaded: list[list[LabelledImage]] = []
    with tqdm(total=sum(map(len, datasets)), desc="reading", unit="image") as bar:
        for dataset in datasets:
            loaded.append([])
            for sample in dataset:
                loaded[-1].append(labelled_at(resolution, sample, dataset.info))
                bar.update()
    return loaded


def labelled_at(resolution: int, sample: Sample, info: DatasetInfo) -> LabelledImage:
    """A sample with its short side at `resolution`, and the mask of each of its targets."""
    scale = resolution / min(sample.image.shape[:2])
    size = tuple(max(resolution, round(side * scale)) for side in sample.image.shape[:2])
    masks = {phrase: resize_mask(mask, size) for phrase, mask in target_masks(sample, info).items()}
    return LabelledImage(resize_image(sample.image, size), masks, info)


def trained_phrases(sets: Sequence[Sequence[LabelledImage]]) -> list[str]:
    """The phrases of the targets that at least one image shows labelled: what a head trained on them may claim."""
    shown = {phrase for images in sets for one in images for phrase, mask in one.masks.items() if mask.any()}
    return [phrase for phrase in BY_PHRASE if phrase in shown] + sorted(shown - set(BY_PHRASE))


def sample_images(sets: Sequence[Sequence[LabelledImage]], count: int, resolution: int,
                rng: np.random.Generator) -> list[LabelledImage]:  # fmt: skip
    """`count` altered R x R images. Datasets come with the square root of their size, so that small ones are seen
    and large ones not neglected.
    """
    weights = np.sqrt([len(images) for images in sets])
    chosen = [sets[index] for index in rng.choice(len(sets), size=count, p=weights / weights.sum())]
    return [augmented_image(images[int(rng.integers(len(images)))], resolution, rng) for images in chosen]


def image_tensor(images: Sequence[LabelledImage]) -> torch.Tensor:
    """Images of one size as (B, 3, R, R) in [-1, 1]."""
    return images_to_tensor(np.stack([one.image for one in images]))


def sample_query(labelled: LabelledImage, own: bool, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """One sentence and its mask: about something labelled here, or if not `own` sometimes about something absent.

    An empty sentence stands for whatever the dataset labels first, so that no text is a fair comparison.
    """
    draw, masks = 0.0 if own else rng.random(), labelled.masks
    absent = absent_targets(labelled.info)
    if draw < 0.35 or not absent:
        phrase = list(masks)[rng.integers(len(masks))]
        return compose_sentence(targets_of(labelled.info)[phrase], rng), masks[phrase]
    if draw < 0.45:
        return "", masks[next(iter(masks))]
    target = absent[rng.integers(len(absent))]
    return compose_sentence(target, rng), np.zeros(labelled.image.shape[:2], dtype=bool)


def augmented_image(
    labelled: LabelledImage, resolution: int, rng: np.random.Generator, upright: bool = False
) -> LabelledImage:
    """Turn, stretch, shift, mirror where sides mean nothing, and change brightness, contrast and gamma; `upright`,
    where a sentence speaks of sides, keeps them.
    """
    kind = None if upright else image_kind_of(labelled.info)
    angle = rng.uniform(-180, 180) if rng.random() < ROTATED.get(kind or "", 0) else rng.normal(0, 5)
    scale = rng.uniform(0.85, 1.25) * rng.uniform(0.94, 1.06, 2)
    if not upright and may_mirror(labelled.info) and rng.random() < 0.5:
        scale[0] *= -1
    matrix = _warp(labelled.image.shape[:2], resolution, np.deg2rad(angle), scale, rng)
    size = (resolution, resolution)
    image = cv2.warpAffine(labelled.image, matrix, size, flags=cv2.INTER_LINEAR)
    masks = {phrase: cv2.warpAffine(mask.astype(np.uint8), matrix, size, flags=cv2.INTER_NEAREST).astype(bool)
             for phrase, mask in labelled.masks.items()}  # fmt: skip
    return LabelledImage(_jittered_colour(image, rng), masks, labelled.info)


def downscaled(labelled: LabelledImage, side: int) -> LabelledImage:
    """A square labelled image at `side` x `side`; as it is where it has that size."""
    if labelled.image.shape[0] == side:
        return labelled
    masks = {phrase: resize_mask(mask, (side, side)) for phrase, mask in labelled.masks.items()}
    return LabelledImage(resize_image(labelled.image, (side, side)), masks, labelled.info)


def _warp(shape: tuple[int, int], side: int, angle: float, scale: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Source (x, y) to target (x, y) of a `side` square, 2 x 3."""
    height, width = shape
    spread = np.array([width - side, height - side]) / 2 + 0.06 * side
    centre = np.array([width, height]) / 2 + rng.uniform(-1, 1, 2) * spread
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale[:, None]
    return np.column_stack([turn, side / 2 - turn @ centre])


def _jittered_colour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = _jittered_stain(image, rng)
    values = np.linspace(0, 1, 256) ** np.exp(rng.normal(0, 0.2))
    values = values * rng.uniform(0.8, 1.2) + rng.uniform(-0.06, 0.06)
    image = cv2.LUT(image, np.clip(values * 255, 0, 255).astype(np.uint8))
    if rng.random() < 0.1:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < 0.15:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2))
    return image


def _jittered_stain(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A coloured image with more or less of every colour, as stains and scanners differ: each channel's optical
    density (Beer-Lambert) scaled and shifted. Grey ones as they are.
    """
    if (image == image[..., :1]).all():
        return image
    light = (np.arange(256) + 1) / 256
    scales, shifts = rng.uniform(0.75, 1.3, 3), rng.uniform(-0.04, 0.04, 3)
    tables = 256 * np.exp(np.log(light)[:, None] * scales - shifts) - 1
    return cv2.LUT(image, np.clip(tables, 0, 255).astype(np.uint8)[:, None])
