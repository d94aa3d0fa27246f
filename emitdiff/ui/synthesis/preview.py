"""What a run of the synthesis is given, read from the page, and shown there before anything is generated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.files import file_stem
from emitdiff.images import overlay
from emitdiff.ui.form import read_form
from emitdiff.ui.interface import Callables
from emitdiff.ui.messages import note, sentence
from emitdiff.ui.results import Scan
from emitdiff.ui.source import at_view_size, selected_slice, slice_index, with_edge_letters
from emitdiff.ui.views import written_once

FROM_MASK_NOTE = "Images are generated from the mask alone. To use edges, choose the image of this mask."
EMPTY_MASK_NOTE = "The mask is empty: the synthetic images will have no label."
FROM_TEXT_NOTE = "No control image: images are generated from the prompt alone."
TEXT_ONLY = "text"  # stands for the name of a file where there is none
LAYERS_NOTE = "Red: edges. Green: boundary of the mask. Blue: its inside."


@dataclass(frozen=True)
class Preview:
    """The slice with the outline of its mask, and the control image; `mask_note` stands beside the mask's file."""

    calls: Callables
    source_view: gr.Image
    control_view: gr.Image
    control_note: gr.HTML
    mask_note: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        return [self.source_view, self.control_view, self.control_note, self.mask_note]

    def clear(self) -> dict[Any, Any]:
        """Updates for an image that was taken away."""
        return {self.source_view: None, self.control_view: None, self.control_note: ""}

    def update(
        self, scan: Scan | None, slice_number: float, window: str | None, mask_file: str | None, **form: Any
    ) -> Iterator[dict[Any, Any]]:
        """The slice with its mask's outline at once, then the control image the network would get."""
        image, mask, words = None, None, ""
        try:
            image = selected_slice(scan, slice_number, window) if scan is not None else None
        except Exception as error:
            yield {**self.clear(), self.control_note: note(sentence(error), "error")}
            return
        try:
            mask = read_mask(self.calls, mask_file, scan, slice_number)
            words = note(FROM_MASK_NOTE) if image is None and mask is not None else ""
            words += note(EMPTY_MASK_NOTE, "warning") if mask is not None and not mask.any() else ""
        except Exception as error:
            words = note(sentence(error), "error")
        ground = np.zeros((*mask.shape, 3), np.uint8) if image is None and mask is not None else image
        if ground is None:
            yield {**self.clear(), self.mask_note: words}
            return
        yield {self.source_view: with_edge_letters(outlined(ground, mask), scan), self.mask_note: words}
        yield self._control(image, mask, form)

    def _control(self, image: np.ndarray | None, mask: np.ndarray | None, form: dict[str, Any]) -> dict[Any, Any]:
        try:
            known = {name: value for name, value in form.items() if value is not None}
            control = self.calls.control_image(image, mask, read_form(known))
        except Exception as error:
            return {self.control_view: None, self.control_note: note(sentence(error), "error")}
        return self._control_updates(control)

    def _control_updates(self, control: np.ndarray) -> dict[Any, Any]:
        layered = (control != control[..., :1]).any()
        words = LAYERS_NOTE if layered else "" if control.any() else FROM_TEXT_NOTE
        return {self.control_view: control, self.control_note: note(words)}

    def show(self, image: np.ndarray, mask: np.ndarray | None, control: np.ndarray) -> dict[Any, Any]:
        """Updates for an image, its mask and a control image that are there already."""
        return {self.source_view: outlined(image, mask), self.mask_note: "", **self._control_updates(control)}


def outlined(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """uint8 (H, W, 3) at the size of a view, with the outline of its mask."""
    large = at_view_size(image)
    return large if mask is None else overlay(large, at_view_size(mask), 0.12)


def build_preview(calls: Callables, mask_note: gr.HTML) -> Preview:
    """Lays the views out inside the current Blocks context."""
    look: dict[str, Any] = {"interactive": False, "format": "png", "buttons": ["fullscreen"], "elem_classes": "view"}
    source_view = written_once(
        gr.Image(label="Image", alt_text="The chosen slice with the outline of its mask", **look)
    )
    control_view = written_once(
        gr.Image(label="Control image", alt_text="The control image: edges of the chosen slice", **look)
    )
    return Preview(calls, source_view, control_view, gr.HTML(elem_classes="beside"), mask_note)


def read_mask(calls: Callables, mask_file: str | None, scan: Scan | None, slice_number: float) -> np.ndarray | None:
    """Class ids (H, W) of the slice shown, of the file alone where there is no scan, None without a file."""
    if not mask_file:
        return None
    return calls.read_mask(mask_file, scan, 0 if scan is None else slice_index(scan, slice_number))


def read_inputs(
    calls: Callables,
    scan: Scan | None,
    slice_number: float,
    window: str | None,
    mask_file: str | None,
    structure: float | None,
) -> tuple[np.ndarray | None, np.ndarray | None, str]:
    """Image, mask and a name for files. Raises EmitDiffError with neither, unless text alone is enough."""
    mask = read_mask(calls, mask_file, scan, slice_number)
    if scan is not None:
        return selected_slice(scan, slice_number, window), mask, file_stem(scan.name)
    if mask is None and structure != 0:
        raise EmitDiffError("No image yet: choose an example, drop a file or a mask, or set the structure to 0.")
    return None, mask, TEXT_ONLY if mask is None or mask_file is None else file_stem(mask_file)
