"""Linear probing of decoder blocks and timesteps: TextDiff's Figure 3 on any dataset.

Each cell is a logistic regression (`studies.probe`) on the features of one block at one timestep, standardised, trained
on some pixels of a few labelled images; its Dice on images of held-out groups is what the cell shows. The row
"together" reads all blocks side by side. A linear probe is weaker than a head, but it treats all blocks alike.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from emitdiff.checkpoints import find_checkpoint, local_folder
from emitdiff.datasets.folder import DatasetFolder, Sample, open_dataset
from emitdiff.datasets.splits import choose_rows, draw_labelled
from emitdiff.devices import choose_device
from emitdiff.errors import EmitDiffError
from emitdiff.images import image_to_tensor, resize_image, resize_mask
from emitdiff.segmentation.model.features import (
    DiffusionFeatures,
    decoder_blocks,
    load_features,
    weights_hash,
    working_size,
)
from emitdiff.segmentation.vocabulary import target_of
from emitdiff.studies.charts import heat_map
from emitdiff.studies.probe import Probe, fit_probe, pixels_at
from emitdiff.studies.results_table import RESULTS, markdown_table, open_study, read_table, write_report, write_table
from emitdiff.studies.splits import split_train_test

PIXELS = 512  # of each labelled image, drawn anywhere in it
TOGETHER = "together"


@dataclass(frozen=True)
class Blocks:
    """Settings of `study_blocks`.

    `backbone` is a folder with a `UNet2DModel` and its scheduler, as `convert-adm` writes it; without one, that of
    `checkpoint`. `blocks` are numbers of `decoder_blocks`, all where none are named. Each of `seeds` probes of a cell
    learns from another draw of `images` labelled images; all are tested on the same `test` images. `resolution` is
    the short side of the images in pixels.
    """

    dataset: Path
    out: Path
    checkpoint: str = "textdiff-mini"
    backbone: Path | None = None
    blocks: tuple[int, ...] = ()
    timesteps: tuple[int, ...] = (0, 20, 50, 100, 150, 250, 500)
    images: int = 20
    test: int = 20
    seeds: int = 3
    resolution: int = 256
    json: bool = False


@dataclass(frozen=True)
class LabelledFeatures:
    """One image: its `maps` (1, C_k, H_k, W_k) of every block, and `truth`, its labels, bool (K, H, W)."""

    maps: list[torch.Tensor]
    truth: torch.Tensor


def study_blocks(settings: Blocks) -> dict:
    """Writes `out`/results.csv as each timestep is done, then blocks.png, report.md and report.json.

    Run again, it probes only what is missing; blocks, timesteps and seeds may be added. Returns what report.json
    says.

    Raises:
        EmitDiffError: a dataset, backbone, block or timestep that cannot be used, too few labelled images, or an `out`
            started with other settings.
    """
    dataset = open_dataset(settings.dataset)
    ((train, test),) = split_train_test(dataset)
    features = load_backbone(settings)
    numbers = settings.blocks or tuple(range(len(decoder_blocks(features.unet))))
    _features_at(features, numbers, settings.timesteps)  # refuses what cannot be read, before anything is written
    draws = [draw_labelled(train, settings.images, seed) for seed in range(settings.seeds)]
    test = choose_rows(test, limit=settings.test)
    if not any(labels_of(sample, test, settings.resolution).any() for sample in test):
        raise EmitDiffError(
            f"None of the {len(test)} held-out images of '{dataset.info.name}' shows a label: test on more."
        )
    free = ("out", "blocks", "timesteps", "seeds", "json")
    record = {name: value for name, value in asdict(settings).items() if name not in free}
    weights = {"backbone": weights_hash(features.unet)}
    out = open_study(settings.out, {**record, "dataset": dataset.info.name}, weights, [dataset])
    rows = read_table(out / RESULTS)
    for step in tqdm(settings.timesteps, desc="probing", unit="timestep"):
        done = {(row["block"], row["seed"]) for row in rows if row["timestep"] == str(step)}
        cells = product(cell_names(numbers), map(str, range(settings.seeds)))
        if left := [cell for cell in cells if cell not in done]:
            reading = _features_at(features, numbers, (step,))
            rows += probe_step(reading, numbers, left, draws, test, settings.resolution)
            write_table(out / RESULTS, rows)
    report = make_report(settings, numbers, read_table(out / RESULTS), dataset.info.name)
    _draw(out / "blocks.png", report)
    write_report(out, report, as_markdown(report), settings.json)
    return report


def load_backbone(settings: Blocks) -> DiffusionFeatures:
    """The frozen backbone on its device. Raises EmitDiffError where there is none."""
    folder = settings.backbone or local_folder(find_checkpoint(settings.checkpoint, "segmentation")) / "backbone"
    return load_features(Path(folder), None, settings.timesteps[:1], with_coordinates=False).to(choose_device())


def _features_at(features: DiffusionFeatures, blocks: Sequence[int], timesteps: Sequence[int]) -> DiffusionFeatures:
    """The same backbone, read elsewhere."""
    return DiffusionFeatures(features.unet, features.scheduler, tuple(blocks), tuple(timesteps))


def cell_names(numbers: Sequence[int]) -> tuple[str, ...]:
    """The names of the cells of one timestep in results.csv: a block each, and all of them joined by "+"."""
    joined = ("+".join(map(str, numbers)),) if len(numbers) > 1 else ()
    return (*map(str, numbers), *joined)


def probe_step(features: DiffusionFeatures, numbers: Sequence[int], cells: Sequence[tuple[str, str]],
               draws: Sequence[DatasetFolder], test: DatasetFolder, resolution: int) -> list[dict]:  # fmt: skip
    """Rows of results.csv for `cells` (name, seed) of the one timestep that `features` reads, one for each target."""
    probes = fit_probes(features, numbers, cells, draws, resolution)
    counts: dict[tuple[str, str], list[torch.Tensor]] = {cell: [] for cell in cells}
    for index in range(len(test)):
        seen = extract_features(features, test, index, resolution)
        for (name, seed), probe in probes.items():
            found = probe.scores(_chosen(seen.maps, name, numbers), (seen.truth.shape[-2], seen.truth.shape[-1])) > 0
            pair = torch.stack([found & seen.truth, found, seen.truth]).flatten(2).sum(2)
            counts[name, seed].append(pair.cpu())
    targets = [target_of(test.info, label).phrase for label, value in test.info.labels.items() if value]
    shapes = {str(number): _scale(part, seen.truth) for number, part in zip(numbers, seen.maps, strict=True)}
    rows = []
    for (name, seed), counted in counts.items():
        overlap, found, truth = torch.stack(counted).permute(1, 2, 0).double().numpy()  # each (K, images)
        place = {"block": name, "timestep": features.timesteps[0], "seed": seed, "shape": shapes.get(name, "")}
        rows += [{**place, "target": target, **dice_of(*one)}
                 for target, *one in zip(targets, overlap, found, truth, strict=True)]  # fmt: skip
    return rows


def dice_of(overlap: np.ndarray, found: np.ndarray, truth: np.ndarray) -> dict[str, float | int | str]:
    """Dice per image and pooled of pixel counts (images,), over the images that show the target; "" where none does."""
    shown = truth > 0
    if not shown.any():
        return {"dice": "", "dice_pooled": "", "n": 0}
    each, both = 2 * overlap[shown] / (found + truth)[shown], (found + truth)[shown].sum()
    return {"dice": round(float(each.mean()), 5), "dice_pooled": round(float(2 * overlap[shown].sum() / both), 5),
            "n": int(shown.sum())}  # fmt: skip


def fit_probes(features: DiffusionFeatures, numbers: Sequence[int], cells: Sequence[tuple[str, str]],
                 draws: Sequence[DatasetFolder], resolution: int) -> dict[tuple[str, str], Probe]:  # fmt: skip
    """A probe for each cell (name, seed), from the images of its seed's draw; an image in two draws is seen once."""
    seen: dict[str, tuple[list[torch.Tensor], torch.Tensor]] = {}
    probes = {}
    for seed in dict.fromkeys(seed for _, seed in cells):
        draw = draws[int(seed)]
        for index, row in enumerate(draw.rows):
            if row["file_name"] not in seen:
                seen[row["file_name"]] = sample_pixels(extract_features(features, draw, index, resolution), len(seen))
        parts, labels = zip(*(seen[row["file_name"]] for row in draw.rows), strict=True)
        pixels = [torch.cat(part) for part in zip(*parts, strict=True)]
        for name in (name for name, of_seed in cells if of_seed == seed):
            probes[name, seed] = fit_probe(_chosen(pixels, name, numbers), torch.cat(labels))
    return probes


