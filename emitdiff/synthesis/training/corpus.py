"""The training images of every dataset folder, in memory, cut into crops of one size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from emitdiff.datasets.folder import DatasetInfo, open_dataset
from emitdiff.datasets.splits import split_by_group
from emitdiff.datasets.symmetry import may_mirror, may_turn
from emitdiff.errors import EmitDiffError
from emitdiff.images import resize_image, resize_mask


@dataclass(frozen=True)
class Item:
    """One training image: `image` uint8 (H, W, 3), `mask` class ids uint8 (H, W), and what its row says of it."""

    image: np.ndarray
    mask: np.ndarray
    info: DatasetInfo
    finding: str
    name: str


class Corpus:
    """Every item of every dataset, and a sampler that keeps small datasets from drowning.

    A dataset is drawn in proportion to the square root of its size, and so is each finding within it.
    """

    def __init__(self, items: list[Item]):
        self.items = items
        kinds = [(item.info.name, item.finding) for item in items]
        sizes = Counter(name for name, _ in kinds)
        roots = dict.fromkeys(sizes, 0.0)
        counts = Counter(kinds)
        for (name, _), count in counts.items():
            roots[name] += count**0.5
        weights = np.array([sizes[name] ** 0.5 / roots[name] * counts[name, kind] ** -0.5 for name, kind in kinds])
        self.weights = weights / weights.sum()

    def draw(self, count: int, rng: np.random.Generator) -> list[Item]:
        """`count` items with replacement."""
        return [self.items[index] for index in rng.choice(len(self.items), size=count, p=self.weights)]


def load_corpus(folders: Sequence[Path], held_out: float, seed: int, part: str = "train") -> Corpus:
    """Reads `part` ("train" or "held-out") of each dataset, split by group.

    Raises:
        EmitDiffError: no dataset given, or one cannot be read.
    """
    if not folders:
        raise EmitDiffError("No dataset folder was given; name at least one, for example my_dataset/.")
    items = []
    for folder in folders:
        dataset = open_dataset(folder)
        train, kept = split_by_group(dataset, held_out, seed)
        chosen = train if part == "train" else kept
        for sample in tqdm(chosen, desc=f"reading {dataset.info.name}", leave=False):
            items.append(Item(sample.image, sample.mask, dataset.info, sample.finding, sample.name))
    return Corpus(items)


def random_view(item: Item, size: int, rng: np.random.Generator, whole: float) -> tuple[np.ndarray, np.ndarray]:
    """A square crop of `size` pixels of the item's image and mask, turned and mirrored where anatomy allows.

    With probability `whole` the short side is first brought near `size`, so that the crop shows almost all of it;
    otherwise the crop is cut at the image's own scale (enlarged only where it is smaller than `size`).
    """
    height, width = item.mask.shape
    scale = size / min(height, width)
    if rng.random() < whole:
        scale *= rng.uniform(1.0, 1.15)
    else:
        scale = max(scale, rng.uniform(0.85, 1.15))
    shape = max(size, round(height * scale)), max(size, round(width * scale))
    top, left = rng.integers(shape[0] - size + 1), rng.integers(shape[1] - size + 1)
    image = resize_image(item.image, shape)[top : top + size, left : left + size]
    mask = resize_mask(item.mask, shape)[top : top + size, left : left + size]
    if may_mirror(item.info) and rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if may_turn(item.info):
        turns = int(rng.integers(4))
        image, mask = np.rot90(image, turns), np.rot90(mask, turns)
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def jitter_tone(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random contrast 0.8-1.2, brightness +-0.1 and gamma 0.8-1.25, as scanners and windows differ."""
    table = np.linspace(0, 1, 256) ** rng.uniform(0.8, 1.25)
    table = (table - 0.5) * rng.uniform(0.8, 1.2) + 0.5 + rng.uniform(-0.1, 0.1)
    return cv2.LUT(image, np.clip(table * 255, 0, 255).astype(np.uint8))


def vary_appearance(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`image` uint8 (H, W, 3) with another contrast (0.55 to 1.5), brightness (+-0.15), sharpness (blurred by up to 1.6
    pixels, or sharpened) and grain (noise of up to 0.08, of one pixel or two), each in half of the images."""
    values: np.ndarray = image.astype(np.float32) / 255
    if rng.random() < 0.5:
        centre = float(values.mean())
        values = (values - centre) * rng.uniform(0.55, 1.5) + centre + rng.uniform(-0.15, 0.15)
    if rng.random() < 0.5:
        if rng.random() < 0.5:
            values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.6, 1.6))
        else:
            values += rng.uniform(0.4, 1.5) * (values - cv2.GaussianBlur(values, (0, 0), 1.0))
    if rng.random() < 0.5:
        height, width = values.shape[:2]
        size = (height, width) if rng.random() < 0.5 else ((height + 1) // 2, (width + 1) // 2)
        noise = cv2.resize(rng.standard_normal(size, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        values += rng.uniform(0.01, 0.08) * noise[..., None]
    return (values.clip(0, 1) * 255).round().astype(np.uint8)
