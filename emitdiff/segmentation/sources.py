"""Datasets of the sources that a segmenter learnt from beside those of others: the figure for whoever brings their own
images is the external one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from emitdiff.datasets.folder import DatasetFolder, open_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.evaluation import EvaluateSegmentation, run_evaluation
from emitdiff.segmentation.loading import load_segmenter
from emitdiff.segmentation.vocabulary import (
    BY_PHRASE,
    GENERIC_LABELS,
    IMAGE_KINDS,
    image_kind_of,
    match_target,
    target_of,
)

COLUMNS = ("n", "groups", "dice", "dice_sd", "n_empty", "false_mask_rate", "false_refusal_rate", "unsure_rate")
HEADINGS = ("images", "groups", "dice", "+-", "without", "false masks", "refused", "unsure")


def compare_sources(settings: EvaluateSegmentation, internal: Sequence[Path], external: Sequence[Path],
                    mapping: Mapping[str, str]) -> list[dict]:  # fmt: skip
    """Measures every dataset with its own text and prints a row for each target of each; with `settings.json` one
    object a line at the end.

    `settings.split` is for the `internal` ones; the `external` ones are taken whole. Of those only the labels count
    that name a taught target, or that `mapping` (label to target) translates.
    Raises EmitDiffError for datasets that cannot be read and labels or targets that are not known.
    """
    folders = [(open_dataset(folder), "internal") for folder in internal]
    folders += [(open_dataset(folder), "external") for folder in external]
    pipeline = load_segmenter(settings.checkpoint)
    check_mapping(mapping, [dataset for dataset, _ in folders], pipeline.targets)
    results = []
    for dataset, source in folders:
        asked, phrases = as_taught(dataset, pipeline.targets, mapping)
        split = settings.split if source == "internal" else "all"
        own = replace(settings, dataset=dataset.folder, text="own", split=split)
        results.append({**run_evaluation(pipeline, own, asked, phrases), "source": source})
    print_sources(results)
    if settings.json:
        for result in results:
            print(json.dumps(result))
    return results


def check_mapping(mapping: Mapping[str, str], datasets: Sequence[DatasetFolder], targets: Sequence[str]) -> None:
    """Raises EmitDiffError where `mapping` has a label that no dataset has, or a target that was not taught."""
    labels = {label for dataset in datasets for label in dataset.info.labels}
    for label, target in mapping.items():
        if label not in labels:
            raise EmitDiffError(f"No dataset has a label '{label}': they have {', '.join(sorted(labels))}.")
        if target not in targets:
            raise EmitDiffError(f"'{target}' was not taught: choose one of {', '.join(targets)}.")


def as_taught(
    dataset: DatasetFolder, targets: Sequence[str], mapping: Mapping[str, str]
) -> tuple[DatasetFolder, set[str]]:
    """(`dataset` with the labels, modality and organ under which its targets were taught, the phrases to ask for).

    Raises EmitDiffError where no label is one of `targets`.
    """
    info, kind, phrases = dataset.info, image_kind_of(dataset.info), set()
    labels: dict[str, int] = {}
    for label, value in info.labels.items():
        phrase = mapping.get(label) or _taught(label, targets, kind)
        known = BY_PHRASE.get(phrase or "")
        labels[known.labels[0] if known else label] = value
        if known is not None and value:
            kind = known.image_kind
            phrases.add(known.phrase)
        elif phrase and value:
            phrases.add(phrase)
    modality, organ = IMAGE_KINDS.get(kind or "", (info.modality, info.organ))
    translated = replace(info, modality=modality, organ=organ, labels=labels)
    phrases |= {target_of(translated, label).phrase for label, value in labels.items() if value} & set(targets)
    if not phrases:
        raise EmitDiffError(
            f"'{info.name}' labels {', '.join(name for name, value in info.labels.items() if value)}, none of them "
            f"taught ({', '.join(targets)}): say with --map LABEL=TARGET what is meant."
        )
    return replace(dataset, info=translated), phrases


def _taught(label: str, targets: Sequence[str], kind: str | None) -> str | None:
    """The taught target that a label names; a "lesion" of another organ is none."""
    target = match_target(label, targets)
    if target is None or target.phrase not in targets or label.lower() not in (*target.labels, *target.names):
        return None
    return target.phrase if kind == target.image_kind or label.lower() not in GENERIC_LABELS else None


def print_sources(results: Sequence[dict]) -> None:
    """A line for each target of each dataset, a target's together, internal before external."""
    rows = [(name, result["source"], result["dataset"], measures) for result in results
            for name, measures in result["targets"].items()]  # fmt: skip
    rows.sort(key=lambda row: (row[0], row[1] != "internal"))
    widths = [max(len(str(row[k])) for row in rows) + 2 for k in range(3)]
    print(" " * sum(widths) + "".join(f"{heading:>13}" for heading in HEADINGS))
    for name, source, dataset, measures in rows:
        start = "".join(f"{text:<{width}}" for text, width in zip((name, source, dataset), widths, strict=True))
        print(start + "".join(f"{_shown(measures[key]):>13}" for key in COLUMNS))


def _shown(value: float | int | None) -> str:
    return "-" if value is None else f"{value:d}" if isinstance(value, int) else f"{value:.3f}"
