"""What the Dataset tab is given: a whole dataset augmented in the background, known by a name nobody can guess."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class AugmentRequest:
    """How a dataset is augmented; the field names are those of the form and of `emitdiff augment`. `segmenter` is asked
    whether the labels fit; "" for none."""

    ratio: float = 1.0
    checkpoint: str = "emitdiff-mini"
    split: str = "all"
    limit: int | None = None
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    control_strength: float | None = None
    structure: float = 1.0
    preset: str = "default"
    edit: float = 0.0
    appearance: bool = False
    include_real: bool = True
    segmenter: str = ""


@dataclass(frozen=True)
class DatasetCalls:
    """Any of them may raise `EmitDiffError`; those that take a name do so for one that is not known any more."""

    # ZIP of a dataset folder -> name of a job, checked and ready to start
    take: Callable[[str | Path], str]
    # name -> None where there is none, else stage, check (info, num_images, num_groups, classes, findings, defects),
    # usable, request, done, total, seconds_left, painted, kept, error, report and scores (files or None)
    look: Callable[[str], Any | None]
    start: Callable[[str, AugmentRequest], None]
    stop: Callable[[str], None]
    # name, how many -> the last ones painted (name, source, source_mask, image, mask), the latest first
    pairs: Callable[[str, int], list[Any]]
    # name, layout ("dataset", "nnunet", "coco", "monai", "paired"), only those the report keeps -> ZIP, sentences
    export: Callable[[str, str, bool], tuple[Path, tuple[str, ...]]]
    remove: Callable[[str], None]
