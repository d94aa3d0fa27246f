"""From a dataset folder to a folder with the published model's head: what `train-published` does."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from emitdiff.datasets.folder import DatasetFolder, Sample, open_dataset
from emitdiff.datasets.splits import few_shot, split_by_column, split_by_group
from emitdiff.devices import choose_device
from emitdiff.errors import EmitDiffError
from emitdiff.files import begin_record, check_own, make_folder, write_text
from emitdiff.segmentation.model.features import MULTIPLE, weights_hash
from emitdiff.segmentation.model.text import CLINICAL_BERT
from emitdiff.segmentation.model.textdiff import HeadConfig, TextDiff
from emitdiff.segmentation.published.feature_cache import FeatureCache, disk_size, feature_shapes
from emitdiff.segmentation.published.model import (
    SETTINGS,
    Published,
    build_published_head,
    head_config,
    load_published_features,
    load_text_model,
    preset_of,
    ways_of,
)
from emitdiff.segmentation.published.pipeline import KIND
from emitdiff.segmentation.published.training import STATE, Epoch, best_epoch, train_published_head
from emitdiff.segmentation.vocabulary import questions_of, target_of

SPLIT_SEED = 0  # the same groups are kept aside whatever the seed of the images, so that draws can be compared


@dataclass(frozen=True)
class TrainPublished:
    """`backbone` is a folder that convert-adm wrote, `text_model` a Hub name or a folder in transformers layout.

    `images` of the dataset's groups that are not kept aside teach, None takes all. Those kept aside, `held_out` of the
    groups or the rows that `split_column` calls "val" or "validation", choose the epoch, at most `validation_images` of
    them. `label` is the one of dataset.json to find, None where there is one only. `cache` is where features go, None
    for `out`/features. None of `batch` takes what `settings` say, the others are fields of `published.Published`.
    """

    dataset: Path
    out: Path
    backbone: Path
    preset: Literal["monuseg", "qata"] = "monuseg"
    settings: Literal["mended", "paper"] = "mended"
    text_model: str = CLINICAL_BERT
    label: str | None = None
    images: int | None = None
    held_out: float = 0.2
    split_column: str | None = None
    validation_images: int | None = None
    epochs: int = 50
    batch: int | None = None
    size: tuple[int, int] = (256, 256)
    quarter_turns: bool = True
    views: int = 0
    cache: Path | None = None
    seed: int = 0


def train_published(settings: TrainPublished) -> Path:
    """Train a head on `settings.dataset` and write `settings.out`, which `load_segmenter` opens; returns it.

    Says on stderr beforehand what will be used. Started again it goes on, also to more epochs.
    Raises EmitDiffError for settings, datasets, weights or folders that cannot be used.
    """
    model = _model_settings(settings)
    dataset = open_dataset(settings.dataset)
    label = _label(dataset, settings.label)
    train, validation = _sides(dataset, settings)
    samples, others = _examples(train, label), _examples(validation, label)
    check_own(settings.out, (f"{STATE}/begun.json",), (settings.dataset, settings.backbone, settings.text_model))
    make_folder(settings.out)
    features = load_published_features(settings.backbone, settings.preset, settings.seed)
    shapes = feature_shapes(features, model.size)
    encoder = load_text_model(settings.text_model)
    config = head_config(settings.preset, [shape[0] for shape in shapes], encoder.dim)
    device = choose_device()
    head = build_published_head(settings.preset, settings.seed, config).to(device)
    _say_what_learns(head, samples, others)
    folder = Path(settings.cache or settings.out / "features")
    _check_costs(config, shapes, samples, others, model, folder)
    cache = FeatureCache(features.to(device), folder)
    facts = {
        "kind": KIND,
        "settings": asdict(model),
        "backbone": {"place": _seen_from(settings.out, settings.backbone), "sha256": cache.weights},
        "text": {"place": _seen_from(settings.out, settings.text_model), "sha256": weights_hash(encoder.model)},
        "targets": [target_of(dataset.info, label).phrase],
    }
    _begin(settings, facts, samples, others)
    epochs = train_published_head(head, cache, encoder.to(device), samples, settings.out, model, others)
    _write_records(settings, facts, dataset, samples, epochs)
    return Path(settings.out)


def _model_settings(settings: TrainPublished) -> Published:
    if any(side < MULTIPLE or side % MULTIPLE for side in settings.size):
        given = "x".join(map(str, settings.size))
        raise EmitDiffError(f"The size {given} was given: height and width must be multiples of {MULTIPLE}.")
    for name in ("epochs", "batch", "images", "validation_images"):
        if (value := getattr(settings, name)) is not None and value < 1:
            raise EmitDiffError(f"The setting {name.replace('_', ' ')} was {value}: give a number above 0.")
    if settings.views < 0:
        raise EmitDiffError(f"The setting views was {settings.views}: give 0 or more.")
    if settings.settings not in SETTINGS:
        raise EmitDiffError(f"There are no settings {settings.settings!r}: choose one of {', '.join(SETTINGS)}.")
    preset_of(settings.preset)
    chosen = SETTINGS[settings.settings]
    return replace(
        chosen,
        preset=settings.preset,
        size=tuple(settings.size),
        turns=chosen.turns if settings.quarter_turns else (0,),
        views=settings.views,
        batch=settings.batch or chosen.batch,
        epochs=settings.epochs,
        seed=settings.seed,
    )


def _label(dataset: DatasetFolder, wanted: str | None) -> str:
    """The label to find: one, since the published head tells one target from the rest."""
    labels = [name for name, value in dataset.info.labels.items() if value]
    if wanted is None and len(labels) == 1:
        return labels[0]
    if wanted in labels:
        return wanted
    given = f"it has no label {wanted!r}" if wanted else "the published head tells one from the rest"
    raise EmitDiffError(f"'{dataset.info.name}' labels {', '.join(labels)}, and {given}: name one with --label.")


def _sides(dataset: DatasetFolder, settings: TrainPublished) -> tuple[DatasetFolder, DatasetFolder]:
    """(the rows to teach, the real ones to choose the epoch by)."""
    if settings.split_column:
        train, kept = split_by_column(dataset, settings.split_column)
    else:
        train, kept = split_by_group(dataset, settings.held_out, SPLIT_SEED)
    if settings.images:
        train = few_shot(train, settings.images, settings.seed)
    kept = kept.real()
    if not len(kept):
        raise EmitDiffError(f"All images of '{dataset.info.name}' kept for validation are synthetic: keep real ones.")
    if settings.validation_images:
        kept = few_shot(kept, min(settings.validation_images, len(kept)), SPLIT_SEED)
    return train, kept


def _examples(dataset: DatasetFolder, label: str) -> list[Sample]:
    """Every image with a mask of 0 and 1 and the sentence that `evaluate-segmentation` would ask, too."""
    phrase, examples = target_of(dataset.info, label).phrase, []
    for sample in dataset:
        text, truth = next((text, mask) for name, text, mask in questions_of(sample, dataset) if name == phrase)
        examples.append(replace(sample, mask=truth.astype(np.uint8), text=text))
    if not any(sample.mask.any() for sample in examples):
        raise EmitDiffError(
            f"None of the {len(examples)} images chosen from '{dataset.info.name}' shows {label!r}: choose more, or "
            "others with another --seed."
        )
    return examples


def _say_what_learns(head: TextDiff, samples: Sequence[Sample], others: Sequence[Sample]) -> None:
    learning = sum(parameter.numel() for parameter in head.parameters())
    _say(f"{learning:,} parameters learn from {len(samples)} images; {len(others)} of other groups choose the epoch.")
    silent = [sample.text for sample in (*samples, *others) if sample.text != sample.row.get("text")]
    if silent:
        sentences = ", ".join(repr(text) for text in dict.fromkeys(silent))
        _say(f"{len(silent)} of them have no text that could be read alone: instead {sentences} is read.")


def _check_costs(config: HeadConfig, shapes: Sequence[tuple[int, int, int]], samples: Sequence[Sample],
                 others: Sequence[Sample], settings: Published, folder: Path) -> None:  # fmt: skip
    """Say what disk and memory it takes; EmitDiffError where the disk is too small."""
    channels, sides = [shape[0] for shape in shapes], [shape[1:] for shape in shapes]
    ways = sum(map(len, ways_of("", settings)))
    one = disk_size(channels, sides, 1)
    needed = one * (len(samples) * ways + len(others))
    existing = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    free, filled = shutil.disk_usage(existing).free, sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    _say(
        f"Frozen features: {_size(one)} for an image and a way to look at it, {ways} ways for an image that teaches, "
        f"at most {_size(needed)} in {folder}, where {_size(filled)} are and {_size(free)} are free."
    )
    height, width = settings.size
    maps = (
        4 * height * width * (2 * config.hidden[0] + 3 * config.hidden[1] + config.dim * (sides[-1] == (height, width)))
    )
    _say(
        f"Memory: about {_size(settings.batch * (one + maps))} are kept for backward, {settings.batch} images at once."
    )
    if needed > free + filled:
        raise EmitDiffError(
            f"The disk of {folder} may be too small: name another --cache, or take fewer --images, --views or "
            "--validation-images."
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _seen_from(out: Path, place: str | Path) -> str:
    """A folder as it is found from inside `out`, so that both can move together; a Hub name as it is."""
    if not Path(place).is_dir():
        return str(place)
    try:
        return Path(os.path.relpath(Path(place).resolve(), Path(out).resolve())).as_posix()
    except ValueError:  # on another drive
        return Path(place).resolve().as_posix()


def _begin(settings: TrainPublished, facts: dict, samples: Sequence[Sample], others: Sequence[Sample]) -> None:
    """A folder begun with other images, settings or weights would mix two models; only the epochs may be more."""
    fixed = {key: value for key, value in facts["settings"].items() if key != "epochs"}
    record = {**fixed, "settings": settings.settings, "dataset": str(settings.dataset), "target": facts["targets"][0]}
    record |= {part: facts[part]["sha256"][:16] for part in ("backbone", "text")}
    record |= {"taught": _names(samples), "validated": _names(others)}
    begin_record(Path(settings.out) / STATE / "begun.json", record, settings.out)


def _names(samples: Sequence[Sample]) -> str:
    """How many images, and a mark of which."""
    return f"{len(samples)} images ({hashlib.sha256(repr([one.name for one in samples]).encode()).hexdigest()[:8]})"


def _write_records(settings: TrainPublished, facts: dict, dataset: DatasetFolder, samples: Sequence[Sample],
                   epochs: Sequence[Epoch]) -> None:  # fmt: skip
    """segmenter.json, what inference needs, and training.json, how it came about."""
    best, out = best_epoch(epochs), Path(settings.out)
    split = {"rule": "split_by_group", "held_out": settings.held_out, "seed": SPLIT_SEED}
    if settings.split_column:
        split = {"rule": "split_by_column", "column": settings.split_column}
    groups = len({sample.group for sample in samples})
    record = {
        "preset": settings.preset,
        "settings": settings.settings,
        "datasets": [{**asdict(dataset.info), "images": len(samples), "groups": groups}],
        "split": split,
        "taught": [sample.name for sample in samples],
        "targets": facts["targets"],
        "best": best,
        "epochs": [asdict(epoch) for epoch in epochs],
    }
    write_text(out / "training.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    write_text(out / "segmenter.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    chosen = epochs[best - 1]
    _say(f"Epoch {best} of {len(epochs)} is kept: validation Dice {chosen.dice:.4f}, loss {chosen.loss:.4f}.")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
