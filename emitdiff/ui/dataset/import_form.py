"""Data in another layout on the Dataset tab: what it does not say is asked for, then it becomes a dataset folder."""

from __future__ import annotations

from typing import Any

import gradio as gr

from emitdiff.errors import EmitDiffError
from emitdiff.import_settings import GROUPS, ImportSettings, check_labels
from emitdiff.ui.interface import Callables
from emitdiff.ui.messages import note
from emitdiff.ui.results import ForeignData

GROUP_WORDS = {"each image alone": "image", "images in one folder": "folder", "names up to their last part": "prefix"}
SLICES = {"that show a label": "labelled", "all": "all", "every fifth": "every 5"}
assert set(GROUP_WORDS.values()) == set(GROUPS)


class ImportForm:
    """Lays the questions out inside the current Blocks context, hidden until there is something to import. `found` is
    what was found, `path` the ZIP it is in."""

    def __init__(self, calls: Callables) -> None:
        words = calls.vocabulary
        self.found, self.path = gr.State(None), gr.State("")
        with gr.Column(visible=False, elem_classes="import") as self.panel:
            self.said = gr.HTML(elem_classes="beside")
            with gr.Row(elem_classes="pair"):
                self.modality = gr.Dropdown(list(words.modalities), value=None, label="Modality",
                                            allow_custom_value=True)  # fmt: skip
                self.organ = gr.Dropdown(list(words.organs), value=None, label="Organ", allow_custom_value=True)
            self.classes = gr.Textbox(label="What the masks show", placeholder="e.g. lesion", max_lines=2)
            self.channel = gr.Dropdown([], label="Channel", visible=False, info="Which image of a case is taken.")
            self.slices = gr.Dropdown(list(SLICES.items()), value="labelled", label="Slices of volumes", visible=False)
            self.groups = gr.Dropdown(
                list(GROUP_WORDS.items()), value="image", label="What belongs to one patient",
                info="Never divided where data is split into training and test.",
            )  # fmt: skip
            self.button = gr.Button("Import", variant="primary")

    @property
    def fields(self) -> dict[str, Any]:
        names = ("found", "path", "modality", "organ", "classes", "channel", "slices", "groups")
        return {name: getattr(self, name) for name in names}

    @property
    def outputs(self) -> list[Any]:
        """What `ask` and `hide` change."""
        return [self.panel, self.said, *self.fields.values()]

    def ask(self, path: str, found: ForeignData) -> dict[Any, Any]:
        """The questions about the ZIP at `path`, answered where it answers them itself."""
        ids = list(found.classes)
        names = ", ".join(name for name in found.classes.values() if name)
        one = "the class" if len(ids) == 1 else f"classes {', '.join(map(str, ids))}, in this order, with commas"
        cases = f"{found.cases} image{'' if found.cases == 1 else 's'} with masks"
        return {
            self.found: found,
            self.path: path,
            self.panel: gr.update(visible=True),
            self.said: note(f"{found.name}: {found.layout}, {cases}. Say what is missing, then press Import."),
            self.modality: found.modality or None,
            self.organ: found.organ or None,
            self.classes: gr.update(value=names, label=f"What the masks show ({one})"),
            self.channel: gr.update(choices=list(found.channels), value=None, visible=bool(found.channels)),
            self.slices: gr.update(value="labelled", visible=found.volumes),
            self.groups: "image",
        }  # fmt: skip

    def hide(self) -> dict[Any, Any]:
        """Nothing is to be imported (any more)."""
        return {self.found: None, self.path: "", self.panel: gr.update(visible=False), self.said: ""}

    def settings(
        self, found: ForeignData, modality: str | None, organ: str | None, classes: str | None, channel: str | None,
        slices: str, groups: Any,
    ) -> ImportSettings:  # fmt: skip
        """The answers. Raises EmitDiffError for one that is missing or cannot be used."""
        names, ids = [name.strip() for name in (classes or "").split(",") if name.strip()], list(found.classes)
        kind, part = (modality or "").strip(), (organ or "").strip()
        missing = [word for word, given in (("the modality", kind), ("the organ", part), ("what the masks show", names),
                                            ("the channel", channel or not found.channels)) if not given]  # fmt: skip
        if missing:
            raise EmitDiffError(f"Still missing: {', '.join(missing)}. Fill it in and press Import again.")
        if len(names) != len(ids):
            raise EmitDiffError(
                f"The masks hold {len(ids)} class(es), {', '.join(map(str, ids))}, and {len(names)} name(s) were "
                "given: name each one, separated by commas."
            )
        labels = dict(zip(names, ids, strict=True))
        if len(labels) < len(ids):
            raise EmitDiffError("Two classes have the same name: give each a name of its own.")
        check_labels(labels)
        return ImportSettings("", kind, part, labels, channel or "", slices, groups=groups)
