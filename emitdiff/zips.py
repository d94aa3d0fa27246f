"""Untrusted ZIP files, opened with a limit on the number of entries."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emitdiff.errors import EmitDiffError

ENTRY_BYTES = 512  # of the list, for one file: 46, its path, and what packers add; paths are rarely longer than 300
END_BYTES = 2**16 + 256  # the end of the file, where the list is looked for, with its comment and the records of ZIP64


@contextmanager
def open_zip(path: Path, max_files: int) -> Iterator[zipfile.ZipFile]:
    """The ZIP at `path`, where its list of entries is no longer than `max_files` need; small ones, count them still.

    zipfile makes an object of every entry in the list before any of them can be counted. How long that list is stands
    in the file twice, with ZIP64, and may be wrong in either place, so what is limited is what opening it reads.

    Raises:
        EmitDiffError: the list is longer.
        zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, OSError: as zipfile does.
    """
    with _Limited(io.FileIO(path)) as file:
        file.remaining = END_BYTES + max_files * ENTRY_BYTES
        try:
            zipped = zipfile.ZipFile(file)
        except _LimitExceededError:
            raise EmitDiffError(
                f"'{path.name}' lists too many files: the limit is {max_files:,}. Pack fewer, and nothing else."
            ) from None
        file.remaining = None
        with zipped:
            yield zipped


class _LimitExceededError(Exception):
    pass


class _Limited(io.BufferedReader):
    """A file that gives no more than `remaining` bytes; None for as many as are asked for."""

    remaining: int | None = None

    def read(self, size: int | None = -1) -> bytes:
        if self.remaining is None:
            return super().read(size)
        within = size is not None and 0 <= size <= self.remaining
        content = super().read(size if within else self.remaining + 1)
        self.remaining -= len(content)
        if self.remaining < 0:
            raise _LimitExceededError
        return content
