"""Training images as another hospital would have made them: seen from nearer or farther, with other greys, noise,
sharpness and stains, so that what is learnt from one or two scanners holds for others.

After BigAug (Zhang et al., IEEE TMI 39:2531, 2020), SynthSeg (Billot et al., MedIA 86:102789, 2023) and nnU-Net
(Isensee et al., Nature Methods 18:203, 2021). Appearances are float32 in 0..1, (H, W) for grey images and (H, W, 3) for
coloured ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from emitdiff.segmentation.greys import is_coloured

QUANTILES = np.linspace(0, 1, 33)
INVERTIBLE = ("prostate MRI", "cardiac MRI", "microscopy", "chest x-ray")  # may be shown with black for white
WINDOWED = ("abdominal CT",)
Rng = np.random.Generator


class Change(NamedTuple):
    """`apply` (image, rng) to an image of its shape, made to this share of the views."""

    share: float
    apply: Callable[[np.ndarray, Rng], np.ndarray]


def change_appearance(image: np.ndarray, kind: str, other: np.ndarray | None, rng: Rng) -> np.ndarray:
    """uint8 (H, W, 3) of the image `kind`, as another scanner or stain would show it, same size.

    `other`, uint8 (H, W, 3) of the same kind or None, may lend its distribution of greys or colours.
    """
    coloured = is_coloured(image)
    view = image.astype(np.float32) / 255 if coloured else image[..., 0].astype(np.float32) / 255
    if other is not None and rng.random() < 0.25:
        view = match_histogram(view, other.astype(np.float32) / 255, rng.uniform(0.3, 1))
    if kind == "microscopy":
        view = change_stain(view, rng)
    for share, apply in _changes(kind):
        if rng.random() < share:
            view = apply(view, rng)
    view = np.clip(view, 0, 1)
    grey = view.ndim == 2
    levels = np.rint(view * 255).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=2) if grey else levels


def _changes(kind: str) -> list[Change]:
    """In the order in which a picture comes about: body and coil, optics, noise, reconstruction, display, file."""
    return [
        Change(0.25, add_bias_field),
        Change(0.2, blur),
        Change(0.25, add_noise),
        Change(0.15, lower_resolution),
        Change(0.3, sharpen),
        Change(0.06 if kind in INVERTIBLE else 0.0, invert_tissue),
        Change(0.8 if kind in WINDOWED else 0.5, change_window),
        Change(0.6, change_gamma),
        Change(0.08, compress),
    ]


def match_histogram(image: np.ndarray, other: np.ndarray, strength: float) -> np.ndarray:
    """`image` with its quantiles moved `strength` of the way to those of `other`; each channel by itself."""
    if image.ndim == 2:
        return _matched(image, other[..., 0], strength)
    return np.stack([_matched(image[..., k], other[..., k], strength) for k in range(3)], axis=2)


def _matched(channel: np.ndarray, other: np.ndarray, strength: float) -> np.ndarray:
    own = np.quantile(channel, QUANTILES)
    own = np.maximum.accumulate(own + np.arange(len(own)) * 1e-6)  # a border of one grey has many quantiles
    wanted = np.quantile(other, QUANTILES)
    moved = np.interp(channel, own, (1 - strength) * own + strength * wanted)
    return moved.astype(np.float32)


def change_gamma(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Darker or brighter middle greys: gamma log-normal with a spread of 0.35."""
    return np.clip(image, 0, 1) ** np.float32(np.exp(np.clip(rng.normal(0, 0.35), -0.9, 0.9)))


def change_window(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Other greys for black and white: narrower windows clip both ends, wider ones leave neither."""
    black, white = rng.uniform(-0.25, 0.15), rng.uniform(0.6, 1.4)
    return np.clip((image - black) / (white - black), 0, 1).astype(np.float32)


def invert_tissue(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Bright for dark where there is tissue; a black background stays black half of the time."""
    if image.ndim == 3 or rng.random() < 0.5:
        return 1 - image
    tissue = image > image.min() + 0.04
    if not tissue.any():
        return image
    low, high = image[tissue].min(), image[tissue].max()
    return np.where(tissue, low + high - image, image).astype(np.float32)


def add_bias_field(image: np.ndarray, rng: Rng) -> np.ndarray:
    """A slow change of brightness over the image, as of a coil, an uneven beam or illumination: up to about e^0.6."""
    coarse = rng.normal(0, 0.3, (4, 4)).astype(np.float32)
    field = cv2.resize(coarse, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return image * np.exp(field if image.ndim == 2 else field[..., None])


def blur(image: np.ndarray, rng: Rng) -> np.ndarray:
    """A Gaussian of 0.4 to 1.8 pixels."""
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.8))


