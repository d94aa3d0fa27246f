"""What a run of the synthesis would be given, shown beforehand."""

from __future__ import annotations

import gradio as gr
from fakes import failing, fake_callables, scan_that_saves

from emitdiff.ui.synthesis.preview import build_preview


def test_a_slice_that_cannot_be_decoded_is_named_below_the_preview(example):
    with gr.Blocks():
        preview = build_preview(fake_callables(), gr.HTML())
    scan = scan_that_saves(example.image)
    scan.image = failing
    (told,) = preview.update(scan, 1, None, str(example.mask), prompt="X-ray", num_images=1)
    assert "The weights are not here" in told[preview.control_note] and told[preview.source_view] is None
