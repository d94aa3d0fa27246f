"""What is in here? Every target of the weights is asked for at once; each that is found has a colour of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.images import PALETTE, overlay
from emitdiff.ui.events import ON_DEVICE, QUIET
from emitdiff.ui.interface import Callables
from emitdiff.ui.messages import finished, progress, sentence
from emitdiff.ui.results import Scan, SegmentationOutput
from emitdiff.ui.segmentation.reading_panel import ReadingPanel
from emitdiff.ui.segmentation.sentence_panel import SentencePanel
from emitdiff.ui.source import (
    SESSION_SECONDS,
    at_view_size,
    chosen_scan,
    selected_slice,
    slice_index,
    with_edge_letters,
)  # fmt: skip

OUTDATED = "Result discarded: the image, slice or window was changed during the run. Press the button again."


@dataclass(eq=False)
class Overview:
    """The answers about one slice, by target, in the order of the weights."""

    scan: Scan
    image: np.ndarray
    index: int
    answers: dict[str, SegmentationOutput] = field(default_factory=dict)

    @property
    def marked(self) -> list[str]:
        """The targets with a mask, the largest first."""
        sizes = {target: int((answer.mask > 0).sum()) for target, answer in self.answers.items()}
        return sorted((target for target in sizes if sizes[target]), key=lambda target: -sizes[target])

    def picture(self, opacity: float, outlined: bool) -> np.ndarray:
        """The slice with every mask in its colour; what is not sure as a dashed outline alone. uint8 (h, w, 3)."""
        drawn = at_view_size(self.image)
        for target in self.marked:
            answer = self.answers[target]
            mask = at_view_size(answer.mask) * np.uint8(self._number(target))
            unsure = answer.answer == "unsure"  # those have an outline alone, so that they hide nothing that is found
            drawn = overlay(drawn, mask, 0 if unsure else opacity / 100, 2 if outlined or unsure else 0, dashed=unsure)
        return with_edge_letters(drawn, self.scan)

    def describe(self) -> str:
        """What was found, in one sentence."""
        found = [target for target in self.marked if self.answers[target].answer == "found"]
        unsure = [target for target in self.marked if target not in found]
        parts = [f"Found: {', '.join(found)}."] if found else ["None of the targets of these weights was found."]
        return " ".join([*parts, f"Unsure: {', '.join(unsure)}."] if unsure else parts)

    def legend(self) -> str:
        """HTML: the colour and size of each mask, then what is not there."""
        rows = []
        for target in self.marked:
            answer, colour = self.answers[target], PALETTE[(self._number(target) - 1) % len(PALETTE)]
            unsure = answer.answer == "unsure"
            area = f"{100 * float(np.mean(answer.mask > 0)):.1f} %" + (", unsure" if unsure else "")
            swatch = f'<i style="border-color:rgb({", ".join(map(str, colour))})"></i>'
            rows.append(f'<li class="{"unsure" if unsure else "found"}">{swatch}{escape(target)} <b>{area}</b></li>')
        missing = [target for target in self.answers if target not in self.marked]
        absent = f'<p class="note">Not found: {escape(", ".join(missing))}.</p>' if missing else ""
        return f'<ul class="legend">{"".join(rows)}</ul>{absent}'

    def _number(self, target: str) -> int:
        return self.marked.index(target) + 1


class OverviewPanel:
    """What the button of `words` does; `connect` ties it to the tab around."""

    def __init__(self, calls: Callables, reading: ReadingPanel, words: SentencePanel) -> None:
        self.calls, self.reading, self.words = calls, reading, words
        self.result = gr.State(None, time_to_live=SESSION_SECONDS)
        self.button = words.everything

    def connect(
        self, seen: dict[str, Any], checkpoint: gr.Dropdown, finding: gr.State, compare: dict[str, Any]
    ) -> None:
        """`seen` has the scan, slice and window by name; `finding` is the answer that this one takes the place of,
        and `compare` follows."""
        asked = {name: seen[name] for name in ("scan", "slice_number", "window", "threshold")}
        shown = {name: seen[name] for name in ("scan", "slice_number", "window", "opacity", "outlined")}
        self.finding = finding
        begin: dict[str, Any] = {"outputs": [self.button, self.reading.progress], "queue": False, **QUIET}
        device: dict[str, Any] = {**ON_DEVICE, **QUIET}
        rest = {"fn": lambda: gr.Button(interactive=True), "outputs": self.button, "queue": False, **QUIET}
        self.button.click(self.start, **begin).then(
            self.look_for_all,
            inputs_kwargs={**asked, "checkpoint": checkpoint},
            outputs=[self.result, self.reading.progress],
            **device,
        ).then(
            self.show,
            inputs_kwargs={"result": self.result, "finding": finding, **shown},
            outputs=[self.result, finding, *self.reading.outputs, self.words.note],
            **QUIET,
        ).then(**rest).then(**compare)

    def start(self) -> dict[Any, Any]:
        waiting = progress("Looking for all targets of these weights.", None)
        return {self.button: gr.Button(interactive=False), self.reading.progress: waiting}

    def look_for_all(
        self, scan: Scan | None, slice_number: float, window: str | None, threshold: float, checkpoint: str
    ) -> Iterator[dict[Any, Any]]:
        """One answer for each target; the image is encoded once."""
        try:
            scan = chosen_scan(scan)
            found = Overview(scan, selected_slice(scan, slice_number, window), slice_index(scan, slice_number))
            targets = self.calls.targets(checkpoint)
            if not targets:
                raise EmitDiffError("These weights name no targets: describe one and press Find.")
            for number, target in enumerate(targets):
                yield {self.reading.progress: progress(f"Looking for “{target}”", number / len(targets))}
                found.answers[target] = self.calls.segment(found.image, target, threshold, checkpoint)
        except Exception as error:
            yield {self.result: None, self.reading.progress: finished(sentence(error), "error")}
            return
        yield {self.result: found}

    def show(
        self, result: Overview | None, finding: Any, scan: Scan | None, slice_number: float, window: str | None,
        opacity: float, outlined: bool,
    ) -> dict[Any, Any]:  # fmt: skip
        """The answers take the place of the last one, unless the page shows another image by now."""
        if result is None:
            return {self.result: None}
        try:
            if result.scan is not scan or not np.array_equal(result.image, selected_slice(scan, slice_number, window)):
                raise EmitDiffError(OUTDATED)
            picture = result.picture(opacity, outlined)
        except Exception as error:
            return {self.result: None, self.reading.progress: finished(sentence(error), "error")}
        if finding is not None:
            finding.remove()
        tone = "info" if result.marked else "absent"
        return {
            **self.reading.blank(result.image, result.scan),
            self.reading.view: picture,
            self.reading.progress: finished(result.describe(), tone),
            self.words.note: result.legend(),
            self.finding: None,
            self.result: None,
        }