def sharpen(image: np.ndarray, rng: Rng) -> np.ndarray:
    """An unsharp mask, as newer scanners and their software leave it."""
    soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.8, 2))
    return image + np.float32(rng.uniform(0.5, 2)) * (image - soft)


def add_noise(image: np.ndarray, rng: Rng) -> np.ndarray:
    """One of: added, as of receivers; multiplied, as speckle; of counted photons; correlated over some pixels."""
    noise = rng.standard_normal(image.shape[:2], dtype=np.float32)
    noise = noise if image.ndim == 2 else noise[..., None]
    amount = np.float32(rng.uniform(0.01, 0.08))
    choice = int(rng.integers(4))
    if choice == 0:
        return image + amount * noise
    if choice == 1:
        return image * (1 + 3 * amount * noise)
    if choice == 2:
        return image + amount * np.sqrt(np.clip(image, 0, 1)) * noise
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.2) * 3
    return image + amount * (smooth if image.ndim == 2 else smooth[..., None])


def lower_resolution(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Fewer pixels, grown again: 0.35 to 0.8 of a side."""
    factor = rng.uniform(0.35, 0.8)
    small = tuple(max(8, round(side * factor)) for side in image.shape[1::-1])
    grown = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(2))]
    return cv2.resize(cv2.resize(image, small, interpolation=cv2.INTER_AREA), image.shape[1::-1], interpolation=grown)


def compress(image: np.ndarray, rng: Rng) -> np.ndarray:
    """JPEG of quality 25 to 80."""
    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    _, file = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 81))])
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_UNCHANGED), np.float32) / 255


def change_stain(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Microscopy in other colours: stained as tissue is, with every channel's optical density scaled (Beer-Lambert),
    the channels exchanged, or none at all."""
    draw = rng.random()
    if image.ndim == 2:
        return stained_tissue(image, rng) if draw < 0.35 else image
    density = -np.log(np.clip(image, 1 / 256, 1)) * rng.uniform(0.5, 1.6, 3).astype(np.float32)
    image = np.exp(-density - rng.uniform(-0.08, 0.08, 3)).astype(np.float32)
    if draw < 0.2:
        return np.ascontiguousarray(image[..., rng.permutation(3)])
    return image.mean(axis=2) if draw < 0.3 else image


def stained_tissue(image: np.ndarray, rng: Rng) -> np.ndarray:
    """A grey microscopy image (H, W) painted as light that passed haematoxylin where its nuclei are, and eosin and an
    uneven ground between them: (H, W, 3)."""
    low, middle, high = np.percentile(image, (2, 50, 99))
    nuclei = np.clip((image - low) / max(high - low, 1e-3), 0, 1)[..., None]
    if middle > (low + high) / 2:  # a bright ground: brightfield, where nuclei are dark
        nuclei = 1 - nuclei
    ground = cv2.resize(rng.random((12, 12), dtype=np.float32), image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    grain = cv2.GaussianBlur(rng.standard_normal(image.shape, dtype=np.float32), (0, 0), rng.uniform(1, 3))
    ground = np.clip(ground + rng.uniform(0, 1) * grain, 0, 1.5)[..., None]
    haematoxylin = np.array([0.65, 0.70, 0.29], np.float32) * rng.uniform(0.7, 1.3, 3)  # Ruifrok and Johnston, 2001
    eosin = np.array([0.07, 0.99, 0.11], np.float32) * rng.uniform(0.7, 1.3, 3)
    density = rng.uniform(0.6, 1.8) * nuclei * haematoxylin + rng.uniform(0.1, 0.7) * ground * eosin
    return np.exp(-density).astype(np.float32)
