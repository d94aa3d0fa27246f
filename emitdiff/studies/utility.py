"""Utility of synthetic images: train on synthetic, test on real, compared with training on real images.

The held-out groups of the checkpoint are what is tested on. Of the others, those images from which synthetic ones were
generated make the arm "real", the generated ones the arm "synthetic". Network, steps, batch and seeds are the same.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from emitdiff.checkpoints import find_checkpoint, local_folder, weights_fingerprint
from emitdiff.datasets.folder import DatasetFolder, is_synthetic, open_dataset
from emitdiff.datasets.splits import choose_rows, split_by_group
from emitdiff.errors import EmitDiffError
from emitdiff.studies.results_table import RESULTS, markdown_table, open_study, read_table, write_report, write_table
from emitdiff.studies.unet_baseline import (
    MEASURES,
    TrainSegmenter,
    check_training,
    class_labels,
    measure_segmenter,
    read_pictures,
    train_segmenter,
)
from emitdiff.synthesis.augmentation import Augment, augment
from emitdiff.synthesis.card import read_card

PARTS = ("real", "synthetic", "classical")
# what the report says of the synthetic images
GENERATION_COLUMNS = ("checkpoint", "structure", "steps", "guidance", "preset")
RESAMPLES = 2000
TARGET = 95.0  # per cent of the Dice of real images


@dataclass(frozen=True)
class Utility:
    """Settings of `study_utility`.

    `synthetic` is a folder that `augment` wrote; without it `ratio` images (1 where None) are generated from each of
    `limit` training images (None: all) into `out`/synthetic. Of a given folder, at most `ratio` of each source are
    used, and `limit` sources. `arms` are made of "real", "synthetic" and "classical", joined by "+". The rest as in
    `TrainSegmenter`; seeds are 0 to `seeds` - 1.
    """

    dataset: Path
    out: Path
    checkpoint: str = "emitdiff-mini"
    synthetic: Path | None = None
    arms: tuple[str, ...] = ("real", "synthetic")
    ratio: int | None = None
    limit: int | None = None
    network: str = "unet"
    steps: int = 300
    resolution: int = 128
    seeds: int = 3
    mix: Literal["inputs", "logits", "pool"] = "inputs"
    alpha: float = 0.6
    patch: int | None = None
    json: bool = False


def study_utility(settings: Utility) -> dict:
    """Trains every arm with every seed, writes `out`/results.csv as they end, then report.md and report.json.

    Run again, it trains only what is missing; arms and seeds may be added. `out`/runs has the measures of every
    image. Returns what report.json says.

    Raises:
        EmitDiffError: an unknown arm or network, a dataset or folder that cannot be used, a synthetic image of a
            held-out group, or an `out` started with other settings.
    """
    arms = [_ordered(arm) for arm in settings.arms]
    dataset = open_dataset(settings.dataset)
    train, test = real_split(dataset, settings.checkpoint)
    for arm in arms:
        check_training(_training(settings, arm, 0), both={"real", "synthetic"} <= set(arm.split("+")))
    painting = _augment_settings(settings)
    if settings.synthetic:
        real, synthetic = matched(train, open_dataset(settings.synthetic), test, settings)
    else:
        painting.check()
    free = ("out", "arms", "seeds", "json")
    record = {name: value for name, value in asdict(settings).items() if name not in free}
    weights = {settings.checkpoint: weights_fingerprint(find_checkpoint(settings.checkpoint, "synthesis"))}
    out = open_study(settings.out, {**record, "dataset": dataset.info.name}, weights, [dataset])
    if not settings.synthetic:
        real, synthetic = matched(train, open_dataset(_generate(painting)), test, settings)
    _train_all(settings, arms, real, synthetic, test, out)
    report = make_report(settings, arms, out, {"real": len(real), "synthetic": len(synthetic), "test": len(test)})
    report["painted"] = {name: sorted({row.get(name, "") for row in synthetic.rows}) for name in GENERATION_COLUMNS}
    write_report(out, report, as_markdown(report), settings.json)
    return report


def _ordered(arm: str) -> str:
    """The arm's parts in one order, so that real+synthetic and synthetic+real are the same."""
    parts = {part.strip() for part in arm.split("+")}
    if not parts <= set(PARTS) or not parts & {"real", "synthetic"}:
        raise EmitDiffError(
            f"The arm '{arm}' is not known: join real and synthetic, and classical if wanted, with +, "
            "like real+synthetic or synthetic+classical."
        )
    return "+".join(part for part in PARTS if part in parts)


def real_split(dataset: DatasetFolder, checkpoint: str) -> tuple[DatasetFolder, DatasetFolder]:
    """(train, held out) of a dataset's real images, as the checkpoint's training split them."""
    found = find_checkpoint(checkpoint, "synthesis")
    training = read_card(found, local_folder(found)).training
    real = dataset.real()
    return split_by_group(real, training.get("held_out", 0.2), training.get("split_seed", 0))


