"""Inputs of a synthesis run: image, mask, prompt and settings, with a preview of the control image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.files import file_stem
from emitdiff.provenance import read_synthetic_settings
from emitdiff.ui.browser_settings import persist_settings
from emitdiff.ui.drawing import CLOSE
from emitdiff.ui.events import QUIET, on_choice
from emitdiff.ui.examples import Example
from emitdiff.ui.form import BLANK_FORM, EDIT_FIELDS, fill_form, find_preset, form_values, sampling_defaults
from emitdiff.ui.interface import Callables
from emitdiff.ui.masks import RemovedImage, mask_removal_note, owner_of
from emitdiff.ui.messages import note
from emitdiff.ui.results import Scan
from emitdiff.ui.source import SESSION_SECONDS, build_source
from emitdiff.ui.synthesis.kind_panel import build_kind_panel
from emitdiff.ui.synthesis.mask_panel import build_mask_panel
from emitdiff.ui.synthesis.preview import TEXT_ONLY, build_preview
from emitdiff.ui.synthesis.prompt_panel import build_prompt_panel
from emitdiff.ui.synthesis.sampling_controls import build_sampling_controls
from emitdiff.ui.synthesis.stored import Stored, read_stored
from emitdiff.ui.synthesis.structure_controls import build_structure_controls, thresholds_of


class SynthesisInput:
    """Two panes of the tab; `form` holds the components of a request by its field names. Call the methods in order."""

    def __init__(self, calls: Callables, cards: list[Example]) -> None:
        self.calls, self.cards = calls, cards
        self.models = {model.name: model for model in calls.models() if model.kind == "synthesis"}

    def lay_out_controls(self) -> None:
        self.source = build_source(self.calls, self.cards, "Your image")
        self.kind = build_kind_panel(self.calls)
        self.before = gr.State(None, time_to_live=SESSION_SECONDS)  # an upload that was taken away, for what came of it
        self.mask = build_mask_panel(self.calls)
        self.words = build_prompt_panel(self.calls)
        self.sampling = build_sampling_controls(self.calls, self.models)

    def lay_out_views(self) -> None:
        self.preview = build_preview(self.calls, self.mask.note)
        detector = self.models[self.calls.synthesis_checkpoint].detector
        self.structure = build_structure_controls(self.calls.vocabulary, detector)
        fields = {"prompt": self.words.prompt, **self.sampling.fields, **self.structure.fields}
        self.form = {name: fields[name] for name in BLANK_FORM}

    @property
    def given(self) -> dict[str, Any]:
        """The components of image and mask, by the parameter names of a handler."""
        return {**self.source.inputs, "mask_file": self.mask.file}

    @property
    def restored(self) -> list[Any]:
        """What `restore` may change."""
        return [*self.words.words.values(), *self.form.values(), self.structure.thresholds]

    @property
    def preview_event(self) -> dict[str, Any]:
        """The arguments of an event after which the preview shows what there is now."""
        return {
            "fn": self.preview.update, "inputs_kwargs": {**self.given, **self.form}, "outputs": self.preview.outputs,
            "concurrency_id": "preview", "concurrency_limit": 2, **QUIET,
        }  # fmt: skip

    def connect(self) -> None:
        """Ties everything of the two panes together."""
        source, look = self.source, self.preview_event
        loaded = [
            source.file.upload(
                self.take_file, [source.file, source.scan, self.mask.file, self.before],
                [self.before, *source.outputs, *self.kind.outputs, *self.mask.outputs, *self.restored,
                 *self.preview.outputs],
                concurrency_limit=2, **QUIET,
            ),
            source.examples.select(
                self.take_example, inputs=self.sampling.checkpoint, queue=False,
                outputs=[*source.outputs, *self.kind.outputs, *self.mask.outputs, *self.restored,
                         *self.preview.outputs],
                **QUIET,
            ),
        ]  # fmt: skip
        # The canvas holds one slice: with another one it closes, and fetches again when it is opened.
        close = {"outputs": self.mask.drawing.panel, **CLOSE}
        taken_away = source.file.clear(
            self.take_away, inputs_kwargs=self.given,
            outputs=[self.before, *source.outputs, *self.kind.outputs], **QUIET,
        )  # fmt: skip
        self.kind.connect(source, self.words, loaded[:1])
        for event in (*loaded, taken_away, source.on_time_point(QUIET)):
            event.then(**close).then(**look)  # closed before anything slow: nobody opens it in vain
        gr.on([source.slice.input, source.window.input], **close)
        source.clear_errors_on([self.mask.file.change, source.slice.input, source.window.input], QUIET)
        self.mask.connect(source, self.words, look, QUIET)
        self.words.connect(self.sampling.checkpoint, QUIET)
        self.sampling.connect(QUIET)
        self.structure.connect(QUIET)
        self._connect_settings(look)

    def _connect_settings(self, look: dict[str, Any]) -> None:
        """What changes the control image changes the preview; weights and presets bring their defaults."""
        changed = [
            field.change if name in EDIT_FIELDS else field.input for name, field in self.structure.fields.items()
        ]
        mask, source, sampling = self.mask.file, self.source, self.sampling
        gr.on(
            [source.slice.input, source.window.input, mask.upload, mask.clear, *changed],
            trigger_mode="always_last", **look,
        )  # fmt: skip
        menus = {"name": sampling.checkpoint, "preset": sampling.preset}
        outputs = [*sampling.fields.values(), sampling.note, self.structure.detector, self.structure.thresholds]
        on_choice([*menus.values()], self.take_defaults, menus, outputs, **QUIET).then(**look)

    def persist(self, demo: gr.Blocks) -> None:
        """The settings outlive a refresh, image and mask do not."""
        changed = [field.change for field in self.form.values()]
        persist_settings(demo, "emitdiff_synthesis", self.form, changed, self.restore_stored, self.restored)

    def restore_stored(self, kept: Any) -> dict[Any, Any]:
        """Updates for `restored` from what the browser kept; whatever cannot be used is left as it is."""
        updates, _ = self.restore(kept if isinstance(kept, dict) else {})
        return updates or {self.words.prompt: gr.skip()}

    def take_file(
        self, path: str, previous: Any = None, mask_file: str | None = None, before: RemovedImage | None = None
    ) -> dict[Any, Any]:
        """A file was chosen: its slices and windows, the modality when the file names it. A mask stays that was there
        alone and fits; the image `previous` and its mask go."""
        updates = self.source.upload(path)
        scan = updates.get(self.source.scan)
        if scan is None:
            return updates
        goes = mask_removal_note(self.calls, mask_file, scan, owner_of(mask_file, previous, before))
        mask = self.mask.take() if goes or not mask_file else self.mask.keep()
        updates = {**updates, **self.kind.forget(), **mask, self.before: None}
        try:
            settings = read_synthetic_settings(path)
        except EmitDiffError:  # a picture like any other
            named = [word for word in self.calls.vocabulary.modalities if word.lower() == str(scan.modality).lower()]
            updates[self.source.message] += goes
            return {**updates, **({self.words.modality: named[0]} if named else {})}
        return self.restore_from_image(Path(path).name, settings, updates, goes, previous, mask_file, before)

    def take_away(
        self, scan: Scan | None, slice_number: float, window: str | None, mask_file: str | None
    ) -> dict[Any, Any]:
        """The image was taken away; its mask stays, alone. Both are remembered: only now can a PNG be dropped that was
        generated from them."""
        before = gr.skip() if scan is None else RemovedImage(scan, slice_number, window, mask_file)
        return {**self.source.clear(), **self.kind.forget(), self.before: before}

    def show_again(
        self, form: dict[str, Any], scan: Scan | None = None, slice_number: float = 1, window: str | None = None,
        mask_file: str | None = None,
    ) -> dict[Any, Any]:  # fmt: skip
        """Updates for image, mask and control image as they were on a page that was reloaded."""
        there = mask_file if mask_file and Path(mask_file).exists() else None
        shown = {} if scan is None else self.source.show(scan, slice_number, window)
        for view in self.preview.update(scan, slice_number, window, there, **form):
            shown |= view
        return {**shown, **self.mask.take(there)}

    def restore_from_image(
        self, name: str, settings: dict, updates: dict[Any, Any], goes: str, previous: Any, mask_file: str | None,
        before: RemovedImage | None,
    ) -> dict[Any, Any]:  # fmt: skip
        """A synthetic image came back: its settings, and what it was generated from where that is known.

        Its source is an example, the image that is there already (`previous`) or was taken away (`before`), the mask
        that is there alone, or unknown; then it stands in itself, with the `updates` for it, which say what `goes`.
        """
        values, unusable = self.restore(settings)
        said, also = f"All settings of {name} restored.", ""
        origin = file_stem(str(settings.get("variation_of") or settings.get("source")))
        if card := next((card for card in self.cards if file_stem(card.image.name) == origin), None):
            updates = {**self.source.load(card.image), self.source.file: None}
            updates |= self.mask.take(card.mask, card.text)
            said += f" It was generated from the example {card.title}."
        elif previous is not None and file_stem(previous.name) == origin:
            updates = {self.source.file: None}
            said += f" It was generated from {previous.name}, which is loaded."
        elif before is not None and file_stem(before.scan.name) == origin:
            updates = self.source.show(before.scan, before.slice_number, before.window) | {self.source.file: None}
            if previous is not None or not mask_file:
                there = before.mask_file and Path(before.mask_file).exists()
                updates |= self.mask.take(before.mask_file if there else None)
            said += f" It was generated from {before.scan.name}, which is loaded again."
        elif previous is None and mask_file and file_stem(mask_file) == origin:
            updates = {**self.source.clear(), self.source.file: None}
            said += " It was generated from the mask alone, which is loaded."
        elif origin == TEXT_ONLY:
            updates = {**self.source.clear(), **self.preview.clear(), self.source.file: None, **self.mask.take()}
            said += " It was generated from text alone."
        else:
            said += (
                f" It was generated from “{origin}”; until that file is uploaded, the synthetic image is the source."
            )
            also = goes
        lost = f"Unknown here and left unchanged: {', '.join(unusable)}." if unusable else ""
        return {**updates, **values, self.source.message: note(said) + also + note(lost, "warning")}

    def restore(self, settings: dict[str, Any]) -> tuple[dict[Any, Any], list[str]]:
        """Updates for `restored` from settings kept somewhere, and the names of those that cannot be used."""
        vocabulary = self.calls.vocabulary
        presets = [preset.name for preset in vocabulary.presets]
        choices = {"detector": vocabulary.detectors, "preset": presets, "checkpoint": self.models}
        values, unusable = form_values(settings, choices)
        updates = {self.form[name]: value for name, value in values.items()}
        if "prompt" in values:
            updates |= self.words.read(values["prompt"])
        if "detector" in values:
            updates[self.structure.thresholds] = thresholds_of(values["detector"])
        return updates, unusable

    def take_example(self, checkpoint: str, event: gr.SelectData) -> dict[Any, Any]:
        """An example card was chosen: its image, mask and words; where results of these weights are stored with it,
        also the settings that made them, and what the network saw."""
        example, updates = self.source.card(event.index)
        words = self.words.set(example.modality, example.organ, example.finding, example.appearance)
        updates |= {**words, **self.mask.take(example.mask, example.text)}
        updates |= self.kind.know(updates[self.source.scan], example)
        image, mask, stored = self.example(event.index, checkpoint)
        if stored is None:
            return updates
        settings, _ = self.restore(fill_form(stored.request))
        return {**updates, **settings, **words, **self.preview.show(image, mask, stored.control)}

    def example(self, index: int, checkpoint: str) -> tuple[np.ndarray, np.ndarray | None, Stored | None]:
        """Image and mask of a card, and what these weights have made of them, where that is stored."""
        card = self.cards[index]
        scan = self.calls.read_scan(card.image)
        mask = self.calls.read_mask(card.mask, scan, scan.middle) if card.mask else None
        stored = read_stored(card, mask)
        fitting = stored if stored and stored.request.checkpoint == checkpoint else None
        return scan.image(scan.middle), mask, fitting

    def take_defaults(self, name: str, preset: str = "default") -> dict[Any, Any]:
        """Other weights or another preset bring the settings that suit them."""
        chosen = find_preset(self.calls.vocabulary.presets, preset)
        detector = sampling_defaults(self.models[name], chosen)["detector"]
        structure = {self.structure.detector: detector, self.structure.thresholds: thresholds_of(detector)}
        return {**self.sampling.take_defaults(name, preset), **structure}
