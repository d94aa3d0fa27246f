"""A sheet of synthetic images, one row per dataset folder, from sources that training never saw.

    python docs/contact_sheet.py DATASET [DATASET ...] --out docs/synthetic.png

Columns: two images generated from edges and mask (the second with the mask's outline), two generated from the mask
alone.
`--real` puts the source and its control image in front, for looking at only: those are not for publishing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.splits import split_by_group
from emitdiff.images import overlay, resize_image
from emitdiff.synthesis.loading import load_synthesizer
from emitdiff.synthesis.pipeline import SynthesisPipeline
from emitdiff.synthesis.prompts import prompt_of
from emitdiff.synthesis_settings import SynthesisSettings

TILE, CAPTION = 200, 22


def chosen_samples(folder: Path, count: int):
    """`count` held-out samples with a target, spread over the dataset, each from another group."""
    dataset = open_dataset(folder)
    kept = split_by_group(dataset)[1]
    found = {}
    for index in range(len(kept)):
        sample = kept[index]
        if sample.mask.mean() > 0.01:
            found.setdefault(sample.group, sample)
    samples = list(found.values())
    return dataset.info, [samples[i] for i in np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)]


def row_of(pipeline: SynthesisPipeline, info, sample, seed: int, real: bool) -> np.ndarray:
    prompt = prompt_of(info, sample.mask, sample.finding)
    settings = SynthesisSettings(prompt, num_images=2, seed=seed)
    guided = [one.image for one in pipeline(sample.image, sample.mask, settings)]
    free = [one.image for one in pipeline(None, sample.mask, settings)]
    pictures = [guided[0], overlay(guided[1], sample.mask, 0.0), *free]
    if real:
        pictures = [sample.image, pipeline.control_image(sample.image, sample.mask), *pictures]
    tiles = [resize_image(picture, (TILE, TILE)) for picture in pictures]
    row = Image.fromarray(np.concatenate(tiles, axis=1))
    captioned = Image.new("RGB", (row.width, row.height + CAPTION), "white")
    captioned.paste(row, (0, CAPTION))
    ImageDraw.Draw(captioned).text((6, 5), prompt, fill="black")
    return np.asarray(captioned)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint", default="emitdiff-mini")
    parser.add_argument("--rows", type=int, default=1, help="rows per dataset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", action="store_true", help="put the real source in front")
    arguments = parser.parse_args()
    pipeline = load_synthesizer(arguments.checkpoint)
    rows = []
    for folder in arguments.datasets:
        info, samples = chosen_samples(folder, arguments.rows)
        rows += [row_of(pipeline, info, sample, arguments.seed, arguments.real) for sample in samples]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
