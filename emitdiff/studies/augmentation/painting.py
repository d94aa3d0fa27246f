"""The painted images of a study: generated once for each real image, and shared by all folds and budgets it teaches in.

What is painted from an image follows from that image alone, so a fold takes those of its own training part.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from tqdm import tqdm

from emitdiff.datasets.folder import DatasetFolder, open_dataset, unique_stems
from emitdiff.datasets.rows import PATH_COLUMNS
from emitdiff.datasets.writing import write_tables
from emitdiff.errors import EmitDiffError
from emitdiff.files import file_stem, make_folder
from emitdiff.studies.unet_baseline import ImageSet, concatenate, read_pictures
from emitdiff.synthesis.augmentation import Augment, augment
from emitdiff.synthesis.pipeline import SynthesisPipeline

FOLDER = "painted"


@dataclass(frozen=True)
class Paint:
    """How images are painted: `ratio` of each training image, of a budget at most `limit` in all: then from the first
    that were drawn. Their masks are moved, turned, scaled and deformed as far as `edit` says (`augment --edit`)."""

    checkpoint: str
    ratio: int
    limit: int
    edit: float

    def sources(self, teaching: DatasetFolder) -> list[str]:
        """The file names of those images of a training part, in the order they were drawn, that are painted from."""
        return [row["file_name"] for row in teaching.rows[: max(1, self.limit // self.ratio)]]


def painted_folders(out: Path, dataset: DatasetFolder) -> dict[str, Path]:
    """For every image of a dataset, by its file name, where what is painted from it lies."""
    names = [row["file_name"] for row in dataset.rows]
    under = Path(out) / FOLDER / file_stem(dataset.info.name)
    return {name: under / stem for name, stem in zip(names, unique_stems(names), strict=True)}


def paint_missing(
    settings: Paint, dataset: DatasetFolder, sources: Sequence[str], out: Path, pipeline: SynthesisPipeline
) -> None:
    """Generates what is missing of what is painted from `sources`, file names of `dataset`.

    Raises:
        EmitDiffError: settings that cannot be used, or a folder that was started with others.
    """
    folders = painted_folders(out, dataset)
    rows = {row["file_name"]: index for index, row in enumerate(dataset.rows)}
    left = [name for name in sources if not (folders[name] / "images" / "metadata.csv").exists()]
    bar = tqdm(left, f"painting from {dataset.info.name}", unit="image", file=sys.stderr, disable=not left)
    for name in bar:
        source = folders[name] / "source"
        if not source.exists():
            copy_rows(dataset.subset([rows[name]]), source)
        how = Augment(source, folders[name] / "images", ratio=settings.ratio, checkpoint=settings.checkpoint,
                      edit=settings.edit, appearance=True)  # fmt: skip
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # one bar, not one an image
            written = augment(how, pipeline)
        if written is None:
            raise EmitDiffError(f"Other processes still generate {how.out}: start again when they are done.")


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


def read_painted(
    settings: Paint, dataset: DatasetFolder, sources: Sequence[str], out: Path, resolution: int
) -> ImageSet:
    """What was painted from `sources`, file names of `dataset`, at a resolution, `ratio` of each; raises EmitDiffError
    where it is not there."""
    folders, parts = painted_folders(out, dataset), []
    for name in sources:
        rows = open_dataset(folders[name] / "images")
        parts.append(read_pictures(rows.subset(range(min(settings.ratio, len(rows)))), resolution))
    return reduce(concatenate, parts)
