"""Few-shot heads of this page: put to use, downloaded, loaded, and found again after a refresh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from emitdiff.errors import EmitDiffError
from emitdiff.ui.browser_settings import NO_SECRET
from emitdiff.ui.events import QUIET
from emitdiff.ui.interface import HEAD_SUFFIX, Callables
from emitdiff.ui.messages import note, sentence
from emitdiff.ui.segmentation.training_views import step, step_list

HEAD_LABEL = "trained here"  # behind the name of a head among the weights
MAX_HEADS = 24  # that a browser keeps
LOOK = (
    "Look at the image kept aside, which the head had not learnt from by then. Filled: what it marks. Line: your "
    "mask. Find keeps its weights until you use the head."
)
SAVE = (
    "A small file that Find, the command line and this page can load. The server deletes the head a day after "
    "training, and the examples when this page is closed or reloaded."
)
# What is found is far above on the page.
SHOW_READING = """name => {
  document.querySelector(".reading").scrollIntoView({behavior: "smooth"});
  return name;
}"""
Heads = list[tuple[str, str]]  # (name among the weights, file)


class HeadsPanel:
    """Lays the last two steps out inside the current Blocks context; `connect` ties them to the choice of weights.
    `steps` is the line that says how far one is."""

    def __init__(self, calls: Callables, steps: gr.HTML) -> None:
        self.calls, self.steps = calls, steps
        self.heads = gr.State([])  # those of this session; whatever is in it becomes a choice
        # The same for the next time the page opens: what comes from there may be anything, and only `restore` reads it.
        self.stored_heads = gr.BrowserState([], storage_key="emitdiff_heads", secret=NO_SECRET, render=False)
        self.latest, self.taught = gr.State(""), gr.State("")  # file of the last one; target of the one in use

    def lay_out(self) -> None:
        gr.HTML(step(4, LOOK))
        with gr.Row(elem_classes="pair"):
            self.use_button = gr.Button("Use this head", size="sm", min_width=110, interactive=False)
            self.keep_button = gr.Button("Keep learning", size="sm", min_width=110, interactive=False)
        self.try_button = gr.Button("Segment the image above", size="sm", interactive=False)
        self.said = gr.HTML(elem_classes="beside")
        gr.HTML(step(5, SAVE))
        self.download = gr.DownloadButton("Download the head", size="sm", interactive=False)
        self.file = gr.File(label="Load a saved head (.safetensors)", height=92, elem_classes="drop")
        self.loaded = gr.HTML(elem_classes="beside")

    @property
    def outputs(self) -> list[Any]:
        """What `offer` changes."""
        return [self.heads, self.stored_heads, self.checkpoint, self.latest, self.use_button, self.keep_button,
                self.try_button, self.said, self.download]  # fmt: skip

    def connect(self, checkpoint: gr.Dropdown, text: gr.Textbox) -> Any:
        """A head becomes a choice of `checkpoint`. Returns the event that puts its target into `text`, to be found."""
        self.checkpoint = checkpoint
        used = [checkpoint, self.steps, self.taught, self.use_button, self.try_button, self.said]
        self.use_button.click(self.use, self.latest, used, queue=False, **QUIET)
        self.file.upload(
            self.load, [self.file, self.heads], [self.heads, self.stored_heads, *used, self.loaded], **QUIET
        )
        self.download.click(lambda: step_list(6), outputs=self.steps, queue=False, **QUIET)
        tried = self.try_button.click(
            lambda name: (name, step_list(5)), self.taught, [text, self.steps], js=SHOW_READING, queue=False, **QUIET
        )
        return tried

    def offer(self, target: str, file: str, heads: Heads, good: bool) -> dict[Any, Any]:
        """A head that was just taught joins the choices; the weights that are chosen stay."""
        taken = {name for name, _ in heads}
        names = (f"{target} ({HEAD_LABEL}{f', {number}' if number > 1 else ''})" for number in range(1, 10_000))
        heads = [*heads, (next(name for name in names if name not in taken), file)][-MAX_HEADS:]
        return {
            **self._listed(heads),
            self.latest: file,
            self.use_button: gr.Button(
                "Use this head" if good else "Use it anyway", variant="primary" if good else "secondary",
                interactive=True,
            ),
            self.keep_button: gr.Button(interactive=True),
            self.try_button: gr.Button(interactive=False),
            self.said: "",
            self.download: gr.DownloadButton(value=file, interactive=True),
        }  # fmt: skip

    def use(self, file: str) -> dict[Any, Any]:
        """From now on Find asks it."""
        try:
            target = (self.calls.targets(file) or (Path(file).stem,))[0]
        except Exception as error:
            return {self.said: note(sentence(error), "error")}
        return {
            self.checkpoint: gr.update(value=file),
            self.steps: step_list(5),
            self.taught: target,
            self.use_button: gr.Button(variant="secondary", interactive=False),
            self.try_button: gr.Button(interactive=True),
            self.said: note(f"Find uses the head for “{target}” now. The way back is beside Find."),
        }

    def load(self, file: str, heads: Heads) -> dict[Any, Any]:
        """A head that was downloaded before becomes a choice again, and the one in use."""
        try:
            name = Path(file).name
            if Path(file).suffix != HEAD_SUFFIX:
                raise EmitDiffError(
                    f"{name} is not a few-shot head: choose a {HEAD_SUFFIX} file downloaded from this page."
                )
            used = self.use(file)
            if self.checkpoint not in used:
                return {self.loaded: used[self.said]}
            heads = [*(head for head in heads if head[0] != Path(file).stem), (Path(file).stem, file)]
            chosen = gr.Dropdown(choices=self._choices(heads), value=file)
            return {**self._listed(heads), **used, self.checkpoint: chosen, self.loaded: note(f"{name} is in use.")}
        except Exception as error:
            return {self.loaded: note(sentence(error), "error")}

    def restore(self, kept: Any, chosen: Any) -> dict[Any, Any]:
        """After a refresh the heads trained here are choices again while their files are there, and so are the weights
        that were `chosen`. Anyone may have changed what the browser kept.
        """
        there = [(name, file) for name, file in pairs_of_text(kept) if self.calls.head_exists(file)]
        updates = self._listed(there)
        if chosen in [value for _, value in self._choices(there)]:
            updates[self.checkpoint] = gr.Dropdown(choices=self._choices(there), value=chosen)
        for name, file in there:
            if file == chosen:
                target = name.split(f" ({HEAD_LABEL}")[0]
                updates |= {self.taught: target, self.try_button: gr.Button(interactive=True), self.latest: file,
                            self.keep_button: gr.Button(interactive=True),
                            self.download: gr.DownloadButton(value=file, interactive=True),
                            self.said: note(f"“{target}” was trained here before. Find uses it.")}  # fmt: skip
        return updates

    @property
    def restored(self) -> list[Any]:
        """What `restore` may change."""
        return [self.heads, self.stored_heads, self.checkpoint, self.taught, self.latest, self.try_button,
                self.keep_button, self.download, self.said]  # fmt: skip

    def _choices(self, heads: Heads) -> Heads:
        known = [(model.name, model.name) for model in self.calls.models() if model.kind == "segmentation"]
        return [*known, *heads]

    def _listed(self, heads: Heads) -> dict[Any, Any]:
        return {
            self.heads: heads,
            self.stored_heads: heads,
            self.checkpoint: gr.Dropdown(choices=self._choices(heads)),
        }


def pairs_of_text(kept: Any) -> Heads:
    """The pairs of strings in what a browser kept, the last `MAX_HEADS`; nothing else."""
    listed = kept if isinstance(kept, list) else []
    fits = (one for one in listed if isinstance(one, list | tuple) and len(one) == 2)
    return [(name, file) for name, file in fits if isinstance(name, str) and isinstance(file, str)][-MAX_HEADS:]
