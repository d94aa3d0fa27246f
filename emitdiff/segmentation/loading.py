"""Segmenters from where they lie: a checkpoint folder, the file of a few-shot head, or the published model's folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch

from emitdiff.checkpoints import find_checkpoint, local_folder
from emitdiff.checksums import fingerprint, sha256_of
from emitdiff.devices import choose_device
from emitdiff.errors import EmitDiffError, first_line
from emitdiff.segmentation.few_shot.head import is_head_file, load_few_shot_head, read_few_shot_head
from emitdiff.segmentation.greys import GreyLevels
from emitdiff.segmentation.model.features import DiffusionFeatures, are_valid_sizes, load_features
from emitdiff.segmentation.model.presence import ImageKindClassifier, PresenceCalibration
from emitdiff.segmentation.model.text import TextEncoder
from emitdiff.segmentation.model.textdiff import TextDiff
from emitdiff.segmentation.pipeline import SegmentationPipeline

MAX_COEFFICIENT = 1e6  # of a calibration; also keeps out what is no number
RESTORE_HINT = "copy or download the checkpoint again, or train it again."


def load_segmenter(checkpoint: str = "textdiff-mini", device: str | None = None) -> SegmentationPipeline:
    """The segmenter called `checkpoint`: an embedded name, a local folder, a Hub repository, or the .safetensors file
    of a few-shot head. For a folder that train-published wrote a `PublishedPipeline`, which is called alike.

    Raises EmitDiffError when it is not there, is no segmenter or is damaged.
    """
    if is_head_file(checkpoint):
        return _load_few_shot(checkpoint, device)
    folder = local_folder(find_checkpoint(checkpoint, "segmentation"))
    config = _read_json(folder / "segmenter.json")
    if not config:
        raise EmitDiffError(
            f"{folder} is not a segmenter (no segmenter.json): give a folder that "
            "`python -m emitdiff train-segmentation DATASET --out FOLDER` made (FOLDER/checkpoint)."
        )
    if config.get("kind") == "published":
        from emitdiff.segmentation.published.pipeline import load_published

        published = load_published(folder, config, choose_device(device))
        published.weights = fingerprint(folder)
        return published  # type: ignore[return-value]  # segments alike
    missing = [key for key in ("blocks", "timesteps", "noise_seed", "resolution", "targets") if key not in config]
    if missing:
        raise EmitDiffError(f"{folder / 'segmenter.json'} lacks {', '.join(missing)}: {RESTORE_HINT}")
    for name in ("sizes", "far_sizes"):
        sizes = config.get(name, [])
        if not are_valid_sizes(sizes, config["resolution"] if name == "sizes" else None):
            raise EmitDiffError(f"{folder / 'segmenter.json'} has {name} {sizes!r} that cannot be used: {RESTORE_HINT}")
    calibration = _calibration(config.get("presence"), folder)
    card, target_device = _read_json(folder / "training.json"), choose_device(device)
    features, text, head, image_kinds = _read_weights(folder, config)
    return SegmentationPipeline(
        features.to(target_device),
        text.to(target_device),
        head.to(target_device, memory_format=torch.channels_last).requires_grad_(False),  # type: ignore[call-overload]  # memory_format has no type there
        tuple(config["targets"]),
        config["resolution"],
        config.get("cell", 4),
        card,
        image_kinds,
        tuple(config.get("sizes", ())),
        calibration,
        tuple(config.get("far_sizes", ())),
        _grey_levels(config.get("greys"), folder),
        weights=fingerprint(folder),
    )


def _load_few_shot(file: str, device: str | None) -> SegmentationPipeline:
    """A head trained on a few images, on the checkpoint that its card names."""
    name = read_few_shot_head(file)[0]["checkpoint"]
    if is_head_file(name):
        raise EmitDiffError(f"'{Path(file).name}' names no checkpoint but {name}: teach it again.")
    pipeline = load_few_shot_head(file, load_segmenter(name, device)).pipeline()
    pipeline.weights = sha256_of(file)
    return pipeline


def _calibration(record: object, folder: Path) -> PresenceCalibration | None:
    """From segmenter.json. Raises EmitDiffError for what is none."""
    if record is None:
        return None
    names = [field.name for field in fields(PresenceCalibration)]
    optional = {field.name: field.default for field in fields(PresenceCalibration) if field.default is not MISSING}
    numbers = [record.get(name, optional.get(name)) for name in names] if isinstance(record, dict) else [None]
    if not all(_is_coefficient(number) for number in numbers):
        expected = ", ".join(names)
        raise EmitDiffError(
            f"{folder / 'segmenter.json'} has {record!r} for presence, not the numbers {expected}: {RESTORE_HINT}"
        )
    return PresenceCalibration(*numbers)


def _grey_levels(record: object, folder: Path) -> dict[str, GreyLevels]:
    """From segmenter.json. Raises EmitDiffError for what is none."""
    known = {} if record is None else record
    if not isinstance(known, dict) or not all(_are_levels(pair) for pair in known.values()):
        raise EmitDiffError(
            f"{folder / 'segmenter.json'} has {record!r} for greys, not two levels from 0 to 255 for each image kind: "
            f"{RESTORE_HINT}"
        )
    return {kind: GreyLevels(*pair) for kind, pair in known.items()}


def _are_levels(pair: Any) -> bool:
    numbers = isinstance(pair, list) and len(pair) == 2 and all(map(_is_coefficient, pair))
    return numbers and 0 <= pair[0] < pair[1] <= 255


def _is_coefficient(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < MAX_COEFFICIENT


def _read_weights(
    folder: Path, config: dict
) -> tuple[DiffusionFeatures, TextEncoder, TextDiff, ImageKindClassifier | None]:
    """All networks of a checkpoint folder, on the CPU. Raises EmitDiffError where one is missing or damaged."""
    from safetensors import SafetensorError

    reading = [config["blocks"], config["timesteps"], config["noise_seed"], config.get("place", False)]
    readers: dict[str, Callable[[Path], Any]] = {
        "backbone": lambda part: load_features(part, *reading),
        "text": TextEncoder.load,
        "head": TextDiff.load,
        "scenes.safetensors": ImageKindClassifier.load,
    }
    parts: list[Any] = []
    for name, read in readers.items():
        if name != "scenes.safetensors" and not (folder / name).is_dir():
            raise EmitDiffError(f"{folder} has no folder {name}: {RESTORE_HINT}")
        try:
            parts.append(read(folder / name))
        except EmitDiffError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise EmitDiffError(f"{folder / name} cannot be read ({first_line(error)}): {RESTORE_HINT}") from error
    return tuple(parts)


def _read_json(path: Path) -> dict:
    """{} where there is no such file. Raises EmitDiffError when it is no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise EmitDiffError(f"{path} cannot be read ({first_line(error)}): {RESTORE_HINT}") from error
    if not isinstance(content, dict):
        raise EmitDiffError(f"{path} holds a {type(content).__name__} instead of an object: {RESTORE_HINT}")
    return content
