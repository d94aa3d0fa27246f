"""Pictures to teach a small edge detector with: views of training images, and pictures that a program draws."""

from __future__ import annotations

import numpy as np

from emitdiff.images import resize_image, to_rgb
from emitdiff.synthesis.training.corpus import Corpus, Item, jitter_tone
from emitdiff.synthesis.training.drawn_views import coloured, drawn_picture

DRAWN = 0.3  # part of the views that a program draws
ENLARGED = 0.3  # part of the views of images that show them larger, as a network with a larger working size sees them
COLOURED = 0.35  # part of the views that are given colour; the images are mostly grey


def teaching_view(corpus: Corpus, side: int, rng: np.random.Generator) -> np.ndarray:
    """One picture, uint8 (side, side, 3), upright or turned or mirrored: an edge is an edge in any direction."""
    if rng.random() < DRAWN:
        view = drawn_picture(side, rng)
    else:
        view = jitter_tone(image_view(corpus.draw(1, rng)[0], side, rng), rng)
    if rng.random() < COLOURED:
        view = coloured(view, rng)
    view = np.rot90(view, int(rng.integers(4)))
    return np.ascontiguousarray(view[:, ::-1] if rng.random() < 0.5 else view)


def image_view(item: Item, side: int, rng: np.random.Generator) -> np.ndarray:
    """A square of `side` pixels cut from the image at its own scale, nearly all of it made small, or enlarged."""
    height, width = item.image.shape[:2]
    scale = side / min(height, width)  # shows the whole short side
    if rng.random() < ENLARGED:
        scale = max(scale, rng.uniform(1.2, 2.2))
    else:
        scale *= rng.uniform(1.0, 1.3)
    shape = max(side, round(height * scale)), max(side, round(width * scale))
    top, left = rng.integers(shape[0] - side + 1), rng.integers(shape[1] - side + 1)
    return to_rgb(resize_image(item.image, shape)[top : top + side, left : left + side])
