"""Data in the layouts of others, in a ZIP: what it is and still needs to be told, and the dataset folder made of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from emitdiff.datasets.archive import holds_dataset, strip_folders, unpack_dataset
from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.importing.layouts import opened_source
from emitdiff.datasets.importing.reading import read_case
from emitdiff.datasets.importing.run import count_ids, import_dataset, left_out_lines
from emitdiff.datasets.importing.source import UNUSABLE, LeftOut
from emitdiff.errors import EmitDiffError
from emitdiff.files import file_stem, make_folder
from emitdiff.import_settings import ImportSettings
from emitdiff.ui.interface import Labelled

LISTED = 20  # of what is left out, of each kind


@dataclass(frozen=True)
class ForeignData:
    """Data to import: what it says of itself, "" where it does not. `classes` maps the class ids of its masks to their
    names; `channels` are to choose from; `volumes`: there may be several slices."""

    name: str
    layout: str
    cases: int
    modality: str
    organ: str
    classes: dict[int, str]
    channels: tuple[str, ...]
    volumes: bool


def describe_archive(archive: str | Path) -> ForeignData | None:
    """What is in a ZIP; None for a dataset folder, which is used as it is. Raises EmitDiffError for anything else."""
    if holds_dataset(archive):
        return None
    with opened_source(archive) as source:
        named = {label: name for name, label in source.labels.items()}
        classes = named or dict.fromkeys(count_ids(source), "")
        return ForeignData(
            source.name, source.layout, len(source.cases), source.said_modality(ImportSettings()), source.organ,
            classes, source.channels, source.volumes,
        )  # fmt: skip


def import_archive(
    archive: str | Path, into: Path, settings: ImportSettings, max_images: int
) -> tuple[Path, tuple[str, ...]]:
    """Writes the dataset folder below `into`; the folder, and what its user should know in lines.

    Raises EmitDiffError as `import_dataset`.
    """
    try:
        with opened_source(archive) as source:
            out = into / file_stem(settings.name.strip() or source.name)
            imported = import_dataset(source, out, settings, max_images=max_images)
    except EmitDiffError as error:
        raise EmitDiffError(strip_folders(str(error), into)) from error
    assert imported is not None  # nobody ends it here
    return imported.folder, (*imported.notes, *left_out_lines(imported.left_out, LISTED))


def read_labelled(files: Sequence[str | Path], limit: int) -> tuple[list[Labelled], tuple[str, ...]]:
    """The first `limit` images with masks of several files that belong together by their names, or of one ZIP in any
    layout; and in lines what was left out.

    Raises EmitDiffError where nothing belongs together.
    """
    left_out: list[LeftOut] = []
    with TemporaryDirectory(prefix="emitdiff_labelled_") as place:
        try:
            pairs = list(islice(_labelled(_gathered(files, Path(place)), Path(place), left_out), limit + 1))
        except EmitDiffError as error:
            raise EmitDiffError(strip_folders(str(error), Path(place) / "files", Path(place))) from error
    lines = left_out_lines(tuple(left_out), LISTED)
    if len(pairs) > limit:
        lines.append(f"Only the first {limit} images were taken.")
    return pairs[:limit], tuple(lines)


def _gathered(files: Sequence[str | Path], place: Path) -> Path:
    """One ZIP as it is, or a folder with all files."""
    paths = [Path(file) for file in files]
    if len(paths) == 1 and paths[0].suffix.lower() == ".zip":
        return paths[0]
    folder = make_folder(place / "files")
    for path in paths:
        if (folder / path.name).exists():
            raise EmitDiffError(
                f"Two files are called {path.name}: call the mask like its image with _mask behind it, or give a ZIP "
                "with folders images/ and masks/."
            )
        shutil.copyfile(path, folder / path.name)
    return folder


def _labelled(given: Path, place: Path, left_out: list[LeftOut]) -> Iterator[Labelled]:
    if given.is_file() and holds_dataset(given):
        for sample in open_dataset(unpack_dataset(given, place)):
            yield sample.image, sample.mask, Path(sample.name).name
        return
    with opened_source(given) as source:
        left_out += source.left_out
        for case in source.cases:
            try:
                read = read_case(source, case, ImportSettings())
            except EmitDiffError as error:
                left_out.append(LeftOut(UNUSABLE, case.channels[min(case.channels)], str(error)))
                continue
            for index in read.indices:
                number = f", slice {index + 1}" if read.scan.num_slices > 1 else ""
                yield read.image(index), read.masks[index], f"{Path(read.file).name}{number}"
