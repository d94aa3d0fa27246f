"""Random views of a user's own images for fine-tuning: turned, scaled, described and stripped of some conditions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from emitdiff.datasets.folder import DatasetFolder, open_dataset
from emitdiff.datasets.splits import choose_rows, split_by_group
from emitdiff.errors import EmitDiffError
from emitdiff.images import image_to_tensor, resize_image, resize_mask
from emitdiff.synthesis.card import CheckpointCard
from emitdiff.synthesis.edges import boundary_of, detect_edges, is_network
from emitdiff.synthesis.training.captions import APPEARANCE_WORDS, AppearanceScale, caption, describe_view
from emitdiff.synthesis.training.corpus import Item
from emitdiff.synthesis.training.denoiser import DROP_TEXT
from emitdiff.synthesis.training.views import drop_conditions

# EMIT-Diff's second stage (arXiv 2310.12868): degrees, and parts of the size at which the image just fills the view.
ROTATION = 20.0
SCALE = (0.75, 1.05)
MEASURED = 200  # images at most whose appearance decides what "dark" means for a modality


def split_datasets(
    folders: Sequence[Path], held_out: float, seed: int
) -> tuple[list[DatasetFolder], list[DatasetFolder], list[str]]:
    """(to train on, held out, names of those with nothing held out) of dataset folders, split by group.

    Nothing is held out where `held_out` is 0 or a dataset has one group only. Raises EmitDiffError.
    """
    if not folders:
        raise EmitDiffError("No dataset folder was given; name at least one, for example my_dataset/.")
    if not 0 <= held_out < 1:
        raise EmitDiffError(f"The part to hold out was {held_out:g}; give a number from 0 to below 1, for example 0.2.")
    train, kept, whole = [], [], []
    for dataset in map(open_dataset, folders):
        if held_out == 0 or len(set(dataset.groups)) < 2:
            train.append(dataset)
            whole.append(dataset.info.name)
        else:
            first, second = split_by_group(dataset, held_out, seed)
            train.append(first)
            kept.append(second)
    return train, kept, whole


def read_item(dataset: DatasetFolder, index: int) -> Item:
    """One row of a dataset, read from disk."""
    sample = dataset[index]
    return Item(sample.image, sample.mask, dataset.info, sample.finding, sample.name)


def appearance_scale(datasets: Sequence[DatasetFolder], taught: dict) -> AppearanceScale:
    """What "dark" means for each modality: as the checkpoint was `taught`, else as measured on these images."""
    quartiles = {name: rows for name, rows in taught.items() if set(rows) == set(APPEARANCE_WORDS)}
    unknown = [dataset for dataset in datasets if dataset.info.modality not in quartiles]
    chosen = [choose_rows(dataset, limit=MEASURED) for dataset in unknown]
    items = [read_item(dataset, index) for dataset in chosen for index in range(len(dataset))]
    return AppearanceScale({**quartiles, **AppearanceScale.from_items(items).quartiles})


def random_view_of(
    image: np.ndarray, mask: np.ndarray, side: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(image, mask, inside, matrix): a square view of `side` pixels, turned by up to `ROTATION`, scaled by `SCALE`.

    Scale 1 brings the image's short side to `side`. Beyond its rim image and mask are mirrored, and `inside`, uint8
    (side, side), is 0 there and 1 elsewhere. `matrix` (2, 3) takes coordinates of the image at scale 1 to the view's.
    """
    height, width = mask.shape
    fit, scale = side / min(height, width), rng.uniform(*SCALE)
    shape = round(height * fit * scale), round(width * fit * scale)
    rooms = [max(0, length - side) / 2 for length in shape[::-1]]
    centre = [(length - 1) / 2 for length in shape[::-1]]
    turn = cv2.getRotationMatrix2D(centre, rng.uniform(-ROTATION, ROTATION), 1.0)
    turn[:, 2] += [(side - 1) / 2 - mid + rng.uniform(-room, room) for mid, room in zip(centre, rooms, strict=True)]

    def warp(array: np.ndarray, how: int, beyond: int) -> np.ndarray:
        return cv2.warpAffine(array, turn, (side, side), flags=how, borderMode=beyond)

    seen = warp(resize_image(image, shape), cv2.INTER_CUBIC, cv2.BORDER_REFLECT_101)
    labels = warp(resize_mask(mask, shape), cv2.INTER_NEAREST, cv2.BORDER_REFLECT_101)
    inside = warp(np.ones(shape, np.uint8), cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
    return seen, labels, inside, turn @ np.diag([scale, scale, 1.0])


class FineTuningViews(Dataset):
    """An endless row of views; view number k is the same whenever and wherever it is asked for.

    So training goes on after a kill exactly where it was, and several processes share one row. Every image comes once
    in as many views as there are images. A view holds

    * `image` float (3, side, side) in [-1, 1];
    * `control` float (3, side, side) in [0, 1], as the checkpoint's card wants it, some conditions left out;
    * `inside` float (1, side, side), 0 beyond the image's rim: there is nothing to learn;
    * `caption`, "" now and then; and `seed`, from which noise and timestep follow.
    """

    def __init__(
        self, datasets: Sequence[DatasetFolder], side: int, card: CheckpointCard, scale: AppearanceScale, seed: int
    ):
        self.side, self.card, self.scale, self.seed = side, card, scale, seed
        self.rows = [(dataset, index) for dataset in datasets for index in range(len(dataset))]
        self._order = lru_cache(maxsize=2)(self._shuffled)
        self._hed: dict[Any, np.ndarray] = {}

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_order": self._shuffled}  # a cache cannot be handed to a worker that is spawned

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.rows))

    def __getitem__(self, number: int) -> dict:
        epoch, place = divmod(number, len(self.rows))
        row = int(self._order(epoch)[place])
        rng = np.random.default_rng([self.seed, 1, number])
        item = read_item(*self.rows[row])
        image, mask, inside, matrix = random_view_of(item.image, item.mask, self.side, rng)
        edges = self._edges(row, item.image, image, matrix)
        layers = np.stack([edges, boundary_of(mask), (mask > 0).astype(np.uint8) * 255])
        words = "" if rng.random() < DROP_TEXT else caption(describe_view(item, image, mask * inside, self.scale), rng)
        return {
            "image": image_to_tensor(image)[0],
            "control": self._control(torch.from_numpy(layers)[None].float() / 255, rng),
            "inside": torch.from_numpy(inside)[None].float(),
            "caption": words,
            "seed": int(rng.integers(2**62)),
        }

    def _control(self, layers: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """(1, 3, H, W) edges, boundary and inside to (3, H, W) in the checkpoint's layout (see edges.py)."""
        layers = drop_conditions(layers, rng)[0]
        if self.card.control_layout == "layered":
            return layers
        return layers[:2].amax(0, keepdim=True).repeat(3, 1, 1)

    def _edges(self, row: int, source: np.ndarray, view: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Edges of the view. A network runs once an image, and its edges are turned along."""
        if not is_network(self.card.detector):
            return detect_edges(view, self.card.detector)
        if row not in self._hed:
            fit = self.side / min(source.shape[:2])
            shape = tuple(round(length * fit) for length in source.shape[:2])
            self._hed[row] = detect_edges(resize_image(source, shape), self.card.detector)
        size = (self.side, self.side)
        return cv2.warpAffine(self._hed[row], matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
