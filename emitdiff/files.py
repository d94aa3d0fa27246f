"""Folders and small text files of long runs: made or refused with a sentence, written whole, read again."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import threading
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emitdiff.errors import EmitDiffError

if TYPE_CHECKING:
    import numpy as np

SYSTEM_FILES = frozenset({"Thumbs.db", "desktop.ini"})  # left by whoever looked into the folder, as hidden files are
MAX_LISTED = 3  # files of somebody else that the sentence names


def make_folder(folder: str | Path, named: str | Path | None = None) -> Path:
    """`folder`, with its parents, made where it is not there yet.

    Raises:
        EmitDiffError: it cannot be made; the sentence names `named`, what the user gave, or else `folder`.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EmitDiffError(
            f"The folder {named or folder} cannot be made ({error.strerror}): give another one."
        ) from error
    return folder


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """`path` with what `write` puts into the file it is given, at once or not at all, whoever else writes it too."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")  # hidden: never listed
    try:
        partial.touch()
        mode = partial.stat().st_mode
        write(partial)
        partial.chmod(mode)  # as for any new file: safetensors lets nobody else read what it writes
        os.replace(partial, path)
    except OSError as error:
        if error.errno is not None:  # with a name, one of a library would lose its words
            error.filename, error.filename2 = str(path), None  # whoever is told of it knows this name
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """The text in UTF-8, at once or not at all."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_png(path: Path, array: np.ndarray) -> Path:
    """uint8 (H, W) or (H, W, 3) as PNG, whole or not at all; returns its path."""
    import numpy as np
    from PIL import Image

    write_atomically(path, lambda partial: Image.fromarray(np.ascontiguousarray(array)).save(partial, format="PNG"))
    return path


def check_writable(folder: str | Path) -> None:
    """Looks, before hours of work and not after them, whether `folder` can be written into, or be made; makes nothing.

    Raises:
        EmitDiffError: it cannot.
    """
    folder = Path(folder)
    place = next((place for place in (folder, *folder.absolute().parents) if place.exists()), folder)
    probe = place / f".{os.getpid()}.{threading.get_ident()}.partial"
    try:
        probe.write_bytes(bytes(1))
    except NotADirectoryError as error:
        raise EmitDiffError(f"The folder {folder} cannot be made ({error.strerror}): give another one.") from error
    except OSError as error:
        raise EmitDiffError(f"Nothing can be written into {folder} ({error.strerror}): give another folder.") from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


@contextmanager
def locked(folder: str | Path, wait: bool = False) -> Iterator[None]:
    """`folder`, which must be there, to oneself: no other run on this machine, in this process or another, has it
    meanwhile. The system lets go of it whatever becomes of the process. Without effect where it has no such locks.

    Raises:
        EmitDiffError: another run has it, unless `wait` says to wait for that to end.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        raise EmitDiffError(
            f"Another run is writing into {folder}: wait until it has ended, or give another folder."
        ) from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def unfinished_folder(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target`, this run's own, gone at the end; so are those of runs that were killed, which
    nobody holds any more. Whoever has filled it moves it to `target`."""
    make_folder(target.parent, named=target)
    own = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.unfinished")
    with ExitStack() as held:
        with locked(target.parent, wait=True):
            for left in target.parent.glob(f".{glob.escape(target.name)}.*unfinished"):
                with suppress(EmitDiffError, OSError), locked(left):
                    shutil.rmtree(left, ignore_errors=True)
            make_folder(own, named=target)
            held.callback(shutil.rmtree, own, ignore_errors=True)
            held.enter_context(locked(own))
        yield own


def list_files(folder: str | Path) -> list[str]:
    """The files below a folder, links followed, by their path from there; none where it is no folder. What is hidden
    does not count, nor do directories without files."""
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        if real not in seen:
            seen.add(real)
            inside = Path(place).relative_to(folder)
            found += [
                (inside / name).as_posix() for name in names if not name.startswith(".") and name not in SYSTEM_FILES
            ]
    return found


