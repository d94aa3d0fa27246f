"""The painted images of a study: generated once for every dataset, fold and budget, from its training part alone."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from emitdiff.datasets.folder import DatasetFolder, open_dataset
from emitdiff.datasets.rows import PATH_COLUMNS
from emitdiff.datasets.writing import write_tables
from emitdiff.errors import EmitDiffError
from emitdiff.files import file_stem, make_folder
from emitdiff.synthesis.augmentation import Augment, augment
from emitdiff.synthesis.pipeline import SynthesisPipeline

FOLDER = "painted"


@dataclass(frozen=True)
class Paint:
    """How images are painted: `ratio` of each training image, but at most `limit` of a budget; with masks moved,
    turned, scaled and deformed as far as `edit` says (`augment --edit`)."""

    checkpoint: str
    ratio: float
    limit: int
    edit: float
    seed: int = 0


def painted_folder(out: Path, dataset: str, fold: int, images: str) -> Path:
    """Where the painted images of a budget lie."""
    return Path(out) / FOLDER / f"{file_stem(dataset)}-{fold}-{images}"


def paint(settings: Paint, train: DatasetFolder, folder: Path, pipeline: SynthesisPipeline | None = None) -> Path:
    """Generates what is missing of `folder`/images from `train`, copied into `folder`/source; returns that folder.

    Raises:
        EmitDiffError: settings or weights that cannot be used, or a folder started with others.
    """
    source, images = folder / "source", folder / "images"
    if not (images / "metadata.csv").exists():
        if not source.exists():
            copy_rows(train, source)
        ratio = min(settings.ratio, settings.limit / len(train))
        how = Augment(source, images, ratio=ratio, checkpoint=settings.checkpoint, edit=settings.edit, appearance=True,
                      seed=settings.seed)  # fmt: skip
        if augment(how, pipeline) is None:
            raise EmitDiffError(f"Other processes still generate {images}: start again when they are done.")
    return images


def copy_rows(rows: DatasetFolder, folder: Path) -> DatasetFolder:
    """A dataset folder of these rows alone, with their own names; it is there whole or not at all."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    for row in rows.rows:
        for column in PATH_COLUMNS:
            make_folder((partial / row[column]).parent, named=folder)
            shutil.copyfile(rows.path(row[column]), partial / row[column])
    write_tables(partial, rows.info, rows.rows)
    os.replace(partial, folder)
    return open_dataset(folder)
