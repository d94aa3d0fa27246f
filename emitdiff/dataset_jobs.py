"""Datasets augmented in the background, for a page that may be closed and opened again meanwhile.

A job is one dataset, unpacked in a folder of its own, and what is made of it. It is known by a name that nobody can
guess and lives in this process alone; a day after anyone last did something with it, it is removed, and sooner where
others need the room. One job paints at a time, the others wait; between two images, whoever else paints with the same
weights has a turn.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from emitdiff.dataset_archive import pack_folder, unpack_dataset, unpacked_bytes, without_place
from emitdiff.dataset_check import DatasetReport, check_dataset
from emitdiff.datasets import DatasetFolder, open_dataset, read_image
from emitdiff.errors import EmitDiffError
from emitdiff.files import make_folder
from emitdiff.images import file_stem, read_synthetic_settings
from emitdiff.scans import read_mask
from emitdiff.watch import Watch

if TYPE_CHECKING:
    from emitdiff.synthesis.augmentation import Augment
    from emitdiff.ui.dataset_calls import AugmentRequest

KEPT_SECONDS = 24 * 3600
FRESH_SECONDS = 600  # since anyone did something with a job: what was made of it is not removed for others
SWEEP_SECONDS = 3600  # between two looks for jobs a day old
MOST_JOBS = 32  # on this server at once
MOST_BYTES = 16 * 2**30  # of all their files; the largest dataset, painted, judged and exported, fits alone
MOST_PAINTED = 2000  # images of one job
PAINTED_BYTES = 2**19  # of a painted image and its mask, before it is painted
TURN_SECONDS = 0.5  # between two looks whether a job that waits was stopped
PREFIX = "emitdiff_job_"
HARMLESS = {"duplicate", "duplicate across groups", "not listed"}  # defects that painting can live with
BUSY = {"waiting", "painting", "scoring"}
DATASET, FOLDS = "dataset", 5  # the layout that is no export but the folder as it is


class Pair(NamedTuple):
    """A real image and one painted from it, uint8 (H, W, 3), each with its mask, class ids (H, W)."""

    name: str
    source: np.ndarray
    source_mask: np.ndarray
    image: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class JobState:
    """Where a job stands: `stage` is "checked", "waiting", "painting", "scoring", "done", "stopped" or "failed".

    `done` of `total` images are painted or scored, and `seconds_left` is a guess from those made in this run, None
    before the first; `painted` and `kept` count synthetic images, `report` and `scores` are files once they are scored;
    `usable` says whether the dataset can be painted from, and `check` what is in it.
    """

    check: DatasetReport
    usable: bool
    stage: str = "checked"
    request: AugmentRequest | None = None
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    painted: int = 0
    kept: int = 0
    error: Exception | None = None
    report: Path | None = None
    scores: Path | None = None


@dataclass(eq=False)
class _Job:
    folder: Path
    source: Path | None = None
    state: JobState | None = None  # None, as `source`, while the ZIP is unpacked: nobody knows its name yet
    size: int = 0  # bytes of its files, with those of whatever is being made
    stop: threading.Event = field(default_factory=threading.Event)
    began: tuple[float, int] = (0.0, 0)  # when the stage began, and how many images were done then
    moved: float = 0.0  # when an image was finished last
    touched: float = field(default_factory=time.time)
    gone: bool = False  # whoever still works for it removes the folder at the end
    in_use: threading.Lock = field(default_factory=threading.Lock)  # by whoever needs its files, or deletes them

    @property
    def busy(self) -> bool:
        return self.state is None or self.state.stage in BUSY

    @property
    def worth(self) -> tuple[bool, bool, float]:
        """The least goes first where room is needed: what was left for a while, then what nothing was made of."""
        return time.time() - self.touched < FRESH_SECONDS, self.state.request is not None, self.touched

    @property
    def spare(self) -> bool:
        return not self.busy and not self.in_use.locked() and self.worth[:2] != (True, True)

    @property
    def out(self) -> Path:
        return self.folder / "augmented"

    @property
    def filtered(self) -> Path:
        return self.folder / "filtered"

    def told(self, stage: str, done: int, total: int) -> None:
        self.moved = time.monotonic()
        if self.state.stage != stage:
            self.began = (self.moved, done)
        self.touched = time.time()
        self.state = replace(self.state, stage=stage, done=done, total=total)
        os.utime(self.folder)  # another server on this machine does not take it for a stray one

    def seconds_left(self) -> float | None:
        (started, before), state = self.began, self.state
        if state.stage not in BUSY or state.done <= before:
            return None
        each = (self.moved - started) / (state.done - before)
        return max(0.0, each * (state.total - state.done) - (time.monotonic() - self.moved))


class DatasetJobs:
    """All jobs of this process. `synthesizer` and `segmenter` load weights by name, once for everybody."""

    def __init__(self, synthesizer: Callable[[str], Any], segmenter: Callable[[str], Any]):
        self._synthesizer, self._segmenter = synthesizer, segmenter
        self._jobs: dict[str, _Job] = {}
        self._books, self._turn = threading.Lock(), threading.Lock()
        self._sweeping: threading.Timer | None = None

    def take(self, archive: str | Path) -> str:
        """Unpacks and checks a zipped dataset folder; the name of the new job. Raises EmitDiffError."""
        self._sweep()
        size = unpacked_bytes(archive)
        name, job = secrets.token_urlsafe(24), _Job(Path(tempfile.mkdtemp(prefix=PREFIX)))
        try:
            self._claim(name, job, size)
            source = unpack_dataset(archive, job.folder / "source")
            check = _check(source)
        except BaseException:
            with self._books:
                self._jobs.pop(name, None)
            shutil.rmtree(job.folder, ignore_errors=True)
            raise
        usable = bool(check.info and check.num_images and {found.kind for found in check.defects} <= HARMLESS)
        job.source, job.touched, job.state = source, time.time(), JobState(check, usable)
        self._sweep_later()
        return name

    def look(self, name: str) -> JobState | None:
        """Where a job stands; None where there is none of that name (any more)."""
        job = self._jobs.get(name)
        return None if job is None else replace(job.state, seconds_left=job.seconds_left())

    def start(self, name: str, request: AugmentRequest) -> None:
        """Begins in the background, or goes on where the same settings were stopped. Raises EmitDiffError."""
        from emitdiff.synthesis.augmentation import check_settings

        with self._held(name) as job:
            if job.busy:
                raise EmitDiffError("This dataset is being augmented: stop that first.")
            if not job.state.usable:
                raise EmitDiffError("The dataset has defects that painting cannot do with: mend them, pack it anew.")
            settings = _settings(job, request)
            check_settings(settings)
            wanted = _check_size(job.source, settings)
            # Twice, as what is kept is copied from what is painted.
            self._claim(name, job, 2 * (_bytes_in(job.source) + wanted * PAINTED_BYTES))
            if job.state.request != request:
                shutil.rmtree(job.out, ignore_errors=True)
            shutil.rmtree(job.filtered, ignore_errors=True)
            with self._books:
                self._job(name)  # still there
                job.stop, job.state = threading.Event(), JobState(job.state.check, True, "waiting", request)
                job.began, job.touched = (time.monotonic(), 0), time.time()
            threading.Thread(target=self._run, args=(job, settings), daemon=True).start()

    def stop(self, name: str) -> None:
        """The job ends within a step; what is painted stays."""
        self._job(name).stop.set()

    def pairs(self, name: str, count: int) -> list[Pair]:
        """The synthetic images painted last, each beside its source, the latest first."""
        with self._held(name) as job:
            paths = sorted((job.out / "images").glob("synthetic_*.png"), key=lambda path: path.stat().st_mtime)
            origins = {row["file_name"]: row["mask"] for row in open_dataset(job.source).rows}
            pairs = (_pair(job, path, origins) for path in reversed(paths))
            return list(islice((pair for pair in pairs if pair is not None), count))

    def export(self, name: str, layout: str, only_kept: bool) -> tuple[Path, tuple[str, ...]]:
        """A ZIP in a `layout` of `exports`, or of the dataset folder itself ("dataset"), and what its user should
        know; `only_kept` leaves out what the report drops. Raises EmitDiffError where there is nothing to export."""
        with self._held(name) as job:
            folder = job.filtered if only_kept else job.out
            if job.busy or not (job.out / "metadata.csv").exists():
                raise EmitDiffError("There is nothing to export yet: augment the dataset first.")
            if not (folder / "metadata.csv").exists():
                raise EmitDiffError("No image was scored and kept: export all of them, or augment anew.")
            shutil.rmtree(job.folder / "exports", ignore_errors=True)  # whoever asked for those has a copy
            job.size = _bytes_in(job.folder)
            self._claim(name, job, 2 * _bytes_in(folder))
            try:
                return _packed(job, folder, layout, "kept" if only_kept else "all")
            finally:
                job.size = _bytes_in(job.folder)

    def remove(self, name: str) -> None:
        """Forgets a job and its files at once, as a day later would; without effect where it is gone."""
        with self._books:
            job = self._jobs.pop(name, None)
            if job:
                job.gone = True
        if job:
            job.stop.set()
            _discard(job)

    def _job(self, name: str) -> _Job:
        job = self._jobs.get(name)
        if job is None:
            raise EmitDiffError(
                "This dataset is not here any more; it is kept for a day, or until others need the room. Give its ZIP "
                "again."
            )
        return job

    def _claim(self, name: str, job: _Job, size: int) -> None:
        """Enters the job of that name with `size` bytes more, in the place of idle ones where the server is full.

        Raises EmitDiffError where it would be full without them too; then they stay.
        """
        with self._books:
            if job.gone:
                self._job(name)  # says so
            others = {key: other for key, other in self._jobs.items() if other is not job}
            spare = sorted((other.worth, key) for key, other in others.items() if other.spare)
            going = []
            while len(others) >= MOST_JOBS or size + sum(one.size for one in (job, *others.values())) > MOST_BYTES:
                if not spare:
                    raise EmitDiffError(
                        "There is no room on this server: all datasets are in use. Try again in ten minutes, or with "
                        "fewer images."
                    )
                going.append(others.pop(spare.pop(0)[1]))
            job.size += size
            self._jobs = {**others, name: job}
            for other in going:
                other.gone = True
        for other in going:
            _discard(other)

    @contextmanager
    def _held(self, name: str) -> Iterator[_Job]:
        """A job with its files to oneself: nobody deletes them meanwhile, and one that is removed goes afterwards."""
        job = self._job(name)
        try:
            with job.in_use:
                self._job(name)  # not removed while others had it
                yield job
        finally:
            if job.gone:
                _discard(job)
        self._job(name)

    def _run(self, job: _Job, settings: Augment) -> None:
        stage, error = "done", None
        try:
            self._work(job, settings)
            stage = "stopped" if job.stop.is_set() else "done"
        except EmitDiffError as failure:
            stage, error = "failed", EmitDiffError(without_place(str(failure), job.folder, job.source.parent))
        except Exception as failure:  # the page logs it when it tells of it
            stage, error = "failed", failure
        with suppress(OSError):
            job.size = _bytes_in(job.folder)
        job.touched = time.time()
        job.state = replace(job.state, stage=stage, error=error)
        if job.gone:
            _discard(job)

    def _work(self, job: _Job, settings: Augment) -> None:
        while not self._turn.acquire(timeout=TURN_SECONDS):
            if job.stop.is_set():
                return
        try:
            if not job.stop.is_set():
                self._paint(job, settings)
            if not job.stop.is_set():
                self._score(job)
        finally:
            self._turn.release()

    def _paint(self, job: _Job, settings: Augment) -> None:
        from emitdiff.synthesis.augmentation import augment

        watch = Watch(lambda done, total: job.told("painting", done, total), job.stop.is_set)
        written = augment(settings, self._synthesizer(settings.checkpoint), watch)
        painted = sum(bool(row["provenance"]) for row in written.rows) if written else 0
        job.state = replace(job.state, painted=painted)

    def _score(self, job: _Job) -> None:
        from emitdiff.segmentation.judge import label_answers
        from emitdiff.synthesis.filtering import Filter, filter_images

        job.told("scoring", 0, job.state.painted)
        asked = job.state.request.segmenter
        answers = label_answers(self._segmenter(asked), open_dataset(job.source)) if asked else None
        watch = Watch(lambda done, total: job.told("scoring", done, total), job.stop.is_set)
        kept = filter_images(Filter(job.out, job.source, job.filtered), answers, watch)
        if not job.stop.is_set():
            count = sum(bool(row["provenance"]) for row in kept.rows) if kept else 0
            report, scores = job.filtered / "report.html", job.filtered / "quality.csv"
            job.state = replace(job.state, kept=count, report=report, scores=scores)

    def _sweep(self) -> None:
        """Removes what nobody has touched for a day, also of servers that are gone."""
        now = time.time()
        for name, job in list(self._jobs.items()):
            if not job.busy and now - job.touched > KEPT_SECONDS:
                self.remove(name)
        ours = {job.folder for job in self._jobs.values()}
        for folder in set(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")) - ours:
            try:
                if now - folder.stat().st_mtime > KEPT_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
            except FileNotFoundError:  # another server was quicker
                continue

    def _sweep_later(self) -> None:
        """Once an hour, for as long as there are jobs."""

        def sweep() -> None:
            self._sweeping = None
            self._sweep()
            self._sweep_later()

        with self._books:
            if self._jobs and self._sweeping is None:
                self._sweeping = threading.Timer(SWEEP_SECONDS, sweep)
                self._sweeping.daemon = True
                self._sweeping.start()


def _settings(job: _Job, request: AugmentRequest) -> Augment:
    from emitdiff.synthesis.augmentation import Augment

    given = {part.name: getattr(request, part.name) for part in fields(request) if part.name != "segmenter"}
    return Augment(dataset=job.source, out=job.out, **given)


def _check_size(source: Path, settings: Augment) -> int:
    """How many images are to be painted. Raises EmitDiffError for more than a page should wait for."""
    real = open_dataset(source).real()
    wanted = round(settings.ratio * min(len(real), settings.limit or len(real)))
    if wanted > MOST_PAINTED:
        raise EmitDiffError(
            f"{wanted:,} images would be painted; here up to {MOST_PAINTED:,}. Give a lower ratio or a limit, or use "
            "`python -m emitdiff augment` with the folder."
        )
    return wanted


def _bytes_in(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _pair(job: _Job, path: Path, origins: dict[str, str]) -> Pair | None:
    """`origins` has the mask of every real image. None for a real image whose name only looks like a painted one's."""
    try:
        row = read_synthetic_settings(path)["row"]
    except EmitDiffError:
        return None
    source, mask = read_image(job.source / row["source"]), read_mask(job.source / origins[row["source"]])
    return Pair(path.name, source, mask, read_image(path), read_mask(job.out / row["mask"]))