def check_no_foreign_files(out: str | Path, own: Collection[str] = (), files: Collection[str] | None = None) -> None:
    """Raises EmitDiffError where the folder `out` holds files other than `own`, paths from there; `files` is what
    `list_files` said where it was asked already."""
    files = list_files(out) if files is None else files
    if foreign := sorted(set(files).difference(own), key=lambda name: (name.count("/"), name)):
        more = f" and {len(foreign) - MAX_LISTED} more" if len(foreign) > MAX_LISTED else ""
        raise EmitDiffError(
            f"{out} contains other files: {', '.join(foreign[:MAX_LISTED])}{more}. Give another folder, or clear "
            "this one."
        )


def check_new_folder(out: str | Path) -> None:
    """Raises EmitDiffError where the folder `out`, which appears by its name once it is whole, holds something, were it
    hidden, or has no name of its own."""
    out = Path(out)
    check_no_foreign_files(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise EmitDiffError(f"{out} holds something already. Give another folder, or remove this one.")
    if out.name in ("", ".."):
        raise EmitDiffError(f"The folder '{out}' is one you stand in: give the name of a new one.")


def check_output_folder(out: str | Path, markers: Iterable[str], sources: Iterable[str | Path | None]) -> None:
    """Looks whether a run may write into `out`. Any of the paths `markers` tells that it began this folder itself.

    Raises:
        EmitDiffError: `out` is one of the folders `sources` that the run reads, is new and lies in one or holds files
            already, or cannot be written into.
    """
    out = Path(out)
    begun = any((out / mark).exists() for mark in markers)
    for source in (Path(source).resolve() for source in sources if source and Path(source).is_dir()):
        if out.resolve() == source or (not begun and out.resolve().is_relative_to(source)):
            raise EmitDiffError(
                f"{out} is the folder of {source.name} or inside it; give another --out so that nothing is overwritten."
            )
    if not begun:
        check_no_foreign_files(out)
    check_writable(out)


def begin_record(path: Path, record: dict[str, Any], out: str | Path, optional: Collection[str] = ()) -> None:
    """Writes the record of all that the run in the folder `out` depends on, or finds it as it was started; `optional`
    as in `check_record`.

    Raises:
        EmitDiffError: the file is damaged, or the run was started with another record.
    """
    check_record(path, record, out, optional)
    make_folder(path.parent, named=out)
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n")


def check_record(path: Path, record: dict[str, Any], out: str | Path, optional: Collection[str] = ()) -> None:
    """Compares the record of a run with what it was started with, if it was. Those of the facts `optional` that an
    older version did not record are left out.

    Raises:
        EmitDiffError: the file is damaged, or the run was started with another record.
    """
    record = json.loads(json.dumps(record, default=str))
    if (begun := read_record(path, out)) is not None:
        begun = {**{name: record[name] for name in optional}, **begun}
        changes = [f"{name} {begun.get(name)}, now {record.get(name)}" for name in {**begun, **record}
                   if begun.get(name) != record.get(name)]  # fmt: skip
        if changes:
            raise EmitDiffError(
                f"{out} was started with {'; '.join(changes)}. Give another folder, or the original settings."
            )


def read_record(path: Path, out: str | Path) -> dict[str, Any] | None:
    """The JSON record of what the run in the folder `out` was started with; None where there is none yet.

    Raises:
        EmitDiffError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record
    except ValueError as error:
        raise EmitDiffError(
            f"{path} is damaged ({error}); remove {out} and start again, or give another one."
        ) from None


def file_stem(name: str) -> str:
    """A file's or folder's name for use in other names: no folders, no suffix of a scan, nothing but letters (composed,
    with their marks), digits, dots, - and _. The dots of a DICOM identifier stay, so that two series do not share a
    name."""
    name = unicodedata.normalize("NFC", Path(name).name)
    stem = re.sub(r"(\.nii)?\.(png|jpe?g|webp|tiff?|dcm|dicom|zip|nii|gz)$", "", name, flags=re.IGNORECASE)
    kept = (character if _in_names(character) else "_" for character in stem)
    short = "".join(kept).strip(".")[:100].encode()[:180].decode(errors="ignore")  # file systems count bytes, to 255
    return short or "scan"


def _in_names(character: str) -> bool:
    return character.isalnum() or character in "_.-" or unicodedata.category(character)[0] == "M"
