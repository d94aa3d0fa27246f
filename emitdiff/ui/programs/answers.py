"""An endpoint as Gradio takes it: named, described, and with a sentence for every failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import isgeneratorfunction
from typing import Any

import gradio as gr

from emitdiff.ui.messages import sentence
from emitdiff.ui.programs.arguments import Arguments, documented


def add_endpoint(function: Callable[..., Any], arguments: Arguments, outputs: list[Any], place: dict[str, Any]) -> None:
    """One endpoint, named as its function; a failure is answered with a sentence."""
    gr.Button().click(
        documented(_with_readable_errors(function), arguments),
        inputs_kwargs={name: one.component(name) for name, one in arguments.items()},
        outputs=outputs,
        api_name=function.__name__,
        **place,
    )


def _with_readable_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` whose failures are sentences; a generator stays one."""
    if not isgeneratorfunction(function):
        return _readable_errors()(function)

    @wraps(function)
    def answers(**values: Any) -> Iterator[Any]:
        with _readable_errors():
            yield from function(**values)

    return answers


@contextmanager
def _readable_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise gr.Error(sentence(error), print_exception=False) from error