def _discard(job: _Job) -> None:
    """The files of a removed job go; where it paints or somebody uses them, whoever does that calls this at the end."""
    if not job.busy and job.in_use.acquire(blocking=False):
        shutil.rmtree(job.folder, ignore_errors=True)
        job.in_use.release()


def _packed(job: _Job, folder: Path, layout: str, which: str) -> tuple[Path, tuple[str, ...]]:
    job.touched = time.time()
    dataset = open_dataset(folder)
    title = f"{file_stem(dataset.info.name)}_{which}_{layout}"
    with tempfile.TemporaryDirectory(dir=job.folder) as place:
        packed, notes = (folder, ()) if layout == DATASET else _exported(dataset, layout, Path(place) / title)
        named = packed.name if layout == "nnunet" else title
        return pack_folder(packed, make_folder(job.folder / "exports") / f"{title}.zip", named), notes


def _exported(dataset: DatasetFolder, layout: str, out: Path) -> tuple[Path, tuple[str, ...]]:
    """The dataset in one of the layouts of `exports`, cut into as many folds as its groups allow."""
    from emitdiff.exports import Export, export

    groups = len(set(dataset.real().groups))
    written = export(Export(dataset.folder, out, layout, folds=min(FOLDS, groups) if groups > 1 else 0))
    return written.folder, written.notes


def _check(source: Path) -> DatasetReport:
    """What is in the dataset, in words that do not say where on this server it lies."""
    check = check_dataset(source)
    defects = (replace(found, what=without_place(found.what, source.parent)) for found in check.defects)
    return replace(check, defects=tuple(defects))
