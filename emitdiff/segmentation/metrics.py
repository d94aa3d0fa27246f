"""How good masks are, through MONAI, with the conventions written down.

Per image: dice, iou, precision, recall, hd95 and assd are means over the images whose truth is not empty. An empty
prediction there counts 0 for the first four; for the two distances, which it does not have, the image's diagonal.
Pooled: all pixels of those images counted together; never to be mixed with the means. `false_mask_rate` is the share
of the `n_empty` images without the target in which a mask was drawn all the same. Distances are in pixels of the
source, for dataset folders do not know millimetres.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from emitdiff.datasets import DatasetFolder, Sample, choose_rows, open_dataset
from emitdiff.segmentation.pipeline import SegmentationPipeline, load_segmenter
from emitdiff.segmentation.targets import TARGETS, own_sentence, target_masks, target_of

MEASURES = ("dice", "iou", "dice_pooled", "iou_pooled", "precision", "recall", "hd95", "assd", "n",
            "false_mask_rate", "n_empty")  # fmt: skip
SIDES = ("left lung", "right lung")  # derived from a mask of both lungs


@dataclass(frozen=True)
class EvaluateSegmentation:
    """`split` follows the checkpoint's own record of what was held out. `limit` takes evenly spread images."""

    dataset: Path
    text: Literal["own", "none", "shuffled"] = "own"
    checkpoint: str = "textdiff-mini"
    split: Literal["all", "held-out", "train"] = "all"
    limit: int | None = None
    seed: int = 0
    json: bool = False
    threshold: float = 0.5


