"""The finished images as a file: the images that were kept, as a plain ZIP or in a layout a trainer reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from emitdiff.errors import EmitDiffError
from emitdiff.ui.form import word_in
from emitdiff.ui.interface import Callables, PackRequest
from emitdiff.ui.messages import note, notes, sentence
from emitdiff.ui.synthesis.runs import Run

PLAIN = "images, masks, manifest"
LAYOUTS: dict[str, str | None] = {PLAIN: None, "nnU-Net": "nnunet", "COCO": "coco"}
TARGET = "target"  # the name of a class nobody named


class DownloadPanel:
    """Lays the row out inside the current Blocks context."""

    def __init__(self, calls: Callables) -> None:
        self.calls = calls
        with gr.Row(elem_classes="after takes"):
            self.layout = gr.Dropdown(list(LAYOUTS), value=PLAIN, label="Download as", min_width=230, scale=0)
            self.classes = gr.Textbox(
                label="Class names, in order of id", placeholder="e.g. liver, spleen", max_lines=1, visible=False,
                min_width=190, scale=0,
            )  # fmt: skip
            self.button = gr.DownloadButton(
                "Download ZIP", size="sm", scale=0, min_width=130, interactive=False, elem_classes="download"
            )
        self.words = gr.HTML(elem_classes="beside")

    @property
    def outputs(self) -> list[Any]:
        return [self.button, self.words]

    def connect(self, run: gr.State, changes: list[Any], quiet: dict[str, Any]) -> None:
        """Writes the file after each of the events that change what there is, and for another layout."""
        packing = {**self._packing(run), **quiet}
        for event in changes:
            event.then(**packing)
        self.layout.input(
            lambda layout: gr.update(visible=layout != PLAIN), self.layout, self.classes, queue=False, **quiet
        )
        gr.on([self.layout.input, self.classes.change], trigger_mode="always_last", **packing)

    def _packing(self, run: gr.State) -> dict[str, Any]:
        inputs = {"run": run, "layout": self.layout, "classes": self.classes}
        return {"fn": self.pack, "inputs_kwargs": inputs, "outputs": self.outputs, "concurrency_id": "preview"}

    def wait(self) -> dict[Any, Any]:
        """Updates while the images are not there yet."""
        return {self.button: gr.update(value=None, interactive=False), self.words: ""}

    def pack(self, run: Run | None, layout: str, classes: str) -> dict[Any, Any]:
        """Writes the file again; why there is none is said below the button."""
        if run is None or run.running or not run.images:
            return self.wait()
        kept = run.kept
        try:
            path, words = self._write(run, layout, classes)
            if path is None:
                raise EmitDiffError("All images are dropped: tick Keep for those to download.")
        except Exception as error:
            return {**self.wait(), self.words: note(sentence(error), "error")}
        left_out = f"{len(run.images) - len(kept)} dropped, " if len(kept) < len(run.images) else ""
        said = [f"{path.name}: {left_out}{len(kept)} image{'s' if len(kept) != 1 else ''}.", *words]
        return {self.button: gr.update(value=str(path), interactive=True), self.words: notes(said)}

    def _write(self, run: Run, layout: str, classes: str) -> tuple[Path | None, tuple[str, ...]]:
        chosen = LAYOUTS[layout]
        if chosen is None or not run.kept:
            return run.archive(), ()
        names = tuple(name.strip() for name in (classes or "").split(",") if name.strip())
        prompt, words = run.request.settings.prompt, self.calls.vocabulary
        packing = PackRequest(
            layout=chosen,
            name=run.stem,
            modality=word_in(prompt, words.modalities) or "medical",
            organ=word_in(prompt, words.organs) or "image",
            classes=names or (word_in(prompt, words.findings) or TARGET,),
        )
        return self.calls.pack(
            [made.result for made in run.kept], [made.path for made in run.kept], packing, run.folder
        )
