"""A mask proposed by the segmenter, for an image that has none: a word or a sentence, and one button."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from emitdiff.errors import EmitDiffError
from emitdiff.files import file_stem
from emitdiff.ui.drawing import save_mask_file
from emitdiff.ui.events import ON_DEVICE
from emitdiff.ui.finding import Finding
from emitdiff.ui.interface import Callables
from emitdiff.ui.messages import note, sentence
from emitdiff.ui.results import Scan
from emitdiff.ui.source import SESSION_SECONDS, Source, chosen_scan, selected_slice, slice_index

THRESHOLD = 0.5
CHECK = "A proposal, not ground truth: check the outline and correct it where needed."
OUTDATED_PROPOSAL = "The image or slice was changed during the run, so the proposed mask was discarded. Propose again."


@dataclass(frozen=True)
class Proposal:
    """The panel's components, in an accordion; `note` says what was found, which waits in `found` until it is known
    that the page still shows what was asked about."""

    calls: Callables
    panel: gr.Accordion
    text: gr.Dropdown
    button: gr.Button
    note: gr.HTML
    found: gr.State
    suggested: gr.State

    def connect(self, source: Source, words: dict[str, Any], file: gr.File, quiet: dict[str, Any]) -> Any:
        """The slice of `source` gets a mask `file`. `words` are the components "organ" and "finding", used where the
        text is empty. Returns the event."""
        self.panel.expand(
            self.suggest, inputs_kwargs={"text": self.text, **words}, outputs=self.suggested, **quiet
        ).then(  # the weights may have been loaded for it, and something been written meanwhile
            lambda text, suggested: gr.skip() if (text or "").strip() or not suggested else suggested,
            [self.text, self.suggested], self.text, queue=False, **quiet,
        )  # fmt: skip
        asked = {"text": self.text, **words, **source.inputs}
        # The last event reads the page again: nobody is kept from choosing another image while the segmenter works.
        return self.button.click(
            lambda: (None, note("Running the segmenter. The first run after a server start loads its weights.")),
            outputs=[self.found, self.note], queue=False, **quiet,
        ).then(
            self.propose, inputs_kwargs=asked, outputs=[self.found, self.note],
            **ON_DEVICE, **quiet,
        ).then(
            lambda **now: self.apply(file, **now), inputs_kwargs={"found": self.found, **source.inputs},
            outputs=[file, self.note, self.found], **quiet,
        )  # fmt: skip

    def suggest(self, text: str | None, organ: str | None, finding: str | None) -> str:
        """The text given, or the target of the segmenter that organ and finding name; "" where they name none."""
        if text and text.strip():
            return text.strip()
        try:
            targets = self.calls.targets(self.calls.segmentation_checkpoint)
        except EmitDiffError:  # no weights: whoever presses the button is told
            return ""
        return fitting_target(targets, organ or "", finding or "")

    def propose(
        self, text: str | None, organ: str | None, finding: str | None, scan: Scan | None, slice_number: float,
        window: str | None,
    ) -> dict[Any, Any]:  # fmt: skip
        """Asks the segmenter once."""
        try:
            scan = chosen_scan(scan)
            image, asked = selected_slice(scan, slice_number, window), self.suggest(text, organ, finding)
            if not asked:
                raise EmitDiffError("Name the target: choose one from the list, or write a sentence.")
            weights = self.calls.segmentation_checkpoint
            output = self.calls.segment(image, asked, THRESHOLD, weights)
        except Exception as error:
            return {self.note: note(sentence(error), "error")}
        index = slice_index(scan, slice_number)
        return {self.found: Finding(scan, image, index, output, asked, THRESHOLD, weights)}

    def apply(
        self, file: gr.File, found: Finding | None, scan: Scan | None, slice_number: float, window: str | None
    ) -> dict[Any, Any]:
        """What was found becomes the mask `file`; where it is nothing, or of another slice than the page shows now, the
        mask stays as it was."""
        if found is None:
            return {self.found: None}
        if found.scan is not scan or found.index != slice_index(scan, slice_number):
            return {self.found: None, self.note: note(OUTDATED_PROPOSAL, "warning")}
        if not found.output.found:
            return {self.found: None, self.note: note(found.describe() + " The mask is unchanged.", "warning")}
        try:
            path = save_mask_file(found.output.mask, f"{file_stem(scan.name)}_proposed_mask")
        except Exception as error:
            return {self.found: None, self.note: note(sentence(error), "error")}
        return {self.found: None, file: str(path), self.note: note(found.describe()) + note(CHECK)}


def fitting_target(targets: tuple[str, ...], organ: str, finding: str) -> str:
    """The target that is the finding, or shares a word with it ("benign lesion" and "breast lesion"), or is or shares
    one with the organ; "" for none."""
    for words in (finding, organ):
        if words and words in targets:
            return words
    wanted = {*organ.lower().split(), *finding.lower().split()}
    shared = {target: len(wanted & set(target.lower().split())) for target in targets}
    best = max(shared, key=lambda target: shared[target], default="")
    return best if shared.get(best) else ""


def build_proposal(calls: Callables) -> Proposal:
    """Lays the panel out inside the current Blocks context."""
    try:
        targets = list(calls.targets(calls.segmentation_checkpoint))
    except EmitDiffError:  # the page must come up without weights
        targets = []
    with gr.Accordion("Propose a mask with the segmenter", open=False) as panel:
        text = gr.Dropdown(targets, value=None, label="Target (word or sentence)", allow_custom_value=True)
        button = gr.Button("Propose the mask", size="sm")
        words = gr.HTML(elem_classes="beside")
    return Proposal(calls, panel, text, button, words, gr.State(None, time_to_live=SESSION_SECONDS), gr.State(""))
