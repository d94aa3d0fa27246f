"""The dataset folder: what the two halves of the project hand to each other.

    dataset.json    name, modality, organ, labels (name -> class id), licence, citation
    metadata.csv    file_name, mask, group, and optionally finding, text, source, seed, prompt, checkpoint, ...
    images/ masks/  pictures, and masks of class ids at the same size

`group` names what must never be split between training and testing: a patient, a case, a cluster of near-duplicates.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from emitdiff.errors import EmitDiffError
from emitdiff.images import to_rgb
from emitdiff.scans import read_mask, read_scan

REQUIRED_COLUMNS = ("file_name", "mask", "group")
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
        image, mask = _read_pair(self.folder, row)
        unknown = set(_ids(mask)) - {0, *self.info.labels.values()}
        if unknown:
            raise EmitDiffError(
                f"The mask '{row['mask']}' holds class id {min(unknown)}, which the labels of dataset.json do not name. "
                f"Run: python -m emitdiff check-dataset {self.folder}"
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


def open_dataset(folder: str | Path) -> DatasetFolder:
    """Read dataset.json and metadata.csv; no picture is opened. Raises EmitDiffError when either cannot be used."""
    folder = _existing_folder(folder)
    info, rows = _read_info(folder), _read_rows(folder)
    for number, row in enumerate(rows, start=2):
        problem = _row_problem(row)
        if problem:
            raise EmitDiffError(
                f"Line {number} of {folder / 'metadata.csv'}: {problem}. "
                f"For every defect of this folder, run: python -m emitdiff check-dataset {folder}"
            )
    return DatasetFolder(folder, info, rows)


def split_by_group(
    dataset: DatasetFolder, held_out: float = 0.2, seed: int = 0
) -> tuple[DatasetFolder, DatasetFolder]:
    """(train, held out) with no group in both: ceil(`held_out` * groups) groups are held out.

    Which ones follows from sha256 of "seed:dataset name:group" alone, so it is the same on every machine.
    """
    groups = _groups_by_hash(dataset, seed)
    count = math.ceil(held_out * len(groups))
    if not 0 < count < len(groups):
        raise EmitDiffError(
            f"Holding out {held_out:g} of the {len(groups)} group(s) of '{dataset.info.name}' leaves one side empty. "
            "Give a share between 0 and 1, and a dataset of at least two groups."
        )
    return _without_and_with(dataset, set(groups[:count]))


def folds_by_group(dataset: DatasetFolder, k: int, seed: int = 0) -> list[tuple[DatasetFolder, DatasetFolder]]:
    """`k` pairs (train, held out); every group is held out exactly once."""
    groups = _groups_by_hash(dataset, seed)
    if not 2 <= k <= len(groups):
        raise EmitDiffError(
            f"'{dataset.info.name}' has {len(groups)} group(s), so it can be cut into 2 to {len(groups)} folds, not {k}."
        )
    return [_without_and_with(dataset, set(groups[fold::k])) for fold in range(k)]


def few_shot(dataset: DatasetFolder, n: int, seed: int = 0) -> DatasetFolder:
    """`n` images, from different groups while there are any left; the first n of a larger choice at the same seed."""
    if not 1 <= n <= len(dataset):
        raise EmitDiffError(f"'{dataset.info.name}' has {len(dataset)} images here; {n} were asked for.")
    order = sorted(range(len(dataset)), key=lambda index: _hash(seed, dataset, dataset.rows[index]["file_name"]))
    rank = {group: place for place, group in enumerate(_groups_by_hash(dataset, seed))}
    taken: Counter[str] = Counter()
    keys = {}
    for index in order:
        group = dataset.rows[index]["group"]
        keys[index] = (taken[group], rank[group])
        taken[group] += 1
    return dataset.subset(sorted(order, key=keys.__getitem__)[:n])


def _hash(seed: int, dataset: DatasetFolder, name: str) -> str:
    return hashlib.sha256(f"{seed}:{dataset.info.name}:{name}".encode()).hexdigest()


def _groups_by_hash(dataset: DatasetFolder, seed: int) -> list[str]:
    return sorted(set(dataset.groups), key=lambda group: _hash(seed, dataset, group))


def _without_and_with(dataset: DatasetFolder, groups: set[str]) -> tuple[DatasetFolder, DatasetFolder]:
    inside = [index for index, group in enumerate(dataset.groups) if group in groups]
    outside = [index for index, group in enumerate(dataset.groups) if group not in groups]
    return dataset.subset(outside), dataset.subset(inside)


def _existing_folder(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise EmitDiffError(f"There is no folder '{folder}'. A dataset is a folder with dataset.json and metadata.csv.")
    return folder


def _read_info(folder: Path) -> DatasetInfo:
    path = folder / "dataset.json"
    if not path.is_file():
        raise EmitDiffError(f"'{folder}' has no dataset.json (name, modality, organ, labels, licence, citation).")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise EmitDiffError(f"'{path}' is not valid JSON: {error}.") from None
    content = content if isinstance(content, dict) else {}
    for key in ("name", "modality", "organ"):
        if not isinstance(content.get(key), str) or not content[key].strip():
            raise EmitDiffError(f"'{path}' must give \"{key}\" as a text that is not empty.")
    labels = content.get("labels")
    ids = list(labels.values()) if isinstance(labels, dict) else []
    whole = all(type(label) is int and 0 <= label <= 255 for label in ids)
    if not whole or not any(ids) or len(set(ids)) != len(ids):
        raise EmitDiffError(
            f"'{path}' must give \"labels\" as class names with different whole ids from 0 (background) to 255, "
            'like {"background": 0, "lesion": 1}.'
        )
    texts = {key: str(content.get(key) or "") for key in ("licence", "citation")}
    return DatasetInfo(content["name"], content["modality"], content["organ"], labels, **texts)


def _read_rows(folder: Path) -> list[dict[str, str]]:
    path = folder / "metadata.csv"
    if not path.is_file():
        raise EmitDiffError(f"'{folder}' has no metadata.csv with the columns {', '.join(REQUIRED_COLUMNS)}.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            columns, rows = reader.fieldnames or [], list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise EmitDiffError(f"'{path}' is not a CSV file in UTF-8: {error}.") from None
    missing = [column for column in REQUIRED_COLUMNS if column not in columns]
    if missing:
        raise EmitDiffError(f"'{path}' lacks the column(s) {', '.join(missing)}; it has: {', '.join(columns) or 'none'}.")
    if not rows:
        raise EmitDiffError(f"'{path}' lists no images.")
    return rows


def _row_problem(row: dict[str, str]) -> str:
    """What is wrong with a row by itself, before any file is looked at; "" when nothing is."""
    if "" in row:
        return "it has more cells than there are columns"
    for column in REQUIRED_COLUMNS:
        if not row[column].strip():
            return f"the cell '{column}' is empty"
    for column in ("file_name", "mask"):
        # Links are followed: a download cache is made of them. Only the written path must stay inside.
        posix, windows = PurePosixPath(row[column]), PureWindowsPath(row[column])
        if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
            return f"the path '{row[column]}' leaves the folder"
    return ""


def _ids(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()


def _read_pair(folder: Path, row: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    image = read_scan(folder / row["file_name"]).image()
    return image, read_mask(folder / row["mask"], image.shape[:2])
