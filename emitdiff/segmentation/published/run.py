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

from emitdiff.checksums import CHECKSUMS, write_checksums
from emitdiff.datasets.fingerprint import HASHES, check_hashes
from emitdiff.datasets.folder import DatasetFolder, Sample, open_dataset
from emitdiff.datasets.splits import few_shot_subset, split_by_column, split_by_group
from emitdiff.devices import choose_device
from emitdiff.errors import EmitDiffError
from emitdiff.files import begin_record, check_output_folder, make_folder, write_text
from emitdiff.segmentation.model.features import MULTIPLE, weights_hash
from emitdiff.segmentation.model.text import CLINICAL_BERT
from emitdiff.segmentation.model.textdiff import HeadConfig, TextDiff
from emitdiff.segmentation.published.feature_cache import FeatureCache, disk_size, feature_shapes
from emitdiff.segmentation.published.model import (
    SETTINGS,
    PublishedSettings,
    build_published_head,
    find_head_preset,
    head_config,
    load_published_features,
    load_text_model,
    view_transforms,
)
from emitdiff.segmentation.published.pipeline import KIND
from emitdiff.segmentation.published.training import STATE, Epoch, best_epoch, train_published_head
from emitdiff.segmentation.vocabulary import queries_of, target_of
from emitdiff.segmentation.wording.reader import record_texts

SPLIT_SEED = 0  # the same groups are held out whatever the seed of the images, so that draws can be compared


@dataclass(frozen=True)
class TrainPublished:
    """`backbone` is a folder that convert-adm wrote, `text_model` a Hub name or a folder in transformers layout.

    `images` of the dataset's groups that are not held out teach, None takes all. Those held out, `held_out` of the
    groups or the rows that `split_column` calls "val" or "validation", choose the epoch, at most `validation_images` of
    them. `label` is the one of dataset.json to find, None where there is one only. `cache` is where features go, None
    for `out`/features. None of `batch` takes what `settings` say, the others are fields of
    `published.PublishedSettings`.
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

    Says on stderr beforehand what will be used. A rerun resumes where it stopped, also to more epochs.
    Raises EmitDiffError for settings, datasets, weights or folders that cannot be used.
    """
    model = _model_settings(settings)
    dataset = open_dataset(settings.dataset)
    label = _label(dataset, settings.label)
    train, validation = _train_and_validation(dataset, settings)
    samples, validation_samples = _examples(train, label), _examples(validation, label)
    check_output_folder(
        settings.out, (f"{STATE}/begun.json",), (settings.dataset, settings.backbone, settings.text_model)
    )
    make_folder(settings.out)
    features = load_published_features(settings.backbone, settings.preset, settings.seed)
    shapes = feature_shapes(features, model.size)
    encoder = load_text_model(settings.text_model)
    config = head_config(settings.preset, [shape[0] for shape in shapes], encoder.dim)
    device = choose_device()
    head = build_published_head(settings.preset, settings.seed, config).to(device)
    _log_training_set(head, samples, validation_samples)
    folder = Path(settings.cache or settings.out / "features")
    _check_costs(config, shapes, samples, validation_samples, model, folder)
    cache = FeatureCache(features.to(device), folder)
    record = {
        "kind": KIND,
        "settings": asdict(model),
        "backbone": {"place": _relative_place(settings.out, settings.backbone), "sha256": cache.weights},
        "text": {"place": _relative_place(settings.out, settings.text_model), "sha256": weights_hash(encoder.model)},
        "targets": [target_of(dataset.info, label).phrase],
    }
    _start_record(settings, record, samples, validation_samples)
    check_hashes(Path(settings.out) / STATE / HASHES, settings.out, {}, [dataset])
    (Path(settings.out) / CHECKSUMS).unlink(missing_ok=True)  # until all is written again
    epochs = train_published_head(head, cache, encoder.to(device), samples, settings.out, model, validation_samples)
    _write_records(settings, record, dataset, samples, epochs)
    return Path(settings.out)


