"""One dataset that is augmented for a page: where it stands, its files, and what can be taken of them."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from emitdiff.datasets.archive import pack_folder, strip_folders
from emitdiff.datasets.check import DatasetReport, check_dataset
from emitdiff.datasets.folder import DatasetFolder, open_dataset, read_image, read_image_and_mask
from emitdiff.datasets.names import find_file
from emitdiff.errors import EmitDiffError
from emitdiff.files import file_stem, make_folder
from emitdiff.provenance import read_synthetic_settings
from emitdiff.scans.masks import read_mask

if TYPE_CHECKING:
    from emitdiff.ui.interface import AugmentRequest

RECENT_SECONDS = 600  # since anyone did something with a job: what was made of it is not removed for others
MAX_DEFECTS = 1000  # of a dataset that are kept
BUSY = {"waiting", "generating", "scoring"}
DATASET, FOLDS = "dataset", 5  # the layout that is no export but the folder as it is


class Pair(NamedTuple):
    """A real image and one generated from it, uint8 (H, W, 3), each with its mask, class ids (H, W)."""

    name: str
    source: np.ndarray
    source_mask: np.ndarray
    image: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class JobState:
    """Where a job stands: `stage` is "checked", "waiting", "generating", "scoring", "done", "stopped" or "failed".

    `done` of `total` images are generated or scored, and `seconds_left` is a guess from those made in this run, None
    before the first; `generated` and `kept` count synthetic images, `report` and `scores` are files once they are
    scored; `usable` says whether the dataset can be augmented, `check` what is in
    it, and `notes` what is to be known of its import.
    """

    check: DatasetReport
    usable: bool
    stage: str = "checked"
    request: AugmentRequest | None = None
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    generated: int = 0
    kept: int = 0
    error: Exception | None = None
    report: Path | None = None
    scores: Path | None = None
    notes: tuple[str, ...] = ()


@dataclass(eq=False)
class Job:
    """A dataset with its folder; who may do what with it when is the business of `dataset_jobs.DatasetJobs`."""

    folder: Path
    # Both are None while the ZIP is unpacked, and nobody knows the name of the job yet.
    source: Path = None  # type: ignore[assignment]
    state: JobState = None  # type: ignore[assignment]
    size: int = 0  # bytes of its files, with those of whatever is being made
    stop: threading.Event = field(default_factory=threading.Event)
    stage_start: tuple[float, int] = (0.0, 0)  # when the stage began, and how many images were done then
    last_progress: float = 0.0  # when an image was finished last
    last_used: float = field(default_factory=time.time)
    removed: bool = False  # whoever still works for it removes the folder at the end
    in_use: threading.Lock = field(default_factory=threading.Lock)  # by whoever needs its files, or deletes them

    @property
    def busy(self) -> bool:
        return self.state is None or self.state.stage in BUSY

    @property
    def retention_order(self) -> tuple[bool, bool, float]:
        """The least goes first where room is needed: what was left for a while, then what nothing was made of."""
        return time.time() - self.last_used < RECENT_SECONDS, self.state.request is not None, self.last_used

    @property
    def evictable(self) -> bool:
        return not self.busy and not self.in_use.locked() and self.retention_order[:2] != (True, True)

    @property
    def out(self) -> Path:
        return self.folder / "augmented"

    @property
    def filtered(self) -> Path:
        return self.folder / "filtered"

    def report_progress(self, stage: str, done: int, total: int) -> None:
        self.last_progress = time.monotonic()
        if self.state.stage != stage:
            self.stage_start = (self.last_progress, done)
        self.last_used = time.time()
        self.state = replace(self.state, stage=stage, done=done, total=total)
        os.utime(self.folder)  # another server on this machine does not take it for a stray one

    def seconds_left(self) -> float | None:
        (started, before), state = self.stage_start, self.state
        if state.stage not in BUSY or state.done <= before:
            return None
        each = (self.last_progress - started) / (state.done - before)
        return max(0.0, each * (state.total - state.done) - (time.monotonic() - self.last_progress))


def bytes_in(folder: Path) -> int:
    """The size of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def read_pair(job: Job, path: Path, origins: dict[str, str]) -> Pair | None:
    """`origins` has the mask of every real image. None for a real image whose name only looks like a generated
    one's."""
    try:
        row = read_synthetic_settings(path)["row"]
    except EmitDiffError:
        return None
    image, label = (find_file(job.source, name) for name in (row["source"], origins[row["source"]]))
    source, mask = read_image_and_mask(image, label)
    return Pair(path.name, source, mask, read_image(path), read_mask(job.out / row["mask"]))


def pack(job: Job, folder: Path, layout: str, which: str) -> tuple[Path, tuple[str, ...]]:
    """What `DatasetJobs.export` gives: `folder` of the job in a `layout`, packed, and what its user should know."""
    job.last_used = time.time()
    dataset = open_dataset(folder)
    title = f"{file_stem(dataset.info.name)}_{which}_{layout}"
    with tempfile.TemporaryDirectory(dir=job.folder) as place:
        packed, notes = (folder, ()) if layout == DATASET else _exported(dataset, layout, Path(place) / title)
        named = packed.name if layout == "nnunet" else title
        return pack_folder(packed, make_folder(job.folder / "exports") / f"{title}.zip", named), notes


def _exported(dataset: DatasetFolder, layout: str, out: Path) -> tuple[Path, tuple[str, ...]]:
    """The dataset in one of the layouts of `export`, cut into as many folds as its groups allow."""
    from emitdiff.datasets.export import Export, export

    groups = len(set(dataset.real().groups))
    written = export(Export(dataset.folder, out, layout, folds=min(FOLDS, groups) if groups > 1 else 0))  # type: ignore[arg-type]  # others are refused
    return written.folder, written.notes


def check_folder(source: Path) -> DatasetReport:
    """What is in the dataset, in words that do not say where on this server it lies; of very many defects, which would
    be kept for a day, the first of every kind and as many as a user may want to read."""
    check = check_dataset(source)
    first = {found.kind: found for found in reversed(check.defects)}
    kept = tuple(dict.fromkeys([*first.values(), *check.defects[:MAX_DEFECTS]]))
    if more := len(check.defects) - len(kept):
        kept += (replace(kept[-1], where="", what=f"and {more:,} more defects, which are not listed"),)
    told = (replace(found, what=strip_folders(found.what, source.parent)) for found in kept)
    return replace(check, defects=tuple(told))
