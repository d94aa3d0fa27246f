"""Folders and small text files of long runs: made or refused with a sentence, written whole, read again."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

from emitdiff.errors import EmitDiffError


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


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """`path` with what `write` puts into the file it is given, at once or not at all, whoever else writes it too."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """The text in UTF-8, at once or not at all."""
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def begin_record(path: Path, record: dict, out: str | Path) -> None:
    """Writes the record of all that the run in the folder `out` depends on, or finds it as it was begun.

    Raises:
        EmitDiffError: the file is damaged, or the run was begun with another record.
    """
    record = json.loads(json.dumps(record, default=str))
    if (begun := read_record(path, out)) is not None:
        changes = [f"{name} {begun.get(name)}, now {record.get(name)}" for name in {**begun, **record}
                   if begun.get(name) != record.get(name)]  # fmt: skip
        if changes:
            raise EmitDiffError(
                f"{out} was begun with {'; '.join(changes)}. Give another folder, or the settings it had."
            )
    make_folder(path.parent, named=out)
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def read_record(path: Path, out: str | Path) -> dict | None:
    """The JSON record of what the run in the folder `out` was begun with; None where there is none yet.

    Raises:
        EmitDiffError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EmitDiffError(
            f"{path} is damaged ({error}); remove {out} and begin again, or give another one."
        ) from None
