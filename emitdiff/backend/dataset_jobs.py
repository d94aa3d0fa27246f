"""Datasets augmented in the background, for a page that may be closed and opened again meanwhile.

A job is one dataset, unpacked in a folder of its own, and what is made of it. It is known by a name that nobody can
guess and lives in this process alone; a day after anyone last did something with it, it is removed, and sooner where
others need the room. One job generates at a time, the others wait; between two images, other users of the same
weights get a turn.
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

from emitdiff.augmentation_settings import AugmentationSettings
from emitdiff.backend.dataset_job import Job, JobState, Pair, bytes_in, check_folder, pack, read_pair
from emitdiff.backend.imports import ForeignData, describe_archive, import_archive
from emitdiff.backend.pipelines import import_measures
from emitdiff.datasets.archive import archive_bytes, strip_folders, unpack_dataset, unpacked_bytes
from emitdiff.datasets.folder import open_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.files import make_folder
from emitdiff.import_settings import ImportSettings
from emitdiff.progress import Progress

if TYPE_CHECKING:
    from emitdiff.synthesis.augmentation import Augment
    from emitdiff.ui.interface import AugmentRequest

JOB_LIFETIME = 24 * 3600
MAX_JOBS = 32  # on this server at once
MAX_TOTAL_BYTES = 16 * 2**30  # of all their files; the largest dataset, augmented, filtered and exported, fits alone
MAX_IMAGES = 2000  # images of one job
BYTES_PER_IMAGE = 2**19  # of a generated image and its mask, before it is generated
POLL_SECONDS = 0.5  # between two looks whether a job that waits was stopped
PREFIX = "emitdiff_job_"
HARMLESS_DEFECTS = {"duplicate", "duplicate across groups", "not listed"}  # defects that do not prevent augmentation


class DatasetJobs:
    """All jobs of this process. `synthesizer` and `segmenter` load weights by name, once for everybody."""

    def __init__(self, synthesizer: Callable[[str], Any], segmenter: Callable[[str], Any]):
        self._synthesizer, self._segmenter = synthesizer, segmenter
        self._jobs: dict[str, Job] = {}
        self._registry_lock, self._run_lock = threading.Lock(), threading.Lock()

    def describe(self, archive: str | Path) -> ForeignData | None:
        """What a ZIP in another layout holds and must be told; None for a dataset folder. Raises EmitDiffError."""
        return describe_archive(archive)

    def create(self, archive: str | Path, settings: ImportSettings | None = None) -> str:
        """Unpacks and checks a zipped dataset folder, or imports with `settings` what is in another layout; the name of
        the new job. Raises EmitDiffError."""
        self.remove_old()
        size = unpacked_bytes(archive) if settings is None else 2 * archive_bytes(archive)
        name, job = secrets.token_urlsafe(24), Job(Path(tempfile.mkdtemp(prefix=PREFIX)))
        try:
            self._reserve(name, job, size)
            place = job.folder / "source"
            notes: tuple[str, ...] = ()
            if settings is None:
                source = unpack_dataset(archive, place)
            else:
                source, notes = import_archive(archive, make_folder(place), settings, MAX_IMAGES)
                job.size = bytes_in(job.folder)
            check = check_folder(source)
        except BaseException:
            with self._registry_lock:
                self._jobs.pop(name, None)
            shutil.rmtree(job.folder, ignore_errors=True)
            raise
        usable = bool(check.info and check.num_images and {found.kind for found in check.defects} <= HARMLESS_DEFECTS)
        job.source, job.last_used, job.state = source, time.time(), JobState(check, usable, notes=notes)
        return name

    def status(self, name: str) -> JobState | None:
        """Where a job stands; None where there is none of that name (any more)."""
        job = self._jobs.get(name)
        return None if job is None else replace(job.state, seconds_left=job.seconds_left())

    def start(self, name: str, request: AugmentRequest) -> None:
        """Begins in the background, or goes on where the same settings were stopped. Raises EmitDiffError."""
        with self._locked(name) as job:
            if job.busy:
                raise EmitDiffError("This dataset is being augmented: stop the run first.")
            if not job.state.usable:
                raise EmitDiffError(
                    "The dataset has defects that prevent augmentation: fix them and upload the ZIP again."
                )
            settings = _settings(job, request)
            settings.check()
            wanted = _check_size(job.source, settings)
            # Twice, as what is kept is copied from what is generated.
            self._reserve(name, job, 2 * (bytes_in(job.source) + wanted * BYTES_PER_IMAGE))
            if job.state.request != request:
                shutil.rmtree(job.out, ignore_errors=True)
            shutil.rmtree(job.filtered, ignore_errors=True)
            with self._registry_lock:
                self._job(name)  # still there
                state = JobState(job.state.check, True, "waiting", request, notes=job.state.notes)
                job.stop, job.state = threading.Event(), state
                job.stage_start, job.last_used = (time.monotonic(), 0), time.time()
            threading.Thread(target=self._run, args=(job, settings), daemon=True).start()

    def stop(self, name: str) -> None:
        """The job ends within a step; what is generated stays."""
        self._job(name).stop.set()

    def pairs(self, name: str, count: int) -> list[Pair]:
        """The synthetic images generated last, each beside its source, the latest first."""
        with self._locked(name) as job:
            paths = sorted((job.out / "images").glob("synthetic_*.png"), key=lambda path: path.stat().st_mtime)
            origins = {row["file_name"]: row["mask"] for row in open_dataset(job.source).rows}
            pairs = (read_pair(job, path, origins) for path in reversed(paths))
            return list(islice((pair for pair in pairs if pair is not None), count))

    def export(self, name: str, layout: str, only_kept: bool) -> tuple[Path, tuple[str, ...]]:
        """A ZIP in a `layout` of `export`, or of the dataset folder itself ("dataset"), and what its user should
        know; `only_kept` leaves out what the report drops. Raises EmitDiffError where there is nothing to export."""
        with self._locked(name) as job:
            folder = job.filtered if only_kept else job.out
            if job.busy or not (job.out / "metadata.csv").exists():
                raise EmitDiffError("Nothing to export yet: augment the dataset first.")
            if not (folder / "metadata.csv").exists():
                raise EmitDiffError("No image passed the filter: export all images, or augment again.")
            shutil.rmtree(job.folder / "exports", ignore_errors=True)  # whoever asked for those has a copy
            job.size = bytes_in(job.folder)
            self._reserve(name, job, 2 * bytes_in(folder))
            try:
                return pack(job, folder, layout, "kept" if only_kept else "all")
            finally:
                job.size = bytes_in(job.folder)

    def remove(self, name: str) -> None:
        """Forgets a job and its files at once, as a day later would; without effect where it is gone."""
        with self._registry_lock:
            job = self._jobs.pop(name, None)
            if job:
                job.removed = True
        if job:
            job.stop.set()
            _delete_files(job)

    def _job(self, name: str) -> Job:
        job = self._jobs.get(name)
        if job is None:
            raise EmitDiffError(
                "This dataset is no longer on the server: datasets are kept for a day at most. Upload the ZIP again."
            )
        return job

    def _reserve(self, name: str, job: Job, size: int) -> None:
        """Enters the job of that name with `size` bytes more, in the place of idle ones where the server is full.

        Raises EmitDiffError where it would be full without them too; then they stay.
        """
        with self._registry_lock:
            if job.removed:
                self._job(name)  # says so
            others = {key: other for key, other in self._jobs.items() if other is not job}
            candidates = sorted((other.retention_order, key) for key, other in others.items() if other.evictable)
            evicted = []
            while len(others) >= MAX_JOBS or size + sum(one.size for one in (job, *others.values())) > MAX_TOTAL_BYTES:
                if not candidates:
                    raise EmitDiffError(
                        "The server has no space left: all datasets are in use. Try again in ten minutes, or with "
                        "fewer images."
                    )
                evicted.append(others.pop(candidates.pop(0)[1]))
            job.size += size
            self._jobs = {**others, name: job}
            for other in evicted:
                other.removed = True
        for other in evicted:
            _delete_files(other)

    @contextmanager
    def _locked(self, name: str) -> Iterator[Job]:
        """A job with its files to oneself: nobody deletes them meanwhile, and one that is removed goes afterwards."""
        job = self._job(name)
        try:
            with job.in_use:
                self._job(name)  # not removed while others had it
                yield job
        finally:
            if job.removed:
                _delete_files(job)
        self._job(name)

    def _run(self, job: Job, settings: Augment) -> None:
        stage = "done"
        error: Exception | None = None
        try:
            self._generate_and_score(job, settings)
            stage = "stopped" if job.stop.is_set() else "done"
        except EmitDiffError as failure:
            stage, error = "failed", EmitDiffError(strip_folders(str(failure), job.folder, job.source.parent))
        except Exception as failure:  # the page logs it when it tells of it
            stage, error = "failed", failure
        with suppress(OSError):
            job.size = bytes_in(job.folder)
        job.last_used = time.time()
        job.state = replace(job.state, stage=stage, error=error)
        if job.removed:
            _delete_files(job)

    def _generate_and_score(self, job: Job, settings: Augment) -> None:
        while not self._run_lock.acquire(timeout=POLL_SECONDS):
            if job.stop.is_set():
                return
        try:
            if not job.stop.is_set():
                self._generate(job, settings)
            if not job.stop.is_set():
                self._score(job)
        finally:
            self._run_lock.release()

    def _generate(self, job: Job, settings: Augment) -> None:
        from emitdiff.synthesis.augmentation import augment

        progress = Progress(lambda done, total: job.report_progress("generating", done, total), job.stop.is_set)
        written = augment(settings, self._synthesizer(settings.checkpoint), progress)
        painted = sum(bool(row["provenance"]) for row in written.rows) if written else 0
        job.state = replace(job.state, generated=painted)

    def _score(self, job: Job) -> None:
        import_measures()
        from emitdiff.segmentation.evaluation import label_predictor
        from emitdiff.synthesis.filtering.run import filter_images
        from emitdiff.synthesis.filtering.scoring import Filter

        job.report_progress("scoring", 0, job.state.generated)
        asked = job.state.request.segmenter if job.state.request else ""
        answers = label_predictor(self._segmenter(asked), open_dataset(job.source)) if asked else None
        progress = Progress(lambda done, total: job.report_progress("scoring", done, total), job.stop.is_set)
        kept = filter_images(Filter(job.out, job.source, job.filtered), answers, progress)
        if not job.stop.is_set():
            count = sum(bool(row["provenance"]) for row in kept.rows) if kept else 0
            report, scores = job.filtered / "report.html", job.filtered / "quality.csv"
            job.state = replace(job.state, kept=count, report=report, scores=scores)

    def remove_old(self) -> None:
        """Removes what nobody has touched for a day, also of servers that are gone."""
        now = time.time()
        for name, job in list(self._jobs.items()):
            if not job.busy and now - job.last_used > JOB_LIFETIME:
                self.remove(name)
        ours = {job.folder for job in self._jobs.values()}
        for folder in set(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")) - ours:
            try:
                if now - folder.stat().st_mtime > JOB_LIFETIME:
                    shutil.rmtree(folder, ignore_errors=True)
            except FileNotFoundError:  # another server was quicker
                continue


def _settings(job: Job, request: AugmentRequest) -> Augment:
    from emitdiff.synthesis.augmentation import Augment

    given = {part.name: getattr(request, part.name) for part in fields(AugmentationSettings)}
    return Augment(job.source, job.out, **given)


def _check_size(source: Path, settings: Augment) -> int:
    """How many images are to be generated. Raises EmitDiffError for more than a page should wait for."""
    real = open_dataset(source).real()
    wanted = round(settings.ratio * min(len(real), settings.limit or len(real)))
    if wanted > MAX_IMAGES:
        raise EmitDiffError(
            f"{wanted:,} images would be generated; the limit here is {MAX_IMAGES:,}. Lower the ratio or limit, or use "
            "`python -m emitdiff augment` with the folder."
        )
    return wanted


def _delete_files(job: Job) -> None:
    """The files of a removed job go; while it runs or its files are in use, its last user calls this."""
    if not job.busy and job.in_use.acquire(blocking=False):
        shutil.rmtree(job.folder, ignore_errors=True)
        job.in_use.release()
