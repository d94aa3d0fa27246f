"""Memorization: nearest training images of samples and of held-out real images.

Per dataset, images are generated from held-out sources (every edge) and from held-out masks alone. For each, and for
the real held-out images, the most similar training image is sought by the one similarity that the filter uses too
(`emitdiff.synthesis.similarity`: blind to brightness, contrast and mirroring). If samples are copies, they come
closer to the training images than images of other patients do.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from emitdiff.datasets.folder import DatasetFolder, open_dataset, read_image
from emitdiff.datasets.splits import split_by_group
from emitdiff.errors import EmitDiffError
from emitdiff.files import file_stem, write_atomically, write_text
from emitdiff.images import resize_image
from emitdiff.studies.results_table import open_study
from emitdiff.synthesis.loading import load_synthesizer
from emitdiff.synthesis.pipeline import SynthesisPipeline
from emitdiff.synthesis.prompts import prompt_of
from emitdiff.synthesis.similarity import Gallery, Match, comparison_view
from emitdiff.synthesis_settings import SynthesisSettings

KINDS = {"real": "real images held out", "edges": "generated, every edge", "outline": "generated, mask alone"}
# what the autoencoder makes of a training image reaches .97 to 1.0, images of two patients up to .88
COPY_THRESHOLD = 0.96
PAIRS = 8  # nearest pairs of each kind, on the sheet and in copies.json
TILE = 176  # pixels of a picture on the sheet


@dataclass(frozen=True)
class Memorization:
    """Settings of `study_memorization`: `samples` of each of the two generated kinds for each dataset; with `minutes`,
    generating stops after that long, and whatever is there is measured."""

    datasets: tuple[Path, ...]
    out: Path
    checkpoint: str = "emitdiff-mini"
    samples: int = 500
    minutes: float | None = None
    seed: int = 0
    json: bool = False


@dataclass(frozen=True)
class Split:
    """One dataset as the checkpoint's training cut it, synthetic rows left out. `orders` says for each generated kind
    from which of the held-out rows, one after the other; for outlines only those whose mask holds something."""

    name: str
    train: DatasetFolder
    held: DatasetFolder
    orders: dict[str, list[int]]


@dataclass(frozen=True)
class Pair:
    """An image, where it is or what it was generated from, and the training image most like it."""

    path: Path
    source: str
    training: str
    match: Match


def study_memorization(settings: Memorization) -> dict:
    """Generates what is missing, measures, prints a table; writes copies.json and a sheet of the nearest pairs a
    dataset.

    Returns, per dataset, the statistics of each of `KINDS`.

    Raises:
        EmitDiffError: unreadable datasets, an unknown checkpoint, or an `out` started with other settings.
    """
    opened = [open_dataset(folder) for folder in settings.datasets]
    pipeline = load_synthesizer(settings.checkpoint)
    splits = [cut(dataset, pipeline, settings.seed) for dataset in opened]
    if len({split.name for split in splits}) < len(splits):
        raise EmitDiffError("Two of the datasets have one name; give each its own name in dataset.json.")
    weights = hashlib.sha256(json.dumps(pipeline.card, sort_keys=True).encode()).hexdigest()[:16]
    record = {"study": "copies", "checkpoint": settings.checkpoint, "weights": weights, "seed": settings.seed}
    out = open_study(settings.out, record, {settings.checkpoint: pipeline.weights} if pipeline.weights else {}, opened)
    generate_all(splits, pipeline, settings)
    result = {}
    for split in splits:
        pairs = nearest_pairs(split, out, settings)
        result[split.name] = {kind: statistics(pairs[kind], pairs["real"]) for kind in KINDS if pairs[kind]}
        write_sheet(out / f"nearest_{split.name}.png", split, pairs)
        print_table(split, result[split.name])
    content: dict[str, Any] = {"settings": {**asdict(settings), **record, "datasets": [split.name for split in splits]}}
    content |= {"copy_from": COPY_THRESHOLD, "datasets": result}
    write_text(out / "copies.json", json.dumps(content, indent=1, default=str) + "\n")
    print(f"Look at the nearest pairs: {', '.join(f'{out}/nearest_{split.name}.png' for split in splits)}")
    if settings.json:
        print(json.dumps(result, default=str))
    return result


def cut(dataset: DatasetFolder, pipeline: SynthesisPipeline, seed: int) -> Split:
    """Training and held-out rows, as the checkpoint records its split."""
    training = pipeline.checkpoint_card.training
    real = dataset.real()
    train, held = split_by_group(real, training.get("held_out", 0.2), training.get("split_seed", 0))
    order = np.random.default_rng(seed).permutation(len(held)).tolist()
    outlined = [index for index in order if held[index].mask.any()]
    return Split(file_stem(dataset.info.name), train, held, {"edges": order, "outline": outlined})


def generate_all(splits: list[Split], pipeline: SynthesisPipeline, settings: Memorization) -> None:
    """Generates the samples that are not there yet, kinds and datasets in turn, until `minutes` are over."""
    ends = time.monotonic() + 60 * settings.minutes if settings.minutes else float("inf")
    jobs = [(index, split, kind) for index in range(settings.samples) for split in splits for kind in KINDS
            if kind != "real"]  # fmt: skip
    left = [job for job in jobs if not sample_path(settings.out, job[1], job[2], job[0]).exists()]
    for index, split, kind in tqdm(left, "painting", len(jobs), initial=len(jobs) - len(left), unit="image"):
        if time.monotonic() > ends:
            print(f"{settings.minutes:g} minutes are over. The same command resumes from here.")
            return
        if chosen := split.orders[kind]:
            generate_sample(split, kind, chosen[index % len(chosen)], index, pipeline, settings)


def sample_path(out: Path, split: Split, kind: str, index: int) -> Path:
    """Where sample `index` of a kind lies."""
    return Path(out) / split.name / kind / f"synthetic_{index:04d}.webp"


def generate_sample(
    split: Split, kind: str, row: int, index: int, pipeline: SynthesisPipeline, settings: Memorization
) -> None:
    """Generates one sample, with a seed of its own; the file is there whole or not at all."""
    sample = split.held[row]
    prompt = prompt_of(split.held.info, sample.mask, sample.finding)
    image = sample.image if kind == "edges" else None
    asked = SynthesisSettings(prompt, num_images=1, seed=settings.seed + index)
    (painted,) = pipeline(image, sample.mask, asked)
    path = sample_path(settings.out, split, kind, index)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda partial: Image.fromarray(painted.image).save(partial, "WEBP", lossless=True))


def nearest_pairs(split: Split, out: Path, settings: Memorization) -> dict[str, list[Pair]]:
    """Every image of every kind with the training image nearest to it, most similar first."""
    shown = tqdm(split.train, desc=f"looking at {split.name}", unit="image", delay=2)
    gallery = Gallery(np.stack([comparison_view(sample.image) for sample in shown]))
    pairs = {}
    for kind in KINDS:
        found = []
        for path, source in _files(split, kind, out, settings):
            match = gallery.nearest(comparison_view(read_image(path)))
            found.append(Pair(path, source, split.train.rows[match.index]["file_name"], match))
        pairs[kind] = sorted(found, key=lambda pair: -pair.match.similarity)
    return pairs


def _files(split: Split, kind: str, out: Path, settings: Memorization) -> Iterator[tuple[Path, str]]:
    """The path of each image of a kind, and the row it comes from."""
    if kind == "real":
        yield from ((split.held.path(row["file_name"]), row["file_name"]) for row in split.held.rows)
        return
    order = split.orders[kind]
    for index in range(settings.samples):
        path = sample_path(out, split, kind, index)
        if path.exists():
            yield path, split.held.rows[order[index % len(order)]]["file_name"]


def statistics(pairs: list[Pair], real: list[Pair]) -> dict:
    """Percentiles of the similarity to the nearest training image, how many are closer than any real image held out,
    and how many are copies; `nearest` names the closest pairs."""
    values = np.array([pair.match.similarity for pair in pairs])
    percentiles = {f"p{part}": round(float(np.percentile(values, part)), 4) for part in (1, 50, 99)}
    closer = values > max(pair.match.similarity for pair in real)
    nearest = [
        {"file": str(pair.path), "source": pair.source, "similarity": round(pair.match.similarity, 4),
         "training": pair.training, "mirrored": pair.match.mirrored}
        for pair in pairs[:PAIRS]
    ]  # fmt: skip
    counts = {"closer_than_real": int(closer.sum()), "copies": int((values >= COPY_THRESHOLD).sum())}
    return {"n": len(pairs), **percentiles, "max": round(float(values.max()), 4), **counts, "nearest": nearest}


def print_table(split: Split, result: dict) -> None:
    """One line a kind."""
    print(f"\n{split.name}: similarity to the nearest of {len(split.train)} training images (1 is the same)")
    columns = ("n", "p1", "p50", "p99", "max", "closer_than_real", "copies")
    print(f"  {'':22}" + "".join(f"{name.replace('_', ' '):>{max(9, len(name) + 2)}}" for name in columns))
    for kind, row in result.items():
        cells = (f"{row[name]:.3f}" if isinstance(row[name], float) else str(row[name]) for name in columns)
        cells_padded = (f"{cell:>{max(9, len(name) + 2)}}" for cell, name in zip(cells, columns, strict=True))
        print(f"  {KINDS[kind]:22}" + "".join(cells_padded))


def write_sheet(path: Path, split: Split, pairs: dict[str, list[Pair]]) -> None:
    """The nearest pairs of every kind side by side: image left, training image right, mirrored where that is nearer."""
    kinds = [kind for kind in KINDS if pairs[kind]]
    rows, width, head = max(len(pairs[kind][:PAIRS]) for kind in kinds), 2 * TILE + 28, 44
    sheet = Image.new("RGB", (width * len(kinds) + 12, head + rows * (TILE + 26)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for column, kind in enumerate(kinds):
        left = 12 + column * width
        draw.text((left, 12), f"{KINDS[kind]} | nearest training image", "black", font)
        for place, pair in enumerate(pairs[kind][:PAIRS]):
            top = head + place * (TILE + 26)
            nearest = split.train[pair.match.index].image
            pictures = read_image(pair.path), nearest[:, ::-1] if pair.match.mirrored else nearest
            for side, picture in enumerate(pictures):
                sheet.paste(_tile(picture), (left + side * (TILE + 4), top))
            caption = f"{pair.match.similarity:.3f}{', mirrored' if pair.match.mirrored else ''}"
            draw.text((left, top + TILE + 3), caption, "black", font)
    write_atomically(path, lambda partial: sheet.save(partial, "PNG"))


def _tile(picture: np.ndarray) -> Image.Image:
    """The picture on a square, its aspect ratio kept."""
    scale = TILE / max(picture.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in picture.shape[:2])
    tile = Image.new("RGB", (TILE, TILE), "#dddddd")
    tile.paste(Image.fromarray(np.ascontiguousarray(resize_image(picture, size))), (0, 0))
    return tile
