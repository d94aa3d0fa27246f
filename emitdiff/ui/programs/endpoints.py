"""The same work for programs: named, typed endpoints for `gradio_client`, and as tools for language models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import gradio as gr
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.files import write_png
from emitdiff.image_kinds import contradiction
from emitdiff.ui.archive import answer_folder, build_manifest, save_result
from emitdiff.ui.events import ON_DEVICE, TEACHING
from emitdiff.ui.form import BLANK_FORM, check_request, find_preset, sampling_defaults
from emitdiff.ui.interface import (
    HEAD_SUFFIX,
    Callables,
    EvaluateRequest,
    FewShotDatasetRequest,
    ModelInfo,
    SynthesisRequest,
    Untaught,
)
from emitdiff.ui.programs.answers import add_endpoint
from emitdiff.ui.programs.arguments import (
    FILE,
    NUMBER,
    REQUIRED,
    SCAN,
    TEXT,
    WHOLE,
    Argument,
    checkpoint_argument,
    sampling_arguments,
    structure_arguments,
)
from emitdiff.ui.results import Scan, SyntheticImage, is_image
from emitdiff.ui.synthesis.kind_panel import guess_kind
from emitdiff.ui.synthesis.preview import read_inputs

LIGHT = {"concurrency_id": "preview", "concurrency_limit": 2}
SAMPLING = ("num_inference_steps", "guidance_scale", "controlnet_conditioning_scale", "detector")
NOTICE = "Research use only, not a medical device."
HEAD = Argument("few-shot head from teach (.safetensors), replaces the head of the weights", FILE)
DATASET = Argument("zip of a dataset folder: dataset.json, metadata.csv, images/ and masks/", FILE, REQUIRED)
SPLITS = ("all", "train", "held-out")
UNTAUGHT = get_args(Untaught)
UNTAUGHT_HINT = "for a text that asks for nothing the weights were taught: refuse, or try all the same"
TEXTS = ("own", "none", "shuffled", "all")
BOUNDS = {"seconds": (5, 300), "images": (1, 100), "limit": (1, 200), "threshold": (0, 1)}


class Endpoints:
    """Adds /synthesize, /edges, /segment, /teach, /evaluate and /models to the current Blocks context."""

    def __init__(self, calls: Callables) -> None:
        self.calls = calls
        self.models_by_name = {model.name: model for model in calls.models()}
        with gr.Row(visible=False):
            self._add_synthesis(structure_arguments(calls))
            self._add_segmentation(structure_arguments(calls))
            add_endpoint(self.models, {}, [gr.JSON(label="weights")], LIGHT)

    def _add_synthesis(self, structure: dict[str, Argument]) -> None:
        add_endpoint(
            self.synthesize,
            {
                "image": Argument(f"{SCAN}; optional: without it, generated from the mask or the prompt alone", FILE),
                "prompt": Argument("text prompt, like X-ray, chest", default=REQUIRED),
                **structure,
                **sampling_arguments(),
            },
            [gr.File(label="images", file_count="multiple"), gr.JSON(label="manifest")],
            ON_DEVICE,
            self._check_synthesis,
        )
        outputs = [gr.File(label="edges"), gr.JSON(label="record")]
        add_endpoint(self.edges, {"image": Argument(SCAN, FILE), **structure}, outputs, LIGHT)

    def _add_segmentation(self, structure: dict[str, Argument]) -> None:
        segmenter = checkpoint_argument(self.calls, "segmentation")
        add_endpoint(
            self.segment,
            {
                "image": Argument(SCAN, FILE, REQUIRED),
                "text": Argument("a sentence, or a target listed by models, like left lung", default=REQUIRED),
                "threshold": Argument("probability threshold; 0 to 1", NUMBER, 0.5),
                "slice_number": structure["slice_number"],
                "checkpoint": segmenter,
                "head": HEAD,
                "untaught": Argument(UNTAUGHT_HINT, TEXT, "refuse", UNTAUGHT),
                "time_point": structure["time_point"],
            },
            [gr.File(label="mask"), gr.JSON(label="result")],
            ON_DEVICE,
            self._check_segmentation,
        )
        add_endpoint(
            self.teach,
            {
                "dataset": DATASET,
                "label": Argument("label of dataset.json to train on; default: all labels"),
                "images": Argument("number of images, evenly spread; default: all; 1 to 100", WHOLE),
                "seconds": Argument("training time in seconds; 5 to 300", NUMBER, 60),
                "split": Argument("train excludes the held-out groups", TEXT, "all", SPLITS),
                "seed": Argument("same seed, same head", WHOLE, 0),
                "checkpoint": segmenter,
            },
            [gr.File(label="head"), gr.JSON(label="record")],
            TEACHING,
            self._check_dataset_work,
        )
        add_endpoint(
            self.evaluate,
            {
                "dataset": DATASET,
                "text": Argument("text variant: own, none, shuffled, or all three", TEXT, "own", TEXTS),
                "split": Argument("groups, split as in training", TEXT, "all", SPLITS),
                "limit": Argument("number of images, evenly spread; 1 to 200", WHOLE, 30),
                "threshold": Argument("probability threshold; 0 to 1", NUMBER, 0.5),
                "checkpoint": segmenter,
                "head": HEAD,
            },
            [gr.JSON(label="measures")],
            ON_DEVICE,
            self._check_dataset_work,
        )

    def synthesize(
        self, image: str | None, mask: str | None, slice_number: int, time_point: int | None, **form: Any
    ) -> Iterator[tuple[list[str] | None, dict | None]]:
        """Synthetic images that keep the edges of the image and follow the prompt; needs image, mask or structure 0.

        Returns:
            PNG files with their settings inside
            a manifest with every setting, seed and mask. Research use only, not a medical device.
        """
        request = self._request(form)
        settings = request.settings
        pixels, stem, label, warnings = self._read(
            image, mask, slice_number, time_point, settings.structure, settings.prompt
        )
        results: list[SyntheticImage] = []
        for event in self.calls.synthesize(pixels, label, request, lambda: False):
            if is_image(event):
                results.append(event)
            yield None, None  # Gradio ends a generator here, between two steps, once its caller cancels or is gone
        folder = answer_folder()
        if warnings:
            results = [replace(result, settings={**result.settings, "warnings": warnings}) for result in results]
        paths = [save_result(result, index, stem, folder) for index, result in enumerate(results)]
        yield (
            [str(path) for path in paths],
            build_manifest(results, paths, stem, warnings=warnings),
        )

    def edges(
        self, image: str | None, mask: str | None, slice_number: int, time_point: int | None, **form: Any
    ) -> tuple[str, dict]:
        """The control image that synthesize would give to the network.

        Returns:
            a PNG file
            the warnings of the image
        """
        request = self._request({**form, "prompt": "edges"})
        pixels, stem, label, warnings = self._read(image, mask, slice_number, time_point, request.settings.structure)
        control = self.calls.control_image(pixels, label, request)
        return str(write_png(answer_folder() / f"{stem}_edges.png", control)), {"warnings": warnings}

    def segment(
        self, image: str, text: str, threshold: float, slice_number: int, checkpoint: str, head: str | None,
        untaught: Untaught, time_point: int | None,
    ) -> tuple[str | None, dict]:  # fmt: skip
        """The mask of what the text names in the image, at the size and in the geometry of the file.

        Returns:
            the mask file, 1 inside, 0 outside; none for a text that asks for nothing the weights were taught
            what was found and how probable it is. Research use only, not a medical device.
        """
        weights = self._check_segmentation(text, threshold, checkpoint, head, untaught)
        scan = self._scan(image, time_point)
        index = _slice_index(scan, slice_number)
        output = self.calls.segment(scan.image(index), text.strip(), float(threshold), weights, untaught)
        refused = output.untaught and untaught == "refuse"
        saved = None if refused else str(scan.save_mask({index: output.mask}, answer_folder()))
        result = {
            "found": bool(output.found),
            "answer": output.answer,
            "target": output.target,
            "untaught": bool(output.untaught),
            "nearest": output.nearest,
            "present": None if output.present is None else round(output.present, 4),
            "highest_probability": round(float(np.max(output.probability)), 4),
            "fraction_of_image": round(float(np.mean(output.mask > 0)), 6),
            "seconds": round(output.seconds, 3),
            "warnings": [*scan.warnings, *output.warnings],
            "notice": NOTICE,
        }
        return saved, result

    def teach(
        self, dataset: str, checkpoint: str, images: int | None, seconds: float, **how: Any
    ) -> Iterator[tuple[str | None, dict | None]]:
        """A small head from a few labelled images, on frozen weights: segment and evaluate take it as their head.

        Returns:
            the head, a .safetensors file
            what it finds, from how much, and its Dice on an image held out at first (from four images on)
        """
        _check_bounds(seconds=seconds, images=images)
        weights = self._model(checkpoint, "segmentation").name
        for update in self.calls.teach_dataset(  # noqa: B007  the last one is used below
            dataset, FewShotDatasetRequest(weights, images, seconds, **how)
        ):
            yield None, None  # as in synthesize
        record = {
            "targets": list(self.calls.targets(str(update.file))),
            "steps": update.step,
            "seconds": round(update.seconds, 1),
            "loss": round(update.loss, 4),
            "dice": None if update.dice is None else round(update.dice, 4),
            "checkpoint": weights,
            "warnings": [update.shortfall] if update.shortfall else [],
            "notice": NOTICE,
        }
        yield str(update.file), record

    def evaluate(
        self, dataset: str, checkpoint: str, head: str | None, limit: int | None, **how: Any
    ) -> Iterator[dict | None]:
        """How well weights or a head segment a labelled dataset, asked at most 2,000 questions.

        Returns:
            Dice, IoU, HD95 and more over the images and for each target alone; distances in pixels
        """
        _check_bounds(limit=limit, threshold=how["threshold"])
        weights = self._segmenter(checkpoint, head)
        for measures in self.calls.evaluate(dataset, EvaluateRequest(weights, limit, **how)):
            yield measures and {**measures, "notice": NOTICE}  # None: as in synthesize

    def models(self) -> list[dict]:
        """The weights known here: kind, summary, licence, whether they are on this machine, defaults, targets."""
        rows = []
        for model in self.calls.models():
            row: dict[str, Any] = dict(vars(model))
            if model.kind == "segmentation" and model.status.startswith("ready"):
                row["targets"] = list(self.calls.targets(model.name))
            rows.append(row)
        return rows

    def _check_synthesis(self, image: Any, mask: Any, slice_number: int, time_point: int | None, **form: Any) -> None:
        self._request(form)

    def _check_segmentation(
        self, text: str, threshold: float, checkpoint: str, head: str | None, untaught: str, **others: Any
    ) -> str:
        """The weights to segment with."""
        if not (text or "").strip():
            raise EmitDiffError("The text is empty: say what to find, for example “lung”.")
        weights = self._segmenter(checkpoint, head)
        _check_bounds(threshold=threshold)
        if untaught not in UNTAUGHT:
            raise EmitDiffError(f"untaught is {untaught!r}: give {' or '.join(UNTAUGHT)}.")
        return weights

    def _check_dataset_work(self, checkpoint: str, head: str | None = None, **values: Any) -> None:
        _check_bounds(**{name: value for name, value in values.items() if name in BOUNDS})
        self._segmenter(checkpoint, head)

    def _request(self, form: dict[str, Any]) -> SynthesisRequest:
        """The checked request; what a caller left out is what suits the preset and the weights."""
        model = self._model(form["checkpoint"], "synthesis")
        suits = sampling_defaults(model, find_preset(self.calls.vocabulary.presets, form["preset"]))
        given = {name: value for name, value in form.items() if value is not None}
        suits = {"num_images": 1, **{name: suits[name] for name in SAMPLING}}
        request = check_request({**BLANK_FORM, **suits, **given})
        if (detector := request.settings.detector) not in self.calls.vocabulary.detectors:
            known = ", ".join(self.calls.vocabulary.detectors)
            raise EmitDiffError(f"No edge detector is called {detector!r}: give one of {known}.")
        return request

    def _model(self, name: str, kind: str) -> ModelInfo:
        """Only weights of the list are loaded for a caller: a name must not make the server fetch a repository."""
        model = self.models_by_name.get(name)
        if model is None or model.kind != kind:
            known = ", ".join(model.name for model in self.models_by_name.values() if model.kind == kind)
            raise EmitDiffError(f"No {kind} weights are called {name!r} here: give one of {known}.")
        return model

    def _segmenter(self, checkpoint: str, head: str | None) -> str:
        if head and not head.endswith(HEAD_SUFFIX):
            raise EmitDiffError("The head is not a .safetensors file: give the file from /teach or from the page.")
        return head or self._model(checkpoint, "segmentation").name

    def _scan(self, image: str, time_point: int | None) -> Scan:
        """Callers count volumes from 1, as they do slices."""
        return self.calls.read_scan(image, time_point=None if time_point is None else time_point - 1)

    def _read(
        self, image: str | None, mask: str | None, slice_number: int, time_point: int | None, structure: float,
        prompt: str = "",
    ) -> tuple[np.ndarray | None, str, np.ndarray | None, list[str]]:  # fmt: skip
        """Image, name, mask and warnings, one of them where `prompt` says another kind of image than is given."""
        scan = self._scan(image, time_point) if image else None
        if scan is not None:
            _slice_index(scan, slice_number)
        pixels, label, stem = read_inputs(self.calls, scan, slice_number, None, mask, structure)
        warnings = [] if scan is None else list(scan.warnings)
        if prompt and structure and scan is not None and pixels is not None:
            wrong = contradiction(prompt, guess_kind(self.calls, scan, pixels))
            warnings += [wrong] if wrong else []
        return pixels, stem, label, warnings


def _slice_index(scan: Scan, slice_number: int) -> int:
    """Callers count slices from 1. Raises EmitDiffError for one that is not there."""
    if not 1 <= slice_number <= scan.num_slices:
        there = f"slices 1 to {scan.num_slices}" if scan.num_slices > 1 else "one slice, 1"
        raise EmitDiffError(f"slice_number is {slice_number}: '{scan.name}' has {there}.")
    return slice_number - 1


def _check_bounds(**values: float | None) -> None:
    """Raises EmitDiffError for a number beyond its `BOUNDS`; None is left to the default."""
    for name, value in values.items():
        low, high = BOUNDS[name]
        if value is not None and not low <= value <= high:
            raise EmitDiffError(f"{name} is {value:g}: give a number from {low} to {high}.")
