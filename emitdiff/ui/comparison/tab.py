"""The Comparison tab: one image under many settings, side by side, with the measures beneath."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.files import file_stem
from emitdiff.ui.archive import answer_folder
from emitdiff.ui.browser_settings import persist_settings
from emitdiff.ui.cancellation import Cancellation
from emitdiff.ui.comparison.comparing import ComparisonInput, generate_cells, measures, segment_cells, source_cell
from emitdiff.ui.comparison.figure import save_figure
from emitdiff.ui.comparison.form import ComparisonForm, head_files
from emitdiff.ui.comparison.grid import Grid, table
from emitdiff.ui.events import ON_DEVICE, QUIET, stoppable, stopping
from emitdiff.ui.examples import Example
from emitdiff.ui.interface import Callables
from emitdiff.ui.masks import RemovedImage, mask_removal_note, owner_of
from emitdiff.ui.messages import finished, note, progress, sentence
from emitdiff.ui.results import Scan
from emitdiff.ui.source import SESSION_SECONDS, build_source, mirror
from emitdiff.ui.synthesis.preview import read_inputs

IDLE = "Choose an image and the settings to vary, then press Compare. Click a cell to enlarge it."
MEASURES = {
    "Synthesis": "edges: edge F1 between image and result. MS-SSIM: structural similarity. Both are at most 1, "
    "which is the image itself.",
    "Segmentation": "Dice: overlap with the reference mask. area: fraction of the image. presence: score that "
    "the target is in the image.",
}


class ComparisonTab:
    """Lays out the tab inside the current Blocks context and connects it."""

    def __init__(self, calls: Callables, cards: list[Example]) -> None:
        self.calls, self.cards, self.cancellation = calls, cards, Cancellation()
        self.filled = gr.State(False)  # results stand in the table
        self.before = gr.State(None, time_to_live=SESSION_SECONDS)  # an upload that was taken away, whose mask may stay
        with gr.Row(elem_classes="workspace two"):
            with gr.Column(elem_classes="pane"):
                self._lay_out_controls()
            with gr.Column(elem_classes="pane results"):
                self._lay_out_results()
        self._connect()

    def _lay_out_controls(self) -> None:
        self.task = gr.Radio(["Synthesis", "Segmentation"], value="Synthesis", label="Compare")
        self.source = build_source(self.calls, self.cards, "Your image")
        self.take_synthesis = gr.Button("Copy image and settings from Synthesis", size="sm")
        self.mask_file = gr.File(label="Mask (optional): label, or reference for Dice", height=92, elem_classes="drop")
        self.truth_class = gr.Dropdown([], label="Class of the reference mask", visible=False)
        self.mask_note = gr.HTML(elem_classes="beside")
        self.form = ComparisonForm(self.calls)
        with gr.Column(elem_classes="actions"):
            self.mirror = gr.HTML(elem_classes="mirror")
            with gr.Row():
                self.compare_button = gr.Button("Compare", variant="primary", scale=3, min_width=120)
                self.stop_button = gr.Button("Stop", variant="stop", scale=1, min_width=80, interactive=False)

    def _lay_out_results(self) -> None:
        self.progress = gr.HTML(finished(IDLE))
        self.table = gr.HTML()
        with gr.Row(elem_classes="after"):
            self.measures = gr.HTML(note(MEASURES["Synthesis"]), elem_classes="beside")
            self.download = gr.DownloadButton(
                "Download figure", size="sm", scale=0, min_width=140, interactive=False, elem_classes="download"
            )

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything a grid depends on, by the names the handlers take."""
        own = {"task": self.task, "mask_file": self.mask_file, "truth_class": self.truth_class}
        return {**own, **self.source.inputs, **self.form.fields}

    def _connect(self) -> None:
        source = self.source
        plan = {
            "fn": self.preview, "inputs_kwargs": self.inputs,
            "outputs": [self.table, self.filled, self.mask_note, self.truth_class, *self.form.outputs[2:]],
            "concurrency_id": "preview", "concurrency_limit": 2, "trigger_mode": "always_last", **QUIET,
        }  # fmt: skip
        fill = {
            "fn": self.form.fill, "inputs_kwargs": {"task": self.task, "typed": self.form.typed, **self.form.fields},
            "outputs": self.form.outputs, "queue": False, "trigger_mode": "always_last", **QUIET,
        }  # fmt: skip
        words = [self.form.synthesis_prompt, self.form.segmentation_text, self.form.carried]
        self._settled = (fill, plan)
        source.file.upload(
            self.take_file,
            [source.file, source.scan, self.mask_file, self.before],
            [*source.outputs, self.mask_file, self.form.carried, self.before],
            concurrency_limit=2,
            **QUIET,
        ).then(**plan)
        source.examples.select(self.take_example, outputs=[*source.outputs, self.mask_file, *words], **QUIET).then(
            **fill
        ).then(**plan)
        taken_away = {**source.inputs, "mask_file": self.mask_file}
        source.file.clear(
            self.take_away, inputs_kwargs=taken_away, outputs=[*source.outputs, self.before], **QUIET
        ).then(**plan)
        shown = [source.slice.input, source.window.input, self.mask_file.upload, self.mask_file.clear]
        gr.on([*shown, self.truth_class.input], **plan)
        source.on_time_point(QUIET).then(**plan)
        source.clear_errors_on([self.mask_file.change, self.compare_button.click], QUIET)
        self.task.input(lambda task: note(MEASURES[task]), self.task, self.measures, queue=False, **QUIET)
        replan = {**plan, "fn": self.update_preview, "inputs_kwargs": {"filled": self.filled, **self.inputs}}
        for event in self.form.connect(self.task, QUIET):
            event.then(**replan)
        self._connect_run()

    def persist(self, demo: gr.Blocks) -> None:
        """The settings outlive a refresh; image and results do not."""
        fields = {name: field for name, field in self.form.fields.items() if name not in ("heads", "carried")}
        own = {"task": self.task, **fields}
        outputs = [self.task, self.form.typed, self.form.synthesis, self.form.segmentation, *fields.values()]
        events = [self.task.input, *self.form.leaving, self.compare_button.click]
        opened = persist_settings(demo, "emitdiff_comparison", own, events, self.restore, outputs)
        fill, plan = self._settled
        opened.then(**fill).then(**plan)

    def restore(self, kept: dict[str, Any]) -> dict[Any, Any]:
        """Updates for a page that is opened again."""
        kept = kept if isinstance(kept, dict) else {}
        known = kept.get("task") in [*MEASURES]
        return {**self.form.restore(kept), **({self.task: kept["task"]} if known else {})}

    def connect_synthesis(self, given: dict[str, Any], form: dict[str, Any]) -> None:
        """What the Synthesis tab is about to generate from, `given`, and the settings in its `form`, at the press of a
        button."""
        fill, plan = self._settled
        outputs = [*self.source.outputs, self.mask_file, *self.form.synthesis_fields, self.form.carried]
        self.take_synthesis.click(
            self.import_synthesis, inputs_kwargs={**given, **form}, outputs=outputs, queue=False, **QUIET
        ).then(**fill).then(**plan)

    def _connect_run(self) -> None:
        buttons = [self.compare_button, self.stop_button]
        self.compare_button.click(self.start_run, outputs=[*buttons, self.progress], queue=False, **QUIET).then(
            self.compare, inputs_kwargs=self.inputs, outputs=[self.progress, self.table, self.filled, self.download],
            **ON_DEVICE, **QUIET,
        ).then(self.end_run, outputs=buttons, queue=False, **QUIET)  # fmt: skip
        self.stop_button.click(self.stop, outputs=self.stop_button, queue=False, **QUIET)
        mirror(self.progress, self.mirror)

    def take_file(
        self, path: str, previous: Any = None, mask_file: str | None = None, before: RemovedImage | None = None
    ) -> dict[Any, Any]:
        """A file was chosen: its slices and windows. A mask stays that was there alone and fits; that of the last image
        goes."""
        updates = self.source.upload(path)
        if self.source.scan not in updates:
            return updates
        goes = mask_removal_note(
            self.calls, mask_file, updates[self.source.scan], owner_of(mask_file, previous, before)
        )
        updates[self.source.message] += goes
        mask = {self.mask_file: None} if goes else {}
        return {**updates, **mask, self.form.carried: {}, self.before: None}

    def take_away(
        self, scan: Scan | None, slice_number: float, window: str | None, mask_file: str | None
    ) -> dict[Any, Any]:
        """The image was taken away; its mask stays, and is remembered as its own."""
        before = gr.skip() if scan is None else RemovedImage(scan, slice_number, window, mask_file)
        return {**self.source.clear(), self.before: before}

    def take_example(self, event: gr.SelectData) -> dict[Any, Any]:
        """An example card was chosen: its image, its mask, its prompt and its sentence."""
        example, updates = self.source.card(event.index)
        words = (example.modality, example.organ, example.finding, example.appearance)
        return {
            **updates,
            self.mask_file: str(example.mask) if example.mask else None,
            self.form.synthesis_prompt: self.calls.compose_prompt(*words, ""),
            self.form.segmentation_text: example.text,
            self.form.carried: {},
        }

    def import_synthesis(
        self, scan: Scan | None, slice_number: float, window: str | None, mask_file: str | None, **form: Any
    ) -> dict[Any, Any]:
        """Image, mask and settings of the Synthesis tab."""
        taken = self.form.import_settings(form)
        if scan is None and not mask_file:
            return {**taken, self.source.message: note("Settings copied; Synthesis has no image yet.", "warning")}
        edits = "Settings not shown here, such as mask edits, were copied too."
        said = note(edits) if taken[self.form.carried] else ""
        source = self.source.clear() if scan is None else self.source.show(scan, slice_number, window)
        source[self.source.message] += said
        return {**source, self.source.file: None, self.mask_file: mask_file, **taken}

    def preview(self, task: str, **page: Any) -> dict[Any, Any]:
        """The empty grid as the fields stand, with the image in its corner, and what is wrong beside each of them."""
        fields = {name: page[name] for name in self.form.fields}
        updates = {self.mask_note: "", self.filled: False, **self.form.check(task, **fields)}
        try:
            things, classes = self._given(task, page, free=True)
        except Exception as error:
            return {**updates, self.mask_note: note(sentence(error), "error")}
        chosen = page["truth_class"] if page["truth_class"] in classes else next(iter(classes), None)
        updates[self.truth_class] = gr.update(choices=classes, value=chosen, visible=len(classes) > 1)
        try:
            grid = self.form.grid(task, **fields)
        except EmitDiffError:
            return updates  # said beside the list
        grid.corner, grid.measures = source_cell(things), measures(task, things)
        self._protect_files(grid)
        return {**updates, self.table: table(grid)}

    def update_preview(self, filled: bool, task: str, **page: Any) -> dict[Any, Any]:
        """The same for another list of values or another setting; but results stay until the next comparison."""
        if not filled:
            return self.preview(task, **page)
        return self.form.check(task, **{name: page[name] for name in self.form.fields})

    def _given(self, task: str, page: dict[str, Any], free: bool) -> tuple[ComparisonInput, list[int]]:
        """Image and mask, and the classes to choose from where the mask is a truth of several."""
        where = {name: page[name] for name in ("scan", "slice_number", "window", "mask_file")}
        image, mask, stem = read_inputs(self.calls, **where, structure=0 if free else None)
        things = ComparisonInput(image, mask, stem, Path(self.table.GRADIO_CACHE))
        if task == "Synthesis" or mask is None:
            return things, []
        classes = [int(label) for label in np.unique(mask) if label]
        chosen = page["truth_class"] if page["truth_class"] in classes else next(iter(classes), 1)
        return replace(things, mask=(mask == chosen).astype(np.uint8)), classes

    def start_run(self, request: gr.Request) -> dict[Any, Any]:
        self.cancellation.begin(request)
        return {
            self.compare_button: gr.update(interactive=False),
            self.stop_button: stoppable(True),
            self.progress: progress("Waiting for the device.", None),
        }

    def stop(self, request: gr.Request) -> Any:
        self.cancellation.cancel(request)
        return stopping()

    def end_run(self, request: gr.Request) -> tuple[Any, Any]:
        self.cancellation.end(request)
        return gr.update(interactive=True), stoppable(False)

    def compare(self, request: gr.Request, task: str, **page: Any) -> Iterator[dict[Any, Any]]:
        """Fills the grid and keeps the page up to date; what fails in a cell is said there, all else above the grid."""
        stopped = self.cancellation.event(request).is_set
        fields = {name: page[name] for name in self.form.fields}
        try:
            grid = self.form.grid(task, **fields)
            free = task == "Synthesis" and all(grid.settings(place)["structure"] == 0 for place in grid.places())
            things, _ = self._given(task, page, free)
            if task == "Segmentation" and things.image is None:
                raise EmitDiffError("No image yet: choose an example or upload a file first.")
            prompts = [grid.settings(place).get("prompt") for place in grid.places()]
            if task == "Synthesis" and not all((prompt or "").strip() for prompt in prompts):
                raise EmitDiffError(
                    "The prompt is empty: describe the image under Prompt, for example “CT, abdomen, liver”."
                )
            grid.corner, grid.measures = source_cell(things), measures(task, things)
        except Exception as error:
            yield {self.progress: finished(sentence(error), "error")}
            return
        yield {self.progress: progress("Preparing.", None), self.table: table(grid), self.filled: True}
        moments = (
            generate_cells(self.calls, grid, things, stopped)
            if task == "Synthesis"
            else segment_cells(self.calls, grid, things, head_files(page["heads"]), stopped)
        )
        for moment in moments:
            self._protect_files(grid)  # each time: a page that is closed meanwhile has no end
            filled = {self.table: table(grid, moment.place)} if moment.changed else {}
            yield {self.progress: progress(moment.text, moment.fraction), **filled}
        yield self._end(task, grid, things, stopped())

    def _end(self, task: str, grid: Grid, things: ComparisonInput, stopped: bool) -> dict[Any, Any]:
        self._protect_files(grid)
        made, wanted = sum(cell.picture is not None for cell in grid.cells.values()), len(grid.places())
        words = f"Stopped: {made} of {wanted} cells filled." if stopped and len(grid.cells) < wanted else (
            f"{made} of {wanted} cells filled. Click a cell to enlarge it."
        )  # fmt: skip
        if not made and (said := [cell.message for cell in grid.cells.values()]):
            return {self.progress: finished(f"No cell could be computed. {said[0]}", "error"), self.table: table(grid)}
        updates = {self.progress: finished(words), self.table: table(grid)}
        if not made:
            return updates
        shared = {name: value for name, value in grid.fixed.items() if name not in _varied(grid)}
        title = f"{task} of {things.name}: {_listed(shared)}"
        name = f"{'synthetic_' if task == 'Synthesis' else ''}comparison_{file_stem(things.name)}.png"
        figure = save_figure(grid, title, task == "Synthesis", answer_folder() / name)
        return {**updates, self.download: gr.DownloadButton(value=str(figure), interactive=True)}

    def _protect_files(self, grid: Grid) -> None:
        """The pictures lie in Gradio's cache, which removes them with the other files of the page when they are old."""
        self.table.temp_files.update(cell.file for cell in (grid.corner, *grid.cells.values()) if cell and cell.file)


def _varied(grid: Grid) -> set[str]:
    return {axis.field for axis in (grid.columns, grid.rows) if axis}


def _listed(settings: dict[str, Any]) -> str:
    """Settings in words, the sentence among them in quotation marks and first."""
    words = [f'"{settings[name]}"' for name in ("prompt", "text") if settings.get(name)]
    names = {
        "num_inference_steps": "steps",
        "guidance_scale": "guidance",
        "controlnet_conditioning_scale": "control strength",
        "checkpoint": "weights",
        "detector": "edges",
    }
    rest = [f"{names.get(name, name)} {value}" for name, value in settings.items() if name not in ("prompt", "text")]
    return ", ".join(words + rest)
