"""The panel both tabs begin with: example cards or a file, then slice and window where the scan has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.images import resize_image, resize_mask
from emitdiff.ui.examples import Example
from emitdiff.ui.interface import Callables
from emitdiff.ui.messages import note, notes, sentence
from emitdiff.ui.results import Scan

ACCEPTED = "PNG, JPEG, WebP, TIFF, DICOM, NIfTI, or a zip of one DICOM series."
SESSION_SECONDS = 4 * 3600  # how long a session's decoded scan and results stay in memory without being touched
# Small pictures are enlarged before outlines are drawn, so that lines stay fine; huge ones travel to the page shrunk.
VIEW_SIDES = (768, 1536)


@dataclass(frozen=True)
class Source:
    """The panel's components. `scan` is the decoded file of this session, None before one is chosen."""

    calls: Callables
    cards: list[Example]
    scan: gr.State
    examples: gr.Gallery
    file: gr.File
    message: gr.HTML
    slice: gr.Slider
    window: gr.Dropdown
    time_point: gr.Slider

    @property
    def inputs(self) -> dict[str, Any]:
        """What `image` needs, by its parameter names."""
        return {"scan": self.scan, "slice_number": self.slice, "window": self.window}

    @property
    def outputs(self) -> list[Any]:
        return [self.scan, self.file, self.message, self.slice, self.window, self.time_point]

    def load(self, path: str | Path) -> dict[Any, Any]:
        """Updates for `outputs` that put the file at `path` in place; raises EmitDiffError."""
        return self._with_time_points(self.show(self.calls.read_scan(path)))

    def change_time_point(
        self, file: str | None, time_point: float | None, scan: Scan | None, slice_number: float, window: str | None
    ) -> dict[Any, Any]:
        """Updates for another time point of the same file, at the same slice; without one what is shown stays, and so
        does its number."""
        try:
            if scan is not None and time_point == scan.volume + 1:
                return {self.message: _said(scan)}
            if file is None:
                raise EmitDiffError("The file of this image is not here any more: choose it again.")
            last = 1 if scan is None else scan.volumes
            if time_point is None or time_point != int(time_point) or not 1 <= time_point <= last:
                raise EmitDiffError(f"The time point is a whole number from 1 to {last}; {time_point} was given.")
            found = self.calls.read_scan(file, time_point=int(time_point) - 1)
            return self._with_time_points(self.show(found, slice_number, window))
        except Exception as error:
            shown = gr.skip() if scan is None else gr.update(value=scan.volume + 1)
            return {self.message: note(sentence(error), "error"), self.time_point: shown}

    def on_time_point(self, quiet: dict[str, Any]) -> Any:
        """The event of another time point, to be followed by what shows it."""
        given = {"file": self.file, "time_point": self.time_point, **self.inputs}
        return self.time_point.input(
            self.change_time_point, inputs_kwargs=given, outputs=self.outputs, trigger_mode="always_last",
            concurrency_limit=2, **quiet,
        )  # fmt: skip

    def _with_time_points(self, updates: dict[Any, Any]) -> dict[Any, Any]:
        scan: Scan = updates[self.scan]
        many = scan.volumes > 1
        control = gr.update(maximum=max(2, scan.volumes), value=scan.volume + 1, visible=many)
        return {**updates, self.time_point: control}

    def show(self, scan: Scan, slice_number: float | None = None, window: str | None = None) -> dict[Any, Any]:
        """Updates for `outputs` that put a decoded scan in place, at its middle slice where no other is named."""
        names, many = list(scan.windows), scan.num_slices > 1
        windows = [
            (f"{name} ({_short(used.width)} / {_short(used.centre)})", name) for name, used in scan.windows.items()
        ]
        chosen = window if window in names else next(iter(names), None)
        return {
            self.scan: scan,
            self.message: _said(scan),
            self.slice: gr.update(maximum=max(2, scan.num_slices), value=slice_number or scan.middle + 1, visible=many),
            self.window: gr.update(choices=windows, value=chosen, visible=len(windows) > 1),
            self.time_point: gr.update(visible=False),  # the others are in a file that need not be here
        }

    def upload(self, path: str) -> dict[Any, Any]:
        """Updates for a file a user chose; one that cannot be read leaves what was there and says why."""
        try:
            return self.load(path)
        except Exception as error:
            return {self.message: note(sentence(error), "error"), self.file: None}

    def clear_error(self, scan: Scan | None, message: str) -> Any:
        """The message once something else works: that of a file that could not be read is over."""
        if 'role="alert"' not in (message or ""):
            return gr.skip()
        return note(ACCEPTED) if scan is None else _said(scan)

    def clear_errors_on(self, events: list[Any], quiet: dict[str, Any]) -> None:
        """Such events."""
        gr.on(events, self.clear_error, [self.scan, self.message], self.message, queue=False, **quiet)

    def clear(self) -> dict[Any, Any]:
        """Updates for a file a user took away again."""
        hidden = {each: gr.update(visible=False) for each in (self.slice, self.window, self.time_point)}
        return {self.scan: None, self.message: note(ACCEPTED), **hidden}

    def card(self, index: int) -> tuple[Example, dict[Any, Any]]:
        """Example `index` and the updates that put it in place."""
        example = self.cards[index]
        updates = self.load(example.image)
        return example, {**updates, self.file: None, self.message: note(f"{example.title}, {example.origin}.")}


