"""One run of the synthesis as the page sees it: the tiles of the gallery, how far it is, what it leaves behind."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emitdiff.ui.archive import save_archive, save_result
from emitdiff.ui.callables import SynthesisRequest
from emitdiff.ui.messages import duration

PREVIEW_INTERVAL = 0.5  # seconds between pictures sent while one is being made
SQUARE = (256, 256)  # of a tile that waits for what is painted from text alone


@dataclass(eq=False)
class Run:
    """The state of one run; `folder` is its own temporary folder and is removed with it."""

    request: SynthesisRequest
    source: np.ndarray | None  # the real image and its mask, where they are given
    label: np.ndarray | None
    stem: str
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="emitdiff_")))
    started: float = field(default_factory=time.monotonic)
    results: list[Any] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    steps_done: int = 0
    steps_total: int = 0
    preview: np.ndarray | None = None
    first_step: float | None = None
    shown: float = 0.0

    def take(self, event: Any) -> bool:
        """Takes in a step or a finished image; True when the gallery has something new to show."""
        now = time.monotonic()
        if getattr(event, "image", None) is not None:
            self.results.append(event)
            self.paths.append(save_result(event, len(self.paths), self.stem, self.folder))
            self.preview = None
            return True
        self.first_step = self.first_step or now
        self.steps_done = event.image_index * event.steps + event.step
        self.steps_total = self.request.num_images * event.steps
        if event.preview is None or now - self.shown < PREVIEW_INTERVAL:
            return False
        self.preview, self.shown = event.preview, now
        return True

    def tiles(self, waiting: bool = True) -> list[tuple[Any, str]]:
        """The gallery: finished images; while `waiting`, also the one being made and an empty tile for each to come."""
        tiles: list[tuple[Any, str]] = [
            (str(path), f"seed {result.seed}") for path, result in zip(self.paths, self.results, strict=True)
        ]
        if not waiting:
            return tiles
        for index in range(len(tiles), self.request.num_images):
            being_made = index == len(self.paths) and self.preview is not None
            tiles.append((self.preview if being_made else self._empty(), f"seed {self.request.seed + index} ..."))
        return tiles

    def _empty(self) -> np.ndarray:
        given = self.label if self.source is None else self.source
        return np.full((*(given.shape[:2] if given is not None else SQUARE), 3), 24, np.uint8)

    @property
    def fraction(self) -> float:
        return self.steps_done / self.steps_total if self.steps_total else 0.0

    @property
    def words(self) -> str:
        """ "Image 2 of 4, step 5 of 20, about 12 s left"."""
        if not self.steps_total:
            return "Preparing. The first run after a start loads the weights."
        steps = self.steps_total // self.request.num_images
        image, step = divmod(max(self.steps_done - 1, 0), steps)
        text = f"Image {image + 1} of {self.request.num_images}, step {step + 1} of {steps}"
        elapsed = time.monotonic() - (self.first_step or self.started)
        if self.steps_done < 3:
            return text
        return f"{text}, about {duration(elapsed / self.steps_done * (self.steps_total - self.steps_done))} left"

    def summary(self, stopped: bool) -> str:
        """The line that stays when the run is over."""
        made, wanted = len(self.results), self.request.num_images
        images = f"{made} synthetic image{'s' if made != 1 else ''}"
        if stopped and made < wanted:
            return (
                f"Stopped: {images} of {wanted} finished and kept." if made else "Stopped before an image was finished."
            )
        return f"{images} in {duration(time.monotonic() - self.started)}. Select one to see it large."

    def archive(self) -> Path | None:
        """The ZIP of what was finished; None when nothing was."""
        return save_archive(self.results, self.paths, self.stem, self.folder) if self.results else None

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
