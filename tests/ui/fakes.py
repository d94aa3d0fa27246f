"""Plain callables in place of the pipelines: what the pages are given in their own tests."""

from __future__ import annotations

import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from emitdiff.backend.dataset_jobs import DatasetJobs
from emitdiff.backend.imports import read_labelled
from emitdiff.errors import EmitDiffError
from emitdiff.mask_metrics import compute_mask_metrics
from emitdiff.scans.masks import read_mask, read_scan_mask, read_slice_mask
from emitdiff.scans.reading import read_scan
from emitdiff.segmentation.output import SegmentationOutput
from emitdiff.synthesis_settings import SynthesisSettings
from emitdiff.ui.form import BLANK_FORM
from emitdiff.ui.interface import (
    Callables,
    DatasetCalls,
    EvaluateRequest,
    FewShotDatasetRequest,
    FewShotRequest,
    ModelInfo,
    PackRequest,
    PresetOption,
    SynthesisRequest,
    Vocabulary,
)
from emitdiff.ui.results import SyntheticImage

STEPS = 4


@dataclass(frozen=True)
class Step:
    image_index: int
    step: int
    steps: int
    preview: np.ndarray | None


@dataclass(frozen=True)
class Painted:
    image: np.ndarray
    mask: np.ndarray | None
    seed: int
    settings: dict[str, Any]
    seconds: float


def filled_form(prompt: str, **fields: Any) -> dict[str, Any]:
    """The values of the page's form by field name, as its components hold them."""
    chosen = {"num_inference_steps": 20, "guidance_scale": 5.0, "controlnet_conditioning_scale": 1.0}
    return {**BLANK_FORM, **chosen, "detector": "soft", "prompt": prompt, **fields}


def control_image(image: np.ndarray | None, mask: np.ndarray | None, request: SynthesisRequest) -> np.ndarray:
    settings = request.settings
    if image is None or settings.structure <= 0.5:
        given = image if mask is None else mask
        assert given is not None
        edges = np.zeros(given.shape[:2], np.uint8) if mask is None else mask * 255
        return np.repeat(edges[..., None], 3, axis=-1)
    edges = cv2.Canny(image, settings.low_threshold, settings.high_threshold)
    return np.repeat(edges[..., None], 3, axis=-1)


