"""The list of entries in a ZIP is bounded before it is taken in, by both of its readers."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from emitdiff.datasets.archive import unpack_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.scans.reading import read_scan
from emitdiff.zips import open_zip

ENTRIES = 300_000


def write_list(path: Path, entries: int, zip64: bool, told: int | None = None, comment: bytes = b"") -> Path:
    """A ZIP of one empty file that its list names `entries` times; the plain record gives `told` as its length."""
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    size, at, end = len(central) * entries, len(local), b""
    if zip64:
        end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, size, at)
        end += struct.pack("<4sIQI", b"PK\6\7", 0, at + size, 1)
    given = 0xFFFFFFFF if zip64 else size
    count = min(entries, 0xFFFF)
    end += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, given if told is None else told, at, len(comment))
    path.write_bytes(local + central * entries + end + comment)
    return path


@pytest.mark.parametrize("read", [read_scan, lambda path: unpack_dataset(path, path.parent / "into")])
@pytest.mark.parametrize(
    "how", [{"zip64": False}, {"zip64": True}, {"zip64": True, "told": 47}, {"zip64": False, "comment": b"x" * 65535}]
)
def test_a_list_without_end_is_refused_before_it_is_taken_in(tmp_path, read, how):
    path = write_list(tmp_path / "many.zip", ENTRIES, **how)
    tracemalloc.start()
    try:
        with pytest.raises(EmitDiffError, match="'many.zip' lists too many files: the limit is"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 2 * path.stat().st_size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("zip64", [False, True])
def test_a_list_that_is_short_enough_is_read_whatever_else_the_file_holds(tmp_path, zip64):
    with open_zip(write_list(tmp_path / "few.zip", 100, zip64, comment=b"x" * 65535), 100) as zipped:
        assert len(zipped.infolist()) == 100
    with zipfile.ZipFile(tmp_path / "large.zip", "w") as zipped:
        zipped.writestr("a" * 300, bytes(2**20))
    with open_zip(tmp_path / "large.zip", 1) as zipped:
        assert zipped.read("a" * 300) == bytes(2**20)
