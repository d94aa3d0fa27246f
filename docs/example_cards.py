"""Generates the images of the example cards and of the example dataset again, from images that training never saw.

    python docs/example_cards.py FOLDER

`FOLDER` holds the dataset folders cxr_shenzhen, ct_liver, cardiac_sunnybrook, prostate_promise12, busi and dsb2018. The
mask of each image is turned, scaled and deformed before, so that neither image nor mask is that of a patient.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from emitdiff.datasets.folder import Sample, open_dataset
from emitdiff.datasets.splits import split_by_group
from emitdiff.images import resize_image
from emitdiff.provenance import save_synthetic_png
from emitdiff.synthesis.loading import load_synthesizer
from emitdiff.synthesis.pipeline import SynthesisPipeline
from emitdiff.synthesis.prompts import prompt_of
from emitdiff.synthesis_settings import MaskEdit, SynthesisSettings
from emitdiff.ui.examples import FOLDER, SAMPLES

STEPS = 12
SHORT_SIDE = 256
# Where it goes, the dataset folder, which of its held-out groups (by name, those with a target), and the seed.
CARDS = {
    "painted_chest_xray": ("cxr_shenzhen", 1, 10), "painted_abdominal_ct": ("ct_liver", 1, 11),
    "painted_cardiac_mri": ("cardiac_sunnybrook", 1, 10), "painted_prostate_mri": ("prostate_promise12", 4, 40),
    "painted_breast_ultrasound": ("busi", 1, 11), "painted_nuclei": ("dsb2018", 6, 60),
}  # fmt: skip
DATASET = {"painted_0": ("busi", 0, 0), "painted_1": ("busi", 1, 10), "painted_2": ("busi", 3, 30),
           "painted_3": ("busi", 6, 60)}  # fmt: skip
CHOICES, LEAST = 8, 0.02


@cache
def held_out(folder: Path) -> tuple[object, list[Sample]]:
    """The dataset's description, and of up to eight held-out groups the sample that shows most of the target."""
    dataset = open_dataset(folder)
    largest: dict[str, Sample] = {}
    for sample in split_by_group(dataset)[1]:
        if sample.mask.mean() > max(LEAST, largest[sample.group].mask.mean() if sample.group in largest else 0):
            largest[sample.group] = sample
    samples = [largest[group] for group in sorted(largest)]
    spread = np.linspace(0, len(samples) - 1, min(CHOICES, len(samples))).astype(int)
    return dataset.info, [samples[index] for index in spread]


def generate(pipeline: SynthesisPipeline, folder: Path, which: int, seed: int) -> tuple[np.ndarray, np.ndarray, dict]:
    """An image uint8 (H, W, 3), its mask (H, W) of 0 and 255, and how it was made."""
    info, samples = held_out(folder)
    image, mask = samples[which].image, samples[which].mask
    factor = max(1, SHORT_SIDE / min(mask.shape))
    size = tuple(round(side * factor) for side in mask.shape)
    image, mask = resize_image(image, size), cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)
    rng = np.random.default_rng(which)
    edit = MaskEdit(scale=rng.uniform(0.93, 1.07), rotate=rng.uniform(-4, 4), deform=0.3, seed=which)
    prompt = prompt_of(info, mask, samples[which].finding)
    settings = SynthesisSettings(prompt, num_images=1, seed=seed, edit=edit, num_inference_steps=STEPS)
    (made,) = pipeline(image, mask, settings)
    return made.image, without_holes(made.mask), made.settings


def without_holes(mask: np.ndarray) -> np.ndarray:
    """uint8 (H, W), 0 and 255: the target, its small gaps filled and its outline smooth."""
    drawn = cv2.morphologyEx((mask > 0).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    outlines, _ = cv2.findContours(drawn, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(drawn), outlines, -1, 255, cv2.FILLED)


def write(image: np.ndarray, mask: np.ndarray, settings: dict, path: Path, mask_path: Path) -> None:
    os.replace(save_synthetic_png(image, path, settings), path)
    Image.fromarray(mask).save(mask_path, optimize=True)
    print(path, image.shape)


def main(folder: Path) -> None:
    pipeline = load_synthesizer("emitdiff-mini")
    for name, (dataset, which, seed) in CARDS.items():
        write(*generate(pipeline, folder / dataset, which, seed), FOLDER / f"{name}.png", FOLDER / f"{name}_mask.png")
    for name, (dataset, which, seed) in DATASET.items():
        made = generate(pipeline, folder / dataset, which, seed)
        write(*made, SAMPLES / "images" / f"{name}.png", SAMPLES / "masks" / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
