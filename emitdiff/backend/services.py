"""The functions that serve.py hands to the pages: real work behind plain callables, weights loaded once, on first use.

Nothing here imports torch before one of these functions needs it, so the page is up first.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emitdiff.backend.dataset_jobs import DatasetJobs
from emitdiff.backend.encoded_images import encode
from emitdiff.backend.imports import read_labelled
from emitdiff.backend.painting import paint
from emitdiff.backend.pipelines import (
    device,
    import_measures,
    is_loaded,
    is_ready,
    network_lock,
    prepare,
    segmenter,
    synthesizer,
)
from emitdiff.backend.zipped_datasets import evaluate, teach_dataset
from emitdiff.checkpoints import Checkpoint, Kind, cached_folder, checkpoint_status, find_checkpoint, known_checkpoints
from emitdiff.errors import EmitDiffError
from emitdiff.mask_metrics import compute_mask_metrics
from emitdiff.scans import reading
from emitdiff.scans.burned_in import WARNING as TEXT_WARNING
from emitdiff.scans.burned_in import has_text_at_rim
from emitdiff.scans.masks import read_mask, read_scan_mask, read_slice_mask
from emitdiff.scans.scan import Scan
from emitdiff.synthesis import edges, presets, prompts
from emitdiff.synthesis.hed.weights import hed_network_name
from emitdiff.synthesis.merging import merging_mask
from emitdiff.synthesis_settings import SynthesisSettings
from emitdiff.ui.interface import (
    HEAD_SUFFIX,
    Callables,
    DatasetCalls,
    FewShotRequest,
    ModelInfo,
    PackRequest,
    PresetOption,
    SynthesisRequest,
    Untaught,
    Vocabulary,
)

if TYPE_CHECKING:
    from emitdiff.backend.teaching import HeadProgress
    from emitdiff.segmentation.output import SegmentationOutput

SHORT_PROMPT = 20  # bytes, and so tokens at most: every text encoder reads that many, so no tokenizer need be asked


def build_callables(
    synthesis: str, segmentation: str, client: Callable[[], Hashable] = threading.get_ident
) -> Callables:
    """Everything the pages need, with the named weights chosen at first. Clients take turns on the device; `client`
    tells, in the thread that computes, who asked. Raises EmitDiffError for an unknown name."""
    device.client = client
    chosen = (_checkpoint_of(synthesis, "synthesis"), _checkpoint_of(segmentation, "segmentation"))
    words = (prompts.MODALITIES, prompts.ORGANS, prompts.FINDINGS, prompts.APPEARANCES)
    jobs = DatasetJobs(synthesizer, segmenter)
    return Callables(
        read_scan=read_scan,
        read_mask=read_label,
        read_masks=read_labels,
        read_labelled=read_labelled,
        control_image=control_image,
        image_kind=lambda image: image_kind(image, chosen[1]),
        compose_prompt=prompts.compose_prompt,
        prompt_warning=prompt_warning,
        token_count=token_count,
        synthesize=paint,
        quality=quality,
        pack=pack,
        segment=segment,
        targets=targets,
        sentences=sentences,
        teach=teach,
        keep_teaching=keep_teaching,
        teach_dataset=teach_dataset,
        head_exists=head_exists,
        evaluate=evaluate,
        score=compute_mask_metrics,
        merging_mask=merging_mask,
        datasets=DatasetCalls(**{name: getattr(jobs, name) for name in DatasetCalls.__dataclass_fields__}),
        models=lambda: list_models(chosen),
        is_loaded=is_loaded,
        describe_device=describe_device,
        prepare=lambda: prepare(*chosen),
        tidy=lambda: tidy(jobs),
        vocabulary=Vocabulary(*words, edges.DETECTORS, list_presets(), prompts.EXAMPLE_WORDS, hed_network_name()),
        synthesis_checkpoint=chosen[0].name,
        segmentation_checkpoint=chosen[1].name,
    )


def _checkpoint_of(name: str, kind: Kind) -> Checkpoint:
    """A known name is taken even where its weights are missing: the page then says so and what to run."""
    known = {checkpoint.name: checkpoint for checkpoint in known_checkpoints(kind)}
    return known.get(name) or find_checkpoint(name, kind)


def list_models(chosen: tuple[Checkpoint, ...]) -> tuple[ModelInfo, ...]:
    """The known weights and the chosen ones, with their state on this machine right now."""
    listed = {checkpoint.name: checkpoint for checkpoint in (*known_checkpoints(), *chosen)}
    return tuple(_model(checkpoint) for checkpoint in listed.values())


def _model(checkpoint: Checkpoint) -> ModelInfo:
    """With a damaged record the page still comes up and says so; whoever uses the weights gets the whole sentence."""
    try:
        status, own = checkpoint_status(checkpoint), _read_record(checkpoint, "emitdiff.json")
    except EmitDiffError:
        status, own = "damaged (emitdiff.json cannot be read)", {}
    return ModelInfo(
        name=checkpoint.name,
        kind=checkpoint.kind,
        summary=checkpoint.summary,
        licence=checkpoint.licence,
        status=status,
        defaults={**checkpoint.defaults, **own.get("defaults", {})},
        detector=own.get("detector") or checkpoint.detector or "soft",
    )


def list_presets() -> tuple[PresetOption, ...]:
    """The presets with what each sets of the settings."""
    fields = [name for name in SynthesisSettings.__dataclass_fields__ if hasattr(presets.SamplingPreset, name)]
    return tuple(
        PresetOption(
            name, preset.summary, {key: value for key in fields if (value := getattr(preset, key)) is not None}
        )
        for name, preset in presets.PRESETS.items()
    )


def read_scan(path: str | Path, *, time_point: int | None = None) -> Scan:
    """As the reader, with a warning where the slice shown first has text at its rim."""
    scan = reading.read_scan(path, time_point=time_point)
    if has_text_at_rim(scan.image(scan.middle)):
        scan.warnings = (*scan.warnings, TEXT_WARNING)
    return scan


def read_label(path: str | Path, scan: Any, index: int) -> np.ndarray:
    """Class ids (H, W) of slice `index` of `scan`, or with no scan of the file's own (which then has that slice)."""
    return read_mask(path) if scan is None else read_slice_mask(path, scan, index)


