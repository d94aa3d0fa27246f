"""An endpoint as Gradio takes it: named, described, and with a sentence for every failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import isgeneratorfunction
from typing import Any

import gradio as gr

from emitdiff.ui.messages import sentence
from emitdiff.ui.programs.arguments import Arguments, checked, documented


def add_endpoint(
    function: Callable[..., Any], arguments: Arguments, outputs: list[Any], place: dict[str, Any],
    check: Callable[..., Any] | None = None,
) -> None:  # fmt: skip
    """One endpoint, named as its function; a failure is answered with a sentence.

    Kinds of arguments are looked at before the request is queued, and then `check` is called with all of them.
    """
    gr.Button().click(
        documented(_with_readable_errors(function), arguments),
        inputs_kwargs={name: one.component(name) for name, one in arguments.items()},
        outputs=outputs,
        api_name=function.__name__,
        validator=_refusing(arguments, check) if arguments else None,
        **place,
    )


def _refusing(arguments: Arguments, check: Callable[..., Any] | None) -> Callable[..., list[dict[str, Any]]]:
    """What Gradio asks before it queues a request: whether each argument holds, with a sentence where not."""

    def verdicts(**values: Any) -> list[dict[str, Any]]:
        said = dict.fromkeys(values, "")
        try:
            given = checked(arguments, values)
            if check is not None:
                check(**given)
        except Exception as error:
            words = sentence(error)
            named = next((name for name in values if words.startswith(f"{name} is ")), next(iter(values)))
            said[named] = words
        return [gr.validate(not said[name], said[name]) for name in arguments]

    return verdicts


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
