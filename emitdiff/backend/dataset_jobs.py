"""Datasets augmented in the background, for a page that may be closed and opened again meanwhile.

A job is one dataset, unpacked in a folder of its own, and what is made of it. It is known by a name that nobody can
guess and lives in this process alone; a day after anyone last did something with it, it is removed, and sooner where
others need the room. One job paints at a time, the others wait; between two images, whoever else paints with the same
weights has a turn.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emitdiff.backend.dataset_job import Job, JobState, Pair, bytes_in, check_folder, pack, read_pair
from emitdiff.datasets.archive import unpack_dataset, unpacked_bytes, without_place
from emitdiff.datasets.folder import open_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.progress import Watch

if TYPE_CHECKING:
    from emitdiff.synthesis.augmentation import Augment
    from emitdiff.ui.interface import AugmentRequest

KEPT_SECONDS = 24 * 3600
SWEEP_SECONDS = 3600  # between two looks for jobs a day old
MOST_JOBS = 32  # on this server at once
MOST_BYTES = 16 * 2**30  # of all their files; the largest dataset, painted, judged and exported, fits alone
MOST_PAINTED = 2000  # images of one job
PAINTED_BYTES = 2**19  # of a painted image and its mask, before it is painted
TURN_SECONDS = 0.5  # between two looks whether a job that waits was stopped
PREFIX = "emitdiff_job_"
HARMLESS = {"duplicate", "duplicate across groups", "not listed"}  # defects that painting can live with


class DatasetJobs:
    """All jobs of this process. `synthesizer` and `segmenter` load weights by name, once for everybody."""

    def __init__(self, synthesizer: Callable[[str], Any], segmenter: Callable[[str], Any]):
        self._synthesizer, self._segmenter = synthesizer, segmenter
        self._jobs: dict[str, Job] = {}
        self._books, self._turn = threading.Lock(), threading.Lock()
        self._sweeping: threading.Timer | None = None

    def take(self, archive: str | Path) -> str:
        """Unpacks and checks a zipped dataset folder; the name of the new job. Raises EmitDiffError."""
        self._sweep()
        size = unpacked_bytes(archive)
        name, job = secrets.token_urlsafe(24), Job(Path(tempfile.mkdtemp(prefix=PREFIX)))
        try:
            self._claim(name, job, size)
            source = unpack_dataset(archive, job.folder / "source")
            check = check_folder(source)
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
            self._claim(name, job, 2 * (bytes_in(job.source) + wanted * PAINTED_BYTES))
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
            pairs = (read_pair(job, path, origins) for path in reversed(paths))
            return list(islice((pair for pair in pairs if pair is not None), count))

    def export(self, name: str, layout: str, only_kept: bool) -> tuple[Path, tuple[str, ...]]:
        """A ZIP in a `layout` of `export`, or of the dataset folder itself ("dataset"), and what its user should
        know; `only_kept` leaves out what the report drops. Raises EmitDiffError where there is nothing to export."""
        with self._held(name) as job:
            folder = job.filtered if only_kept else job.out
            if job.busy or not (job.out / "metadata.csv").exists():
                raise EmitDiffError("There is nothing to export yet: augment the dataset first.")
            if not (folder / "metadata.csv").exists():
                raise EmitDiffError("No image was scored and kept: export all of them, or augment anew.")
            shutil.rmtree(job.folder / "exports", ignore_errors=True)  # whoever asked for those has a copy
            job.size = bytes_in(job.folder)
            self._claim(name, job, 2 * bytes_in(folder))
            try:
                return pack(job, folder, layout, "kept" if only_kept else "all")
            finally:
                job.size = bytes_in(job.folder)

    def remove(self, name: str) -> None:
        """Forgets a job and its files at once, as a day later would; without effect where it is gone."""
        with self._books:
            job = self._jobs.pop(name, None)
            if job:
                job.gone = True
        if job:
            job.stop.set()
            _discard(job)

    def _job(self, name: str) -> Job:
        job = self._jobs.get(name)
        if job is None:
            raise EmitDiffError(
                "This dataset is not here any more; it is kept for a day, or until others need the room. Give its ZIP "
                "again."
            )
        return job

    def _claim(self, name: str, job: Job, size: int) -> None:
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
    def _held(self, name: str) -> Iterator[Job]:
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

    def _run(self, job: Job, settings: Augment) -> None:
        stage, error = "done", None
        try:
            self._work(job, settings)
            stage = "stopped" if job.stop.is_set() else "done"
        except EmitDiffError as failure:
            stage, error = "failed", EmitDiffError(without_place(str(failure), job.folder, job.source.parent))
        except Exception as failure:  # the page logs it when it tells of it
            stage, error = "failed", failure
        with suppress(OSError):
            job.size = bytes_in(job.folder)
        job.touched = time.time()
        job.state = replace(job.state, stage=stage, error=error)
        if job.gone:
            _discard(job)

    def _work(self, job: Job, settings: Augment) -> None:
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

    def _paint(self, job: Job, settings: Augment) -> None:
        from emitdiff.synthesis.augmentation import augment

        watch = Watch(lambda done, total: job.told("painting", done, total), job.stop.is_set)
        written = augment(settings, self._synthesizer(settings.checkpoint), watch)
        painted = sum(bool(row["provenance"]) for row in written.rows) if written else 0
        job.state = replace(job.state, painted=painted)

    def _score(self, job: Job) -> None:
        from emitdiff.segmentation.evaluation import label_answers
        from emitdiff.synthesis.filtering.run import filter_images
        from emitdiff.synthesis.filtering.scoring import Filter

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


def _settings(job: Job, request: AugmentRequest) -> Augment:
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


def _discard(job: Job) -> None:
    """The files of a removed job go; where it paints or somebody uses them, whoever does that calls this at the end."""
    if not job.busy and job.in_use.acquire(blocking=False):
        shutil.rmtree(job.folder, ignore_errors=True)
        job.in_use.release()
