"""What others import says its types, in words that can be looked up. (mypy itself is run by `make lint`.)"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable

import pytest

import emitdiff
from emitdiff.checkpoints import Checkpoint
from emitdiff.datasets.check import DatasetReport
from emitdiff.datasets.folder import DatasetInfo, Sample
from emitdiff.scans.geometry import Geometry, SeriesReference, Window
from emitdiff.scans.scan import Scan
from emitdiff.segmentation.output import SegmentationOutput
from emitdiff.synthesis.pipeline import SamplingStep, SyntheticImage
from emitdiff.ui import interface

DATACLASSES = [
    *(Checkpoint, DatasetInfo, DatasetReport, Geometry, Sample, SamplingStep, Scan, SegmentationOutput),
    *(SeriesReference, SyntheticImage, Window),
    *(kind for name in emitdiff.__all__ if dataclasses.is_dataclass(kind := getattr(emitdiff, name))),
    *(kind for kind in vars(interface).values() if dataclasses.is_dataclass(kind)),
]


def untyped(function) -> list[str]:
    """The parameters of a function without a type, and "return" where what it returns has none."""
    hints = typing.get_type_hints(function)
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    return [name for name in (*names, "return") if name not in hints]


@pytest.mark.parametrize("name", [name for name in emitdiff.__all__ if not inspect.isclass(getattr(emitdiff, name))])
def test_public_functions_say_all_their_types(name):
    assert untyped(getattr(emitdiff, name)) == []


@pytest.mark.parametrize("kind", DATACLASSES, ids=lambda kind: kind.__name__)
def test_public_dataclasses_say_all_their_types(kind):
    hints = typing.get_type_hints(kind)
    assert [field.name for field in dataclasses.fields(kind) if field.name not in hints] == []
    methods = [function for name, function in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")]
    assert {function.__name__: untyped(function) for function in methods if untyped(function)} == {}


def test_a_function_that_leaves_out_a_type_is_found():
    def half(image: int, size, *, seed: int = 0):
        return image, size, seed

    assert untyped(half) == ["size", "return"]


@pytest.mark.parametrize("calls", [interface.Callables, interface.DatasetCalls])
def test_the_ui_is_told_what_its_functions_give(calls):
    for name, hint in typing.get_type_hints(calls).items():
        if typing.get_origin(hint) is Callable:
            given, returned = typing.get_args(hint)
            assert typing.Any not in (*given, returned), name
