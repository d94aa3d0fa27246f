"""The dataset folder: what the two halves of the project hand to each other.

    dataset.json    name, modality, organ, labels (name -> class id), licence, citation
    metadata.csv    file_name, mask_file_name, group, and optionally finding, text, source, seed, prompt, ...
    images/ masks/  pictures, and masks of class ids at the same size

`group` names what must never be split between training and testing: a patient, a case, a cluster of near-duplicates.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from unicodedata import normalize

import numpy as np

from emitdiff.datasets.names import find_file
from emitdiff.datasets.rows import read_rows, repeated_images, row_problems
from emitdiff.datasets.tables import read_record
from emitdiff.errors import EmitDiffError
from emitdiff.files import file_stem
from emitdiff.scans.masks import read_slice_mask
from emitdiff.scans.reading import read_scan
from emitdiff.scans.scan import Scan


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
            image, mask = read_image_and_mask(self.path(row["file_name"]), self.path(row["mask"]))
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

    def path(self, name: str) -> Path:
        """Where the file lies that a row calls `name`."""
        return find_file(self.folder, name)

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
    for line, row in rows.items():
        for problem in row_problems(row):
            raise EmitDiffError(
                f"metadata.csv line {line}: {problem}. For all defects: python -m emitdiff check-dataset {folder}"
            )
    for line, first in repeated_images(folder, rows).items():
        raise EmitDiffError(f"metadata.csv: {repeated_image(rows[line], line, first)}")
    return DatasetFolder(folder, info, list(rows.values()))


def repeated_image(row: dict[str, str], line: int, first: int) -> str:
    """The sentence about an image that has two rows."""
    return (
        f"lines {first} and {line} name the same image, {row['file_name']}. An image has one row and one mask: put its "
        "masks into one file, with an id for each class, and keep one row."
    )


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
    names = [normalize("NFC", name.strip()) for name in labels]
    if len({*names, ""}) <= len(names):
        raise EmitDiffError(
            f"'{path}' must give every class in \"labels\" a name of its own; it has {', '.join(names)}."
        )
    labels = dict(zip(names, ids, strict=True))
    name, modality, organ = (normalize("NFC", content[key]) for key in ("name", "modality", "organ"))
    return DatasetInfo(name, modality, organ, labels, **texts)


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
    return read_single(path).image()


def read_single(path: Path) -> Scan:
    """A file of one slice. Raises EmitDiffError for any other."""
    scan = read_scan(path)
    if scan.num_slices != 1:
        raise EmitDiffError(f"'{scan.name}' holds {scan.num_slices} slices. Give each slice its own file and row.")
    return scan


def read_image_and_mask(image: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
    """An image of one slice, uint8 (H, W, 3), and its mask, class ids uint8 (H, W): where both say where they lie in
    the patient, the mask is laid over by that. Raises EmitDiffError where either cannot be read, or they do not fit."""
    scan = read_single(image)
    return scan.image(), read_slice_mask(mask, scan, 0)


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