def _augment_settings(settings: Utility) -> Augment:
    ratio, folder = float(settings.ratio or 1), Path(settings.out) / "synthetic"
    return Augment(
        settings.dataset, folder, ratio=ratio, checkpoint=settings.checkpoint, split="train", limit=settings.limit
    )


def _generate(painting: Augment) -> Path:
    if is_complete := (painting.out / "metadata.csv").exists():
        print(f"{painting.out} is complete already.", file=sys.stderr)
    if not is_complete and augment(painting) is None:
        raise EmitDiffError(
            f"Other processes still generate {painting.out}: start this study again when they are done."
        )
    return painting.out


def matched(
    train: DatasetFolder, synthetic: DatasetFolder, test: DatasetFolder, settings: Utility
) -> tuple[DatasetFolder, DatasetFolder]:
    """The real training images that synthetic ones were generated from, and those synthetic ones.

    Raises:
        EmitDiffError: none was generated from a training image, one was generated from a held-out group, or other
        labels.
    """
    if synthetic.info.labels != train.info.labels:
        raise EmitDiffError(f"{synthetic.folder} has the labels {synthetic.info.labels}, not {train.info.labels}.")
    painted = [row for row in synthetic.rows if is_synthetic(row)]
    if leaks := sorted({row["group"] for row in painted} & set(test.groups)):
        raise EmitDiffError(
            f"{synthetic.folder} holds images generated from the held-out groups that are tested on ({leaks[0]} among "
            "them): generate with augment --split train."
        )
    made_with = {row.get("checkpoint", "") for row in painted}
    if made_with - {settings.checkpoint, Path(settings.checkpoint).name}:
        print(f"Note: generated with {', '.join(sorted(made_with))}; the split is that of {settings.checkpoint}.",
              file=sys.stderr)  # fmt: skip
    sources = {row.get("source") for row in painted}
    real = train.subset(index for index, row in enumerate(train.rows) if row["file_name"] in sources)
    if not len(real):
        raise EmitDiffError(f"No image of {synthetic.folder} was generated from a training image of {train.folder}.")
    real = choose_rows(real, limit=settings.limit)
    used = dict.fromkeys((row["file_name"] for row in real.rows), 0)
    kept = []
    for index, row in enumerate(synthetic.rows):
        source = row.get("source") if is_synthetic(row) else None
        if source in used and (settings.ratio is None or used[source] < settings.ratio):
            used[source] += 1
            kept.append(index)
    return real, synthetic.subset(kept)


def _train_all(settings: Utility, arms: list[str], real, synthetic, test, out: Path) -> None:
    rows: list[dict[str, Any]] = read_table(out / RESULTS)
    done = {(row["arm"], row["seed"]) for row in rows}
    # seed by seed, so that a study that is stopped early has the same seeds in every arm
    left = [(arm, seed) for seed in range(settings.seeds) for arm in arms if (arm, str(seed)) not in done]
    if not left:
        return
    (out / "runs").mkdir(exist_ok=True)
    sets = [read_pictures(part, settings.resolution) for part in (real, synthetic, test)]
    channels = 1 + len(class_labels(real.info.labels))
    for arm, seed in tqdm(left, desc="training segmenters", unit="run"):
        started = time.perf_counter()
        parts = [part if name in arm.split("+") else None for name, part in zip(PARTS[:2], sets[:2], strict=True)]
        model = train_segmenter(_training(settings, arm, seed), channels, *parts)
        measured, images = measure_segmenter(model, test, sets[2])
        seconds = round(time.perf_counter() - started, 1)
        write_table(out / "runs" / f"{arm}-{seed}.csv", images)
        rows.append({"arm": arm, "seed": seed, **{name: measured[name] for name in MEASURES}, "seconds": seconds})
        write_table(out / RESULTS, rows)


def _training(settings: Utility, arm: str, seed: int) -> TrainSegmenter:
    return TrainSegmenter(
        network=settings.network, steps=settings.steps, resolution=settings.resolution, seed=seed,
        classical="classical" in arm.split("+"), mix=settings.mix, alpha=settings.alpha, patch=settings.patch,
    )  # fmt: skip


def make_report(settings: Utility, arms: list[str], out: Path, counts: dict[str, int]) -> dict:
    """Mean and deviation over the seeds of every measure of every arm; each arm's Dice in per cent of its `reference`.

    The interval (95 %) is a bootstrap over the held-out groups, every image's Dice averaged over the seeds first.
    """
    rows = [row for row in read_table(out / RESULTS) if int(row["seed"]) < settings.seeds and row["arm"] in arms]
    name = open_dataset(settings.dataset).info.name
    used = json.loads(json.dumps(asdict(settings), default=str))
    result = {"dataset": name, "images": counts, "settings": used, "arms": {}, "percent_of_real": {}}
    for arm in arms:
        own = [row for row in rows if row["arm"] == arm]
        result["arms"][arm] = {name: _mean_and_deviation(own, name) for name in MEASURES}
    images = {arm: images_of(out, arm, settings.seeds) for arm in arms}
    for arm in arms:
        if beside := reference(arm, arms):
            result["percent_of_real"][arm] = {"beside": beside, **percent_of_real(images[arm], images[beside])}
    return result