def _chosen(parts: Sequence[torch.Tensor], name: str, numbers: Sequence[int]) -> list[torch.Tensor]:
    """Those parts, one for each of `numbers`, that a cell reads."""
    return [parts[list(numbers).index(int(number))] for number in name.split("+")]


def extract_features(features: DiffusionFeatures, rows: DatasetFolder, index: int, resolution: int) -> LabelledFeatures:
    """One image at `resolution`, its features and labels."""
    sample, device = rows[index], next(features.parameters()).device
    size, truth = working_size(sample.image.shape[:2], resolution), labels_of(sample, rows, resolution)
    return LabelledFeatures(features(image_to_tensor(resize_image(sample.image, size)).to(device)), truth.to(device))


def labels_of(sample: Sample, rows: DatasetFolder, resolution: int) -> torch.Tensor:
    """The labels of an image of `rows` at `resolution`, bool (K, H, W)."""
    mask = resize_mask(sample.mask, working_size(sample.image.shape[:2], resolution))
    return torch.from_numpy(np.stack([mask == value for value in rows.info.labels.values() if value]))


def sample_pixels(seen: LabelledFeatures, seed: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Features (P, C_k) of every block, in half precision, and labels (P, K) at `PIXELS` pixels of an image."""
    height, width = seen.truth.shape[-2:]
    drawn = np.random.default_rng(seed).integers(height * width, size=PIXELS)
    rows, columns = torch.from_numpy(drawn // width), torch.from_numpy(drawn % width)
    places = torch.stack([(columns + 0.5) / width, (rows + 0.5) / height], dim=1)
    parts = [pixels_at(part, places).clamp(-65504, 65504).half() for part in seen.maps]
    return parts, seen.truth[:, rows, columns].T


def _scale(part: torch.Tensor, truth: torch.Tensor) -> str:
    """Channels of a map, and its side as a fraction of the image's."""
    return f"{part.shape[1]} at 1/{round(truth.shape[-1] / part.shape[-1])}"


def make_report(settings: Blocks, numbers: Sequence[int], rows: list[dict[str, str]], dataset: str) -> dict:
    """Mean and deviation over the seeds of the Dice of every cell, the mean of the targets where there are several."""
    asked = {(name, str(step), str(seed)) for name, step, seed in
             product(cell_names(numbers), settings.timesteps, range(settings.seeds))}  # fmt: skip
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in rows:
        if (row["block"], row["timestep"], row["seed"]) in asked and row["dice"] != "":
            found.setdefault((row["block"], row["timestep"]), {}).setdefault(row["seed"], []).append(float(row["dice"]))
    shapes = {row["block"]: row["shape"] for row in rows if row["shape"]}
    cells = []
    for name, step in product(cell_names(numbers), settings.timesteps):
        dices = [float(np.mean(values)) for values in found[name, str(step)].values()]
        spread = float(np.std(dices, ddof=1)) if len(dices) > 1 else 0.0
        cells.append({"block": TOGETHER if "+" in name else name, "shape": shapes.get(name, ""), "timestep": step,
                      "dice": float(np.mean(dices)), "sd": spread})  # fmt: skip
    used = json.loads(json.dumps(asdict(settings), default=str))
    images = max(int(row["n"]) for row in rows)
    return {"dataset": dataset, "settings": used, "tested": images, "targets": sorted({row["target"] for row in rows}),
            "cells": cells}  # fmt: skip


def _draw(path: Path, report: dict) -> None:
    names, steps = (list(dict.fromkeys(cell[key] for cell in report["cells"])) for key in ("block", "timestep"))
    dice = {(cell["block"], cell["timestep"]): cell["dice"] for cell in report["cells"]}
    shapes = {cell["block"]: cell["shape"] for cell in report["cells"]}
    rows = [f"{name}   {shapes[name]}" if shapes[name] else name for name in names]
    heat_map(path, [[dice[name, step] for step in steps] for name in names], rows, [str(step) for step in steps],
             f"{report['dataset']}: Dice by decoder block and timestep", "timestep")  # fmt: skip


def as_markdown(report: dict) -> str:
    """The report as a page of markdown."""
    settings, cells = report["settings"], report["cells"]
    steps = list(dict.fromkeys(cell["timestep"] for cell in cells))
    lines: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        lines.setdefault((cell["block"], cell["shape"]), []).append(f"{cell['dice']:.3f} +- {cell['sd']:.3f}")
    alone = max((cell for cell in cells if cell["block"] != TOGETHER), key=lambda cell: cell["dice"])
    joined = max((cell for cell in cells if cell["block"] == TOGETHER), key=lambda cell: cell["dice"], default=None)
    best = f"Best alone: block {alone['block']} at timestep {alone['timestep']}, {alone['dice']:.3f}"
    together = f"; together at timestep {joined['timestep']}, {joined['dice']:.3f}" if joined else ""
    targets = report["targets"]
    return "\n".join([
        f"# Decoder blocks and timesteps: {report['dataset']}", "",
        "Dice per image of a logistic regression on the pixels of one block at one timestep "
        f"({settings['backbone'] or settings['checkpoint']}), trained on {settings['images']} labelled images, "
        f"tested on {report['tested']} of held-out groups; mean +- standard deviation over {settings['seeds']} draws "
        f"of the labelled images. {'Mean of the targets' if len(targets) > 1 else 'Target'}: {', '.join(targets)}.", "",
        "![Dice by decoder block and timestep](blocks.png)", "",
        markdown_table(["block", "channels and scale", *map(str, steps)],
                       [[*name, *values] for name, values in lines.items()]), "",
        f"{best}{together}.", "",
    ])  # fmt: skip