def _model_settings(settings: TrainPublished) -> PublishedSettings:
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
    find_head_preset(settings.preset)
    chosen = SETTINGS[settings.settings]
    return replace(
        chosen,
        preset=settings.preset,
        size=(settings.size[0], settings.size[1]),
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


def _train_and_validation(dataset: DatasetFolder, settings: TrainPublished) -> tuple[DatasetFolder, DatasetFolder]:
    """(the rows to teach, the real ones to choose the epoch by)."""
    if settings.split_column:
        train, kept = split_by_column(dataset, settings.split_column)
    else:
        train, kept = split_by_group(dataset, settings.held_out, SPLIT_SEED)
    if settings.images:
        train = few_shot_subset(train, settings.images, settings.seed)
    kept = kept.real()
    if not len(kept):
        raise EmitDiffError(f"All images of '{dataset.info.name}' kept for validation are synthetic: keep real ones.")
    if settings.validation_images:
        kept = few_shot_subset(kept, min(settings.validation_images, len(kept)), SPLIT_SEED)
    return train, kept


def _examples(dataset: DatasetFolder, label: str) -> list[Sample]:
    """Every image with a mask of 0 and 1 and the sentence that `evaluate-segmentation` would ask, too."""
    phrase, examples = target_of(dataset.info, label).phrase, []
    for sample in dataset:
        text, truth = next((text, mask) for name, text, mask in queries_of(sample, dataset) if name == phrase)
        examples.append(replace(sample, mask=truth.astype(np.uint8), text=text))
    if not any(sample.mask.any() for sample in examples):
        raise EmitDiffError(
            f"None of the {len(examples)} images chosen from '{dataset.info.name}' shows {label!r}: choose more, or "
            "others with another --seed."
        )
    return examples


def _log_training_set(head: TextDiff, samples: Sequence[Sample], validation: Sequence[Sample]) -> None:
    learning = sum(parameter.numel() for parameter in head.parameters())
    _log(f"{learning:,} trainable parameters, {len(samples)} training images; {len(validation)} validation images.")
    without_text = [sample.text for sample in (*samples, *validation) if sample.text != sample.row.get("text")]
    if without_text:
        sentences = ", ".join(repr(text) for text in dict.fromkeys(without_text))
        _log(f"{len(without_text)} of them have no text that could be read alone: instead {sentences} is read.")


def _check_costs(config: HeadConfig, shapes: Sequence[tuple[int, int, int]], samples: Sequence[Sample],
                 validation: Sequence[Sample], settings: PublishedSettings, folder: Path) -> None:  # fmt: skip
    """Say what disk and memory it takes; EmitDiffError where the disk is too small."""
    channels, sides = [shape[0] for shape in shapes], [shape[1:] for shape in shapes]
    views = sum(map(len, view_transforms("", settings)))
    one = disk_size(channels, sides, 1)
    needed = one * (len(samples) * views + len(validation))
    existing = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    free, filled = shutil.disk_usage(existing).free, sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    _log(
        f"Frozen features: {_size(one)} per image and view, {views} views per training image, "
        f"at most {_size(needed)} in {folder}, where {_size(filled)} are and {_size(free)} are free."
    )
    height, width = settings.size
    maps = (
        4 * height * width * (2 * config.hidden[0] + 3 * config.hidden[1] + config.dim * (sides[-1] == (height, width)))
    )
    _log(
        f"Memory: about {_size(settings.batch * (one + maps))} are kept for backward, {settings.batch} images at once."
    )
    if needed > free + filled:
        raise EmitDiffError(
            f"The disk of {folder} may be too small: name another --cache, or take fewer --images, --views or "
            "--validation-images."
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _relative_place(out: Path, place: str | Path) -> str:
    """A folder as it is found from inside `out`, so that both can move together; a Hub name as it is."""
    if not Path(place).is_dir():
        return str(place)
    try:
        return Path(os.path.relpath(Path(place).resolve(), Path(out).resolve())).as_posix()
    except ValueError:  # on another drive
        return Path(place).resolve().as_posix()


def _start_record(
    settings: TrainPublished, config: dict, samples: Sequence[Sample], validation: Sequence[Sample]
) -> None:
    """A folder started with other images, settings or weights would mix two models; only the epochs may be more."""
    fixed = {key: value for key, value in config["settings"].items() if key != "epochs"}
    record = {**fixed, "settings": settings.settings, "dataset": str(settings.dataset), "target": config["targets"][0]}
    record |= {part: config[part]["sha256"][:16] for part in ("backbone", "text")}
    record |= {"taught": _names(samples), "validated": _names(validation)}
    begin_record(Path(settings.out) / STATE / "begun.json", record, settings.out)


def _names(samples: Sequence[Sample]) -> str:
    """How many images, and a mark of which."""
    return f"{len(samples)} images ({hashlib.sha256(repr([one.name for one in samples]).encode()).hexdigest()[:8]})"


def _write_records(settings: TrainPublished, config: dict, dataset: DatasetFolder, samples: Sequence[Sample],
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
        "targets": config["targets"],
        "texts": record_texts(sample.text for sample in samples),
        "best": best,
        "epochs": [asdict(epoch) for epoch in epochs],
    }
    write_text(out / "training.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    write_text(out / "segmenter.json", json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    write_checksums(out, without=("segmenter.json",))  # in which users write where the backbone is
    chosen = epochs[best - 1]
    _log(f"Epoch {best} of {len(epochs)} is kept: validation Dice {chosen.dice:.4f}, loss {chosen.loss:.4f}.")


def _log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
