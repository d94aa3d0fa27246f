"""One run of the study: what is trained, on what, and its row."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from emitdiff.datasets.folder import DatasetFolder, open_dataset
from emitdiff.files import file_stem
from emitdiff.segmentation.evaluation import summarise
from emitdiff.studies.augmentation.folds import Fold, draw_budget, make_folds, seen_groups
from emitdiff.studies.augmentation.methods import Draw, make_batches, needs_painted
from emitdiff.studies.augmentation.painting import Paint, read_painted
from emitdiff.studies.augmentation.training import Train, measure_cases, train
from emitdiff.studies.results_table import write_table
from emitdiff.studies.unet_baseline import ImageSet, class_labels, read_pictures

KEYS = ("dataset", "network", "method", "images", "fold", "seed")
CASES = "runs"


@dataclass(frozen=True)
class Augmentation:
    """Settings of `study_augmentation`.

    `methods` are of `METHODS`, `network` of `NETWORKS`, `images` numbers of labelled images or "all" (the validation
    part is among them). Every run takes `steps` of `batch` images. `folds` as in `make_folds`, seeds are 0 to `seeds`
    - 1. `checkpoint`, `ratio`, `painted_limit` and `edit` as in `Paint`; `real_share` as in `Draw`, `validations` as
    in `Train`. `workers` processes train at once.
    """

    datasets: tuple[Path, ...]
    out: Path
    methods: tuple[str, ...] = ("none", "classical", "painted", "classical+painted", "painted-only")
    network: tuple[str, ...] = ("unet",)
    images: tuple[str, ...] = ("10", "20", "50", "all")
    folds: int = 3
    seeds: int = 3
    steps: int = 600
    batch: int = 8
    learning_rate: float = 1e-3
    resolution: int = 128
    validations: int = 10
    checkpoint: str = "emitdiff-mini"
    ratio: int = 4
    painted_limit: int = 400
    edit: float = 0.5
    real_share: float = 0.5
    tested: Literal["unseen", "all"] = "unseen"
    workers: int = 1
    json: bool = False


@dataclass(frozen=True)
class Run:
    """A network trained by a method on a budget of one fold, with one seed."""

    dataset: str
    network: str
    method: str
    images: str
    fold: int
    seed: int

    @property
    def key(self) -> tuple[str, ...]:
        """Its place in results.csv, as it is read from there."""
        return tuple(str(getattr(self, name)) for name in KEYS)

    @property
    def file(self) -> str:
        """The name of its file of cases."""
        return case_file(self.key)


def case_file(key: Sequence[str]) -> str:
    """The name of the file of cases of a run, by its place in results.csv."""
    return f"{file_stem(key[0])}-{'-'.join(key[1:])}.csv"


def folds_of(dataset: DatasetFolder, settings: Augmentation) -> list[Fold]:
    """The folds of a dataset: see `make_folds`. What the checkpoint has seen counts where something is painted."""
    seen = seen_groups(dataset.real(), settings.checkpoint)
    if settings.tested == "all" and not any(map(needs_painted, settings.methods)):
        seen = type(seen)(seen.weights, frozenset())
    return make_folds(dataset, settings.folds, seen, settings.tested)


def paint_settings(settings: Augmentation) -> Paint:
    """How the study paints."""
    return Paint(settings.checkpoint, settings.ratio, settings.painted_limit, settings.edit)


def run_one(settings: Augmentation, folder: Path, run: Run, facts: dict[str, str]) -> dict[str, Any]:
    """Trains and tests one run, writes its cases into `out`/runs, and returns its row with `facts` in it.

    Raises:
        EmitDiffError: a dataset or painted images that cannot be used.
    """
    started = time.perf_counter()
    test, test_pictures = _tested(settings, folder, run.fold)
    real, validation, sources = _budget(settings, folder, run.fold, run.images)
    painted = None
    if needs_painted(run.method):
        painted = _painted(settings, folder, sources)
    channels = 1 + len(class_labels(test.info.labels))
    batches = make_batches(
        run.method, real, painted, Draw(settings.steps, settings.batch, settings.real_share, run.seed)
    )
    how = Train(run.network, settings.steps, settings.learning_rate, settings.validations, run.seed)
    trained = train(how, channels, batches, validation)
    cases = measure_cases(trained.model, test, test_pictures)
    write_table(Path(settings.out) / CASES / run.file, cases)
    counts = {"n_train": len(real), "n_validation": len(validation), "n_painted": len(painted or ())}
    return {
        **dict(zip(KEYS, run.key, strict=True)), **summarise(cases), **counts,
        "best_step": trained.step, "validation_dice": trained.dice, **facts,
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


@lru_cache(maxsize=2)
def _tested(settings: Augmentation, folder: Path, fold: int) -> tuple[DatasetFolder, ImageSet]:
    test = folds_of(open_dataset(folder), settings)[fold].test
    return test, read_pictures(test, settings.resolution)


@lru_cache(maxsize=2)
def _budget(settings: Augmentation, folder: Path, fold: int, images: str) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
    """The training and the validation part of a budget, at the resolution, and what is painted from."""
    teaching, validating = draw_budget(folds_of(open_dataset(folder), settings)[fold], images)
    sources = tuple(paint_settings(settings).sources(teaching))
    return read_pictures(teaching, settings.resolution), read_pictures(validating, settings.resolution), sources


@lru_cache(maxsize=2)
def _painted(settings: Augmentation, folder: Path, sources: tuple[str, ...]) -> ImageSet:
    dataset = open_dataset(folder).real()
    return read_painted(paint_settings(settings), dataset, sources, settings.out, settings.resolution)
