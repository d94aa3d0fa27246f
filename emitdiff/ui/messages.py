"""Sentences on the page: notes beside a field, progress, figures. Everything shown is escaped here."""

from __future__ import annotations

import logging
from html import escape

from emitdiff.errors import EmitDiffError, explain

log = logging.getLogger(__name__)


def note(text: str, tone: str = "info") -> str:
    """HTML for one sentence; `tone` is "info", "warning" or "error" (announced at once by a screen reader)."""
    if not text:
        return ""
    role = ' role="alert"' if tone == "error" else ""
    return f'<p class="note {tone}"{role}>{escape(text)}</p>'


def notes(texts: list[str] | tuple[str, ...], tone: str = "info") -> str:
    return "".join(note(text, tone) for text in texts)


def sentence(error: Exception) -> str:
    """What to show for `error`: its own words when they were written for users, else where the details are."""
    if isinstance(error, EmitDiffError):
        return str(error)
    log.exception("unexpected failure", exc_info=error)
    if (explained := explain(error, tell_places=False)) is not None:
        return explained
    return f"Unexpected error ({type(error).__name__}). See the server log for details."


def progress(text: str, fraction: float | None) -> str:
    """HTML for a line of text and a bar filled to `fraction` in 0..1 (None: not known, it moves); one height always."""
    percent = None if fraction is None else round(100 * min(max(fraction, 0.0), 1.0))
    value = "" if percent is None else f' aria-valuenow="{percent}"'
    filled = '<span class="moving"></span>' if percent is None else f'<span style="width:{percent}%"></span>'
    limits = 'aria-valuemin="0" aria-valuemax="100"'
    bar = f'<div class="bar" role="progressbar" aria-label="Progress" {limits}{value}>{filled}</div>'
    return f'<div class="progress" aria-live="polite"><p>{escape(text)}</p>{bar}</div>'


def finished(text: str, tone: str = "info") -> str:
    """HTML in the place and height of `progress` once nothing runs any more."""
    role = ' role="alert"' if tone == "error" else ""
    return f'<div class="progress still {tone}" aria-live="polite"{role}><p>{escape(text)}</p></div>'


def figures(values: dict[str, str], caption: str = "") -> str:
    """HTML for a row of large numbers, each with its name beneath."""
    items = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in values.items())
    return f'<div class="figures">{items}</div>' + note(caption)


def duration(seconds: float) -> str:
    """ "4 s", "1 min 20 s"."""
    seconds = max(0, round(seconds))
    return f"{seconds} s" if seconds < 60 else f"{seconds // 60} min {seconds % 60} s"
