"""Similarity of images, and distances between their edges and histograms.

`similarity` is one number for a synthetic image and its source, for two variants, and for a sample and the training
set, so that they can be read beside one another. It looks at `VIEW` x `VIEW` pixels of grey whose mean and contrast
are taken out: an image made darker, flatter or mirrored is as similar as before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from emitdiff.datasets.folder import Sample
from emitdiff.images import resize_image, to_rgb
from emitdiff.mask_metrics import dice
from emitdiff.synthesis.edges import edge_f1, edge_ridges

# Every label of one image as (mask found, mask asked for), boolean (H, W); labels that are not in the image left out.
LabelPredictor = Callable[[Sample], Sequence[tuple[np.ndarray, np.ndarray]]]
VIEW = 128  # side of the pictures compared, whatever their aspect ratio
THUMBNAIL = 64  # side of those that decide which pairs are worth comparing
CANDIDATES = 8
# Weights of Wang et al. 2003 for the first four scales, which is what 128 pixels allow, made to sum up to 1.
SCALE_WEIGHTS = tuple(weight / 0.8667 for weight in (0.0448, 0.2856, 0.3001, 0.2363))
SHORT_SIDE = 256  # edges are compared at this size, within EDGE_TOLERANCE pixels
EDGE_TOLERANCE = 2


@dataclass(frozen=True)
class Match:
    """The most similar of some images: its place among them, and whether it is more alike when mirrored."""

    similarity: float
    index: int
    mirrored: bool = False


def comparison_view(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) to what is compared: grey uint8 (VIEW, VIEW) of mean 127 and standard deviation 51 (clipped)."""
    grey = cv2.cvtColor(to_rgb(image), cv2.COLOR_RGB2GRAY)
    values = resize_image(grey, (VIEW, VIEW)).astype(np.float32)
    values = (values - values.mean()) / max(float(values.std()), 1.0)
    return np.clip(np.rint(127.5 + 51 * values), 0, 255).astype(np.uint8)


class Gallery:
    """Views of images among which the most similar to others are sought; mirrored ones are found too.

    Two stages: the correlation of thumbnails with all by one matrix product, then MS-SSIM with the `CANDIDATES` best.
    """

    def __init__(self, views: np.ndarray):
        """`views` uint8 (N, VIEW, VIEW), N at least 1, each made by `comparison_view`."""
        self.views = np.asarray(views)
        both = np.concatenate([self.views, self.views[:, :, ::-1]])
        self._thumbnails = thumbnails(both)

    def nearest(self, view: np.ndarray) -> Match:
        """The image most similar to `view`, uint8 (VIEW, VIEW), by MS-SSIM."""
        count = len(self.views)
        best = np.argsort(-(self._thumbnails @ thumbnails(view[None])[0]))[:CANDIDATES]
        found = np.stack([self.views[i % count][:, ::-1] if i >= count else self.views[i] for i in best])
        scores = ms_ssim(np.broadcast_to(view, found.shape), found)
        top = int(scores.argmax())
        return Match(float(scores[top]), int(best[top] % count), bool(best[top] >= count))


def thumbnails(views: np.ndarray) -> np.ndarray:
    """uint8 (N, VIEW, VIEW) to float32 (N, THUMBNAIL squared) of mean 0 and length 1: dot products are correlations."""
    small = np.stack([cv2.resize(view, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA) for view in views])
    flat = small.reshape(len(views), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def ms_ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """MS-SSIM (Wang et al. 2003, four scales) of each pair of uint8 (N, VIEW, VIEW), float (N,) of at most 1."""
    import torch
    from monai.metrics import MultiScaleSSIMMetric

    pair = [torch.from_numpy(np.array(views))[:, None].float() / 255 for views in (first, second)]
    metric = MultiScaleSSIMMetric(spatial_dims=2, weights=SCALE_WEIGHTS)
    with torch.inference_mode():
        scores: Any = metric(*pair)
        return scores.reshape(-1).nan_to_num(0.0).numpy()


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """The similarity of two images as they were seen by `comparison_view`; the higher of plain and mirrored, at most
    1."""
    return float(ms_ssim(np.stack([first, first]), np.stack([second, second[:, ::-1]])).max())


def grey_quantiles(image: np.ndarray) -> np.ndarray:
    """The grey values of uint8 (H, W, 3) at 256 equally spaced shares of its pixels, float32 (256,) in 0..255."""
    grey = cv2.cvtColor(to_rgb(image), cv2.COLOR_RGB2GRAY)
    return np.quantile(grey, (np.arange(256) + 0.5) / 256).astype(np.float32)


def histogram_distance(quantiles: np.ndarray, others: np.ndarray) -> np.ndarray:
    """1-D Wasserstein distance in grey levels of one image's `grey_quantiles` (256,) to each of (N, 256): (N,).

    The mean distance between the quantiles of two distributions is that distance: how far, on average, a pixel's grey
    would have to move to turn one histogram into the other.
    """
    return np.abs(others - quantiles).mean(1)


def edge_agreement(source: np.ndarray, synthetic: np.ndarray) -> float:
    """F1 of the one-pixel edge ridges of two uint8 (H, W, 3), both brought to a short side of 256, within 2 pixels."""
    scale = SHORT_SIDE / min(synthetic.shape[:2])
    size = tuple(round(side * scale) for side in synthetic.shape[:2])
    real, other = (edge_ridges(resize_image(to_rgb(image), size)) for image in (source, synthetic))
    return edge_f1(real, other, EDGE_TOLERANCE)


def mean_dice(predictions: Sequence[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """Mean over the labels of an image; None where it has none."""
    return float(np.mean([dice(found, truth) for found, truth in predictions])) if len(predictions) else None
