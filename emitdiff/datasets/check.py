"""Validation of a dataset folder: all defects at once, and class statistics."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from emitdiff.datasets.folder import (
    PATH_COLUMNS,
    DatasetInfo,
    Defect,
    class_ids,
    escapes_folder,
    existing_folder,
    mask_defects,
    read_image,
    read_info,
    read_rows,
    row_problems,
)
from emitdiff.errors import EmitDiffError
from emitdiff.scans.masks import read_mask


@dataclass(frozen=True)
class DatasetReport:
    """What `check_dataset` found. `classes` maps a label to (images that show it, pixels); `ok` means no defect."""

    folder: Path
    info: DatasetInfo | None
    num_images: int
    num_groups: int
    classes: dict[str, tuple[int, int]]
    findings: dict[str, int]
    defects: tuple[Defect, ...]

    @property
    def ok(self) -> bool:
        return not self.defects

    def __str__(self) -> str:
        title = f"{self.info.name}: {self.info.modality}, {self.info.organ}" if self.info else str(self.folder)
        lines = [title, f"{self.num_images} images in {self.num_groups} groups"]
        width = max((len(name) for name in self.classes), default=0)
        lines += [f"{'class':{width}}  {'images':>8}  {'pixels':>14}"] if self.classes else []
        lines += [f"{name:{width}}  {images:>8,}  {pixels:>14,}" for name, (images, pixels) in self.classes.items()]
        if self.findings:
            lines.append("findings: " + ", ".join(f"{name} {count}" for name, count in self.findings.items()))
        kinds = Counter(defect.kind for defect in self.defects)
        lines.append(", ".join(f"{kind}: {count}" for kind, count in kinds.items()) or "no defects")
        return "\n".join(lines + [f"  {defect.kind}: {defect.where}: {defect.what}" for defect in self.defects])


def check_dataset(folder: str | Path) -> DatasetReport:
    """Open every picture and mask of the folder and report every defect; only a missing folder is an error."""
    folder = existing_folder(folder)
    check = _RowCheck()
    info = _checked_read(check, folder, "dataset.json", lambda path: read_info(path.parent))
    rows = _checked_read(check, folder, "metadata.csv", lambda path: read_rows(path.parent)) or []
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # the decoders let go of the interpreter
        checking = threads.map(lambda numbered: _check_row(folder, info, *numbered), enumerate(rows, start=2))
        checks = list(tqdm(checking, total=len(rows), desc=f"checking {folder.name}", unit="image", delay=2))
    defects = [defect for part in (check, *checks) for defect in part.defects]
    defects += _duplicates(rows, checks) + _unlisted_files(folder, rows)
    groups, classes = {row["group"] for row in rows} - {""}, _count_classes(info, checks)
    findings = dict(Counter(row["finding"] for row in rows if row.get("finding")))
    return DatasetReport(folder, info, len(rows), len(groups), classes, findings, tuple(defects))


@dataclass
class _RowCheck:
    defects: list[Defect] = field(default_factory=list)
    fingerprint: str = ""
    pixels: dict[int, int] = field(default_factory=dict)


def _check_row(folder: Path, info: DatasetInfo | None, number: int, row: dict[str, str]) -> _RowCheck:
    check = _RowCheck([Defect("row", f"metadata.csv line {number}", problem) for problem in row_problems(row)])
    image = _checked_read(check, folder, row["file_name"], read_image)
    mask = _checked_read(check, folder, row["mask"], read_mask)
    if image is not None:
        check.fingerprint = hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest()
    if mask is not None:
        check.pixels = {label: int((mask == label).sum()) for label in class_ids(mask)}
        check.defects += mask_defects(row["mask"], mask, mask.shape if image is None else image.shape[:2], info)
    return check


def _checked_read(check: _RowCheck, folder: Path, name: str, read: Callable[[Path], Any]) -> Any:
    if not name.strip() or escapes_folder(name):
        return None  # reported with the row
    try:
        return read(folder / name)
    except EmitDiffError as error:
        kind = "unreadable" if (folder / name).is_file() else "missing file"
        check.defects.append(Defect(kind, name, str(error)))
        return None


def _duplicates(rows: list[dict[str, str]], checks: list[_RowCheck]) -> list[Defect]:
    """Rows with the same pixels; the worst kind crosses groups, where a split by group would leak."""
    first: dict[str, dict[str, str]] = {}
    defects = []
    for row, check in zip(rows, checks, strict=True):
        earlier = first.setdefault(check.fingerprint, row) if check.fingerprint else row
        if earlier["group"] != row["group"]:
            what = f"the same picture as {earlier['file_name']}: group {row['group']} here, {earlier['group']} there"
            defects.append(Defect("duplicate across groups", row["file_name"], what))
        elif earlier is not row:
            defects.append(Defect("duplicate", row["file_name"], f"the same picture as {earlier['file_name']}"))
    return defects


def _unlisted_files(folder: Path, rows: list[dict[str, str]]) -> list[Defect]:
    listed = {PurePosixPath(row[column]) for row in rows for column in PATH_COLUMNS}
    found = (path for part in ("images", "masks") for path in sorted((folder / part).rglob("[!.]*")) if path.is_file())
    names = (PurePosixPath(path.relative_to(folder).as_posix()) for path in found)
    return [Defect("not listed", str(name), "no row of metadata.csv names it") for name in names if name not in listed]


def _count_classes(info: DatasetInfo | None, checks: list[_RowCheck]) -> dict[str, tuple[int, int]]:
    images = Counter(label for check in checks for label in check.pixels)
    pixels: Counter[int] = Counter()
    for check in checks:
        pixels.update(check.pixels)
    names = {label: name for name, label in info.labels.items()} if info else {}
    labels = sorted({*names, *images})
    return {names.get(label, f"id {label} (no name)"): (images[label], pixels[label]) for label in labels}
