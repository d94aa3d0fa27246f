"""Training examples for the head: labelled pictures in memory, altered at random, and sentences about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from tqdm import tqdm

from emitdiff.datasets.folder import DatasetFolder, DatasetInfo, Sample
from emitdiff.datasets.symmetry import may_mirror
from emitdiff.images import images_to_tensor, resize_image, resize_mask
from emitdiff.segmentation.greys import GreyLevels, scale_greys
from emitdiff.segmentation.training.scanners import change_appearance
from emitdiff.segmentation.vocabulary import (
    BY_PHRASE,
    absent_targets,
    compose_sentence,
    image_kind_of,
    neighbouring_targets,
    target_masks,
    targets_of,
)

# How often a scene is turned by any angle: a smear has no upright, and short-axis views of the heart lie as they were
# scanned.
ROTATED = {"microscopy": 0.7, "cardiac MRI": 0.5}
HOME_SHARE = 0.5  # of the views, as the image's own scanner would have made them
ZOOMS, ZOOMED_SHARE = (0.5, 2.5), 0.6  # how near other hospitals look; share of views drawn from there
CENTRED_SHARE = 0.6  # of the nearer views, with a labelled pixel in their middle
MIRRORED_SHARE = {"microscopy": 0.8}  # of the views with a rim beyond the image, its mirror image there; elsewhere 0.35
UNSCALED_SHARE = 0.2  # of the views whose greys stay: the image kind may not be recognised
NEIGHBOUR_SHARE = 0.3  # of the questions about something else, where a neighbour of what is labelled can be asked for


@dataclass(frozen=True)
class LabelledImage:
    """`image` uint8 (H, W, 3), short side at the training resolution; `masks` bool (H, W) by target phrase, true where
    `known`, bool (H, W), is; None where all is.
    """

    image: np.ndarray
    masks: dict[str, np.ndarray]
    info: DatasetInfo
    known: np.ndarray | None = None


class Query(NamedTuple):
    """A sentence and its mask, bool (H, W), of which only the pixels in `known` are sure; None for all."""

    text: str
    mask: np.ndarray
    known: np.ndarray | None = None


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


def sample_images(sets: Sequence[Sequence[LabelledImage]], count: int, side: int, rng: np.random.Generator,
                  greys: Mapping[str, GreyLevels] | None = None) -> list[LabelledImage]:  # fmt: skip
    """`count` altered `side` x `side` images, which show as much of theirs whatever the side; a quarter as
    `augmented_image` makes them and the others as `view_elsewhere` does, on the scale of `greys`. Datasets come with
    the square root of their size, so that small ones are seen and large ones not neglected.
    """
    weights = np.sqrt([len(images) for images in sets])
    chosen = rng.choice(len(sets), size=count, p=weights / weights.sum())
    return [_sampled_view(sets, int(index), side, rng, greys or {}) for index in chosen]


def _sampled_view(sets: Sequence[Sequence[LabelledImage]], index: int, side: int, rng: np.random.Generator,
                  greys: Mapping[str, GreyLevels]) -> LabelledImage:  # fmt: skip
    labelled, kind = sets[index][int(rng.integers(len(sets[index])))], image_kind_of(sets[index][0].info)
    shrink = side / min(labelled.image.shape[:2])
    if rng.random() < HOME_SHARE:
        view = augmented_image(labelled, side, rng, shrink=shrink)
    else:
        alike = [images for images in sets if image_kind_of(images[0].info) == kind]
        source = alike[int(rng.integers(len(alike)))]
        other = source[int(rng.integers(len(source)))].image
        view = view_elsewhere(labelled, side, rng, other, shrink)
    if rng.random() < UNSCALED_SHARE:
        return view
    return replace(view, image=scale_greys(view.image, greys.get(kind or "")))


def image_tensor(images: Sequence[LabelledImage]) -> torch.Tensor:
    """Images of one size as (B, 3, R, R) in [-1, 1]."""
    return images_to_tensor(np.stack([one.image for one in images]))


def sample_query(labelled: LabelledImage, own: bool, rng: np.random.Generator) -> Query:
    """One sentence and its mask: about something labelled here, or if not `own` sometimes about something absent, or
    about a neighbour, which is surely not where something else is labelled.

    An empty sentence stands for whatever the dataset labels first, so that no text is a fair comparison.
    """
    draw, masks = 0.0 if own else rng.random(), labelled.masks
    absent, neighbours = absent_targets(labelled.info), neighbouring_targets(labelled.info)
    if neighbours and draw > 1 - NEIGHBOUR_SHARE:
        elsewhere = np.logical_or.reduce(list(masks.values()))
        if elsewhere.any():
            text = compose_sentence(neighbours[rng.integers(len(neighbours))], rng)
            return Query(text, np.zeros_like(elsewhere), elsewhere)
    if draw < 0.35 or not absent:
        phrase = list(masks)[rng.integers(len(masks))]
        return Query(compose_sentence(targets_of(labelled.info)[phrase], rng), masks[phrase], labelled.known)
    if draw < 0.45:
        return Query("", masks[next(iter(masks))], labelled.known)
    target = absent[rng.integers(len(absent))]
    return Query(compose_sentence(target, rng), np.zeros(labelled.image.shape[:2], dtype=bool))


def augmented_image(
    labelled: LabelledImage, resolution: int, rng: np.random.Generator, upright: bool = False, shrink: float = 1.0
) -> LabelledImage:
    """Turn, stretch, shift, mirror where sides mean nothing, and change brightness, contrast and gamma; `upright`,
    where a sentence speaks of sides, keeps them. `shrink` is how much smaller all is drawn.
    """
    kind = None if upright else image_kind_of(labelled.info)
    angle = rng.uniform(-180, 180) if rng.random() < ROTATED.get(kind or "", 0) else rng.normal(0, 5)
    scale = rng.uniform(0.85, 1.25) * rng.uniform(0.94, 1.06, 2)
    if not upright and may_mirror(labelled.info) and rng.random() < 0.5:
        scale[0] *= -1
    matrix = _warp(labelled.image.shape[:2], resolution, np.deg2rad(angle), scale, rng, shrink)
    size = (resolution, resolution)
    image = cv2.warpAffine(_antialiased(labelled.image, shrink), matrix, size, flags=cv2.INTER_LINEAR)
    masks = {phrase: cv2.warpAffine(mask.astype(np.uint8), matrix, size, flags=cv2.INTER_NEAREST).astype(bool)
             for phrase, mask in labelled.masks.items()}  # fmt: skip
    return LabelledImage(_jittered_colour(image, rng), masks, labelled.info)


def view_elsewhere(
    labelled: LabelledImage,
    resolution: int,
    rng: np.random.Generator,
    other: np.ndarray | None = None,
    shrink: float = 1.0,
) -> LabelledImage:
    """The same R x R as another hospital would have made it: half as near to two and a half times, with a black rim or
    a mirrored one beyond the image, turned, and with another appearance (`change_appearance`, to which `other` of the
    same kind may lend its greys). `shrink` is how much smaller all is drawn.
    """
    kind = image_kind_of(labelled.info) or ""
    zoomed = rng.random() < ZOOMED_SHARE
    zoom = np.exp(rng.uniform(*np.log(ZOOMS))) if zoomed else rng.uniform(0.85, 1.25)
    angle = rng.uniform(-180, 180) if rng.random() < ROTATED.get(kind, 0) else rng.normal(0, 7)
    scale = zoom * rng.uniform(0.92, 1.08, 2)
    if may_mirror(labelled.info) and rng.random() < 0.5:
        scale[0] *= -1
    centre = _labelled_place(labelled, rng) if zoom > 1.25 and rng.random() < CENTRED_SHARE else None
    matrix = _warp(labelled.image.shape[:2], resolution, np.deg2rad(angle), scale, rng, shrink, centre)
    mirrored = rng.random() < MIRRORED_SHARE.get(kind, 0.35)
    border = cv2.BORDER_REFLECT_101 if mirrored else cv2.BORDER_CONSTANT

    def warped(mask: np.ndarray, border: int) -> np.ndarray:
        values, size = mask.astype(np.uint8), (resolution, resolution)
        return cv2.warpAffine(values, matrix, size, flags=cv2.INTER_NEAREST, borderMode=border).astype(bool)

    masks = {phrase: warped(mask, border) for phrase, mask in labelled.masks.items()}
    # a mirrored nucleus is a nucleus; a mirrored liver would be learnt to lie on the left
    certain = not mirrored or kind == "microscopy"
    known = None if certain else warped(np.ones(labelled.image.shape[:2]), cv2.BORDER_CONSTANT)
    image = _antialiased(labelled.image, float(zoom) * shrink)
    image = cv2.warpAffine(image, matrix, (resolution, resolution), flags=cv2.INTER_LINEAR, borderMode=border)
    return LabelledImage(change_appearance(image, kind, other, rng), masks, labelled.info, known)


def _labelled_place(labelled: LabelledImage, rng: np.random.Generator) -> np.ndarray | None:
    """(x, y) of a pixel of one of the masks, None where all are empty."""
    shown = [mask for mask in labelled.masks.values() if mask.any()]
    if not shown:
        return None
    places = np.argwhere(shown[int(rng.integers(len(shown)))])
    return places[int(rng.integers(len(places)))][::-1].astype(float)


def _antialiased(image: np.ndarray, scale: float) -> np.ndarray:
    """Without what is finer than the pixels of an image drawn at `scale`."""
    return cv2.GaussianBlur(image, (0, 0), 0.4 / scale) if scale < 0.9 else image


def _warp(shape: tuple[int, int], side: int, angle: float, scale: np.ndarray, rng: np.random.Generator,
          shrink: float = 1.0, centre: np.ndarray | None = None) -> np.ndarray:  # fmt: skip
    """Source (x, y) to target (x, y) of a `side` square, 2 x 3, `scale` as large and all of it `shrink` as large again;
    `centre` (x, y) comes to its middle, by default some place near that of the source."""
    height, width = shape
    seen = side / shrink
    spread = np.array([width - seen, height - seen]) / 2 + 0.06 * seen
    if centre is None:
        centre = np.array([width, height]) / 2 + rng.uniform(-1, 1, 2) * spread
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * (shrink * scale[:, None])
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
