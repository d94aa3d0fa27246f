"""Disks that fail, for tests: full at a certain write, full from a certain size on, or not to be written to."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
EVENTS = {"open": 0, "os.mkdir": 0, "os.rename": 1, "shutil.copyfile": 1}  # and where the path that changes stands


@dataclass
class FailingDisk:
    """Everything below `folder` can be written but for number `at` (from 0) of what is made or opened for writing, and
    all after it where it `stays`; what failed is in `failed`. Below Python, like in safetensors, it is not noticed."""

    folder: str
    at: int
    number: int = errno.ENOSPC
    stays: bool = True
    seen: int = 0
    failed: str = ""

    def look(self, event: str, arguments: tuple) -> None:
        if event not in EVENTS or (event == "open" and not _writes(arguments)):
            return
        path = arguments[EVENTS[event]]
        if not isinstance(path, str | os.PathLike) or not os.path.abspath(path).startswith(self.folder):
            return
        self.seen += 1
        if self.seen - 1 == self.at or (self.stays and self.seen > self.at):
            self.failed = self.failed or str(path)
            raise OSError(self.number, os.strerror(self.number), str(path))


def _writes(arguments: tuple) -> bool:
    _, mode, flags = arguments
    return bool(flags & (os.O_WRONLY | os.O_RDWR)) if isinstance(flags, int) else "w" in (mode or "")


_disks: list[FailingDisk] = []


def _hook(event: str, arguments: tuple) -> None:
    for disk in _disks:
        disk.look(event, arguments)


@contextmanager
def failing_disk(folder: Path, at: int, number: int = errno.ENOSPC, stays: bool = True) -> Iterator[FailingDisk]:
    """A `FailingDisk` for as long as the block runs."""
    if not hasattr(sys, "_emitdiff_test_hook"):
        sys._emitdiff_test_hook = True  # an audit hook stays for the life of the process
        sys.addaudithook(_hook)
    disk = FailingDisk(os.path.abspath(folder), at, number, stays)
    _disks.append(disk)
    try:
        yield disk
    finally:
        _disks.remove(disk)


def run_verb(
    *arguments: object, largest_file: int | None = None, obeys: bool = False, **how
) -> subprocess.CompletedProcess:
    """`python -m emitdiff ARGUMENTS`, its output as text. `largest_file`: writing stops there, in whatever library, as
    on a disk that is full. `obeys`: it may not write where the permissions forbid it, even as root."""

    def prepare() -> None:
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        if obeys and os.geteuid() == 0:
            drop_override()

    command = [sys.executable, "-m", "emitdiff", *map(str, arguments)]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **how.pop("env", {})}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=280, preexec_fn=prepare, env=surroundings, cwd=ROOT, **how
    )  # fmt: skip


def drop_override() -> None:
    """From the next program on, root obeys permissions like anybody."""
    PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
    if ctypes.CDLL(None, use_errno=True).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the right to override permissions cannot be given up")


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder, hidden ones too, by their paths from there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
