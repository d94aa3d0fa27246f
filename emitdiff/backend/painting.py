"""Painting for the page and the endpoints: in this process, or on ZeroGPU in the one that is lent a card.

Weights are read in the process that serves, and moved onto the card by the one that is forked from it: visitors choose
them, so they are not known when the Space starts. A process that is lent the card again has them there already.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from emitdiff import zero_gpu
from emitdiff.backend.pipelines import MAX_LOADED, network_lock, synthesizer, synthesizer_for
from emitdiff.synthesis_settings import SynthesisSettings
from emitdiff.ui.interface import SynthesisRequest

if TYPE_CHECKING:
    from emitdiff.synthesis.pipeline import SynthesisPipeline

# Seconds on the card, estimated generously: what is not used is not charged, but a run that takes longer is ended.
TO_BEGIN = 15.0  # to fork, to move 3 GB of weights and to import
A_STEP = 0.15  # of 512 x 512 pixels with ControlNet, guidance and now and then a preview
AN_IMAGE = 1.0  # to encode the text, to decode and to send
LONGEST = 120.0  # a visitor who is not logged in has as much for a day

_read: WeakValueDictionary[str, SynthesisPipeline] = WeakValueDictionary()  # in this process, or in that it forked from

if zero_gpu.is_here():  # a process that is forked while a thread imports or builds would wait for that thread for ever
    os.register_at_fork(
        before=network_lock.acquire, after_in_parent=network_lock.release, after_in_child=network_lock.release
    )


def paint(
    image: np.ndarray | None, mask: np.ndarray | None, request: SynthesisRequest, cancelled: Callable[[], bool]
) -> Iterator[Any]:
    """Steps and images as they come; ends early, between two steps, once `cancelled()` is true."""
    if not zero_gpu.is_here():
        return synthesizer(request.checkpoint).stream(image, mask, request.settings, cancelled=cancelled)
    return _paint_on_lent_card(image, mask, request, cancelled)


def _paint_on_lent_card(image: Any, mask: Any, request: SynthesisRequest, cancelled: Any) -> Iterator[Any]:
    from emitdiff.synthesis.sampling import resolve

    pipeline = _read[request.checkpoint] = synthesizer_for(request.checkpoint, zero_gpu.CARD)
    settings = resolve(request.settings, pipeline.checkpoint_card)
    height, width = pipeline.control_image(image, mask, settings).shape[:2]  # what does not fit is refused here
    seconds = painting_seconds(settings.num_images, settings.num_inference_steps, height, width)
    with closing(sample_on_card(seconds, request.checkpoint, image, mask, settings)) as events:  # type: ignore[type-var]
        for event in events:
            if cancelled():
                return
            yield event


def painting_seconds(images: int, steps: int, height: int, width: int) -> float:
    """For how long to ask for the card, from `TO_BEGIN` to `LONGEST`."""
    each = AN_IMAGE + steps * A_STEP * max(height * width / 512**2, 0.25)
    return min(TO_BEGIN + images * each, LONGEST)


@zero_gpu.with_lent_card(lambda seconds, *_: seconds)
def sample_on_card(
    seconds: float, checkpoint: str, image: np.ndarray | None, mask: np.ndarray | None, settings: SynthesisSettings
) -> Iterator[Any]:
    """As `SynthesisPipeline.stream` of `checkpoint`, where the card is; all that crosses the border is plain data."""
    yield from _on_card(checkpoint).stream(image, mask, settings)


@lru_cache(MAX_LOADED)
def _on_card(checkpoint: str) -> SynthesisPipeline:
    """Read anew where the process is older than the reading in that it was forked from."""
    with network_lock:
        from emitdiff.synthesis.loading import place_synthesizer, read_synthesizer

        return place_synthesizer(_read.get(checkpoint) or read_synthesizer(checkpoint, zero_gpu.CARD), zero_gpu.CARD)
