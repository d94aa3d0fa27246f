"""What weights are, byte for byte: sha256 of their files, the list they are checked against, one hash for a folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path

from emitdiff.errors import EmitDiffError
from emitdiff.files import write_text

CHECKSUMS = "checksums.json"  # of a folder of weights: path of each file below it to the sha256 of its content
LOADED = (".safetensors", ".json", ".txt")  # what loading reads; a model card is for people and may change
NOT_WEIGHTS = ("state", "features", "safety_checker")  # folders that nothing is loaded from
LARGE_BYTES = 2**28  # of files that take seconds: their hashes are kept on disk, as long as size and time are the same
SHORT = 12  # digits that tell weights apart in a sentence


def sha256_of(path: str | Path) -> str:
    """The sha256 of a file in hexadecimal; the same file, by place, size and time of its last change, is read once."""
    real = os.path.realpath(path)
    found = os.stat(real)
    return _sha256(real, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=2**16)
def _sha256(path: str, size: int, changed: int) -> str:
    known = _read_cache() if size >= LARGE_BYTES else {}
    facts = f"{path} {size} {changed}"
    if facts not in known:
        with open(path, "rb") as file:
            known[facts] = hashlib.file_digest(file, "sha256").hexdigest()
        if size >= LARGE_BYTES:
            _write_cache(known)
    return known[facts]


def _cache_file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emitdiff" / "sha256.json"


def _read_cache() -> dict[str, str]:
    with suppress(OSError, ValueError, RuntimeError):  # no home, no file, or a damaged one: hashed again
        content = json.loads(_cache_file().read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def _write_cache(known: dict[str, str]) -> None:
    with suppress(OSError, RuntimeError):  # it only saves time
        _cache_file().parent.mkdir(parents=True, exist_ok=True)
        write_text(_cache_file(), json.dumps(dict(list(known.items())[-256:]), indent=1))


def files_to_load(folder: Path) -> Iterator[tuple[str, Path]]:
    """(path from there, file) of all that may be loaded from a folder of weights, in order."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") or part.endswith(".partial") for part in inside.parts)
        if path.suffix in LOADED and inside.parts[0] not in (CHECKSUMS, *NOT_WEIGHTS) and not hidden and path.is_file():
            yield inside.as_posix(), path


def folder_checksums(folder: Path) -> dict[str, str]:
    """sha256 of every file that may be loaded from `folder`, by its path from there."""
    return {name: sha256_of(path) for name, path in files_to_load(folder)}


def fingerprint(*folders: Path, names: Sequence[Collection[str] | None] = ()) -> str:
    """One sha256 that stands for everything that may be loaded from `folders`: another as soon as a bit changes. Of
    those for which `names` are given, only the files of that path count."""
    digest = hashlib.sha256()
    for folder, wanted in zip_longest(folders, names):
        found = {name: sha256_of(path) for name, path in files_to_load(folder) if wanted is None or name in wanted}
        digest.update(json.dumps(found, sort_keys=True).encode())
    return digest.hexdigest()


def write_checksums(folder: Path, without: Collection[str] = ()) -> Path:
    """The list of `folder` made anew, checksums.json in it; `without` files that users may change."""
    path = folder / CHECKSUMS
    listed = {name: found for name, found in folder_checksums(folder).items() if name not in without}
    write_text(path, json.dumps(listed, indent=1) + "\n")
    return path


def check_checksums(folder: Path, required: bool = False) -> None:
    """Compares what lies in `folder` with its list, where it has one.

    Raises:
        EmitDiffError: a file has another content than listed or is not there, the list is damaged, or there is none
            though it is `required`.
    """
    path = folder / CHECKSUMS
    if not path.is_file():
        if required:
            raise EmitDiffError(f"{path} is missing, so the weights cannot be checked. {_advice(folder)}")
        return
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        listed = None
    if not isinstance(listed, dict) or not listed:
        raise EmitDiffError(f"{path} is damaged, so the weights cannot be checked. {_advice(folder)}")
    for name, expected in listed.items():
        found = sha256_of(folder / name) if (folder / name).is_file() else None
        if found != expected:
            what = "is missing" if found is None else f"is not what it was (sha256 {found[:SHORT]}..., not "
            what += "" if found is None else f"{str(expected)[:SHORT]}...)"
            raise EmitDiffError(f"{folder / name} {what}: the weights are damaged or were changed. {_advice(folder)}")


def _advice(folder: Path) -> str:
    return (
        "Copy or download them again; if you changed them yourself, run "
        f"`python -m emitdiff check-weights {folder} --write`."
    )


def check_downloaded(folder: Path, repository: str, revision: str, known: dict[str, str]) -> None:
    """Looks whether a snapshot `folder` in the Hub's cache is that of `revision`, and whether its files are what the
    Hub gave: the blobs of large files are called after their sha256, and of some the sha256 is `known`.

    Raises:
        EmitDiffError: another commit than the pinned one, or a file with another content.
    """
    if is_commit(revision) and folder.name != revision:
        raise EmitDiffError(
            f"{repository} at {revision} was asked for, and the cache has {folder.name}: delete {folder.parents[1]}, "
            "and it is downloaded again."
        )
    for name, path in files_to_load(folder):
        blob = Path(os.path.realpath(path))
        expected = {known.get(name), blob.name if len(blob.name) == len(hashlib.sha256().hexdigest()) else None}
        if expected != {None} and expected - {None, sha256_of(path)}:
            raise EmitDiffError(
                f"{name} of {repository} is damaged in the cache of the Hub, or is not what was published: delete "
                f"{blob}, and it is downloaded again."
            )


def is_commit(revision: str) -> bool:
    """Whether a revision names one state of a repository for ever; branches and tags may move."""
    return len(revision) == 40 and all(digit in "0123456789abcdef" for digit in revision)
