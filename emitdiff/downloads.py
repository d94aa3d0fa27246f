"""Fetches from the Hub, once and to the end: what was stopped or killed goes on where it was, and what arrives is
compared with the hash that the Hub names.

huggingface_hub resolves names, lists and links; the large files are put into its cache here, for its own downloads
begin anew after a kill, leave their partial files behind and look at the size alone.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from emitdiff.errors import EmitDiffError, first_line
from emitdiff.hub import HubPart, NotOnHub, broken_line, explained, find_snapshot, hub_is_reachable, unreachable
from emitdiff.progress import NO_PROGRESS, Progress, download_words

CHUNK = 1 << 20  # bytes read at once where a partial file is gone on with
TRIES = 5  # in a row without anything new
WAIT = 1.0  # seconds before the next
TIMEOUT = 20.0  # seconds without a byte
COMMIT_HEADER = "X-Repo-Commit"  # what the Hub answers with, and a page to log in to some network does not
TRANSIENT = {408, 429, 500, 502, 503, 504}  # HTTP answers after which trying again is worth it


class DownloadStopped(EmitDiffError):
    """Whoever asked for it cancelled the download; what has arrived is kept."""


@dataclass
class _File:
    """A large file that is not here yet."""

    part: HubPart
    commit: str
    name: str
    size: int
    sha256: str

    @property
    def blob(self) -> Path:
        return _storage(self.part) / "blobs" / self.sha256

    @property
    def partial(self) -> Path:
        return self.blob.with_name(f"{self.sha256}.incomplete")

    @property
    def lock(self) -> Path:
        storage = _storage(self.part)
        return storage.parent / ".locks" / storage.name / f"{self.sha256}.lock"  # the library's own for this file


@dataclass
class _Plan:
    """What is to be fetched of a part: all its files by name, and the large ones that are missing."""

    part: HubPart
    commit: str
    names: list[str]
    missing: list[_File]


@dataclass
class _Meter:
    """Bytes that are here already, of all that was asked for."""

    progress: Progress
    total: int
    before: int = 0  # of files that are complete

    def report(self, of_file: int) -> None:
        done = self.before + of_file
        if self.progress.cancelled():
            raise DownloadStopped(
                f"The download was stopped at {download_words(done, self.total, None)}; what has arrived is kept, and "
                "the next one goes on from there."
            )
        self.progress.report(done, self.total)


def fetch(
    parts: Sequence[HubPart], half: bool = False, progress: Progress = NO_PROGRESS, command: str = ""
) -> list[Path]:
    """The folders of `parts` on this machine, fetched where they are not here.

    Of weights that the Hub has in both precisions, `half` chooses. `progress` is told of bytes, over all parts. A part
    that follows a branch is compared with the Hub where it can be reached.

    Raises:
        EmitDiffError: why it cannot be had and what to do, in one sentence; `command` fetches it elsewhere.
        DownloadStopped: `progress.cancelled()` said so.
    """
    found = [find_snapshot(part, half) if part.pinned else None for part in parts]
    if not all(found) and not hub_is_reachable():
        found = [folder or find_snapshot(part, half) for part, folder in zip(parts, found, strict=True)]
        for part, folder in zip(parts, found, strict=True):
            if folder is None:
                raise NotOnHub(unreachable(part.repository, command))
    plans: dict[int, _Plan] = {}
    for index, (part, folder) in enumerate(zip(parts, found, strict=True)):
        if folder is None:
            with explained(part.repository, command):
                plans[index] = _plan(part, half)
    _fetch_large([file for plan in plans.values() for file in plan.missing], progress, command)
    for index, plan in plans.items():
        with explained(plan.part.repository, command):
            found[index] = _link(plan)
    return [folder for folder in found if folder is not None]


def _storage(part: HubPart) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE).expanduser() / repo_folder_name(repo_id=part.repository, repo_type="model")


def _plan(part: HubPart, half: bool) -> _Plan:
    from huggingface_hub import HfApi, RepoFile

    api = HfApi()
    commit = part.revision if part.pinned else str(api.repo_info(part.repository, revision=part.revision).sha)
    tree = api.list_repo_tree(part.repository, recursive=True, revision=commit)
    files = {file.path: file for file in tree if isinstance(file, RepoFile)}
    names = part.choose(files, half)
    snapshot = _storage(part) / "snapshots" / commit
    large = [
        _File(part, commit, name, lfs.size, lfs.sha256)
        for name in names
        if (lfs := files[name].lfs) and not (snapshot / name).exists()
    ]
    return _Plan(part, commit, names, [file for file in large if not file.blob.exists()])


def _fetch_large(files: list[_File], progress: Progress, command: str) -> None:
    """One after the other: a line is shared by them anyway."""
    files = list({file.sha256: file for file in files}.values())
    if not files:
        return
    meter = _Meter(progress, sum(file.size for file in files))
    with explained(files[0].part.repository, command):
        _check_space(files)
    for file in files:
        with explained(file.part.repository, command), _alone(file, meter):
            if not file.blob.exists():
                _fetch_file(file, meter)
        meter.before += file.size
    meter.report(0)


def _check_space(files: list[_File]) -> None:
    folder = _storage(files[0].part)
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = sum(file.size - _size(file.partial) for file in files), shutil.disk_usage(folder).free
    if needed > free:
        names = ", ".join(sorted({file.part.repository for file in files}))
        raise EmitDiffError(
            f"{names} needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {folder.parent}: free "
            "some space, or set HF_HOME to a folder on a larger disk."
        )


@contextmanager
def _alone(file: _File, meter: _Meter) -> Iterator[None]:
    """Holds the library's lock on the file; while another process fetches it, what that one has is reported."""
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock

    for folder in (file.lock.parent, file.blob.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        while True:
            meter.report(_size(file.partial))
            with suppress(Timeout):
                held.enter_context(WeakFileLock(file.lock, timeout=0.5))
                break
        yield


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fetch_file(file: _File, meter: _Meter) -> None:
    _adopt_partials(file)
    resumed = _size(file.partial) > 0
    if not _arrives(file, meter) and not (resumed and _arrives(file, meter)):  # once from the beginning
        raise EmitDiffError(
            f"{file.name} of {file.part.repository} did not arrive as the Hub has it (its hash is not "
            f"{file.sha256[:12]}...): something on the way altered it, such as a proxy. Nothing of it was kept; try "
            "again, or over another connection."
        )
    file.partial.replace(file.blob)


def _adopt_partials(file: _File) -> None:
    """What downloads of the library left when they were killed: the longest is gone on with, the others go."""
    left = sorted(file.blob.parent.glob(f"{file.sha256}*.incomplete"), key=_size)
    if left and left[-1] != file.partial:
        left[-1].replace(file.partial)
    for path in left[:-1]:
        path.unlink(missing_ok=True)


def _arrives(file: _File, meter: _Meter) -> bool:
    """Fetches what is missing of the partial file, taking a broken line up again; whether it has its hash. If not, it
    is removed."""
    if _size(file.partial) > file.size:
        file.partial.unlink()
    with file.partial.open("a+b") as target:
        partial = _Partial(target, _size(file.partial))
        tries = 0
        while partial.size < file.size:
            before = partial.size
            failure = _request_rest(file, partial, meter)
            tries = 0 if partial.size > before else tries + 1
            if tries >= TRIES:
                raise failure
            if partial.size < file.size:
                _wait(meter, partial.size)
    if partial.hash.hexdigest() != file.sha256:
        file.partial.unlink()
        return False
    return True


class _Partial:
    """A partial file, open at its end, with the hash of what is in it."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.hash, self.size = file, hashlib.sha256(), 0
        file.seek(0)
        while self.size < size and (chunk := file.read(min(CHUNK, size - self.size))):
            self.hash.update(chunk)
            self.size += len(chunk)

    def restart(self) -> None:
        self.file.truncate(0)
        self.hash, self.size = hashlib.sha256(), 0

    def write(self, chunk: bytes) -> None:
        self.file.write(chunk)
        self.file.flush()
        self.hash.update(chunk)
        self.size += len(chunk)


def _wait(meter: _Meter, done: int) -> None:
    until = time.monotonic() + WAIT
    while (left := until - time.monotonic()) > 0:
        meter.report(done)
        time.sleep(min(0.2, left))


def _request_rest(file: _File, partial: _Partial, meter: _Meter) -> Exception:
    """One request for what is missing; why it ended where it did. Raises what trying again does not mend."""
    from huggingface_hub import errors, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    start = partial.size
    headers = build_hf_headers() | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    url = hf_hub_url(file.part.repository, file.name, revision=file.commit)
    try:
        with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as response:
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            if not any(COMMIT_HEADER in answer.headers for answer in (*response.history, response)):
                raise errors.FileMetadataError(f"{url} came without {COMMIT_HEADER}")
            if start and response.status_code == 200:  # asked for the rest, given the whole
                partial.restart()
            for chunk in response.iter_bytes():  # as they come: what is gathered first is lost with the line
                partial.write(chunk)
                meter.report(partial.size)
    except errors.HfHubHTTPError as error:
        if error.response.status_code not in TRANSIENT:
            raise
        return error
    except errors.HTTPError as error:
        return EmitDiffError(broken_line(file.part.repository, first_line(error)))
    return EmitDiffError(
        broken_line(file.part.repository, f"it ends after {download_words(partial.size, file.size, None)}")
    )


def _link(plan: _Plan) -> Path:
    """The snapshot's folder: the library fetches the small files, and links the large ones."""
    from huggingface_hub import snapshot_download
    from tqdm import tqdm

    class Silent(tqdm):
        def __init__(self, *args: Any, **named: Any):
            super().__init__(*args, **{**named, "disable": True})

    return Path(
        snapshot_download(
            plan.part.repository, revision=plan.part.revision, allow_patterns=plan.names, tqdm_class=Silent
        )
    )
