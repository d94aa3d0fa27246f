"""Who may use the server: names with passwords, given so that no password need stand in the list of processes."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from emitdiff.errors import EmitDiffError

VARIABLE = "EMITDIFF_AUTH"
SHORTEST = 8  # characters of a password
FORM = f"USER:PASSWORD, with at least {SHORTEST} characters after the first colon"
Logins = list[tuple[str, str]]


def read_logins(given: str | None, file: Path | None) -> Logins | None:
    """Those of the options --auth and --auth-file, or of the variable; None where there are none.

    Raises EmitDiffError, which holds no password, for what has another form and for a file that cannot be read.
    """
    if given is not None and file is not None:
        raise EmitDiffError("Both --auth and --auth-file were given: give one of them.")
    if file is not None:
        return _read_file(file)
    if given is not None:
        return [_login(given, "--auth")]
    named = os.environ.get(VARIABLE)
    return [_login(named, VARIABLE)] if named else None


def _read_file(file: Path) -> Logins:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EmitDiffError(f"--auth-file {file} cannot be read ({type(error).__name__}): give a text file.") from error
    found = [_login(line, f"Line {number} of {file}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise EmitDiffError(f"--auth-file {file} is empty: write a line {FORM} into it.")
    if len({name for name, _ in found}) < len(found):
        raise EmitDiffError(f"--auth-file {file} names a user twice: give every user one line.")
    return found


def _login(text: str, source: str) -> tuple[str, str]:
    name, colon, password = text.rstrip("\r\n").partition(":")
    if not colon or not name.strip() or len(password) < SHORTEST:
        raise EmitDiffError(f"{source} is not of the form {FORM}.")
    return name.strip(), password


def is_login(header: str, logins: Sequence[tuple[str, str]]) -> bool:
    """Whether the value of an Authorization header is one of `logins`, by HTTP's Basic scheme."""
    scheme, _, sent = header.partition(" ")
    known = (base64.b64encode(f"{name}:{password}".encode()) for name, password in logins)
    matches = [secrets.compare_digest(one, sent.strip().encode()) for one in known]
    return scheme.lower() == "basic" and any(matches)
