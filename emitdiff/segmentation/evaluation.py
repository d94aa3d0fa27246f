"""Segmentation metrics through MONAI, with documented conventions.

Per image: dice, iou, precision, recall, hd95 and assd are means over the images whose truth is not empty, `dice_sd` the
standard deviation of dice over them. An empty prediction there counts 0 for the first four; for the two distances,
which it does not have, the image's diagonal. Pooled: all pixels of those images counted together; never to be mixed
with the means. `false_mask_rate` is the share of the `n_empty` images without the target in which a mask was drawn all
the same, and not called unsure; `false_refusal_rate` the share of the `n` with it where nothing was drawn, and
`unsure_rate` that of all whose answer is unsure. `groups` counts patients or cases. Distances are in pixels of the
source, for dataset folders do not know millimetres.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from emitdiff.datasets.fingerprint import dataset_sha256
from emitdiff.datasets.folder import DatasetFolder, Sample, open_dataset
from emitdiff.datasets.splits import choose_rows
from emitdiff.images import image_to_tensor
from emitdiff.segmentation.loading import load_segmenter
from emitdiff.segmentation.model.features import DiffusionFeatures
from emitdiff.segmentation.pipeline import SegmentationPipeline
from emitdiff.segmentation.vocabulary import LUNG_SIDES, TARGETS, queries_of

MEANS = ("dice", "iou", "precision", "recall", "hd95", "assd")
MEASURES = ("dice", "dice_sd", "iou", "dice_pooled", "iou_pooled", *MEANS[2:], "n", "false_mask_rate", "n_empty",
            "groups", "false_refusal_rate", "unsure_rate")  # fmt: skip
PRINTED = MEASURES[:-3]
TEXTS = ("own", "none", "shuffled")
RESAMPLES = 2000


@dataclass(frozen=True)
class EvaluateSegmentation:
    """`split` follows the checkpoint's own record of what was held out. `limit` takes evenly spread images. `text`
    "all" asks every image with its own text, without and with shuffled text; its features are computed once."""

    dataset: Path
    text: Literal["own", "none", "shuffled", "all"] = "own"
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

    one, other = (torch.from_numpy(np.asarray(mask, dtype=bool))[None, None].float() for mask in (predicted, truth))
    overlap = int((predicted & truth).sum())
    diagonal = float(np.hypot(*truth.shape))
    found = bool(predicted.any())
    return {
        "dice": compute_dice(one, other, ignore_empty=False).item(),
        "iou": compute_iou(one, other, ignore_empty=False).item(),
        "precision": overlap / int(predicted.sum()) if found else 0.0,
        "recall": overlap / int(truth.sum()),
        "hd95": compute_hausdorff_distance(one, other, percentile=95).item() if found else diagonal,
        "assd": compute_average_surface_distance(one, other, symmetric=True).item() if found else diagonal,
    }


def measure(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float | int]:
    """What `summarise` needs of one predicted and one true boolean mask (H, W): pixels of both, of their overlap, and
    `image_measures` where the truth is not empty."""
    pixels = {"predicted": int(predicted.sum()), "truth": int(truth.sum()), "overlap": int((predicted & truth).sum())}
    return pixels | (image_measures(predicted, truth) if pixels["truth"] else {})


def summarise(rows: list[dict]) -> dict[str, float | int | None]:
    """All `MEASURES` over rows of `measure`; None where no image allows a measure."""
    present, absent = [row for row in rows if row["truth"]], [row for row in rows if not row["truth"]]
    found: dict[str, float] = {"n": len(present), "n_empty": len(absent)}
    if present:
        found |= {key: float(np.mean([row[key] for row in present])) for key in MEANS}
        found["dice_sd"] = float(np.std([row["dice"] for row in present], ddof=1)) if len(present) > 1 else 0.0
        overlap = sum(row["overlap"] for row in present)
        total = sum(row["predicted"] + row["truth"] for row in present)
        found |= {"dice_pooled": 2 * overlap / total, "iou_pooled": overlap / (total - overlap)}
    if absent:
        found["false_mask_rate"] = float(np.mean([row["predicted"] > 0 and not _unsure(row) for row in absent]))
    if present:
        found["false_refusal_rate"] = float(np.mean([row["predicted"] == 0 for row in present]))
    if rows:
        found["unsure_rate"] = float(np.mean([_unsure(row) for row in rows]))
    found["groups"] = len({row["group"] for row in rows if "group" in row})
    return {key: found.get(key) for key in MEASURES}


def _unsure(row: dict) -> bool:
    return row.get("answer") == "unsure"


def paired_difference(first: list[dict], second: list[dict]) -> dict[str, float | int | None]:
    """Mean difference in dice of two answers to the same questions, each all rows of one text, where the truth is not
    empty; with the 2.5th and 97.5th percentile over `RESAMPLES` draws of the groups with replacement."""
    pairs = [(a["group"], a["dice"] - b["dice"]) for a, b in zip(first, second, strict=True) if a["truth"]]
    if not pairs:
        return {"dice": None, "low": None, "high": None, "groups": 0}
    groups, of_pair = np.unique([group for group, _ in pairs], return_inverse=True)
    sums, counts = np.bincount(of_pair, [gain for _, gain in pairs]), np.bincount(of_pair)
    draws = np.random.default_rng(0).integers(len(groups), size=(RESAMPLES, len(groups)))
    low, high = np.percentile(sums[draws].sum(1) / counts[draws].sum(1), (2.5, 97.5))
    return {"dice": float(sums.sum() / len(pairs)), "low": float(low), "high": float(high), "groups": len(groups)}


def shuffled_sentences(own: list[tuple[str, str]], seed: int) -> list[str]:
    """Another sentence for every (target, own sentence): another row's about the same, or where all agree one about
    another target of the dataset, or of all. A target that is part of the one asked for contradicts nothing: neither
    "left lung" for "lung" nor the other way round, and lung sides that are only derived are never asked instead.
    """
    rng = np.random.default_rng(seed)
    derived = LUNG_SIDES if any(name == "lung" for name, _ in own) else ()
    variety = {(name, sentence) for name, sentence in own if name not in derived}
    others = {(target.phrase, f"{target.image_kind}, {target.phrase}") for target in TARGETS}
    chosen = []
    for name, sentence in own:
        same = {text for phrase, text in own if phrase == name} - {sentence}
        contradicting = same or _about_others(name, variety) or _about_others(name, others)
        chosen.append(sorted(contradicting)[rng.integers(len(contradicting))])
    return chosen


def _about_others(name: str, sentences: set[tuple[str, str]]) -> set[str]:
    return {text for phrase, text in sentences if phrase not in name and name not in phrase}


def evaluate_segmentation(settings: EvaluateSegmentation) -> dict:
    """Segment a dataset with its own text, none, shuffled, or all three; prints a table, with `json` one object as the
    last line.

    The result holds `MEASURES` over all questions and, under "targets", for each target alone; for `text` "all" that
    is under "texts" for each of `TEXTS`, and under "differences" what the own text adds (`paired_difference`).
    Raises EmitDiffError when the dataset or the weights cannot be used.
    """
    open_dataset(settings.dataset)  # its defects are told before any weights are loaded
    result = run_evaluation(load_segmenter(settings.checkpoint), settings)
    print_table(result)
    if settings.json:
        print(json.dumps(result))
    return result


def run_evaluation(pipeline: SegmentationPipeline, settings: EvaluateSegmentation, dataset: DatasetFolder | None = None,
                   targets: Collection[str] | None = None) -> dict:  # fmt: skip
    """What `evaluate_segmentation` returns, of weights that are loaded already; prints nothing. `dataset` stands for
    that of `settings`, and only `targets` are asked for, by default all."""
    chosen = chosen_rows(pipeline, settings, dataset)
    return next(found for found in evaluate_stepwise(pipeline, settings, chosen, targets) if found is not None)


def chosen_rows(
    pipeline: SegmentationPipeline, settings: EvaluateSegmentation, dataset: DatasetFolder | None = None
) -> DatasetFolder:
    """The rows that `settings` ask about."""
    split = pipeline.card.get("split", {})
    held_out = (split.get("held_out", 0.2), split.get("seed", 0), split.get("column"))
    return choose_rows(dataset or open_dataset(settings.dataset), settings.split, settings.limit, *held_out)


def texts_of(settings: EvaluateSegmentation) -> tuple[str, ...]:
    """Of `TEXTS`, those that `settings` ask with."""
    return TEXTS if settings.text == "all" else (settings.text,)


def evaluate_stepwise(
    pipeline: SegmentationPipeline, settings: EvaluateSegmentation, dataset: DatasetFolder,
    targets: Collection[str] | None = None,
) -> Iterator[dict | None]:  # fmt: skip
    """None after each question about the rows of `dataset`, so that it can be ended there; then what `run_evaluation`
    returns."""
    rows: dict[str, list[dict]] = {text: [] for text in texts_of(settings)}
    for text, row in _predictions(pipeline, dataset, settings, targets):
        rows[text].append(row)
        yield None
    yield _result(rows, pipeline, settings, dataset)


def _result(
    rows: dict[str, list[dict]], pipeline: SegmentationPipeline, settings: EvaluateSegmentation, dataset: DatasetFolder
) -> dict:
    found = {text: _by_target(predictions) for text, predictions in rows.items()}
    record = {"dataset": dataset.info.name, "text": settings.text, "split": settings.split,
             "checkpoint": settings.checkpoint, "weights_sha256": pipeline.weights,
             "dataset_sha256": dataset_sha256(dataset)}  # fmt: skip
    if settings.text != "all":
        return {**found[settings.text], **record}
    gains = {
        f"own - {text}": paired_difference(_without_derived(rows["own"]), _without_derived(rows[text]))
        for text in TEXTS[1:]
    }
    return {**record, "texts": found, "differences": gains}


def _by_target(rows: list[dict]) -> dict:
    targets: dict[str, list[dict]] = {}
    for row in rows:
        targets.setdefault(row["target"], []).append(row)
    return {**summarise(_without_derived(rows)), "targets": {name: summarise(found) for name, found in targets.items()}}


def _without_derived(rows: list[dict]) -> list[dict]:
    """The whole counts what the dataset labels; lung sides, derived from it, are only listed."""
    return [row for row in rows if row["target"] not in LUNG_SIDES] or rows


def _predictions(
    pipeline: SegmentationPipeline, dataset: DatasetFolder, settings: EvaluateSegmentation,
    targets: Collection[str] | None,
) -> Iterator[tuple[str, dict]]:  # fmt: skip
    """Of `TEXTS` the one asked with and a row of `measure`, for every question (file_name, group, target) with each
    of the texts; the questions are in the same order for all of these.

    An image is encoded once for all questions about it; of those only the ones about `targets` are asked. The network
    is measured, also on texts that ask for nothing it was taught, and to which a user would get no mask.
    """
    shuffled, texts = None, texts_of(settings)
    if "shuffled" in texts:
        own = [(name, text) for sample in dataset for name, text, _ in queries_of(sample, dataset)]
        shuffled = iter(shuffled_sentences(own, settings.seed))
    for sample in tqdm(dataset, desc=f"{dataset.info.name}, {settings.text} text", unit="image"):
        encoded = pipeline.encode(sample.image)
        for name, sentence, truth in queries_of(sample, dataset):
            if targets is not None and name not in targets:
                continue
            sentences = {"own": sentence, "none": "", "shuffled": next(shuffled) if shuffled else ""}
            for text in texts:
                output = pipeline.segment(encoded, sentences[text], settings.threshold, untaught="try")
                query = {"file_name": sample.name, "group": sample.group, "target": name, "answer": output.answer}
                yield text, query | measure(output.mask > 0, truth)


def print_table(result: dict) -> None:
    """One line per target and text and one for the dataset, a column per measure; then what the own text adds."""
    measured = result.get("texts") or {result["text"]: result}
    lines = [(name, text, whole["targets"][name]) for name in next(iter(measured.values()))["targets"]
             for text, whole in measured.items()]  # fmt: skip
    lines += [(result["dataset"], text, whole) for text, whole in measured.items()]
    labelled = [(f"{name}, {text}" if len(measured) > 1 else name, row) for name, text, row in lines]
    width = max(len(name) for name, _ in labelled) + 2
    texts = ", ".join(measured)
    print(f"{result['dataset']}: {texts} text, {result['split']} groups, distances in pixels")
    print(" " * width + "".join(f"{key.replace('false_mask_rate', 'false masks'):>13}" for key in PRINTED))
    for name, row in labelled:
        values = ("-" if row[key] is None else f"{row[key]:d}" if isinstance(row[key], int) else f"{row[key]:.4f}"
                  for key in PRINTED)  # fmt: skip
        print(f"{name:<{width}}" + "".join(f"{value:>13}" for value in values))
    for name, gain in result.get("differences", {}).items():
        if gain["dice"] is not None:
            print(f"{name}: dice {gain['dice']:+.4f} (95 % over {gain['groups']} groups: {gain['low']:+.4f} to "
                  f"{gain['high']:+.4f})")  # fmt: skip


def label_predictor(
    segmenter: SegmentationPipeline, dataset: DatasetFolder
) -> Callable[[Sample], list[tuple[np.ndarray, np.ndarray]]]:
    """For a sample of `dataset`, or one generated from it: (mask found, mask asked for), boolean (H, W), of every label
    that the sample shows. Left and right lung are asked for only where they are labels of their own."""
    labels = dataset.info.labels

    def predict_labels(sample: Sample) -> list[tuple[np.ndarray, np.ndarray]]:
        queries = [
            (text, truth)
            for name, text, truth in queries_of(sample, dataset)
            if truth.any() and (name not in LUNG_SIDES or name in labels)
        ]
        if not queries:
            return []
        encoded = segmenter.encode(sample.image)
        return [(segmenter.segment(encoded, text).mask > 0, truth) for text, truth in queries]

    return predict_labels


def feature_statistics(features: DiffusionFeatures) -> Callable[[np.ndarray], np.ndarray]:
    """For uint8 (H, W, 3), sides multiples of 32: the mean and the standard deviation over space of each channel of
    each block, float32 (2 * channels,).

    At every position the channels are first divided by their root mean square, as LPIPS does (arXiv 1801.03924, eq. 1),
    so that no block and no channel of large numbers decides alone.
    """

    @torch.inference_mode()
    def extract(image: np.ndarray) -> np.ndarray:
        maps = [part[0].float() for part in features(image_to_tensor(image).to(next(features.parameters()).device))]
        equal = [part / part.square().mean(0).sqrt().clamp_min(1e-6) for part in maps]
        found = [number for part in equal for number in (part.mean((1, 2)), part.std((1, 2)))]
        return torch.cat(found).cpu().numpy()

    return extract
