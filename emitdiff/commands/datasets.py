"""The verbs of dataset folders: check-dataset, augment, filter, export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from emitdiff.commands.arguments import FINDER, Count, Dataset, NewFolder, Preset, Split, Strength, SynthesisWeights
from emitdiff.commands.io import answers, say


@dataclass(frozen=True)
class CheckDataset:
    """Count the classes of a dataset folder and list every defect; exit status 1 where there are any."""

    folder: Dataset

    def run(self) -> int:
        from emitdiff.datasets.check import check_dataset

        report = check_dataset(self.folder)
        print(report)
        return 0 if report.ok else 1


@dataclass(frozen=True)
class Augment:
    """Paint a dataset folder of synthetic images from a real one; started again, it goes on where it stopped.

    Under `accelerate launch -m emitdiff augment ...` each process paints its share.
    """

    dataset: Dataset
    out: NewFolder
    ratio: float = 1.0  # Synthetic images per real one; 0.5 paints one from every other image.
    checkpoint: SynthesisWeights = "emitdiff-mini"
    split: Split = "all"  # train: leave out the fifth of the groups that training never sees; held-out: only that.
    limit: Count = None  # At most so many real images.
    seed: int = 0  # Every image and variant gets a seed of its own from this one.
    steps: Count = None  # Sampling steps; without it, what suits the checkpoint or preset, like the two below.
    guidance: Strength = None  # How strongly the prompt counts.
    control_strength: Strength = None  # How strongly the edges count.
    structure: float = 1.0  # 1 follows every edge, 0.5 only the mask.
    preset: Preset = "default"
    edit: float = 0.0  # Move, turn, scale and deform mask and edges at random: strength from 0 (not) to 1.
    appearance: bool = False  # Draw appearance words, like "dark" or "noisy", into each prompt.
    include_real: bool = False  # Copy the real images into OUT too.

    def run(self) -> int:
        from emitdiff.synthesis.augmentation import Augment as Settings
        from emitdiff.synthesis.augmentation import augment

        written = augment(Settings(**vars(self)))
        if written is not None:
            painted = sum(bool(row["provenance"]) for row in written.rows)
            print(f"{painted} synthetic and {len(written) - painted} real images are in {self.out}")
        return 0


@dataclass(frozen=True)
class Filter:
    """Score synthetic images beside their sources, copy the good ones, and write quality.csv and a report page."""

    synthetic: Positional[Annotated[Path, arg(metavar="SYNTHETIC", help="Dataset folder that `augment` wrote.")]]
    real: Positional[Annotated[Path, arg(metavar="REAL", help="Dataset folder the images were painted from.")]]
    out: NewFolder
    segmenter: Annotated[str, arg(metavar="NAME", help=f"{FINDER} none: no segmenter.")] = "textdiff-mini"
    min_edges: float = 0.6  # F1 of the edges requested and the edges found.
    min_dice: float = 0.7  # Dice of the segmenter's answer and the mask, as a share of its Dice on the source.
    max_histogram: float = 12.0  # Grey levels between its histogram and the nearest real image's.
    max_copy: float = 0.96  # Similarity to the nearest real image, mirrored or not; 1 is the same.
    max_twin: float = 0.96  # Near-duplicates: similarity to an earlier one of the same source.

    def run(self) -> int:
        from emitdiff.synthesis.filtering.run import filter_images
        from emitdiff.synthesis.filtering.scoring import Filter as Settings

        settings = {name: value for name, value in vars(self).items() if name != "segmenter"}
        kept = filter_images(Settings(**settings), answers(self.segmenter, self.synthetic))
        where = f"{self.out / 'report.html'} and quality.csv say why"
        if kept is None:
            print(f"No image is good enough: {where}, and {self.out} holds no dataset")
        else:
            painted = sum(bool(row["score_copy"]) for row in kept.rows)
            print(f"{painted} synthetic images are kept in {self.out}; {where}")
        return 0


@dataclass(frozen=True)
class Export:
    """Write a dataset folder in the layout of nnU-Net v2, MONAI, COCO, or as paired folders; folds go by group."""

    dataset: Dataset
    out: NewFolder
    format: Literal["nnunet", "monai", "coco", "paired"]  # nnunet: OUT is nnUNet_raw, Dataset501_NAME goes into it.
    folds: int = 5  # Folds of cross-validation, on real images only; 0 for none.
    seed: int = 0  # Seed of the folds.
    dataset_id: int = 501  # nnU-Net's number of the dataset.

    def run(self) -> int:
        from emitdiff.datasets.export import Export as Settings
        from emitdiff.datasets.export import export

        written = export(Settings(**vars(self)))
        for note in written.notes:
            say(note)
        print(f"{written.images} images are in {written.folder}")
        return 0
