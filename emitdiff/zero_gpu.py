"""Hugging Face's ZeroGPU: a Space that has no card is lent one for the time of a call.

Its package `spaces`, which only such a Space installs (`deploy-space` asks for it), forks a process for the call and
puts the card there; what goes in and comes out is pickled. In the process that serves the page CUDA only seems to be
there: whatever is not lent a card computes on the processor.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import wraps
from importlib.util import find_spec
from typing import Any

from emitdiff.errors import EmitDiffError, explain

CARD = "cuda"  # what is lent
_lent = False  # whether this is the process with the card


def is_here() -> bool:
    """Whether this Space runs on ZeroGPU and can ask for a card."""
    wanted = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
    return wanted and find_spec("spaces") is not None


def waits_for_card() -> bool:
    """Whether this process is one that is lent no card, so that the CUDA it sees is not real."""
    return is_here() and not _lent


def with_lent_card(seconds: Callable[..., float]) -> Callable[[Callable[..., Iterator[Any]]], Callable[..., Iterator]]:
    """Decorates a generator function, which on ZeroGPU runs in the process with the card, and elsewhere as it is.

    Its arguments and what it yields must be picklable. Closing the generator ends the run between two items.

    Args:
        seconds: takes the same arguments; the longest the run may take. A visitor's quota must have as much left.

    Raises (the decorated generator):
        EmitDiffError: as the function, with ZeroGPU's own words where no card is lent, and where the machine is at
            fault (see `explain`).
    """

    def decorate(task: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        if not is_here():
            return task

        @wraps(task)
        def with_card(*args: Any) -> Iterator[Any]:
            global _lent
            _lent = True
            try:
                yield from task(*args)
            except Exception as error:  # of one that is raised there, only the name comes back
                if (words := explain(error, tell_places=False)) is None:
                    raise
                yield EmitDiffError(words)

        lent = importlib.import_module("spaces").GPU(with_card, duration=seconds)

        @wraps(task)
        def ask(*args: Any) -> Iterator[Any]:
            with _in_words(), closing(lent(*args)) as items:
                for item in items:
                    if isinstance(item, EmitDiffError):
                        raise item
                    yield item

        return ask

    return decorate


@contextmanager
def _in_words() -> Iterator[None]:
    """What ZeroGPU refuses, it says to Gradio's users; programs and the page here are told the same."""
    try:
        yield
    except Exception as error:
        title = str(getattr(error, "title", ""))
        if not title.startswith("ZeroGPU"):
            raise
        raise EmitDiffError(f"{title}: {getattr(error, 'message', error)}") from error