def reference(arm: str, arms: list[str]) -> str | None:
    """The arm of real images that an arm is held against: with classical augmentation, where it has that itself and
    such an arm is there; else without; None where there is neither, and for "real" itself."""
    alike = ("real+classical", "real") if arm in ("synthetic+classical", "real+synthetic+classical") else ("real",)
    return next((name for name in alike if name in arms and name != arm), None)


def _mean_and_deviation(rows: list[dict[str, str]], name: str) -> dict[str, float] | None:
    values = [float(row[name]) for row in rows if row[name] != ""]
    if not values:
        return None
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}


def images_of(out: Path, arm: str, seeds: int) -> dict[tuple[str, str, str], float]:
    """(group, file_name, label) to the mean Dice over the seeds, of the images that have the label."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for seed in range(seeds):
        for row in read_table(out / "runs" / f"{arm}-{seed}.csv"):
            if row["empty"] != "True":
                found.setdefault((row["group"], row["file_name"], row["label"]), []).append(float(row["dice"]))
    return {key: float(np.mean(values)) for key, values in found.items()}


def percent_of_real(arm: dict[tuple, float], real: dict[tuple, float]) -> dict[str, float]:
    """100 x mean Dice of an arm / that of "real" over the same images, keys (group, ...), with the 2.5th and 97.5th
    percentile over `RESAMPLES` draws of the groups with replacement."""
    keys = sorted(real)
    groups, of_key = np.unique([key[0] for key in keys], return_inverse=True)
    sums = np.stack([
        np.bincount(of_key, [values[key] for key in keys], len(groups)) for values in (arm, real)
    ])  # fmt: skip
    draws = np.random.default_rng(0).integers(len(groups), size=(RESAMPLES, len(groups)))
    resampled = sums[:, draws].sum(2)
    # every resampled mean of both arms is over the same images: their number cancels out
    low, high = np.percentile(100 * resampled[0] / np.maximum(resampled[1], 1e-9), (2.5, 97.5))
    percent = 100 * sums[0].sum() / max(sums[1].sum(), 1e-9)
    return {"percent": float(percent), "low": float(low), "high": float(high), "groups": len(groups)}


def as_markdown(report: dict) -> str:
    """The report as a page of markdown."""
    settings, counts = report["settings"], report["images"]
    names = ("dice", "dice_pooled", "dice_all", "precision", "recall", "hd95", "assd", "false_mask_rate")
    table = [[arm, *(_cell(measured[name]) for name in names), _share(report["percent_of_real"].get(arm))]
             for arm, measured in report["arms"].items()]  # fmt: skip
    first = next(iter(report["arms"].values()))
    painted = ", ".join(f"{name} {' or '.join(values)}" for name, values in report["painted"].items())
    return "\n".join([
        f"# Train on synthetic, test on real: {report['dataset']}", "",
        f"Arms rest on {counts['real']} real training images and {counts['synthetic']} images generated from them by "
        f"{settings['checkpoint']}; tested on all {counts['test']} real images of held-out groups "
        f"({first['n']['mean']:.0f} labelled, {first['n_empty']['mean']:.0f} without the label).", "",
        f"Generated with {painted}.", "",
        f"{settings['network']}, {settings['steps']} steps of 8 images at {settings['resolution']} pixels, "
        f"{settings['seeds']} seeds, last step; mean +- standard deviation over the seeds.", "",
        markdown_table(["arm", *names, "% of real (95 %)"], table), "",
        "dice, precision, recall, hd95, assd: per image, over those with the label; dice_all: over all, one without "
        "the label counting 1 where nothing was drawn, else 0; dice_pooled: all pixels together; distances in pixels; "
        "false_mask_rate: share of images without the label in which something was drawn. % of real: of the dice "
        "of real, or of real+classical where both are classical, with a bootstrap interval over the held-out groups.",
        *(f"\n{arm} {'reaches' if share['percent'] >= TARGET else 'stays below'} {TARGET:g} % of the Dice of "
          f"{share['beside']}." for arm, share in report["percent_of_real"].items() if "real" not in arm),
        "",
    ])  # fmt: skip


def _cell(value: dict[str, float] | None) -> str:
    return "-" if value is None else f"{value['mean']:.3f} +- {value['sd']:.3f}"


def _share(value: dict[str, float] | None) -> str:
    return "" if value is None else f"{value['percent']:.1f} ({value['low']:.1f} to {value['high']:.1f})"