def synthesize(
    image: np.ndarray | None, mask: np.ndarray | None, request: SynthesisRequest, cancelled: Callable[[], bool],
    pause: float = 0.0,
) -> Iterator[Step | Painted]:  # fmt: skip
    asked = request.settings
    assert asked.edit is not None
    settings = {"prompt": asked.prompt, "structure": asked.structure, "move_x": asked.edit.move_x}
    if image is None:
        image = np.full((*(mask.shape if mask is not None else (64, 64)), 3), 90, np.uint8)
    for index in range(asked.num_images):
        random = np.random.default_rng(asked.seed + index)
        for step in range(1, STEPS + 1):
            if cancelled():
                return
            time.sleep(pause)
            yield Step(index, step, STEPS, cv2.GaussianBlur(image, (0, 0), 6 / step))
        noisy = np.clip(image + random.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
        yield Painted(noisy, mask, asked.seed + index, settings, 0.1)


def quality(source: np.ndarray, synthetic: np.ndarray) -> dict[str, float]:
    mae = float(np.abs(source.astype(float) - synthetic).mean() / 255)
    return {"edge_f1": 1 - mae, "ssim": 1 - 2 * mae, "ms_ssim": 1 - 3 * mae, "mae": mae}


def pack(
    results: list[SyntheticImage], paths: list[Path], packing: PackRequest, folder: Path
) -> tuple[Path, tuple[str, ...]]:
    archive = Path(folder) / f"synthetic_{packing.name}_{packing.layout}.zip"
    archive.write_text(f"{len(results)} of {packing.classes}")
    return archive, ("Labels are numbered again.",)


def segment(
    image: np.ndarray, text: str, threshold: float, checkpoint: str, untaught: str = "refuse"
) -> SegmentationOutput:
    probability: np.ndarray = cv2.GaussianBlur(image.mean(-1).astype(np.float32), (0, 0), 4) / 255
    if unknown := "pneumonia" in text:  # what was not taught
        probability = probability if untaught == "try" else np.zeros_like(probability)
    missing = "spleen" in text
    probability = np.full_like(probability, 0.1) if missing else probability
    answer = SegmentationOutput(
        mask=np.zeros(image.shape[:2], np.uint8), probability=probability,
        found=False, target=None if missing else text, present=0.02 if "pancreas" in text else 0.9,
        uncertainty=1 - probability, seconds=0.1, absent="pancreas" in text, unsure="perhaps" in text, untaught=unknown,
        nearest="lung" if unknown else None, warnings=("These weights were not taught it.",) if unknown else (),
    )  # fmt: skip
    return answer.at(threshold)


@dataclass(frozen=True)
class TrainingProgress:
    step: int
    steps: int
    seconds: float
    loss: float
    dice: float | None = None
    preview: np.ndarray | None = None
    file: Path | None = None
    shortfall: str = ""


def teach(
    examples: list[tuple[np.ndarray, np.ndarray, str]], request: FewShotRequest, cancelled: Callable[[], bool]
) -> Iterator[TrainingProgress]:
    if not any(mask.any() for _, mask, _ in examples):
        raise EmitDiffError("None of the images shows it.")
    for step in range(1, 11):
        look: dict[str, Any] = {"dice": 0.08 * step, "preview": examples[0][0]} if step % 5 == 0 else {}
        yield TrainingProgress(step, 10, step / 2, 2 / step, **look)
        if cancelled():
            break
    short = "Too few steps." if request.seconds < 20 or step < 10 else ""
    aside: dict[str, Any] = {"dice": 0.8, "preview": examples[0][0]} if len(examples) > 3 else {}
    yield TrainingProgress(step, 10, step / 2, 0.2, file=Path(f"{request.name}.safetensors"), shortfall=short, **aside)


def keep_teaching(file: str, seconds: float, cancelled: Callable[[], bool]) -> Iterator[TrainingProgress]:
    if not file:
        raise EmitDiffError("This training is over for good.")
    look = np.full((32, 32, 3), 90, np.uint8)
    yield TrainingProgress(15, 15, seconds, 0.1, 0.9, look, file=Path(file).with_stem(f"{Path(file).stem} 2"))


def teach_dataset(archive: str | Path, request: FewShotDatasetRequest) -> Iterator[TrainingProgress]:
    with zipfile.ZipFile(archive) as zipped:
        assert "my-data/dataset.json" in zipped.namelist()
    file = Path(tempfile.mkdtemp()) / f"{request.label or 'all'}.safetensors"
    file.touch()
    yield TrainingProgress(10, 10, request.seconds, 0.2, 0.8, file=file)


def evaluate(archive: str | Path, how: EvaluateRequest) -> Iterator[dict[str, Any] | None]:
    yield None
    yield {"dice": 0.9, "n": how.limit, "text": how.text, "checkpoint": Path(how.checkpoint).name, "targets": {}}


class Generator:
    """In place of a synthesis pipeline, for datasets: an image with so much noise that it is no copy."""

    name, checkpoint_card = "emitdiff-mini", SimpleNamespace(training={})
    card: dict[str, Any] = {}

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, settings: SynthesisSettings, *, cancelled: Callable[[], bool]
    ) -> list[Painted]:
        wanted = {"prompt": settings.prompt, "appearance": "", "num_inference_steps": STEPS, "guidance_scale": 3.0}
        time.sleep(0.02)
        noisy = np.clip(image + np.random.default_rng(settings.seed).normal(0, 50, image.shape), 0, 255)
        return [] if cancelled() else [Painted(noisy.astype(np.uint8), mask, settings.seed, wanted, 0.1)]

    def prompt_warning(self, prompt):
        return ""


