"""The Synthesis tab: one image becomes labelled synthetic images."""

from __future__ import annotations

import random
from typing import Any

import gradio as gr

from emitdiff.errors import EmitDiffError
from emitdiff.images import file_stem
from emitdiff.ui.callables import Callables, SynthesisRequest
from emitdiff.ui.drawing import build_drawing, ground, save_drawing
from emitdiff.ui.examples import Example
from emitdiff.ui.form import find_preset, menu, sampling_defaults
from emitdiff.ui.messages import note, sentence
from emitdiff.ui.preview import build_preview
from emitdiff.ui.results_panel import ResultsPanel
from emitdiff.ui.source import build_source, image_of
from emitdiff.ui.structure_controls import EDIT_FIELDS, build_structure_controls, thresholds_of


class SynthesisTab:
    """Lays out the tab inside the current Blocks context and connects it. `checkpoint` is read by the page's status."""

    def __init__(self, calls: Callables, cards: list[Example]) -> None:
        self.calls, self.cards = calls, cards
        self.models = {model.name: model for model in calls.models() if model.kind == "synthesis"}
        self.first_model = self.models[calls.synthesis_checkpoint]
        with gr.Row(elem_classes="workspace three"):
            with gr.Column(elem_classes="pane"):
                self._lay_out_controls()
            with gr.Column(elem_classes="pane views"):
                self._lay_out_views()
            with gr.Column(elem_classes="pane results"):
                self.results = ResultsPanel(calls)
        own = [name for name in SynthesisRequest.__dataclass_fields__ if name not in self.structure.fields]
        self.form = {**{name: getattr(self, name) for name in own}, **self.structure.fields}
        self._connect_source()
        self._connect_words()
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        self.random_seed.click(lambda: random.randrange(2**31), outputs=self.seed, queue=False, **quiet)
        inputs = {**self.source.inputs, "mask_file": self.mask_file, **self.form}
        self.results.connect(inputs, self.form, (self.generate_button, self.stop_button), self.mirror)

    def _lay_out_controls(self) -> None:
        words = self.calls.vocabulary
        self.source = build_source(self.calls, self.cards, "Your image")
        self.mask_file = gr.File(label="Its mask (optional): becomes the label", height=92, elem_classes="drop")
        self.mask_note = gr.HTML(elem_classes="beside")
        self.drawing = build_drawing()
        with gr.Row(elem_classes="pair"):
            self.modality = gr.Dropdown(menu(words.modalities), value="", label="Modality")
            self.organ = gr.Dropdown(menu(words.organs), value="", label="Organ")
        with gr.Row(elem_classes="pair"):
            self.finding = gr.Dropdown(menu(words.findings), value="", label="Finding")
            self.appearance = gr.Dropdown(menu(words.appearances), value="", label="Appearance")
        self.free_text = gr.Textbox(label="More words", placeholder="e.g. portable, low contrast", max_lines=2)
        self.prompt = gr.Textbox(label="Prompt (edit freely)", lines=2, max_lines=4)
        self.prompt_note = gr.HTML(elem_classes="beside")
        with gr.Row(elem_classes="pair"):
            self.num_images = gr.Slider(1, 8, value=4, step=1, label="Images", buttons=[])
            self.random_seed = gr.Button("Random", size="sm", render=False)
            self.seed = gr.Number(0, label="First seed", precision=0, buttons=[self.random_seed], elem_classes="seed")
        with gr.Accordion("Advanced", open=False):
            self._lay_out_advanced(sampling_defaults(self.first_model))
        with gr.Column(elem_classes="actions"):
            self.mirror = gr.HTML(elem_classes="mirror")
            with gr.Row():
                self.generate_button = gr.Button("Generate", variant="primary", scale=3, min_width=120)
                self.stop_button = gr.Button("Stop", variant="stop", scale=1, min_width=80, interactive=False)

    def _lay_out_advanced(self, defaults: dict[str, Any]) -> None:
        presets = [preset.name for preset in self.calls.vocabulary.presets]
        self.preset = gr.Dropdown(presets, value=presets[0], label="Preset: sets the fields below")
        self.num_inference_steps = gr.Slider(
            1, 100, value=defaults["num_inference_steps"], step=1, label="Steps", buttons=[]
        )
        self.guidance_scale = gr.Slider(
            0, 20, value=defaults["guidance_scale"], step=0.1, label="Guidance: weight of the words", buttons=[]
        )
        self.controlnet_conditioning_scale = gr.Slider(
            0,
            2,
            value=defaults["controlnet_conditioning_scale"],
            step=0.05,
            label="Control strength: weight of the edges",
            buttons=[],
        )
        self.negative_prompt = gr.Textbox(label="Negative prompt: what to avoid", max_lines=2)
        self.checkpoint = gr.Dropdown(list(self.models), value=self.calls.synthesis_checkpoint, label="Weights")
        self.checkpoint_note = gr.HTML(elem_classes="beside")

    def _lay_out_views(self) -> None:
        self.preview = build_preview(self.calls, self.mask_note)
        self.structure = build_structure_controls(self.calls.vocabulary.detectors, self.first_model.detector)

    def _connect_source(self) -> None:
        source, quiet = self.source, {"show_progress": "hidden", "api_visibility": "private"}
        words = [self.modality, self.organ, self.finding, self.appearance, self.free_text, self.prompt]
        loaded = [
            source.file.upload(
                self.take_file, source.file, [*source.outputs, self.mask_file, self.modality, self.results.progress],
                concurrency_limit=2, **quiet,
            ),
            source.examples.select(
                self.take_example, outputs=[*source.outputs, self.mask_file, *words, self.results.progress], **quiet
            ),
        ]  # fmt: skip
        look = {
            "fn": self.preview.look,
            "inputs_kwargs": {**source.inputs, "mask_file": self.mask_file, **self.form},
            "outputs": self.preview.outputs,
            "concurrency_id": "preview",
            "concurrency_limit": 2,
            **quiet,
        }
        # The canvas holds one slice: with another one it closes, and fetches anew when it is opened.
        close = {"fn": lambda: gr.Accordion(open=False), "outputs": self.drawing.panel, **quiet}
        for event in loaded:
            event.then(**close).then(**look)  # closed before anything slow: nobody opens it in vain
        gr.on([source.slice.input, source.window.input], **close)
        source.file.clear(
            lambda: {**source.clear(), **self.preview.clear()},
            outputs=[*source.outputs, *self.preview.outputs],
            **quiet,
        )
        self.drawing.panel.expand(
            self.open_drawing, inputs_kwargs=source.inputs, outputs=[self.drawing.canvas, self.mask_note], **quiet
        )
        self.drawing.use.click(
            self.use_drawing,
            inputs_kwargs={"scan": source.scan, "drawing": self.drawing.canvas},
            outputs=[self.mask_file, self.mask_note],
            **quiet,
        ).then(**look)
        self.structure.connect(quiet)
        changed = [
            field.change if name in EDIT_FIELDS else field.input for name, field in self.structure.fields.items()
        ]
        gr.on(
            [source.slice.input, source.window.input, self.mask_file.upload, self.mask_file.clear, *changed],
            trigger_mode="always_last", **look,
        )  # fmt: skip
        gr.on(
            [self.checkpoint.input, self.preset.input],
            self.take_defaults,
            [self.checkpoint, self.preset],
            [self.num_inference_steps, self.guidance_scale, self.controlnet_conditioning_scale, self.structure.detector,
             self.structure.thresholds, self.checkpoint_note],
            **quiet,
        ).then(**look)  # fmt: skip

    def _connect_words(self) -> None:
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        drops = [self.modality, self.organ, self.finding, self.appearance]
        gr.on(
            [*(drop.input for drop in drops), self.free_text.input],
            self.calls.compose_prompt,
            [*drops, self.free_text],
            self.prompt,
            trigger_mode="always_last",
            **quiet,
        )
        gr.on(
            [self.prompt.change, self.checkpoint.change],
            self.warn,
            [self.prompt, self.checkpoint],
            self.prompt_note,
            trigger_mode="always_last",
            **quiet,
        )

    def take_file(self, path: str, request: gr.Request) -> dict[Any, Any]:
        """A file was chosen: its slices and windows, no mask any more, the modality when the file names it."""
        updates = self.source.upload(path)
        scan = updates.get(self.source.scan)
        if scan is None:
            return updates
        updates |= self.results.idle(request)
        named = [word for word in self.calls.vocabulary.modalities if word.lower() == str(scan.modality).lower()]
        return {**updates, self.mask_file: None, **({self.modality: named[0]} if named else {})}

    def take_example(self, event: gr.SelectData, request: gr.Request) -> dict[Any, Any]:
        """An example card was chosen: its image, mask and words."""
        example, updates = self.source.card(event.index)
        words = [example.modality, example.organ, example.finding, example.appearance]
        updates |= self.results.idle(request) | dict(
            zip([self.modality, self.organ, self.finding, self.appearance], words, strict=True)
        )
        mask = str(example.mask) if example.mask else None
        prompt = self.calls.compose_prompt(*words, "")
        return {**updates, self.free_text: "", self.prompt: prompt, self.mask_file: mask}

    def take_defaults(self, name: str, preset: str = "default") -> tuple[Any, ...]:
        """Other weights or another preset: the settings they ask for, and whether the weights are on this machine."""
        model = self.models[name]
        chosen = find_preset(self.calls.vocabulary.presets, preset)
        defaults = sampling_defaults(model, chosen)
        numbers = [defaults[key] for key in ("num_inference_steps", "guidance_scale", "controlnet_conditioning_scale")]
        words = note(f"Preset {preset}: {chosen.summary}.") + note(f"{name}: {model.status}. {model.summary}")
        return *numbers, defaults["detector"], thresholds_of(defaults["detector"]), words

    def open_drawing(self, scan: Any, slice_number: float, window: str | None) -> dict[Any, Any]:
        """The canvas gets the slice shown; what was painted on another one goes."""
        try:
            return {self.drawing.canvas: ground(image_of(scan, slice_number, window))}
        except Exception as error:
            return {self.mask_note: note(sentence(error), "error")}

    def use_drawing(self, scan: Any, drawing: dict[str, Any] | None) -> dict[Any, Any]:
        """The strokes become the mask file, as if it had been uploaded."""
        try:
            if scan is None:
                raise EmitDiffError("No image yet: choose an example or drop a file first.")
            return {self.mask_file: str(save_drawing(drawing, scan.size, file_stem(scan.name))), self.mask_note: ""}
        except Exception as error:
            return {self.mask_note: note(sentence(error), "error")}

    def warn(self, prompt: str, checkpoint: str) -> str:
        """What the tokenizer would cut off the prompt, if anything."""
        try:
            return note(self.calls.prompt_warning(prompt or "", checkpoint), "warning")
        except Exception as error:
            return note(sentence(error), "warning")
