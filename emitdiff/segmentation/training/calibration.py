"""Calibration of presence on training groups, the last thing a training does: how far to believe the presence layer and
the mask, and where "not there" ends and "found" begins."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from emitdiff.devices import choose_mixed_precision
from emitdiff.files import write_text
from emitdiff.segmentation.loading import load_segmenter
from emitdiff.segmentation.model.presence import PresenceCalibration
from emitdiff.segmentation.pipeline import SegmentationPipeline
from emitdiff.segmentation.training.examples import LabelledImage, view_elsewhere
from emitdiff.segmentation.training.presence import SLIVER
from emitdiff.segmentation.vocabulary import absent_targets

IMAGES_PER_SET = 24
REFUSALS_COUNT = 3.0  # times as much as false masks: who asks for a target mostly has it before them
MIN_KNOWN = 0.7  # part of a view that must be labelled


class Question(NamedTuple):
    """One target asked for in one view: of which set, whether it is there, and the two logits that speak for it."""

    dataset: str
    there: bool
    logits: tuple[float, float]


def calibrate_presence(sets: Sequence[Sequence[LabelledImage]], checkpoint: Path, seed: int, device: str) -> None:
    """Writes "presence" of `checkpoint`/segmenter.json, from some images of each of `sets` as they are and as other
    hospitals would have made them.

    The head has seen these masks, so the views of other hospitals count as much: they stand for what it has not seen.
    Without questions of both kinds nothing is written.
    """
    pipeline, rng = load_segmenter(str(checkpoint), device), np.random.default_rng(seed)
    asked = [question for images in tqdm(sets, desc="presence", unit="set") for question in _ask(pipeline, images, rng)]
    found = fit_calibration(asked)
    if found is not None:
        path = checkpoint / "segmenter.json"
        write_text(path, json.dumps({**json.loads(path.read_text()), "presence": asdict(found)}, indent=1) + "\n")


def fit_calibration(questions: Sequence[Question]) -> PresenceCalibration | None:
    """From what was asked; of each set those that are there count alike together, and so do those that are not. None
    where all are one or the other."""
    if len({one.there for one in questions}) < 2:
        return None
    counts = Counter((one.dataset, one.there) for one in questions)
    weights = torch.tensor([(REFUSALS_COUNT if one.there else 1) / counts[one.dataset, one.there] for one in questions])
    there = torch.tensor([one.there for one in questions])
    found = PresenceCalibration.fit(torch.tensor([one.logits for one in questions]), there, weights / weights.mean())
    probabilities = [(found.probability(*one.logits), one.there) for one in questions]
    return found.with_thresholds([p for p, there in probabilities if there],
                                 [p for p, there in probabilities if not there])  # fmt: skip


def _ask(pipeline: SegmentationPipeline, images: Sequence[LabelledImage], rng: np.random.Generator) -> list[Question]:
    """About images with and without the target, as many of both where there are, and one target of other kinds."""
    full = [one for one in images if any(mask.any() for mask in one.masks.values())]
    empty = [one for one in images if not any(mask.any() for mask in one.masks.values())]
    chosen = [group[index] for group in (full, empty) for index in rng.permutation(len(group))[:IMAGES_PER_SET]]
    questions = []
    for own in chosen:
        for view in (own, view_elsewhere(own, pipeline.resolution, rng)):
            questions += _ask_about(pipeline, view, rng)
    return questions


def _ask_about(pipeline: SegmentationPipeline, view: LabelledImage, rng: np.random.Generator) -> list[Question]:
    if view.known is not None and view.known.mean() < MIN_KNOWN:
        return []
    masks = {phrase: mask for phrase, mask in view.masks.items() if not 0 < mask.sum() < SLIVER}
    absent = absent_targets(view.info)
    phrases = [*masks, *(absent[index].phrase for index in rng.permutation(len(absent))[:1])]
    with torch.autocast(pipeline.device.type, torch.bfloat16, choose_mixed_precision(pipeline.device) == "bf16"):
        encoded = pipeline.encode(view.image)
        logits = [pipeline.presence_logits(encoded, phrase) for phrase in phrases]
    there = [phrase in masks and bool(masks[phrase].any()) for phrase in phrases]
    return [Question(view.info.name, *pair) for pair in zip(there, logits, strict=True)]
