"""Validation of a dataset folder: all defects at once, and class statistics."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from emitdiff.datasets.folder import (
    DatasetInfo,
    Defect,
    class_ids,
    existing_folder,
    mask_defects,
    read_info,
    read_single,
    repeated_image,
)
from emitdiff.datasets.names import escapes_folder, find_file
from emitdiff.datasets.rows import PATH_COLUMNS, read_rows, repeated_images, row_problems
from emitdiff.errors import EmitDiffError
from emitdiff.scans.burned_in import has_text_at_rim
from emitdiff.scans.masks import MaskMisfitError, read_mask, read_slice_mask
from emitdiff.scans.scan import Scan


@dataclass(frozen=True)
class DatasetReport:
    """What `check_dataset` found. `classes` maps a label to (images that show it, pixels); `ok` means no defect.
    `texts` names the images that seem to show text at their rim, which may identify a patient."""

    folder: Path
    info: DatasetInfo | None
    num_images: int
    num_groups: int
    classes: dict[str, tuple[int, int]]
    findings: dict[str, int]
    defects: tuple[Defect, ...]
    texts: tuple[str, ...] = ()

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
        if self.texts:
            first = ", ".join(self.texts[:3]) + (", ..." if len(self.texts) > 3 else "")
            lines.append(f"text at the rim, which may identify a patient: {len(self.texts)} image(s): {first}")
        kinds = Counter(defect.kind for defect in self.defects)
        lines.append(", ".join(f"{kind}: {count}" for kind, count in kinds.items()) or "no defects")
        return "\n".join(lines + [f"  {defect.kind}: {defect.where}: {defect.what}" for defect in self.defects])


def check_dataset(folder: str | Path) -> DatasetReport:
    """Open every picture and mask of the folder and report every defect; only a missing folder is an error."""
    folder = existing_folder(folder)
    check = _RowCheck()
    info = _checked_read(check, folder, "dataset.json", lambda _: read_info(folder))
    table: dict[int, dict[str, str]] = _checked_read(check, folder, "metadata.csv", lambda _: read_rows(folder)) or {}
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # the decoders let go of the interpreter
        checking = threads.map(lambda numbered: _check_row(folder, info, *numbered), table.items())
        checks = list(tqdm(checking, total=len(table), desc=f"checking {folder.name}", unit="image", delay=2))
    rows = list(table.values())
    defects = [defect for part in (check, *checks) for defect in part.defects]
    defects += _duplicates(folder, table, checks) + _similar_groups(rows) + _unlisted_files(folder, rows)
    groups, classes = {row["group"] for row in rows} - {""}, _count_classes(info, checks)
    findings = dict(Counter(row["finding"] for row in rows if row.get("finding")))
    texts = tuple(row["file_name"] for row, check in zip(rows, checks, strict=True) if check.text)
    return DatasetReport(folder, info, len(rows), len(groups), classes, findings, tuple(defects), texts)


@dataclass
class _RowCheck:
    defects: list[Defect] = field(default_factory=list)
    fingerprint: str = ""
    pixels: dict[int, int] = field(default_factory=dict)
    text: bool = False


def _check_row(folder: Path, info: DatasetInfo | None, number: int, row: dict[str, str]) -> _RowCheck:
    check = _RowCheck([Defect("row", f"metadata.csv line {number}", problem) for problem in row_problems(row)])
    scan: Scan | None = _checked_read(check, folder, row["file_name"], read_single)
    if scan is None:
        mask = _checked_read(check, folder, row["mask"], read_mask)
    else:
        image = scan.image()
        check.text = has_text_at_rim(image)
        check.fingerprint = hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest()
        mask = _checked_read(check, folder, row["mask"], lambda path: read_slice_mask(path, scan, 0))
    if mask is not None:
        check.pixels = {label: int((mask == label).sum()) for label in class_ids(mask)}
        check.defects += mask_defects(row["mask"], mask, mask.shape, info)
    return check


def _checked_read(check: _RowCheck, folder: Path, name: str, read: Callable[[Path], Any]) -> Any:
    if not name.strip() or escapes_folder(name):
        return None  # reported with the row
    try:
        return read(find_file(folder, name))
    except MaskMisfitError as error:
        kind, what = error.kind, str(error)
    except EmitDiffError as error:
        kind, what = "unreadable" if (folder / name).is_file() else "missing file", str(error)
    check.defects.append(Defect(kind, name, what))
    return None


def _duplicates(folder: Path, table: dict[int, dict[str, str]], checks: list[_RowCheck]) -> list[Defect]:
    """Rows with the same pixels; the worst kind crosses groups, where a split by group would leak."""
    first: dict[str, dict[str, str]] = {}
    defects = []
    repeated = repeated_images(folder, table)
    for (line, row), check in zip(table.items(), checks, strict=True):
        earlier = first.setdefault(check.fingerprint, row) if check.fingerprint else row
        if earlier["group"] != row["group"]:
            what = f"the same picture as {earlier['file_name']}: group {row['group']} here, {earlier['group']} there"
            defects.append(Defect("duplicate across groups", row["file_name"], what))
        elif line in repeated:
            defects.append(Defect("duplicate", row["file_name"], repeated_image(row, line, repeated[line])))
        elif earlier is not row:
            defects.append(Defect("duplicate", row["file_name"], f"the same picture as {earlier['file_name']}"))
    return defects


def _similar_groups(rows: list[dict[str, str]]) -> list[Defect]:
    """Groups that differ in capitals, spaces or invisible characters alone: one patient, and a split would not know."""
    spellings: dict[str, set[str]] = {}
    for row in rows:
        letters = row["group"].casefold()
        key = "".join(letter for letter in letters if letter.isprintable() and not letter.isspace())
        spellings.setdefault(key, set()).add(row["group"])
    alike = [" and ".join(map(repr, sorted(group))) for group in spellings.values() if len(group) > 1]
    return [Defect("similar groups", "metadata.csv", f"{names} are split as different groups") for names in alike]


def _unlisted_files(folder: Path, rows: list[dict[str, str]]) -> list[Defect]:
    names = {row[column] for row in rows for column in PATH_COLUMNS}
    listed = {_found(folder, name) for name in names if name and not escapes_folder(name)}
    found = (path for part in ("images", "masks") for path in sorted((folder / part).rglob("[!.]*")) if path.is_file())
    strays = (str(path.relative_to(folder).as_posix()) for path in found if path not in listed)
    return [Defect("not listed", name, "no row of metadata.csv names it") for name in strays]


def _found(folder: Path, name: str) -> Path:
    try:
        return find_file(folder, name)
    except EmitDiffError:  # reported with the row
        return folder / name


def _count_classes(info: DatasetInfo | None, checks: list[_RowCheck]) -> dict[str, tuple[int, int]]:
    images = Counter(label for check in checks for label in check.pixels)
    pixels: Counter[int] = Counter()
    for check in checks:
        pixels.update(check.pixels)
    names = {label: name for name, label in info.labels.items()} if info else {}
    labels = sorted({*names, *images})
    return {names.get(label, f"id {label} (no name)"): (images[label], pixels[label]) for label in labels}
