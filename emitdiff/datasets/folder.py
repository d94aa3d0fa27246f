"""The dataset folder: what the two halves of the project hand to each other.

    dataset.json    name, modality, organ, labels (name -> class id), licence, citation
    metadata.csv    file_name, mask, group, and optionally finding, text, source, seed, prompt, checkpoint, ...
    images/ masks/  pictures, and masks of class ids at the same size

`group` names what must never be split between training and testing: a patient, a case, a cluster of near-duplicates.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from emitdiff.datasets.tables import read_record, read_table
from emitdiff.errors import EmitDiffError
from emitdiff.files import file_stem
from emitdiff.scans.masks import read_mask
from emitdiff.scans.reading import read_scan

REQUIRED_COLUMNS = ("file_name", "mask", "group")
PATH_COLUMNS = ("file_name", "mask")
# the key of cells beyond the last column; an empty key is a column without a name, like pandas' index
EXTRA_CELLS = "\0"
FIRST_COLUMNS = (*REQUIRED_COLUMNS, "finding", "text")


@dataclass(frozen=True)
class DatasetInfo:
    """dataset.json. `labels` maps the name of a class to its id in the masks; id 0 is background."""

    name: str
    modality: str
    organ: str
    labels: dict[str, int]
    licence: str = ""
    citation: str = ""


@dataclass(frozen=True)
class Sample:
    """One row: `image` uint8 (H, W, 3), `mask` class ids uint8 (H, W), `name` the row's file_name, `row` all of it."""

    image: np.ndarray
    mask: np.ndarray
    text: str
    group: str
    finding: str
    name: str
    row: dict[str, str]


@dataclass(frozen=True)
class DatasetFolder:
    """A dataset folder or some of its rows. Pictures are read when they are asked for and not kept.

    Has a length and integer indexing and holds only paths and text, so a torch DataLoader takes it as it is.
    """

    folder: Path
    info: DatasetInfo
    rows: list[dict[str, str]] = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index]
        try:
            image, mask = read_image(self.folder / row["file_name"]), read_mask(self.folder / row["mask"])
        except EmitDiffError as error:
            raise EmitDiffError(
                f"In dataset '{self.info.name}', {row['file_name']} with {row['mask']}: {error} For all defects: "
                f"python -m emitdiff check-dataset {self.folder}"
            ) from error
        for defect in mask_defects(row["mask"], mask, image.shape[:2], self.info):
            raise EmitDiffError(
                f"{defect.where}: {defect.what}. For all defects: python -m emitdiff check-dataset {self.folder}"
            )
        return Sample(image, mask, row.get("text", ""), row["group"], row.get("finding", ""), row["file_name"], row)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    @property
    def groups(self) -> list[str]:
        """The group of each row."""
        return [row["group"] for row in self.rows]

    def subset(self, indices: Iterable[int]) -> DatasetFolder:
        """The same folder with only the rows at `indices`, in that order."""
        return DatasetFolder(self.folder, self.info, [self.rows[index] for index in indices])

    def real(self) -> DatasetFolder:
        """Only the rows of real pictures; it may be empty."""
        return self.subset(index for index, row in enumerate(self.rows) if not is_synthetic(row))


def open_dataset(folder: str | Path) -> DatasetFolder:
    """Read dataset.json and metadata.csv; no picture is opened. Raises EmitDiffError when either cannot be used."""
    folder = existing_folder(folder)
    info, rows = read_info(folder), read_rows(folder)
    for number, row in enumerate(rows, start=2):
        for problem in row_problems(row):
            raise EmitDiffError(
                f"metadata.csv line {number}: {problem}. For all defects: python -m emitdiff check-dataset {folder}"
            )
    return DatasetFolder(folder, info, rows)


