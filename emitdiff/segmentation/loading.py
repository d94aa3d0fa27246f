"""Segmenters from where they lie: a checkpoint folder, the file of a taught head, or the published model's folder."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import torch

from emitdiff.checkpoints import find_checkpoint, local_folder
from emitdiff.devices import choose_device
from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.few_shot.head import is_taught_file, load_taught, read_taught
from emitdiff.segmentation.model.features import DiffusionFeatures, load_features, usable_sizes
from emitdiff.segmentation.model.presence import PresenceCalibration, Scenes
from emitdiff.segmentation.model.text import TextEncoder
from emitdiff.segmentation.model.textdiff import TextDiff
from emitdiff.segmentation.pipeline import SegmentationPipeline

LARGEST_NUMBER = 1e6  # of a calibration; also keeps out what is no number
AGAIN = "copy or download the checkpoint again, or train it once more."


def load_segmenter(checkpoint: str = "textdiff-mini", device: str | None = None) -> SegmentationPipeline:
    """The segmenter called `checkpoint`: an embedded name, a local folder, a Hub repository, or the .safetensors file
    of a taught head. For a folder that train-published wrote a `PublishedPipeline`, which is called alike.

    Raises EmitDiffError when it is not there, is no segmenter or is damaged.
    """
    if is_taught_file(checkpoint):
        return _load_taught(checkpoint, device)
    folder = local_folder(find_checkpoint(checkpoint, "segmentation"))
    facts = _read_json(folder / "segmenter.json")
    if not facts:
        raise EmitDiffError(
            f"{folder} is no segmenter (it has no segmenter.json): give a folder that "
            "`python -m emitdiff train-segmentation DATASET --out FOLDER` made (FOLDER/checkpoint)."
        )
    if facts.get("kind") == "published":
        from emitdiff.segmentation.published.pipeline import load_published

        return load_published(folder, facts, choose_device(device))
    lacking = [key for key in ("blocks", "timesteps", "noise_seed", "resolution", "targets") if key not in facts]
    if lacking:
        raise EmitDiffError(f"{folder / 'segmenter.json'} says nothing of {', '.join(lacking)}: {AGAIN}")
    if not usable_sizes(facts.get("sizes", []), facts["resolution"]):
        raise EmitDiffError(f"{folder / 'segmenter.json'} has sizes {facts['sizes']!r} that cannot be used: {AGAIN}")
    calibration = _calibration(facts.get("presence"), folder)
    card, place = _read_json(folder / "training.json"), choose_device(device)
    features, text, head, scenes = _read_weights(folder, facts)
    return SegmentationPipeline(
        features.to(place),
        text.to(place),
        head.to(place, memory_format=torch.channels_last).requires_grad_(False),
        tuple(facts["targets"]),
        facts["resolution"],
        facts.get("cell", 4),
        card,
        scenes,
        tuple(facts.get("sizes", ())),
        calibration,
    )


def _load_taught(file: str, device: str | None) -> SegmentationPipeline:
    """A head taught from a few images, on the checkpoint that its card names."""
    name = read_taught(file)[0]["checkpoint"]
    if is_taught_file(name):
        raise EmitDiffError(f"'{Path(file).name}' names no checkpoint but {name}: teach it again.")
    return load_taught(file, load_segmenter(name, device)).pipeline()


def _calibration(record: object, folder: Path) -> PresenceCalibration | None:
    """From segmenter.json. Raises EmitDiffError for what is none."""
    if record is None:
        return None
    names = [field.name for field in fields(PresenceCalibration)]
    numbers = [record.get(name) for name in names] if isinstance(record, dict) else [None]
    if not all(type(number) in (int, float) and abs(number) < LARGEST_NUMBER for number in numbers):
        told = ", ".join(names)
        raise EmitDiffError(f"{folder / 'segmenter.json'} has {record!r} for presence, not the numbers {told}: {AGAIN}")
    return PresenceCalibration(*numbers)


def _read_weights(folder: Path, facts: dict) -> tuple[DiffusionFeatures, TextEncoder, TextDiff, Scenes | None]:
    """All networks of a checkpoint folder, on the CPU. Raises EmitDiffError where one is missing or damaged."""
    from safetensors import SafetensorError

    where = [facts["blocks"], facts["timesteps"], facts["noise_seed"], facts.get("place", False)]
    readers = {
        "backbone": lambda part: load_features(part, *where),
        "text": TextEncoder.load,
        "head": TextDiff.load,
        "scenes.safetensors": Scenes.load,
    }
    parts = []
    for name, read in readers.items():
        if name != "scenes.safetensors" and not (folder / name).is_dir():
            raise EmitDiffError(f"{folder} has no folder {name}: {AGAIN}")
        try:
            parts.append(read(folder / name))
        except EmitDiffError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise EmitDiffError(f"{folder / name} cannot be read ({_first_line(error)}): {AGAIN}") from error
    return tuple(parts)


def _read_json(path: Path) -> dict:
    """{} where there is no such file. Raises EmitDiffError when it is no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise EmitDiffError(f"{path} cannot be read ({_first_line(error)}): {AGAIN}") from error
    if not isinstance(content, dict):
        raise EmitDiffError(f"{path} holds a {type(content).__name__} instead of an object: {AGAIN}")
    return content


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
