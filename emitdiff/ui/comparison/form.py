"""What a comparison varies and what it keeps: the task, two lists of values, and the settings all cells share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from emitdiff.errors import EmitDiffError
from emitdiff.ui.comparison.axes import MAX_VALUES, NO_TEXT, Axis, segmentation_axes, synthesis_axes
from emitdiff.ui.comparison.grid import Grid
from emitdiff.ui.events import on_choice, on_leaving
from emitdiff.ui.form import BLANK_FORM, sampling_defaults
from emitdiff.ui.interface import HEAD_SUFFIX, Callables
from emitdiff.ui.messages import note, sentence

NOTHING = "nothing"
FIRST = {"Synthesis": ("Structure", "Seed"), "Segmentation": ("Text", "Threshold")}  # across, down
APPEARANCES = ("dark", "bright")  # what the first list of prompts adds to the prompt
SHARED = {
    "Synthesis": (
        "prompt", "structure", "detector", "num_inference_steps", "guidance_scale", "controlnet_conditioning_scale",
        "seed", "checkpoint",
    ),
    "Segmentation": ("text", "threshold", "checkpoint"),
}  # fmt: skip


class ComparisonForm:
    """Lays the form out inside the current Blocks context. `fields` are its components by the names its methods take:
    those all cells share as `synthesis_FIELD` and `segmentation_FIELD`."""

    def __init__(self, calls: Callables) -> None:
        self.calls = calls
        self.models = {
            task: {model.name: model for model in calls.models() if model.kind == task.lower()} for task in FIRST
        }
        self.carried = gr.State({})  # fields of the synthesis form that came with an image and are not shown here
        self.typed = gr.State({})  # the lists a user has written, by task and axis: they come back with the axis
        across, down = FIRST["Synthesis"]
        with gr.Group():
            self.across = gr.Dropdown(list(self.axes("Synthesis")), value=across, label="Vary across")
            self.across_values = self._list("Values across", across)
        self.across_note = gr.HTML(elem_classes="beside")
        with gr.Group():
            self.down = gr.Dropdown([NOTHING, *self.axes("Synthesis")], value=down, label="Vary down")
            self.down_values = self._list("Values down", down)
        self.down_note = gr.HTML(elem_classes="beside")
        with gr.Column(elem_classes="pane") as self.synthesis:
            self._lay_out_synthesis()
        with gr.Column(visible=False, elem_classes="pane") as self.segmentation:
            self._lay_out_segmentation()

    def _list(self, name: str, axis: str) -> gr.Textbox:
        chosen = self.axes("Synthesis")[axis]
        return gr.Textbox(chosen.default_text, label=f"{name}, {chosen.format_hint}", lines=1, max_lines=MAX_VALUES)

    def _lay_out_synthesis(self) -> None:
        name = self.calls.synthesis_checkpoint
        defaults = sampling_defaults(self.models["Synthesis"][name])
        self.synthesis_prompt = gr.Textbox(label="Prompt", lines=2, max_lines=4)
        with gr.Accordion("Expert: settings of all cells", open=False):
            self.synthesis_structure = gr.Slider(0, 1, value=1, step=0.05, label="Structure", buttons=[])
            self.synthesis_detector = gr.Dropdown(
                list(self.calls.vocabulary.detectors), value=defaults["detector"], label="Edge detector"
            )
            self.synthesis_num_inference_steps = gr.Slider(
                1, 100, value=defaults["num_inference_steps"], step=1, label="Steps", buttons=[]
            )
            self.synthesis_guidance_scale = gr.Slider(
                0, 20, value=defaults["guidance_scale"], step=0.1, label="Guidance", buttons=[]
            )
            self.synthesis_controlnet_conditioning_scale = gr.Slider(
                0, 2, value=defaults["controlnet_conditioning_scale"], step=0.05, label="Control strength", buttons=[]
            )
            self.synthesis_seed = gr.Number(0, label="Seed")
            self.synthesis_checkpoint = gr.Dropdown(list(self.models["Synthesis"]), value=name, label="Weights")

    def _lay_out_segmentation(self) -> None:
        self.segmentation_text = gr.Textbox(label="What to find", placeholder="e.g. lung", max_lines=3)
        with gr.Accordion("Expert: settings of all cells", open=False):
            self.segmentation_threshold = gr.Slider(0.05, 0.95, value=0.5, step=0.05, label="Threshold", buttons=[])
            self.segmentation_checkpoint = gr.Dropdown(
                list(self.models["Segmentation"]), value=self.calls.segmentation_checkpoint, label="Weights"
            )
        self.heads = gr.File(
            label="Few-shot heads to compare (optional)", file_count="multiple", file_types=[HEAD_SUFFIX], height=92,
            elem_classes="drop",
        )  # fmt: skip

    @property
    def axis_fields(self) -> dict[str, Any]:
        names = ("across", "across_values", "down", "down_values", "heads", "carried")
        return {name: getattr(self, name) for name in names}

    @property
    def synthesis_fields(self) -> list[Any]:
        return [getattr(self, f"synthesis_{name}") for name in SHARED["Synthesis"]]

    @property
    def fields(self) -> dict[str, Any]:
        shared = [f"{task.lower()}_{field}" for task, names in SHARED.items() for field in names]
        return {**self.axis_fields, **{name: getattr(self, name) for name in shared}}

    @property
    def outputs(self) -> list[Any]:
        """What `fill` and `check` update."""
        return [self.across_values, self.down_values, self.across_note, self.down_note]

    def connect(self, task: gr.Radio, quiet: dict[str, Any]) -> list[Any]:
        """What happens among the fields themselves; returns the events after which another grid is meant."""
        fill = {
            "fn": self.fill, "inputs_kwargs": {"task": task, "typed": self.typed, **self.fields},
            "outputs": self.outputs, "queue": False, "trigger_mode": "always_last", **quiet,
        }  # fmt: skip
        turned = task.input(
            self.switch_task, task, [self.across, self.down, self.synthesis, self.segmentation], queue=False, **quiet
        ).then(**fill)
        chosen = on_choice([self.across, self.down], self.fill, fill["inputs_kwargs"], self.outputs, queue=False)
        lists, known = [self.across_values, self.down_values], {"task": task, **self.fields}
        remember = {
            "fn": self.remember, "inputs_kwargs": {"typed": self.typed, **known}, "outputs": self.typed,
            "trigger_mode": "always_last", "queue": False, **quiet,
        }  # fmt: skip
        written = gr.on([values.input for values in lists], **remember)
        # Gradio keeps the first input of a field to itself, so what is pasted there is noticed once the field is left.
        gr.on([values.blur for values in lists], **remember).then(
            self.check, inputs_kwargs=known, outputs=self.outputs[2:], queue=False, trigger_mode="always_last", **quiet
        )
        on_choice([self.synthesis_checkpoint], self.take_defaults, {"name": self.synthesis_checkpoint},
                  self.synthesis_fields[2:6], queue=False, **quiet)  # fmt: skip
        sentences, follow = [self.synthesis_prompt, self.segmentation_text], {**fill, "fn": self.follow}
        words = gr.on([field.input for field in sentences], **follow)
        left = [on_leaving(field, self.follow, fill["inputs_kwargs"], self.outputs, queue=False) for field in sentences]
        heads = gr.on(
            [self.heads.upload, self.heads.clear, self.heads.delete], self.take_heads, self.heads,
            self.segmentation_checkpoint, queue=False, **quiet,
        ).then(**fill)  # fmt: skip
        return [turned, chosen, written, words, *left, heads]

    def axes(self, task: str, heads: list[str] | None = None) -> dict[str, Axis]:
        """What can be varied, by name."""
        if task == "Synthesis":
            return synthesis_axes(self.calls, self.models[task])
        ready = [name for name, model in self.models[task].items() if model.status.startswith("ready")]
        return segmentation_axes((*self.models[task], *head_files(heads)), ", ".join([*ready, *head_files(heads)]))

    def switch_task(self, task: str) -> tuple[Any, ...]:
        """The other task: its axes, and its settings instead of the other's."""
        (across, down), names = FIRST[task], list(self.axes(task))
        shown = [gr.update(visible=task == name) for name in FIRST]
        return gr.update(choices=names, value=across), gr.update(choices=[NOTHING, *names], value=down), *shown

    def remember(self, typed: dict[str, str], task: str, **fields: Any) -> dict[str, str]:
        """The lists that differ from those they begin with are a user's own."""
        axes, typed = self.axes(task, fields["heads"]), dict(typed)
        for side in ("across", "down"):
            if axis := axes.get(fields[side]):
                values, name = fields[f"{side}_values"], f"{task} {axis.name}"
                typed.pop(name, None)
                if (values or "").strip() and values != self._default_list(axis, fields):
                    typed[name] = values
        return typed

    def take_defaults(self, name: str) -> tuple[Any, ...]:
        """Other weights bring the settings that suit them."""
        defaults = sampling_defaults(self.models["Synthesis"][name])
        return tuple(defaults[field] for field in SHARED["Synthesis"][2:6])

    def take_heads(self, heads: list[str] | None) -> Any:
        """Files of few-shot heads may be chosen like weights."""
        names = [*self.models["Segmentation"], *head_files(heads)]
        return gr.update(choices=names, value=names[-1] if heads else self.calls.segmentation_checkpoint)

    def fill(self, task: str, typed: dict[str, str], **fields: Any) -> dict[Any, Any]:
        """Each list as a user last wrote it for this axis, or one to begin with; then what is wrong with them."""
        axes, updates = self.axes(task, fields["heads"]), {}
        for side in ("across", "down"):
            axis, values = axes.get(fields[side]), getattr(self, f"{side}_values")
            if axis is None:
                updates[values] = gr.update(visible=False)
                continue
            name = f"{side}_values"
            shown = fields[name]
            fields[name] = typed.get(f"{task} {axis.name}") or self._default_list(axis, fields)
            # What is there already is not sent again: it would undo what is typed meanwhile.
            new = {} if fields[name] == shown else {"value": fields[name]}
            updates[values] = gr.update(label=f"Values {side}, {axis.format_hint}", visible=True, **new)
        return updates | self.check(task, **fields)

    def follow(self, task: str, typed: dict[str, str], **fields: Any) -> dict[Any, Any]:
        """The prompt or the sentence was written: the lists that begin with it. Another may be being written already,
        and is left alone."""
        filled, axes = self.fill(task, typed, **fields), self.axes(task, fields["heads"])
        lists = {side: getattr(self, f"{side}_values") for side in ("across", "down")}
        begun = {side for side in lists if (axis := axes.get(fields[side])) and axis.sentences}
        values = {f"{side}_values": filled[lists[side]].get("value", fields[f"{side}_values"]) for side in begun}
        return {lists[side]: filled[lists[side]] for side in begun} | self.check(task, **{**fields, **values})

    def _default_list(self, axis: Axis, fields: dict[str, Any]) -> str:
        """A list to begin with."""
        if axis.field == "seed":
            seed = int(fields["synthesis_seed"] or 0)
            return f"{seed}, {seed + 1}"
        if axis.field == "prompt":
            prompt = (fields["synthesis_prompt"] or "").strip()
            return "\n".join([prompt, *(f"{prompt}, {look}" for look in APPEARANCES)]) if prompt else ""
        if axis.field == "text":
            text = (fields["segmentation_text"] or "").strip()
            try:
                others = [one for one in self.calls.targets(self.calls.segmentation_checkpoint) if one != text][:2]
            except EmitDiffError:
                others = []
            return "\n".join([*([text] if text else []), *others, NO_TEXT])
        return axis.default_text

    def check(self, task: str, **fields: Any) -> dict[Any, Any]:
        """Beside each list what is wrong with it, or how large the grid is."""
        words = {"across": "", "down": ""}
        for side in words:
            try:
                self._values(task, side, fields)
            except EmitDiffError as error:
                words[side] = note(sentence(error), "error")
        if not any(words.values()):
            words["down"] = note(self.grid(task, **fields).size)
        return {self.across_note: words["across"], self.down_note: words["down"]}

    def _values(self, task: str, side: str, fields: dict[str, Any]) -> tuple[Axis | None, list[Any]]:
        axes = self.axes(task, fields["heads"])
        if side == "down" and fields["down"] not in axes:
            return None, [None]
        if side == "down" and fields["down"] == fields["across"]:
            raise EmitDiffError(f"{fields['down']} is already varied across: vary another setting down, or {NOTHING}.")
        axis = axes[fields[side]]
        return axis, axis.read(fields[f"{side}_values"])

    def grid(self, task: str, **fields: Any) -> Grid:
        """The empty grid that the fields describe; raises EmitDiffError naming what is wrong with a list."""
        columns = self.axes(task, fields["heads"])[fields["across"]]
        across = columns.read(fields["across_values"])
        rows, down = self._values(task, "down", fields)
        carried = fields["carried"] if task == "Synthesis" else {}
        fixed = {**carried, **{name: fields[f"{task.lower()}_{name}"] for name in SHARED[task]}}
        return Grid(columns, across, rows, down, fixed)

    @property
    def leaving(self) -> list[Any]:
        """The events after which a setting has another value."""
        written = ("prompt", "text", "values")
        kept = {name: field for name, field in self.fields.items() if name not in ("heads", "carried")}
        return [field.blur if name.endswith(written) else field.input for name, field in kept.items()]

    def restore(self, kept: dict[str, Any]) -> dict[Any, Any]:
        """Updates for a page that is opened again; what can no longer be chosen is left as it is at first."""
        task = kept.get("task")
        if task not in [*FIRST]:  # what the browser kept may be anything, also what has no hash
            return {self.typed: {}}
        names, typed, updates = list(self.axes(task)), {}, {}
        for side, box, choices in (("across", self.across, names), ("down", self.down, [NOTHING, *names])):
            chosen = kept.get(side) if kept.get(side) in choices else FIRST[task][side == "down"]
            updates[box] = gr.update(choices=choices, value=chosen)
            if isinstance(values := kept.get(f"{side}_values"), str) and chosen == kept.get(side):
                typed[f"{task} {chosen}"] = values
        shown = {self.synthesis: task == "Synthesis", self.segmentation: task == "Segmentation"}
        updates |= {column: gr.update(visible=visible) for column, visible in shown.items()}
        fields = {
            name: kept[name]
            for name in self.fields
            if name.startswith(("synthesis_", "segmentation_")) and name in kept
        }
        usable = {getattr(self, name): value for name, value in fields.items() if self._is_usable(name, value)}
        return {**updates, **usable, self.typed: typed}

    def _is_usable(self, name: str, value: Any) -> bool:
        task, field = name.split("_", 1)
        axis = next(axis for axis in self.axes(task.capitalize()).values() if axis.field == field)
        try:
            return isinstance(value, str) if axis.sentences else bool(axis.read(str(value)))
        except EmitDiffError:
            return False

    def import_settings(self, settings: dict[str, Any]) -> dict[Any, Any]:
        """Updates for the settings of a run of the synthesis, by the fields of its form."""
        shown = {getattr(self, f"synthesis_{name}"): settings[name] for name in SHARED["Synthesis"]}
        others = set(BLANK_FORM) - {*SHARED["Synthesis"], "num_images"}
        return {**shown, self.carried: {name: settings[name] for name in others if settings[name] != BLANK_FORM[name]}}


def head_files(heads: list[str] | None) -> dict[str, str]:
    """Uploaded heads by the names they are compared under."""
    return {Path(file).stem: str(file) for file in heads or []}
