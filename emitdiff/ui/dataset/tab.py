"""The Dataset tab: a zipped dataset folder becomes a larger one, with a report of its quality."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import gradio as gr

from emitdiff.errors import EmitDiffError
from emitdiff.ui.archive import answer_folder
from emitdiff.ui.dataset.augment_form import AugmentForm
from emitdiff.ui.dataset.import_form import ImportForm
from emitdiff.ui.dataset.views import BUSY, EMPTY, GUIDE, THEME, check_html, job_line, pair_picture, report_frame
from emitdiff.ui.events import QUIET, on_choice, stoppable, stopping
from emitdiff.ui.interface import Callables, JobState
from emitdiff.ui.messages import finished, note, notes, progress, sentence
from emitdiff.ui.results import ForeignData
from emitdiff.ui.sample_data import write_example_dataset, write_sample_data
from emitdiff.ui.source import mirror
from emitdiff.ui.views import written_once

IDLE = "Upload your images and masks as a ZIP, or try the example."
GIVE = "A ZIP of images/ and masks/, of pairs by name, of nnU-Net, of a Decathlon task, or of a dataset folder."
LAYOUTS = {
    "dataset folder": "dataset", "nnU-Net": "nnunet", "COCO": "coco", "MONAI": "monai", "paired folders": "paired"
}  # fmt: skip
RUNNING = "This dataset is being augmented: stop the run before removing it."
ASKING = "Say what these images show, then press Import."
ONLY_KEPT, ALL_IMAGES = "images that pass the filter", "all generated images"
PAIRS = 4  # of the last ones generated
POLL_INTERVAL = 1.0
NOTHING = ("", 0)


class DatasetTab:
    """Lays out the tab inside the current Blocks context and connects it; `connect` finds a job again.

    The browser keeps the job's name, and nothing else: what the page shows always comes from the server.
    """

    def __init__(self, calls: Callables) -> None:
        self.calls, self.jobs = calls, calls.datasets
        # Not in the tab: what is there has no value in the browser before the tab is opened.
        self.job = gr.BrowserState("", storage_key="emitdiff_dataset_job", render=False)
        self.timer = gr.Timer(POLL_INTERVAL, active=False, render=False)
        self.last_shown = gr.State(NOTHING)  # the stage and the number of images shown last
        with gr.Row(elem_classes="workspace two"):
            with gr.Column(elem_classes="pane"):
                self._lay_out_controls()
            with gr.Column(elem_classes="pane results"):
                self._lay_out_results()
        self._connect()

    def _lay_out_controls(self) -> None:
        self.file = gr.File(label="Dataset (ZIP)", file_types=[".zip"], height=92, elem_classes="drop")
        with gr.Row(elem_classes="pair"):
            self.example = gr.Button("Try four example images", size="sm", min_width=120)
            sample = write_sample_data(answer_folder() / "my-images.zip")
            self.sample = gr.DownloadButton("Download a sample ZIP", value=str(sample), size="sm", min_width=120)
        self.found = gr.HTML(note(GIVE), elem_classes="beside")
        self.importing = ImportForm(self.calls)
        self.remove_button = gr.Button("Remove this dataset", size="sm", visible=False)
        self.form = AugmentForm(self.calls)
        with gr.Column(elem_classes="actions"):
            self.mirror = gr.HTML(elem_classes="mirror")
            with gr.Row():
                self.start_button = gr.Button("Augment", variant="primary", scale=3, min_width=120, interactive=False)
                self.stop_button = gr.Button("Stop", variant="stop", scale=1, min_width=80, interactive=False)

    def _lay_out_results(self) -> None:
        self.progress = gr.HTML(finished(IDLE))
        self.guide = gr.HTML(GUIDE)
        self.gallery = written_once(
            gr.Gallery(
                label="Latest pairs: real, synthetic", columns=2, object_fit="contain", format="png", height="100%",
                interactive=False, buttons=["fullscreen"], elem_classes="painted pairs", visible=False,
            )
        )  # fmt: skip
        self.report = gr.HTML(visible=False)
        with gr.Row(elem_classes="after", visible=False) as self.export_row:
            self.layout = gr.Dropdown(list(LAYOUTS), value="dataset folder", label="Export format", min_width=150)
            self.which = gr.Dropdown([ONLY_KEPT, ALL_IMAGES], value=ONLY_KEPT, label="Images", min_width=190)
            self.pack = gr.Button("Prepare ZIP", size="sm", scale=0, min_width=120)
            self.download = gr.DownloadButton(
                "Download ZIP", size="sm", scale=0, min_width=130, interactive=False, elem_classes="download"
            )
        self.said = gr.HTML(elem_classes="beside")
        with gr.Row(elem_classes="after", visible=False) as self.files:
            gr.HTML(note("The quality report as one HTML page, and all scores as a table."), elem_classes="beside")
            self.report_file = gr.DownloadButton("Report", size="sm", scale=0, min_width=90)
            self.scores_file = gr.DownloadButton("Scores (CSV)", size="sm", scale=0, min_width=120)

    @property
    def outputs(self) -> list[Any]:
        """What the state of a job changes."""
        buttons = [self.start_button, self.stop_button, self.remove_button, self.timer]
        views = [self.progress, self.guide, self.gallery, self.report, self.export_row, self.files]
        return [
            self.last_shown,
            *buttons,
            *views,
            self.report_file,
            self.scores_file,
            self.which,
            self.download,
            self.said,
        ]

    def _connect(self) -> None:
        at_once: dict[str, Any] = {"queue": False, **QUIET}
        outputs = [self.job, self.file, self.found, *self.importing.outputs, *self.outputs]
        taken: dict[str, Any] = {"inputs_kwargs": {"job": self.job}, "outputs": outputs}
        given: dict[str, Any] = {"path": self.file, "job": self.job}
        self.file.upload(self.upload, inputs_kwargs=given, outputs=outputs, concurrency_id="preview", **QUIET)
        self.example.click(self.take_example, concurrency_id="preview", **taken, **QUIET)
        self.importing.button.click(
            lambda: progress("Importing the images and masks.", None), outputs=self.progress, **at_once
        ).then(
            self.take_foreign, inputs_kwargs={"job": self.job, **self.importing.fields}, outputs=outputs,
            concurrency_id="preview", **QUIET,
        )  # fmt: skip
        self.start_button.click(
            self.start, inputs_kwargs={"job": self.job, **self.form.fields}, outputs=self.outputs, **at_once
        )
        self.stop_button.click(self.stop, self.job, self.stop_button, **at_once)
        self.timer.tick(
            self.follow, inputs_kwargs={"job": self.job, "seen": self.last_shown}, outputs=self.outputs,
            trigger_mode="once", **at_once,
        )  # fmt: skip
        menus = {"layout": self.layout, "which": self.which}
        on_choice([*menus.values()], self.reset_download, menus, [self.download, self.said], **at_once)
        self.pack.click(
            self.export, inputs_kwargs={"job": self.job, "layout": self.layout, "which": self.which},
            outputs=[self.download, self.said], concurrency_id="preview", **QUIET,
        )  # fmt: skip
        self.remove_button.click(self.remove, **taken, **at_once)
        self.report.change(None, self.report, self.report, js=THEME, **at_once)
        mirror(self.progress, self.mirror)

    def connect(self, tab: gr.Tab) -> None:
        """Outside of the tabs, once all are laid out: with the tab opened, the job that this browser knows is shown."""
        self.job.render()
        self.timer.render()
        tab.select(
            self.restore, inputs_kwargs={"job": self.job, "seen": self.last_shown},
            outputs=[self.job, self.found, *self.form.fields.values(), *self.outputs],
            **QUIET,
        )  # fmt: skip

    def upload(self, path: str, job: str) -> dict[Any, Any]:
        """A ZIP was given: it is checked, and takes the place of what was here, where nothing was made of that yet."""
        here = self.jobs.status(job or "")
        try:
            if here and (here.generated or here.stage in BUSY):
                raise EmitDiffError(
                    "The dataset here has synthetic images: export them, remove it, then upload the next one."
                )
            if (foreign := self.jobs.describe(path)) is not None:
                asked = self.importing.ask(path, foreign)
                return {**asked, self.file: None, self.found: "", self.progress: finished(ASKING)}
            name = self.jobs.create(path, None)
        except Exception as error:
            known = check_html(here) if here else ""
            return {self.found: note(sentence(error), "error") + known, self.file: None, **self.importing.hide()}
        return self._taken(name, job)

    def _taken(self, name: str, job: str) -> dict[Any, Any]:
        """Job `name` takes the place of `job`, if there was one."""
        self.jobs.remove(job or "")
        state = self.jobs.status(name)
        found = check_html(state) if state else note(GIVE)
        hidden = self.importing.hide()
        return {self.job: name, self.file: None, self.found: found, **hidden, **self.job_updates(name, state)}

    def take_foreign(self, job: str, found: ForeignData | None, path: str, **answers: Any) -> dict[Any, Any]:
        """The questions were answered: the data becomes a dataset folder, or it is said what is still missing."""
        try:
            if found is None:
                raise EmitDiffError("There is nothing to import any more: upload the ZIP again.")
            settings = self.importing.settings(found, **answers)
            name = self.jobs.create(path, settings)
        except Exception as error:
            return {self.importing.said: note(sentence(error), "error"), self.progress: finished(ASKING)}
        return self._taken(name, job)

    def take_example(self, job: str) -> dict[Any, Any]:
        return self.upload(str(write_example_dataset(answer_folder() / "example_ultrasound.zip")), job)

    def restore(self, job: str, seen: tuple[str, int]) -> dict[Any, Any]:
        """What the server knows of the job, where this page has not shown it yet."""
        if tuple(seen) != NOTHING or not job:
            return {self.job: gr.skip()}
        state = self.jobs.status(job)
        if state is None:
            return {self.job: ""}
        settings = self.form.values(state.request) if state.request else {}
        return {self.found: check_html(state), **settings, **self.job_updates(job, state)}

    def start(self, job: str, **form: Any) -> dict[Any, Any]:
        """Begins in the background, or says beside the button why not."""
        try:
            if not job:
                raise EmitDiffError("No dataset yet: upload a ZIP, or try the example.")
            self.jobs.start(job, self.form.request(form))
        except Exception as error:
            return {self.progress: finished(sentence(error), "error")}
        return self.job_updates(job, self.jobs.status(job))

    def stop(self, job: str) -> Any:
        with suppress(EmitDiffError):  # gone meanwhile: the next look says so
            self.jobs.stop(job)
        return stopping()

    def follow(self, job: str, seen: tuple[str, int]) -> dict[Any, Any]:
        """Once a second while something runs: what changed since the last look."""
        state = self.jobs.status(job or "")
        if state is None or state.stage not in BUSY or state.stage != seen[0]:
            return self.job_updates(job, state)
        updates: dict[Any, Any] = {self.progress: job_line(state)}
        if state.stage == "generating" and state.done != seen[1]:
            updates |= {self.last_shown: (state.stage, state.done), self.gallery: self._pairs(job)}
        return updates

    def job_updates(self, job: str, state: JobState | None) -> dict[Any, Any]:
        """Everything the page shows of a job, for whatever stage it is in; None for one that is gone."""
        if state is None:
            return {self.timer: gr.Timer(active=False), self.progress: finished(IDLE)}
        busy, there = state.stage in BUSY, bool(state.generated) and state.stage not in BUSY
        scored = state.report is not None
        pairs = self._pairs(job) if (busy or there) and not scored else []
        return {
            self.last_shown: (state.stage, state.done),
            self.timer: gr.Timer(active=busy),
            self.progress: job_line(state),
            self.start_button: gr.update(interactive=state.usable and not busy),
            self.stop_button: stoppable(busy),
            self.remove_button: gr.update(visible=True, interactive=not busy),
            self.guide: gr.update(visible=not (busy or there)),
            self.gallery: gr.update(value=pairs, visible=bool(busy or there) and not scored, selected_index=None),
            self.report: gr.update(
                value=report_frame(state.report) if state.report is not None else "", visible=scored
            ),
            self.export_row: gr.update(visible=there),
            self.files: gr.update(visible=scored),
            self.report_file: gr.update(value=str(state.report) if scored else None),
            self.scores_file: gr.update(value=str(state.scores) if scored else None),
            self.which: gr.update(value=ONLY_KEPT if state.kept else ALL_IMAGES),
            **self.reset_download(),
        }

    def _pairs(self, job: str) -> list[tuple[Any, str]]:
        tiles = [(pair_picture(pair), pair.name) for pair in self.jobs.pairs(job, PAIRS)]
        return tiles + [(EMPTY, "")] * (PAIRS - len(tiles))

    def reset_download(self, **chosen: str) -> dict[Any, Any]:
        """Other choices: the ZIP made before is not the one asked for now."""
        return {self.download: gr.DownloadButton("Download ZIP", value=None, interactive=False), self.said: ""}

    def export(self, job: str, layout: str, which: str) -> dict[Any, Any]:
        try:
            archive, words = self.jobs.export(job, LAYOUTS[layout], which == ONLY_KEPT)
        except Exception as error:
            return {**self.reset_download(), self.said: note(sentence(error), "error")}
        size = f"{archive.stat().st_size / 2**20:,.1f} MiB"
        return {
            self.download: gr.DownloadButton("Download ZIP", value=str(archive), interactive=True),
            self.said: notes([f"{archive.name}, {size}, is ready.", *words]),
        }

    def remove(self, job: str) -> dict[Any, Any]:
        """The dataset, what was generated from it and the files on the server go at once, if nothing runs."""
        here = self.jobs.status(job or "")
        if here and here.stage in BUSY:  # begun in another window of this browser
            return {self.found: check_html(here) + note(RUNNING, "error"), **self.job_updates(job, here)}
        self.jobs.remove(job or "")
        hidden = (self.remove_button, self.gallery, self.report, self.export_row, self.files)
        return {
            self.job: "", self.file: None, self.found: note(GIVE), self.last_shown: NOTHING,
            self.progress: finished("Dataset removed. " + IDLE), self.timer: gr.Timer(active=False),
            self.start_button: gr.update(interactive=False), self.stop_button: stoppable(False),
            self.guide: gr.update(visible=True), **{part: gr.update(visible=False) for part in hidden},
            **self.reset_download(),
        }  # fmt: skip