def existing_folder(folder: str | Path) -> Path:
    """`folder` as a Path; EmitDiffError where there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        there = f"'{folder}' is a file" if folder.is_file() else f"There is no folder '{folder}'"
        raise EmitDiffError(f"{there}. A dataset is a folder with dataset.json and metadata.csv.")
    return folder


def read_info(folder: Path) -> DatasetInfo:
    """dataset.json of `folder`. Raises EmitDiffError when it is missing or says something that cannot be used."""
    path = folder / "dataset.json"
    if not path.is_file():
        raise EmitDiffError(f"'{folder}' has no dataset.json (name, modality, organ, labels, licence, citation).")
    content = read_record(path)
    content = content if isinstance(content, dict) else {}
    for key in ("name", "modality", "organ"):
        if not isinstance(content.get(key), str) or not content[key].strip():
            raise EmitDiffError(f"'{path}' must give \"{key}\" as a non-empty string.")
    labels = content.get("labels")
    labels = labels if isinstance(labels, dict) else {}
    ids = list(labels.values())
    whole = all(type(label) is int and 0 <= label <= 254 for label in ids)
    if not whole or not any(ids) or len(set(ids)) != len(ids):
        raise EmitDiffError(
            f"'{path}' must give \"labels\" as class names with different whole ids from 0 (background) to 254, "
            'like {"background": 0, "lesion": 1}.'
        )
    texts = {key: str(content.get(key) or "") for key in ("licence", "citation")}
    return DatasetInfo(content["name"], content["modality"], content["organ"], labels, **texts)


def read_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of metadata.csv by column, unchecked. Raises EmitDiffError when it is no table of images."""
    path = folder / "metadata.csv"
    if not path.is_file():
        raise EmitDiffError(f"'{folder}' has no metadata.csv with the columns {', '.join(REQUIRED_COLUMNS)}.")
    columns, rows = read_table(path, EXTRA_CELLS)
    missing = [column for column in REQUIRED_COLUMNS if column not in columns]
    if missing:
        raise EmitDiffError(f"'{path}' lacks the column(s) {', '.join(missing)}; it has: {', '.join(columns)}.")
    if not rows:
        raise EmitDiffError(f"'{path}' lists no images.")
    return rows


def row_problems(row: dict[str, str]) -> list[str]:
    """What is wrong with a row by itself, before any file is looked at."""
    problems = ["it has more cells than columns"] if EXTRA_CELLS in row else []
    problems += [f"the cell '{column}' is empty" for column in REQUIRED_COLUMNS if not row[column].strip()]
    paths = (row[column] for column in PATH_COLUMNS)
    return problems + [f"the path '{path}' is outside the folder" for path in paths if escapes_folder(path)]


def escapes_folder(name: str) -> bool:
    """Whether a path written in a row is absolute or climbs out of the dataset folder."""
    # Links are followed: a download cache is made of them. Only the written path must stay inside.
    windows = PureWindowsPath(name)
    return bool(windows.drive or windows.root) or ".." in windows.parts


def unique_stems(names: list[str]) -> list[str]:
    """A stem for the file_name of each row, all different, even where a file system takes capitals for small letters;
    "images/" in front is left out, other folders become part of it."""
    stems = [file_stem("_".join(PurePosixPath(name).parts[name.startswith("images/") :])) for name in names]
    counts = Counter(stem.lower() for stem in stems)
    marks = [f"_{hashlib.sha256(name.encode()).hexdigest()[:8]}" for name in names]
    return [stem + (mark if counts[stem.lower()] > 1 else "") for stem, mark in zip(stems, marks, strict=True)]


def is_synthetic(row: dict[str, str]) -> bool:
    """Whether a row says that a model made its picture (the column `provenance`)."""
    return bool(row.get("provenance", "").strip())


def class_ids(mask: np.ndarray) -> list[int]:
    """The ids that occur in a mask, uint8 (H, W), in order."""
    return np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()


def read_image(path: Path) -> np.ndarray:
    """A picture of one slice as uint8 (H, W, 3). Raises EmitDiffError for any other file."""
    scan = read_scan(path)
    if scan.num_slices != 1:
        raise EmitDiffError(f"'{scan.name}' holds {scan.num_slices} slices. Give each slice its own file and row.")
    return scan.image()


@dataclass(frozen=True)
class Defect:
    """`kind` is one of a few words ("missing file", "duplicate", ...), `where` a file or line of the folder."""

    kind: str
    where: str
    what: str


def mask_defects(name: str, mask: np.ndarray, size: tuple[int, int], info: DatasetInfo | None) -> list[Defect]:
    """What is wrong with a mask (H, W) beside an image of `size` = (H, W): another size, ids without a name."""
    defects = []
    if mask.shape != tuple(size):
        sizes = f"the mask is {mask.shape[1]} x {mask.shape[0]} pixels and the image {size[1]} x {size[0]}"
        defects.append(Defect("size mismatch", name, sizes))
    for label in sorted(set(class_ids(mask)) - {0, *info.labels.values()}) if info else ():
        defects.append(Defect("unknown label id", name, f"dataset.json gives no name to class id {label} in the mask"))
    return defects