def image_measures(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """dice, iou, precision, recall, hd95 and assd of one boolean mask (H, W) against a truth that is not empty."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI warns of its own inner calls
        return _image_measures(predicted, truth)


def _image_measures(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance, compute_iou

    both = [torch.from_numpy(np.asarray(mask, dtype=bool))[None, None].float() for mask in (predicted, truth)]
    overlap = int((predicted & truth).sum())
    diagonal = float(np.hypot(*truth.shape))
    found = bool(predicted.any())
    return {
        "dice": compute_dice(*both, ignore_empty=False).item(),
        "iou": compute_iou(*both, ignore_empty=False).item(),
        "precision": overlap / int(predicted.sum()) if found else 0.0,
        "recall": overlap / int(truth.sum()),
        "hd95": compute_hausdorff_distance(*both, percentile=95).item() if found else diagonal,
        "assd": compute_average_surface_distance(*both, symmetric=True).item() if found else diagonal,
    }


def summarise(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float | int | None]:
    """All `MEASURES` over (predicted, truth) pairs of boolean masks; None where no image allows a measure."""
    present = [(predicted, truth) for predicted, truth in pairs if truth.any()]
    absent = [predicted for predicted, truth in pairs if not truth.any()]
    rows = [image_measures(*pair) for pair in present]
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} if rows else {}
    overlap = sum(int((predicted & truth).sum()) for predicted, truth in present)
    total = sum(int(predicted.sum()) + int(truth.sum()) for predicted, truth in present)
    pooled = {"dice_pooled": 2 * overlap / total, "iou_pooled": overlap / (total - overlap)} if rows else {}
    counts = {"n": len(present), "n_empty": len(absent)}
    false = {"false_mask_rate": float(np.mean([mask.any() for mask in absent]))} if absent else {}
    return {key: {**means, **pooled, **counts, **false}.get(key) for key in MEASURES}


def questions_of(sample: Sample, dataset: DatasetFolder) -> list[tuple[str, str, np.ndarray]]:
    """(target, own sentence, truth) for every label of the dataset in one image, left and right lung included."""
    asked, labels = [], {label: value for label, value in dataset.info.labels.items() if value}
    for label, value in labels.items():
        # a row's own text speaks of all its labels at once: with several labels it would not say which is meant
        own = sample.text if sample.text and len(labels) == 1 else own_sentence(dataset.info, label)
        asked.append((target_of(dataset.info, label).phrase, own, sample.mask == value))
    sides = target_masks(sample, dataset.info)
    asked += [(side, own_sentence(dataset.info, side), sides[side]) for side in SIDES
              if side in sides and side not in dataset.info.labels]  # fmt: skip
    return asked


def shuffled_sentences(own: list[tuple[str, str]], seed: int) -> list[str]:
    """Another sentence for every (target, own sentence): another row's about the same, or where all agree one about
    another target of the dataset, or of all. A target that is part of the one asked for contradicts nothing: neither
    "left lung" for "lung" nor the other way round, and lung sides that are only derived are never asked instead.
    """
    rng = np.random.default_rng(seed)
    derived = SIDES if any(name == "lung" for name, _ in own) else ()
    variety = {(name, sentence) for name, sentence in own if name not in derived}
    others = {(target.phrase, f"{target.home}, {target.phrase}") for target in TARGETS}
    chosen = []
    for name, sentence in own:
        same = {text for phrase, text in own if phrase == name} - {sentence}
        contradicting = same or _about_others(name, variety) or _about_others(name, others)
        chosen.append(sorted(contradicting)[rng.integers(len(contradicting))])
    return chosen


def _about_others(name: str, sentences: set[tuple[str, str]]) -> set[str]:
    return {text for phrase, text in sentences if phrase not in name and name not in phrase}


def evaluate_segmentation(settings: EvaluateSegmentation) -> dict:
    """Segment a dataset with its own text, none or shuffled; prints a table, with `json` one object as the last line.

    The result holds `MEASURES` over all questions and, under "targets", for each target alone.
    Raises EmitDiffError when the dataset or the weights cannot be used.
    """
    dataset = open_dataset(settings.dataset)
    pipeline = load_segmenter(settings.checkpoint)
    split = pipeline.card.get("split", {})
    dataset = choose_rows(dataset, settings.split, settings.limit, split.get("held_out", 0.2), split.get("seed", 0))
    pairs = predict_all(pipeline, dataset, settings)
    # the whole counts what the dataset labels; lung sides, derived from it, are only listed
    whole = [pair for name, found in pairs.items() if name not in SIDES for pair in found]
    result = {**summarise(whole or [pair for found in pairs.values() for pair in found]),
              "dataset": dataset.info.name, "text": settings.text, "split": settings.split,
              "checkpoint": settings.checkpoint,
              "targets": {name: summarise(found) for name, found in pairs.items()}}  # fmt: skip
    print_table(result)
    if settings.json:
        print(json.dumps(result))
    return result


def predict_all(pipeline: SegmentationPipeline, dataset: DatasetFolder, settings: EvaluateSegmentation) -> dict:
    """Target to its (predicted, truth) pairs of boolean masks."""
    sentences = None
    if settings.text == "shuffled":
        own = [(name, text) for sample in dataset for name, text, _ in questions_of(sample, dataset)]
        sentences = iter(shuffled_sentences(own, settings.seed))
    pairs: dict[str, list] = {}
    for sample in tqdm(dataset, desc=f"{dataset.info.name}, {settings.text} text", unit="image"):
        for name, own, truth in questions_of(sample, dataset):
            text = {"own": own, "none": ""}.get(settings.text) if sentences is None else next(sentences)
            predicted = pipeline(sample.image, text, settings.threshold).mask > 0
            pairs.setdefault(name, []).append((predicted, truth))
    return pairs


def print_table(result: dict) -> None:
    """One line per target and one for the dataset, a column per measure."""
    rows = {**result["targets"], result["dataset"]: result}
    width = max(map(len, rows)) + 2
    print(f"{result['dataset']}: {result['text']} text, {result['split']} groups, distances in pixels")
    print(" " * width + "".join(f"{key.replace('false_mask_rate', 'false masks'):>13}" for key in MEASURES))
    for name, row in rows.items():
        values = ("-" if row[key] is None else f"{row[key]:d}" if isinstance(row[key], int) else f"{row[key]:.4f}"
                  for key in MEASURES)  # fmt: skip
        print(f"{name:<{width}}" + "".join(f"{value:>13}" for value in values))
