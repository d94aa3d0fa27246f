"""A sheet of real images beside what is generated from their edges and from their masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emitdiff.images import fitted_size, resize_image, resize_mask
from emitdiff.synthesis.pipeline import SynthesisPipeline
from emitdiff.synthesis.prompts import prompt_of
from emitdiff.synthesis.training.corpus import Item
from emitdiff.synthesis_settings import SynthesisSettings


def contact_sheet(pipeline: SynthesisPipeline, items: Sequence[Item], tile: int = 192) -> np.ndarray:
    """One row per item: real, control image, generated from edges and mask, generated from the mask alone; uint8
    RGB."""
    rows = []
    for item in items:
        size = fitted_size(item.mask.shape, pipeline.checkpoint_card.area, pipeline.checkpoint_card.multiple)
        image, mask = resize_image(item.image, size), resize_mask(item.mask, size)
        prompt = prompt_of(item.info, mask, item.finding)
        settings = SynthesisSettings(prompt, num_images=1, num_inference_steps=12)
        full = pipeline(image, mask, settings)[0].image
        free = pipeline(None, mask, settings)[0].image
        tiles = [image, pipeline.control_image(image, mask), full, free]
        rows.append(np.concatenate([resize_image(picture, (tile, tile)) for picture in tiles], axis=1))
    half = (len(rows) + 1) // 2
    while len(rows) < 2 * half:
        rows.append(np.zeros_like(rows[0]))
    return np.concatenate([np.concatenate(rows[:half]), np.concatenate(rows[half:])], axis=1)
