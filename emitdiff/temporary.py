"""The folder in which an application keeps what others gave it: its own, with nothing of earlier runs, gone at its end.

A process that is killed cannot tidy up. So every run holds a lock, which the system lets go with the process, and the
next one that starts removes the folders whose lock is free.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from filelock import FileLock, Timeout

from emitdiff.errors import EmitDiffError

PREFIX = "run-"
TRIES = 20  # to remove a folder into which threads that compute may still write
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))


class AskedToEndError(BaseException):
    """Somebody wants the program to end: `docker stop`, Ctrl-C, a terminal that was closed."""


class TemporaryRoot:
    """From its making to `close`, all temporary files of this process, and Gradio's, lie in `folder`, which only its
    user can open: below GRADIO_TEMP_DIR where that is given, else where temporary files are (TMPDIR).

    Make it before Gradio is imported, which looks up once where its files go. Raises EmitDiffError where there is no
    such place.
    """

    def __init__(self) -> None:
        self._before = tempfile.tempdir, os.environ.get("TMPDIR"), os.environ.get("GRADIO_TEMP_DIR")
        place = Path(self._before[2] or tempfile.gettempdir()).absolute()
        place.mkdir(parents=True, exist_ok=True)
        parent = _own_folder(place / f"emitdiff-{_user()}")
        remove_abandoned(parent)
        name = f"{PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
        self._lock = FileLock(parent / f"{name}.lock")
        self._lock.acquire(timeout=0)  # before there is a folder that anybody could take for abandoned
        self.folder = parent / name
        self.folder.mkdir(mode=0o700)
        tempfile.tempdir = os.environ["TMPDIR"] = str(self.folder)
        os.environ["GRADIO_TEMP_DIR"] = str(self.folder / "gradio")

    def close(self) -> None:
        """All files go, and temporary files lie where they did before."""
        for _ in range(TRIES):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                break
        self._lock.release()
        with suppress(OSError):
            os.unlink(self._lock.lock_file)
        tempfile.tempdir = self._before[0]
        for name, value in zip(("TMPDIR", "GRADIO_TEMP_DIR"), self._before[1:], strict=True):
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def ending_in_order() -> Iterator[None]:
    """In the block, a wish to end (SIGTERM, Ctrl-C, a closed terminal) is an `AskedToEndError`, once: while it leaves
    the block by `with` and `finally`, further wishes change nothing. A signal that is ignored stays so, as nohup has
    it. Outside of the main thread, where Python knows no signals, the block is as any other."""

    def end(*_: object) -> NoReturn:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise AskedToEndError

    main = threading.current_thread() is threading.main_thread()
    before = {one: signal.getsignal(one) for one in ENDING if main and signal.getsignal(one) != signal.SIG_IGN}
    for one in before:
        signal.signal(one, end)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def remove_abandoned(parent: Path) -> None:
    """The folders of runs that were killed go."""
    for folder in parent.glob(f"{PREFIX}*"):
        if folder.suffix == ".lock":
            continue
        lock = FileLock(parent / f"{folder.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
        with suppress(OSError):
            os.unlink(lock.lock_file)


def _own_folder(folder: Path) -> Path:
    """`folder`, made where it is not there; where it is, it must be ours alone, for anybody can make folders there."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    foreign = hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o077)
    if not stat.S_ISDIR(found.st_mode) or foreign:
        raise EmitDiffError(
            f"{folder} belongs to somebody else, or others can open it: remove it, or give another place as TMPDIR."
        )
    return folder


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()  # a container may have no name for it