def dataset_calls() -> DatasetCalls:
    jobs = DatasetJobs(lambda name: Generator(), failing)
    return DatasetCalls(**{name: getattr(jobs, name) for name in DatasetCalls.__dataclass_fields__})


scan_that_saves = read_scan


def read_label(path: str | Path, scan: Any, index: int) -> np.ndarray:
    return read_mask(path) if scan is None else read_slice_mask(path, scan, index)


def read_labels(path: str | Path, scan: Any) -> np.ndarray:
    return read_scan_mask(path, scan)


def compose_prompt(modality: str, organ: str, finding: str = "", appearance: str = "", free_text: str = "") -> str:
    return ", ".join(part for part in (modality, organ, finding, appearance, free_text) if part)


def prompt_warning(prompt: str, checkpoint: str) -> str:
    return f"Cut after 77 tokens: “{prompt[200:]}” is not read." if len(prompt) > 200 else ""


def models() -> tuple[ModelInfo, ...]:
    settings = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "controlnet_conditioning_scale": 1.0}
    return (
        ModelInfo(
            "emitdiff-mini",
            "synthesis",
            "Small Stable Diffusion with ControlNet.",
            "research only",
            "ready (embedded)",
            settings,
        ),
        ModelInfo(
            "sd15-canny", "synthesis", "Stable Diffusion 1.5.", "OpenRAIL", "not downloaded (5.7 GB)", {}, "canny"
        ),
        ModelInfo("textdiff-mini", "segmentation", "Small text-guided head.", "research only", "ready (embedded)", {}),
    )


def failing(*arguments: Any) -> Any:
    raise EmitDiffError("The weights are not here: run this command.")


def fake_callables(**changes: Any) -> Callables:
    calls = Callables(
        read_scan=scan_that_saves,
        read_mask=read_label,
        read_masks=read_labels,
        read_labelled=read_labelled,
        merging_mask=lambda height, width, patch, alpha, rng: rng.random((height, width)) < alpha,
        control_image=control_image,
        image_kind=lambda image: None,
        compose_prompt=compose_prompt,
        prompt_warning=prompt_warning,
        token_count=lambda prompt, checkpoint: (len(prompt.split()) + 2, 77),
        synthesize=synthesize,
        quality=quality,
        pack=pack,
        segment=segment,
        targets=lambda checkpoint: (
            "lung",
            "left lung",
            "liver",
            "prostate",
            "breast lesion",
            "nuclei",
            "left ventricle",
        ),
        sentences=lambda checkpoint, modality: (f"segment the lung, {modality or 'any'}",),
        teach=teach,
        keep_teaching=keep_teaching,
        teach_dataset=teach_dataset,
        head_exists=lambda file: file.startswith("heads/"),
        evaluate=evaluate,
        score=compute_mask_metrics,
        datasets=dataset_calls(),
        models=models,
        is_loaded=lambda name: name == "emitdiff-mini",
        prepare=lambda: None,
        tidy=lambda: None,
        describe_device=lambda: "CPU, 2 cores",
        vocabulary=Vocabulary(
            ("Ultrasound", "MRI", "CT", "X-ray", "Microscopy"),
            ("breast", "prostate", "heart", "abdomen", "chest", "nuclei"),
            ("normal", "benign lesion", "liver", "prostate", "left ventricle", "fluorescence"),
            ("high contrast",),
            ("soft", "canny", "hed"),
            (
                PresetOption("default", "own", {}),
                PresetOption("paper", "as published", {"detector": "hed", "guidance_scale": 9.0}),
            ),
            (("CT", "abdomen", "liver", ""), ("MRI", "heart", "left ventricle", "high contrast")),
        ),
    )
    return replace(calls, **changes)
