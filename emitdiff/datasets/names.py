"""Names of files as the rows of a table spell them, on whatever machine it was written.

What can mean one file only is found; anything else is refused with what to do.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from unicodedata import normalize

from emitdiff.errors import EmitDiffError


def clean_path(cell: str) -> str:
    """A path as a row spells it, the same on every machine: composed letters, `/` between folders, no `./`."""
    path = normalize("NFC", cell.strip()).replace("\\", "/")
    return str(PurePosixPath(path)) if path else ""


def escapes_folder(name: str) -> bool:
    """Whether a path written in a row is absolute or climbs out of the dataset folder."""
    # Links are followed: a download cache is made of them. Only the written path must stay inside.
    windows = PureWindowsPath(name)
    return bool(windows.drive or windows.root) or ".." in windows.parts


def find_file(folder: Path, name: str) -> Path:
    """Where the file lies that a row calls `name`: as it is spelt; else spelt with letters that are composed otherwise
    (a macOS archive), or with other capitals (Windows), where only one file is meant. Where none is, as it is spelt.

    Raises:
        EmitDiffError: several are meant.
    """
    path = folder / name
    if path.exists():
        return path
    found = folder
    for part in PurePosixPath(name).parts:
        entry = _entry(found, part)
        if entry is None:
            unpacked = _entry(folder, name)  # some programs unpack `images\a.png` as a file of that name
            return folder / unpacked if unpacked else path
        found = found / entry
    return found


def _entry(folder: Path, name: str) -> str | None:
    """The entry of `folder` that is called so, whatever its spelling."""
    try:
        entries = _entries(folder, folder.stat().st_mtime_ns).get(clean_path(name).casefold(), [])
    except OSError:
        return None
    same = [entry for entry in entries if clean_path(entry) == clean_path(name)] or entries
    if name in same:
        return name
    if len(same) > 1:
        raise EmitDiffError(f"'{name}' may be {' or '.join(map(repr, sorted(same)))}: spell it as the file is spelt.")
    return same[0] if same else None


@lru_cache(maxsize=64)
def _entries(folder: Path, changed: int) -> dict[str, list[str]]:
    """The entries of a folder, last `changed` then, by their names in one spelling."""
    entries: dict[str, list[str]] = {}
    for entry in folder.iterdir():
        entries.setdefault(clean_path(entry.name).casefold(), []).append(entry.name)
    return entries
