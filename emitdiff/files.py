"""Folders and small text files of long runs: made or refused with a sentence, written whole, read again."""

from __future__ import annotations

import json
import os
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


def write_text(path: Path, text: str) -> None:
    """The text in UTF-8, at once or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


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
