"""The merging mask of EMIT-Diff: which squares of a training image are real and which synthetic."""

from __future__ import annotations

import math

import numpy as np

from emitdiff.errors import EmitDiffError


def merging_mask(height: int, width: int, patch: int, alpha: float, rng: np.random.Generator) -> np.ndarray:
    """Boolean (height, width), True where the real image is kept.

    A grid of ceil(height / patch) x ceil(width / patch) uniform draws; a square of `patch` pixels is real where its
    draw is below `alpha` in [0, 1]. `patch` = 1 decides per pixel, `patch` >= both sides per image. The paper takes
    patch 64 and alpha 0.6 at 384 x 384 (EMIT-Diff, section on the merging mask). Squares at the right and lower
    border are cut where the patch does not divide the side.

    Raises:
        EmitDiffError: a patch below 1, or alpha outside [0, 1].
    """
    if patch < 1:
        raise EmitDiffError(f"The patch of the merging mask was {patch} pixels; give a whole number from 1 on.")
    if not 0 <= alpha <= 1:
        raise EmitDiffError(f"The share of real squares, alpha, was {alpha:g}; give a number from 0 to 1.")
    squares = rng.random((math.ceil(height / patch), math.ceil(width / patch))) < alpha
    return np.kron(squares, np.ones((patch, patch), dtype=bool))[:height, :width]
