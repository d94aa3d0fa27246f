"""Random views of the training images, encoded, on the device where the networks learn.

On a CPU they are made between the steps. On a GPU, whose steps are too short for that, worker processes make them all
the while, and every batch is drawn from what there is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor

from emitdiff.synthesis.edges import boundary_of, detect_edges
from emitdiff.synthesis.training.captions import AppearanceScale, ViewDescription, describe_view
from emitdiff.synthesis.training.corpus import Corpus, jitter_tone, random_view, vary_appearance
from emitdiff.synthesis.training.workers import Stream

FRESH_SHARE = 0.25  # part of the drawn views that are cut, encoded and described again, where no workers do so
POOL_SIZE = 6000
POOL_SIZE_WITH_WORKERS = 12000  # 2.7 GB on the card at 256 x 256 pixels
CHUNK = 8  # views that a worker hands over at a time
MOST_CHUNKS = 8  # that are encoded between two steps
# What is left of the control image while training, and how often.
CONDITIONS = {"all": 0.34, "strong edges": 0.1, "patches": 0.1, "mask": 0.26, "edges": 0.06, "nothing": 0.14}
# Which detector draws the edges, and how often.
DETECTORS = {"hed-mini": 0.7, "soft": 0.18, "canny": 0.12}
OTHER_APPEARANCE = 0.5  # part of the views whose appearance is varied once their edges are drawn


@dataclass
class View:
    """One encoded crop: latents (C, h, w) fp16, edges, boundary and inside uint8 (3, H, W), and its facts."""

    latents: Tensor
    control: Tensor
    description: ViewDescription


@dataclass
class ViewMaker:
    """Cuts views of `resolution` pixels from the corpus; called with a random generator, it makes `CHUNK` of them."""

    corpus: Corpus
    scale: AppearanceScale
    resolution: int

    def __call__(self, rng: np.random.Generator, count: int = CHUNK) -> tuple[Tensor, Tensor, list[ViewDescription]]:
        """Images uint8 (count, H, W, 3), control uint8 (count, 3, H, W), and their facts."""
        images, controls, facts = [], [], []
        for item in self.corpus.draw(count, rng):
            image, mask = random_view(item, self.resolution, rng, whole=0.8)
            image = jitter_tone(image, rng)
            detector = str(rng.choice(list(DETECTORS), p=list(DETECTORS.values())))
            low = rng.uniform(20, 80) if detector == "canny" else 50
            edges = detect_edges(image, detector, low, low + 70)
            # Edges show how sharp and how noisy an image is; where they do not, only the words say it, so they count.
            if rng.random() < OTHER_APPEARANCE:
                image = vary_appearance(image, rng)
            inside = (mask > 0).astype(np.uint8) * 255
            images.append(image)
            controls.append(np.stack([edges, boundary_of(mask), inside]))
            facts.append(describe_view(item, image, mask, self.scale))
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(controls)), facts


class ViewPool:
    """Random views of the corpus at one resolution; without `workers`, each is used about four times before a fresh one
    takes its place, with them, the oldest make room for new ones as these come."""

    def __init__(
        self,
        corpus: Corpus,
        autoencoder: AutoencoderTiny,
        scale: AppearanceScale,
        resolution: int,
        workers: int = 0,
        seed: int = 0,
    ):
        self.autoencoder = autoencoder
        self.make = ViewMaker(corpus, scale, resolution)
        self.views: list[View] = []
        self.size = POOL_SIZE_WITH_WORKERS if workers else POOL_SIZE
        self.stream = Stream(self.make, workers, seed, autoencoder.device) if workers else None

    def draw(self, count: int, rng: np.random.Generator) -> list[View]:
        new: list[View] = []
        if self.stream is not None:
            there = min(self.stream.waiting(), MOST_CHUNKS)
            while there > 0 or len(self.views) < 4 * count:
                self._keep(self._encode(*self.stream.next()), rng)
                there -= 1
        else:
            fresh = count if len(self.views) < 4 * count else int(rng.binomial(count, FRESH_SHARE))
            new = self._encode(*self.make(rng, fresh)) if fresh else []
        old = (
            [self.views[index] for index in rng.integers(len(self.views), size=count - len(new))] if self.views else []
        )
        self._keep(new, rng)
        return new + old

    def _keep(self, new: list[View], rng: np.random.Generator) -> None:
        for view in new:
            if len(self.views) < self.size:
                self.views.append(view)
            else:
                self.views[int(rng.integers(self.size))] = view

    @torch.no_grad()
    def _encode(self, images: Tensor, controls: Tensor, facts: list[ViewDescription]) -> list[View]:
        device = self.autoencoder.device
        pixels = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast(device.type, torch.bfloat16):
            encoded = self.autoencoder.encode(pixels).latents
        scaled = (encoded.float() * self.autoencoder.config.scaling_factor).half()
        return [
            View(latents, control, fact)
            for latents, control, fact in zip(scaled, controls.to(device, non_blocking=True), facts, strict=True)
        ]

    def close(self) -> None:
        """Ends the workers."""
        if self.stream is not None:
            self.stream.close()


def drop_conditions(control: Tensor, rng: np.random.Generator) -> Tensor:
    """Blanks parts of float (B, 3, H, W), in place, so that each can be left out later (`CONDITIONS` says how often).

    "strong edges" takes a random floor off the edges, "patches" some cells of a 4 x 4 grid; "mask" and "edges" are what
    alone remains.
    """
    kinds = rng.choice(list(CONDITIONS), len(control), p=list(CONDITIONS.values()))[:, None, None]
    floor = np.where(kinds == "strong edges", rng.uniform(0.05, 0.9, kinds.shape), 0)
    cells = rng.random((len(control), 4, 4)) < np.where(kinds == "patches", rng.uniform(0.2, 0.9, kinds.shape), 1)
    cells &= ~np.isin(kinds, ("mask", "nothing"))

    def to_device(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(control.device, control.dtype, non_blocking=True)

    base = to_device(floor)
    kept = F.interpolate(to_device(cells)[:, None], size=control.shape[-2:])[:, 0]
    control[:, 0] = ((control[:, 0] - base) / (1 - base)).clamp(min=0) * kept
    control[:, 1:] *= to_device(~np.isin(kinds, ("edges", "nothing")))[:, None]
    return control
