"""What a training of the embedded segmenter depends on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CELL = 4  # pixels of the image a side for every position of the head, which answers CELL x CELL logits there


@dataclass(frozen=True)
class TrainSegmentation:
    """`minutes` are shared between the stages. "backbone" learns without labels; "joint" begins with the backbone in
    `out`/checkpoint and trains it together with the head; "all" is the one, then the other; "head" leaves that
    backbone as it is, as the paper does. `start` names a checkpoint whose backbone, head and words training goes on
    from; "all" is then "joint". Training again into the same `out` resumes where it stopped; the backbone may
    have learnt from other datasets than the head, but each stage goes on only as it was started.

    `batch` images at full resolution are seen at once, four times as many of half the side.
    """

    datasets: tuple[Path, ...]
    out: Path
    minutes: float = 60.0
    stage: Literal["all", "backbone", "head", "joint"] = "all"
    resolution: int = 256
    held_out: float = 0.2
    seed: int = 0
    threads: int | None = None
    batch: int = 5
    timesteps: tuple[int, ...] = (20,)
    start: str | None = None
