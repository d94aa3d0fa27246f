"""Steps that the tests of the Segmentation tab share: its handlers, called as Gradio calls them."""

from __future__ import annotations

import gradio as gr
from fakes import fake_callables, scan_that_saves

from emitdiff.ui.examples import read_examples
from emitdiff.ui.segmentation.tab import SegmentationTab


def build(**changes):
    with gr.Blocks():
        return SegmentationTab(fake_callables(**changes), read_examples())


SHOWN = {"opacity": 40, "outlined": True, "mapped": "Probability", "form": None}


def settle(tab, told, finding=None, volume=None, **chosen):
    """What the page shows after a run that `told` this, with the source that is `chosen` by then."""
    updates = tab.runs.show_result(told.get(tab.runs.result), finding, volume, **chosen, **SHOWN)
    assert updates[tab.runs.result] is None, "nothing waits any longer"
    return {**told, **updates}


def find(tab, example, finding=None, volume=None, meanwhile=None, **changes):
    """`meanwhile` is what a user chooses while the segmenter works."""
    source = {"scan": scan_that_saves(example.image), "slice_number": 1, "window": None, "threshold": 0.5}
    source |= {name: changes.pop(name) for name in source if name in changes}
    told = tab.runs.find(**{**source, "text": "lung", "checkpoint": "textdiff-mini", "side": False, **changes})
    return settle(tab, told, finding, volume, **{**source, **(meanwhile or {})})


def look(tab, scan, finding=None, volume=None, slice_number=1, threshold=0.5):
    return tab.show_slice(finding, volume, scan, slice_number, None, threshold, **SHOWN)