def build_source(calls: Callables, cards: list[Example], label: str) -> Source:
    """Lays the panel out inside the current Blocks context."""
    scan = gr.State(None, time_to_live=SESSION_SECONDS)
    examples = gr.Gallery(
        [(str(card.image), card.title) for card in cards],
        label="Examples (synthetic, no patient data)",
        columns=3,
        allow_preview=False,
        interactive=False,
        object_fit="cover",
        buttons=[],
        format="png",
        elem_classes="cards",
        visible=bool(cards),
    )
    file = gr.File(label=label, height=92, elem_classes="drop")
    message = gr.HTML(note(ACCEPTED), elem_classes="beside")
    slice_number = gr.Slider(1, 2, value=1, step=1, label="Slice", visible=False, buttons=[])
    window = gr.Dropdown([], label="Window (width / level)", visible=False)
    time_point = gr.Slider(1, 2, value=1, step=1, label="Time point", visible=False, buttons=[])
    return Source(calls, cards, scan, examples, file, message, slice_number, window, time_point)


def mirror(line: gr.HTML, copy: gr.HTML) -> None:
    """Repeats a line of progress beside the button that started it: on a narrow screen the line itself is far below."""
    line.change(None, line, copy, js="html => html", queue=False, api_visibility="private")


def slice_index(scan: Scan, slice_number: float | None) -> int:
    """People count slices from 1, arrays from 0; kept within the scan."""
    return min(max(int(slice_number or 1) - 1, 0), scan.num_slices - 1)


def chosen_scan(scan: Scan | None) -> Scan:
    """Raises EmitDiffError before one has been chosen."""
    if scan is None:
        raise EmitDiffError("No image yet: choose an example or upload a file first.")
    return scan


def selected_slice(scan: Scan | None, slice_number: float, window: str | None) -> np.ndarray:
    """The slice shown, uint8 (H, W, 3); raises EmitDiffError before a scan has been chosen."""
    scan = chosen_scan(scan)
    return scan.image(slice_index(scan, slice_number), window if window in scan.windows else None)


def _short(number: float) -> str:
    """Whole where it is large, as in Hounsfield units; three digits of a small one."""
    return f"{number:.0f}" if abs(number) >= 100 or number == round(number) else f"{number:.3g}"


def _said(scan: Scan) -> str:
    return note(describe_scan(scan)) + notes(scan.warnings, "warning")


def describe_scan(scan: Scan) -> str:
    """ "brain.nii.gz: MRI, 256 x 256, 24 slices, 0.9 x 0.9 mm"."""
    height, width = scan.size
    side = {"left": "left side", "right": "right side", "both": "both sides"}.get(scan.laterality or "")
    parts = [scan.modality, side, f"{width} x {height}", f"{scan.num_slices} slices" if scan.num_slices > 1 else None]
    if scan.spacing:
        parts.append(f"{scan.spacing[2]:.2g} x {scan.spacing[1]:.2g} mm")
    if scan.volumes > 1:
        parts.append(f"time point {scan.volume + 1} of {scan.volumes}")
    parts.append(getattr(scan, "orientation", None))
    return f"{scan.name}: " + ", ".join(part for part in parts if part)


def with_edge_letters(picture: np.ndarray, scan: Scan | None) -> np.ndarray:
    """uint8 (H, W, 3) with the patient's sides at its edges, as on a reading screen, where the scan's file tells."""
    sides = scan.edge_letters() if scan is not None else {}
    height, width = picture.shape[:2]
    scale, margin = max(height, width) / 640, max(height, width) // 64
    lines = max(2, round(2 * scale))
    drawn = picture.copy() if sides else picture
    for edge, letters in sides.items():
        (wide, tall), _ = cv2.getTextSize(letters, cv2.FONT_HERSHEY_SIMPLEX, scale, lines)
        places = {
            "left": (margin, (height + tall) // 2),
            "right": (width - wide - margin, (height + tall) // 2),
            "top": ((width - wide) // 2, tall + margin),
            "bottom": ((width - wide) // 2, height - margin),
        }
        for colour, thickness in (((0, 0, 0), 3 * lines), ((255, 255, 255), lines)):
            cv2.putText(drawn, letters, places[edge], cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)
    return drawn


def at_view_size(array: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) or class ids (H, W) with its longer side within VIEW_SIDES, as it is where it already is."""
    low, high = VIEW_SIDES
    scale = min(max(1.0, low / max(array.shape[:2])), high / max(array.shape[:2]))
    size = (max(1, round(array.shape[0] * scale)), max(1, round(array.shape[1] * scale)))
    return resize_mask(array, size) if array.ndim == 2 else resize_image(array, size)