def read_labels(path: str | Path, scan: Any) -> np.ndarray:
    """Class ids (S, H, W) of all of `scan`."""
    return read_scan_mask(path, scan)


def teach(
    examples: list[tuple[np.ndarray, np.ndarray, str]], request: FewShotRequest,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[HeadProgress]:  # fmt: skip
    """Training progress as it comes; the last item names the file of the head, which stays for a day. Once
    `cancelled()` is true the training ends with the step it is at."""
    from emitdiff.backend.teaching import teach_examples

    return teach_examples(segmenter(request.checkpoint), examples, request, cancelled)


def keep_teaching(file: str, seconds: float, cancelled: Callable[[], bool] = lambda: False) -> Iterator[HeadProgress]:
    """As `teach`, of the training that ended with the head in `file`, for `seconds` more."""
    from emitdiff.backend import teaching

    return teaching.keep_teaching(file, seconds, cancelled)


def head_exists(file: str) -> bool:
    """Whether a head that was trained here is still there."""
    from emitdiff.backend import teaching

    return teaching.head_exists(file)


def tidy(jobs: DatasetJobs) -> None:
    """Datasets and few-shot heads that nobody has used for a day go."""
    from emitdiff.backend.teaching import remove_old_heads

    jobs.remove_old()
    remove_old_heads()


def control_image(image: np.ndarray | None, mask: np.ndarray | None, request: SynthesisRequest) -> np.ndarray:
    """What these weights would be given, uint8 (h, w, 3). Only their card is read: a preview downloads nothing."""
    from emitdiff.synthesis.card import read_card
    from emitdiff.synthesis.control import build_control

    checkpoint = _checkpoint_of(request.checkpoint, "synthesis")
    return build_control(image, mask, request.settings, read_card(checkpoint, _folder(checkpoint))).picture


def image_kind(image: np.ndarray, checkpoint: Checkpoint) -> tuple[str, str, str] | None:
    """(name, modality, organ) of the kind that the segmenter takes an image, uint8 (H, W, 3), for: ("prostate MRI",
    "MRI", "prostate"). None for an image unlike those it knows, and where its weights are not here or tell no kinds."""
    pipeline = segmenter(checkpoint.name) if is_ready(checkpoint) else None
    known = hasattr(pipeline, "image_kind")  # the published model's pipeline tells none
    return pipeline.image_kind(encode(pipeline, image)) if pipeline is not None and known else None


def prompt_warning(prompt: str, checkpoint: str) -> str:
    """What the tokenizer cuts off, in a sentence; "" also while the weights are not on this machine."""
    tokenizer = None if len(prompt.encode()) <= SHORT_PROMPT else _tokenizer_here(checkpoint)
    return prompts.truncation_warning(prompt, tokenizer) if tokenizer else ""


def token_count(prompt: str, checkpoint: str) -> tuple[int, int] | None:
    """How many tokens the prompt has and how many are read; None while the weights are not on this machine."""
    tokenizer = _tokenizer_here(checkpoint)
    return prompts.count_tokens(prompt, tokenizer) if tokenizer else None


def _tokenizer_here(checkpoint: str) -> Any:
    folder = cached_folder(_checkpoint_of(checkpoint, "synthesis"))
    return _load_tokenizer(folder / "tokenizer") if folder and (folder / "tokenizer").is_dir() else None


@lru_cache(maxsize=4)
def _load_tokenizer(folder: Path) -> Any:
    """Alone, without the weights: a second instead of half a minute."""
    with network_lock:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def targets(checkpoint: str) -> tuple[str, ...]:
    """The phrases the head was trained on, from the record beside its weights, or of the file of a few-shot head."""
    if checkpoint.endswith(HEAD_SUFFIX):
        from emitdiff.segmentation.few_shot.head import read_few_shot_head

        return tuple(read_few_shot_head(checkpoint)[0]["targets"])
    return tuple(_read_record(_checkpoint_of(checkpoint, "segmentation"), "segmenter.json").get("targets", ()))


def _read_record(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """A JSON file beside weights on this machine; {} where there is none (yet). Cheaper than loading them.

    Raises EmitDiffError where the file is damaged.
    """
    path = Path(checkpoint.card or _folder(checkpoint)) / name  # a fine-tuned ControlNet is stored beside its own
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise EmitDiffError(_damaged(path, str(error))) from error
    if not isinstance(record, dict):
        raise EmitDiffError(_damaged(path, f"it holds a {type(record).__name__}"))
    return record


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is damaged ({reason}); restore it from where the weights came from, or train them again."


def _folder(checkpoint: Checkpoint) -> Path:
    """Where the records of `checkpoint` lie, if anywhere; a Hub repository's are in the cache."""
    return cached_folder(checkpoint) or Path(checkpoint.base)


def quality(source: np.ndarray, synthetic: np.ndarray) -> dict[str, float]:
    import_measures()
    from emitdiff.synthesis import evaluation

    return evaluation.quick_scores(source, synthetic)


def pack(results: list[Any], paths: list[Path], packing: PackRequest, folder: Path) -> tuple[Path, tuple[str, ...]]:
    from emitdiff.backend.packing import pack_results

    return pack_results(results, paths, packing, folder)


def segment(
    image: np.ndarray, text: str, threshold: float, checkpoint: str, untaught: Untaught = "refuse"
) -> SegmentationOutput:
    """As calling the pipeline; an image that anybody asked about lately is not encoded again."""
    pipeline, started = segmenter(checkpoint), time.perf_counter()
    found = pipeline.segment(encode(pipeline, image), text, threshold, untaught)
    return replace(found, seconds=time.perf_counter() - started)


def sentences(checkpoint: str, modality: str) -> tuple[str, ...]:
    """Sentences to start from, about the targets of a head at home in `modality` ("" for all)."""
    from emitdiff.segmentation.vocabulary import example_sentences

    return example_sentences(targets(checkpoint), modality)


def describe_device() -> str:
    from emitdiff import devices

    return devices.describe_device()
