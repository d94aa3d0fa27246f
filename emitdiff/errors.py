"""The exception whose message is shown to users, and the one place that puts what else may go wrong into a sentence."""

from __future__ import annotations

import errno
import os
import re
import reprlib
from pathlib import Path
from typing import Any

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
SHOWN = 60  # characters of a value that are shown
SLOW_START = (
    "The page did not answer on this machine within 3 seconds of its start: start it again when the machine is less "
    "busy, or let localhost pass by your proxy (NO_PROXY=localhost,127.0.0.1)."
)


class EmitDiffError(ValueError):
    """States what was given, what is expected and what to do. The command line prints it and exits 2; the app shows
    it."""


def first_line(error: BaseException) -> str:
    """What another library's error says, at most 200 characters of its first line, for use in a sentence; its name
    where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def shown(value: Any) -> str:
    """A value of any kind, for use in a sentence: its beginning where it is plain data, else its kind."""
    if value is None or isinstance(value, bool | int | float | str | list | tuple | dict):
        text = reprlib.repr(value) if isinstance(value, list | tuple | dict) else repr(value)
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return f"of the kind {type(value).__name__}"


def explain(error: BaseException, tell_places: bool = True) -> str | None:
    """What to tell a user about any error: an `EmitDiffError`'s own words, a sentence where the machine is at fault
    (disk full, no permission, memory) or the data too deep; None for what is a defect of this program.

    Args:
        tell_places: whether folders of this machine may be named, which whoever uses a server has no business to know.
    """
    if isinstance(error, EmitDiffError):
        return str(error)
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return "There is not enough memory for this: give a smaller image or fewer of them, or close other programs."
    if isinstance(error, RecursionError):
        return "The data is nested too deeply to be read: give a file or values that are not."
    if "localhost is not accessible" in str(error):  # Gradio, which goes on to advise a public link
        return SLOW_START
    if isinstance(error, UnicodeEncodeError):
        return "A name or text holds characters that cannot be written: rename the file or change the text."
    return _explain_system(error, tell_places)


def _is_out_of_memory(error: BaseException) -> bool:
    """PyTorch and OpenCV have their own words for it."""
    words = str(error)
    if isinstance(error, RuntimeError):
        return "out of memory" in words or "can't allocate memory" in words or "not enough memory" in words
    return type(error).__module__ == "cv2" and "Insufficient memory" in words


def _explain_system(error: BaseException, tell_places: bool) -> str | None:
    """None for what the system did not say."""
    number = _system_error(error)
    if number is None:
        return None
    name = str(getattr(error, "filename", None) or "")
    place = f"'{name if tell_places else Path(name).name}'" if name else ""
    if number in NO_SPACE:
        return f"There is no space left to write {place or 'the result'}: free some, and do the same again."
    if number in NOT_ALLOWED:
        return f"There is no permission to use {place or 'a file'}, or its disk is read-only: give another folder."
    if number in (errno.EMFILE, errno.ENFILE):
        return "Too many files are open on this machine: close other programs, and do the same again."
    if number == errno.ENAMETOOLONG:
        return "A name is too long for this disk: give a shorter one."
    return f"{place or 'A file'} cannot be used ({os.strerror(number)}): check that it is there and of the right kind."


def _system_error(error: BaseException) -> int | None:
    """The system's number for what went wrong; some libraries have it in their words alone, or only words."""
    words = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if told := re.search(r"\(os error (\d+)\)", words):  # safetensors
        return int(told[1])
    torch_writing = isinstance(error, RuntimeError) and ("unexpected pos" in words or "PytorchStreamWriter" in words)
    numpy_writing = isinstance(error, OSError) and re.search(r"\d+ requested and \d+ written", words)
    pillow_writing = isinstance(error, OSError) and "encoder error" in words
    return errno.ENOSPC if torch_writing or numpy_writing or pillow_writing else None
