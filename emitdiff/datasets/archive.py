"""A dataset folder, or any other, as one ZIP file: unpacked only where it is safe and not too large; and packed."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from emitdiff.datasets.names import escapes_folder
from emitdiff.datasets.tables import MAX_RECORD_BYTES, MAX_TABLE_BYTES
from emitdiff.errors import EmitDiffError
from emitdiff.files import file_stem, make_folder, write_atomically
from emitdiff.zips import open_zip

MAX_FILES = 20_000
MAX_BYTES = 2 * 2**30  # unpacked
TABLES = {"dataset.json": MAX_RECORD_BYTES, "metadata.csv": MAX_TABLE_BYTES}  # bytes that are read at most
IS_UTF8 = 0x800  # flag of an entry: so its name is encoded


def unpack_dataset(archive: str | Path, into: str | Path) -> Path:
    """Unpacks a ZIP of a dataset folder (or of what lies in it) below the folder `into`; returns the dataset folder.

    Nothing is written before every entry has been looked at; hidden files and those of macOS are left out.

    Raises:
        EmitDiffError: no ZIP, damaged, with a password, too many or too large files, entries that would land outside
            the folder, or no dataset.json or metadata.csv.
    """
    archive = Path(archive)
    with _opened(archive) as zipped:
        entries = _checked_entries(zipped, archive.name)
        top = _dataset_root(entries, archive.name)
        folder = make_folder(Path(into) / file_stem(top.name or archive.name))
        for name, entry in entries.items():
            if name.is_relative_to(top):
                _write_entry(zipped, entry, folder / name.relative_to(top))
    return folder


def unpack_archive(archive: str | Path, into: str | Path) -> Path:
    """Unpacks any ZIP into the folder `into`/NAME, called after the ZIP, as safely as `unpack_dataset`; returns it.

    Raises:
        EmitDiffError: as `unpack_dataset`, but for the tables, which need not be there.
    """
    archive = Path(archive)
    with _opened(archive) as zipped:
        entries = _checked_entries(zipped, archive.name)
        folder = make_folder(Path(into) / file_stem(archive.name))
        for name, entry in entries.items():
            _write_entry(zipped, entry, folder / name)
    return folder


def unpacked_bytes(archive: str | Path) -> int:
    """How much `unpack_dataset` writes at most. Raises EmitDiffError as it does for what the list of files tells."""
    archive = Path(archive)
    with _opened(archive) as zipped:
        entries = _checked_entries(zipped, archive.name)
        top = _dataset_root(entries, archive.name)
        return sum(entry.file_size for name, entry in entries.items() if name.is_relative_to(top))


def archive_bytes(archive: str | Path) -> int:
    """How much `unpack_archive` writes. Raises EmitDiffError as it does for what the list of files tells."""
    archive = Path(archive)
    with _opened(archive) as zipped:
        return sum(entry.file_size for entry in _checked_entries(zipped, archive.name).values())


def holds_dataset(archive: str | Path) -> bool:
    """Whether a ZIP holds a dataset folder, with both tables. Raises EmitDiffError as `unpack_dataset` does, but for a
    ZIP that holds none."""
    archive = Path(archive)
    with _opened(archive) as zipped:
        entries = _checked_entries(zipped, archive.name)
        if not _table_folders(entries):
            return False
        _dataset_root(entries, archive.name)
        return True


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """The ZIP while it is read; what goes wrong with it meanwhile is said in a sentence."""
    try:
        with open_zip(archive, MAX_FILES) as zipped:
            yield zipped
    except NotImplementedError:
        raise EmitDiffError(f"'{archive.name}' uses an unsupported compression: pack it again.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError):
        raise EmitDiffError(f"'{archive.name}' is not a ZIP file or is damaged: pack it again.") from None
    except OSError as error:
        raise EmitDiffError(f"'{archive.name}' cannot be unpacked ({error.strerror}).") from error


def _checked_entries(zipped: zipfile.ZipFile, named: str) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files to unpack by their path in the archive. Raises EmitDiffError for what cannot be unpacked safely."""
    entries = [entry for entry in zipped.infolist() if not _entry_name(entry).endswith("/")]
    size = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_FILES or size > MAX_BYTES:
        raise EmitDiffError(
            f"'{named}' unpacks to {len(entries):,} files and {size / 2**20:,.0f} MiB. Limits: {MAX_FILES:,} files and "
            f"{MAX_BYTES / 2**20:,.0f} MiB. For more, unpack it and give the folder to a command."
        )
    for entry in entries:
        if escapes_folder(_entry_name(entry)):
            raise EmitDiffError(
                f"'{named}' holds the path '{entry.filename}', which is outside its folder: pack it again."
            )
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise EmitDiffError(f"'{named}' contains the link '{entry.filename}': pack the files themselves.")
        if entry.flag_bits & 1:
            raise EmitDiffError(f"'{named}' is protected by a password: pack it without one.")
    paths: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for entry in entries:
        path = PurePosixPath(_entry_name(entry))
        if any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
            continue
        if path in paths:
            raise EmitDiffError(f"'{named}' holds the file '{path}' twice: pack it again.")
        paths[path] = entry
    return paths


def _entry_name(entry: zipfile.ZipInfo) -> str:
    """The path of an entry, with `/` between folders. Archives of macOS have names in UTF-8 without saying so, and are
    taken for code page 437, as the format has it."""
    name = entry.filename.replace("\\", "/")
    if not entry.flag_bits & IS_UTF8:
        with suppress(UnicodeError):
            return name.encode("cp437").decode("utf-8")
    return name


def _dataset_root(entries: dict[PurePosixPath, zipfile.ZipInfo], named: str) -> PurePosixPath:
    """The folder in the archive that holds both tables. Raises EmitDiffError where there is none, or several."""
    places = _table_folders(entries)
    if len(places) != 1:
        found = f"{len(places)} of them" if places else "none"
        raise EmitDiffError(
            f"'{named}' should hold one dataset folder, with dataset.json, metadata.csv, images/ and masks/; it holds "
            f"{found}. Pack only that folder."
        )
    for name, limit in TABLES.items():
        if entries[places[0] / name].file_size > limit:
            raise EmitDiffError(f"{name} in '{named}' has more than {limit / 2**20:.0f} MiB.")
    return places[0]


def _table_folders(entries: dict[PurePosixPath, zipfile.ZipInfo]) -> list[PurePosixPath]:
    record, table = TABLES
    return [path.parent for path in entries if path.name == record and path.parent / table in entries]


def _write_entry(zipped: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipped.open(entry) as packed, path.open("wb") as file:  # never more than the size it was checked with
        shutil.copyfileobj(packed, file, 2**20)


def pack_folder(folder: str | Path, archive: str | Path, name: str) -> Path:
    """Writes all files of `folder` into the ZIP `archive`, below a folder called `name`; it is there whole or not."""
    folder, archive = Path(folder), Path(archive)
    files = sorted(path for path in folder.rglob("*") if path.is_file())

    def write(partial: Path) -> None:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as zipped:  # pictures are compressed already
            for path in files:
                packed = zipfile.ZIP_DEFLATED if path.suffix in (".csv", ".json", ".html") else None
                zipped.write(path, f"{name}/{path.relative_to(folder).as_posix()}", packed)

    write_atomically(archive, write)
    return archive


def strip_folders(text: str, *places: Path) -> str:
    """A sentence without the folders of this server, `places`, which whoever gave the ZIP never saw."""
    for place in sorted(map(str, places), key=len, reverse=True):
        text = text.replace(f"{place}{os.sep}", "")
    return text
