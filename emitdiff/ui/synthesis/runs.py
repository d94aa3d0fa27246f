"""State of the synthesis runs of one source: gallery tiles, progress and files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.files import write_png
from emitdiff.images import overlay
from emitdiff.provenance import save_synthetic_png
from emitdiff.synthesis_settings import MaskEdit
from emitdiff.ui.archive import folder_of, save_archive, save_result
from emitdiff.ui.form import fill_form
from emitdiff.ui.interface import SynthesisRequest
from emitdiff.ui.messages import duration, sentence
from emitdiff.ui.results import SamplingStep, SyntheticImage, is_image
from emitdiff.ui.source import at_view_size

PREVIEW_INTERVAL = 0.5  # seconds between pictures sent while one is being made
SQUARE = (256, 256)  # of a tile that waits for what is generated from text alone
MAX_IMAGES = 24  # images of one run with all its variations
DROPPED = "Dropped, "  # the tile of what is left out of the download is dimmed by this beginning


@dataclass(eq=False)
class GeneratedImage:
    """One finished image with its file, the request it was generated with and what was said of it since."""

    result: SyntheticImage
    path: Path
    request: SynthesisRequest
    parent: int | None = None  # seed of the synthetic image this is a variation of
    scores: dict[str, float] = field(default_factory=dict)
    kept: bool = True
    unmeasurable: bool = False

    @property
    def edited(self) -> bool:
        """Whether the mask was moved, turned, scaled or deformed."""
        edit = self.request.settings.edit
        return edit is not None and not edit.changes_nothing

    @property
    def caption(self) -> str:
        parts = [f"seed {self.result.seed}"]
        if self.parent is not None:
            parts.append(f"of {self.parent}")
        if self.scores:
            parts += [f"edges {self.scores['edge_f1']:.2f}", f"MS-SSIM {self.scores['ms_ssim']:.2f}"]
        return ("" if self.kept else DROPPED) + ", ".join(parts)


@dataclass(eq=False)
class Run:
    """What was made from one source; `folder` is its own temporary folder and goes with it.

    `request` is that of the images being made, which follow the `first` of `images`.
    """

    request: SynthesisRequest
    source: np.ndarray | None  # the real image and its mask, where they are given
    label: np.ndarray | None
    stem: str
    warnings: tuple[str, ...] = ()  # what is said of the file of the source
    folder: Path = field(init=False)
    started: float = field(default_factory=time.monotonic)
    images: list[GeneratedImage] = field(default_factory=list)
    first: int = 0
    parent: GeneratedImage | None = None
    running: bool = True
    outlines: bool = False  # of the labels, on the tiles
    large: int | None = None  # index of the image that fills the box
    finished: float | None = None
    steps_done: int = 0
    steps_total: int = 0
    preview: np.ndarray | None = None
    first_step: float | None = None
    shown: float = 0.0
    holders: int = 1  # sessions that show it
    background: Any = None  # the BackgroundRun that makes, or has made, the last of the images

    def __post_init__(self) -> None:
        self.folder = folder_of(self)

    @property
    def results(self) -> list[SyntheticImage]:
        return [made.result for made in self.images]

    def vary(self, parent: GeneratedImage, seed: int, count: int) -> None:
        """From now on `count` variations of `parent` are made: its settings, other seeds, its own edges and label.

        Raises EmitDiffError where they would be too many.
        """
        if len(self.images) + count > MAX_IMAGES:
            raise EmitDiffError(
                f"There are {len(self.images)} images; {count} more would exceed the limit of {MAX_IMAGES}: set the "
                "number of images lower, or download these and press Generate."
            )
        # The label it comes with is the edited mask already.
        settings = parent.request.settings.replace(num_images=count, seed=seed, edit=MaskEdit())
        self.request = replace(parent.request, settings=settings)
        self.parent, self.first, self.running = parent, len(self.images), True
        self.started, self.first_step, self.finished = time.monotonic(), None, None
        self.steps_done = self.steps_total = 0

    def add_event(self, event: SamplingStep | SyntheticImage) -> bool:
        """Takes in a step or a finished image; True when the gallery has something new to show."""
        now = time.monotonic()
        if is_image(event):
            self._add_image(event)
            return True
        self.first_step = self.first_step or now
        self.steps_done = event.image_index * event.steps + event.step
        self.steps_total = self.request.settings.num_images * event.steps
        if event.preview is None or now - self.shown < PREVIEW_INTERVAL:
            return False
        self.preview, self.shown = event.preview, now
        return True

    def _add_image(self, result: SyntheticImage) -> None:
        parent = None
        if self.parent is not None:
            parent = self.parent.result.seed
            result = replace(result, settings={**result.settings, "variation_of": self.parent.path.name})
        if self.warnings:
            result = replace(result, settings={**result.settings, "warnings": list(self.warnings)})
        path = save_result(result, len(self.images), self.stem, self.folder)
        self.images.append(GeneratedImage(result, path, self.request, parent))
        self.preview = None

    def measure(self, quality: Callable[[np.ndarray, np.ndarray], dict[str, float]]) -> bool:
        """Compares the last image with the real one; True when that gave scores."""
        made = self.images[-1] if self.images else None
        if made is None or made.scores or self.source is None or made.unmeasurable:
            return False
        try:
            made.scores = quality(self.source, made.result.image)
        except Exception as error:  # too small to compare, or worse: the image counts, not its scores
            made.unmeasurable = bool(sentence(error))
        return bool(made.scores)

    def tiles(self) -> list[tuple[Any, str]]:
        """The gallery: finished images; during a run also the one being made and an empty tile for each to come."""
        tiles: list[tuple[Any, str]] = [
            (str(self.outlined(made) if self.outlines else made.path), made.caption) for made in self.images
        ]
        for index in range(len(tiles) - self.first, self.request.settings.num_images if self.running else 0):
            being_made = self.first + index == len(self.images) and self.preview is not None
            seed = self.request.settings.seed + index
            tiles.append((self.preview if being_made else self._empty(), f"seed {seed} ..."))
        return tiles

    def outlined(self, made: GeneratedImage) -> Path:
        """The file of the image with the outline of its label, large enough for a fine line; without one the image."""
        if made.result.mask is None:
            return made.path
        path = self.folder / "outlined" / made.path.name
        if not path.exists():
            drawn = overlay(at_view_size(made.result.image), at_view_size(made.result.mask), 0.0)
            save_synthetic_png(drawn, path, {**made.result.settings, "outlined": True})
        return path

    def _empty(self) -> np.ndarray:
        given = self.label if self.source is None else self.source
        return np.full((*(given.shape[:2] if given is not None else SQUARE), 3), 24, np.uint8)

    @property
    def fraction(self) -> float:
        return self.steps_done / self.steps_total if self.steps_total else 0.0

    @property
    def words(self) -> str:
        """ "Image 2 of 4, step 5 of 20, 4.6 steps a second, about 12 s left"."""
        if not self.steps_total:
            return "Preparing. The first run after a server start loads the weights."
        steps = self.steps_total // self.request.settings.num_images
        image, step = divmod(max(self.steps_done - 1, 0), steps)
        kind = "Image" if self.parent is None else "Variation"
        text = f"{kind} {image + 1} of {self.request.settings.num_images}, step {step + 1} of {steps}"
        elapsed = time.monotonic() - (self.first_step or self.started)
        if self.steps_done < 3 or not elapsed:
            return text
        rate = self.steps_done / elapsed
        speed = f"{rate:.1f} steps a second" if rate >= 1 else f"{1 / rate:.1f} s a step"
        return f"{text}, {speed}, about {duration((self.steps_total - self.steps_done) / rate)} left"

    def summary(self, stopped: bool) -> str:
        """The line that stays when the run is over."""
        made, wanted = len(self.images) - self.first, self.request.settings.num_images
        kind = "synthetic image" if self.parent is None else "variation"
        images = f"{made} {kind}{'s' if made != 1 else ''}"
        if stopped and made < wanted:
            if not made:
                return f"Stopped before {'an image' if self.parent is None else 'a variation'} was finished."
            return f"Stopped: {images} of {wanted} finished and kept."
        return f"{images} in {duration((self.finished or time.monotonic()) - self.started)}. Select one to enlarge it."

    @property
    def kept(self) -> list[GeneratedImage]:
        """What goes into the download."""
        return [made for made in self.images if made.kept]

    def settings(self, index: int) -> dict[str, Any]:
        """What image `index` was generated with, by field of the form; how many are wanted is not part of it."""
        if index >= len(self.images):
            return {}
        made = self.images[index]
        return {
            name: value for name, value in {**fill_form(made.request), "seed": made.result.seed}.items()
            if name != "num_images"
        }  # fmt: skip

    def label_file(self, index: int) -> Path | None:
        """A PNG of the class ids that image `index` was made for, None where there are none."""
        made = self.images[index]
        if made.result.mask is None:
            return None
        path = self.folder / "labels" / f"{made.path.stem}_mask.png"
        path.parent.mkdir(exist_ok=True)
        return write_png(path, made.result.mask.astype(np.uint8))

    def archive(self) -> Path | None:
        """The ZIP of what was finished and kept; None when nothing was."""
        kept = self.kept
        if not kept:
            return None
        return save_archive(
            [made.result for made in kept], [made.path for made in kept], self.stem, self.folder,
            [made.scores for made in kept], self.warnings,
        )  # fmt: skip

    def remove(self) -> None:
        """A session does not need it any more; the files go with the last one."""
        self.holders -= 1
        if self.holders > 0:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
