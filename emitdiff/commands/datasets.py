"""The commands of dataset folders: check-dataset, augment, filter, export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from emitdiff.commands.arguments import (
    SEGMENTATION_WEIGHTS_HELP,
    ControlStrength,
    Count,
    Dataset,
    GuidanceScale,
    NewFolder,
    PresetName,
    SamplingSteps,
    Split,
    SynthesisWeights,
)
from emitdiff.commands.io import label_predictor_for, say


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
    """Generate a dataset folder of synthetic images from a real one; a rerun resumes where it stopped.

    Under `accelerate launch -m emitdiff augment ...` each process generates its share.
    """

    dataset: Dataset
    out: NewFolder
    ratio: float = 1.0  # Synthetic images per real image; 0.5: one for every other image.
    checkpoint: SynthesisWeights = "emitdiff-mini"
    split: Split = "all"  # train: exclude the held-out fifth of the groups; held-out: only that.
    limit: Count = None  # Maximum number of real images.
    seed: int = 0  # Base seed; every image and variant derives its own.
    steps: SamplingSteps = None
    guidance: GuidanceScale = None
    control_strength: ControlStrength = None
    structure: float = 1.0  # 1: all edges, 0.5: mask only.
    preset: PresetName = "default"
    edit: float = 0.0  # Strength of random shifts, rotations, scalings and deformations of the mask, 0 to 1.
    appearance: bool = False  # Add random appearance words, like "dark" or "noisy", to each prompt.
    include_real: bool = False  # Also copy the real images to OUT.

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
    """Score synthetic images against their sources, copy those that pass, and write quality.csv and an HTML report."""

    synthetic: Positional[Annotated[Path, arg(metavar="SYNTHETIC", help="Dataset folder that `augment` wrote.")]]
    real: Positional[Annotated[Path, arg(metavar="REAL", help="Dataset folder the images were generated from.")]]
    out: NewFolder
    segmenter: Annotated[str, arg(metavar="NAME", help=f"{SEGMENTATION_WEIGHTS_HELP} none: no segmenter.")] = (
        "textdiff-mini"
    )
    min_edges: float = 0.6  # Minimum F1 between control edges and image edges.
    min_dice: float = 0.7  # Minimum Dice of the segmenter with the mask, relative to its Dice on the source.
    max_histogram: float = 12.0  # Maximum Wasserstein distance in grey levels to the nearest real histogram.
    max_copy: float = 0.96  # Maximum similarity to any real image, mirrored or not; 1 is identical.
    # Near-duplicates: maximum similarity to an earlier image of the same source.
    max_duplicate: Annotated[float, arg(aliases=["--max-twin"])] = 0.96

    def run(self) -> int:
        from emitdiff.synthesis.filtering.run import filter_images
        from emitdiff.synthesis.filtering.scoring import Filter as Settings

        settings = {name: value for name, value in vars(self).items() if name != "segmenter"}
        kept = filter_images(Settings(**settings), label_predictor_for(self.segmenter, self.synthetic))
        where = f"{self.out / 'report.html'} and quality.csv list the reasons"
        if kept is None:
            print(f"No image passes the filter: {where}, and {self.out} holds no dataset")
        else:
            painted = sum(bool(row["score_copy"]) for row in kept.rows)
            print(f"{painted} synthetic images are kept in {self.out}; {where}")
        return 0


@dataclass(frozen=True)
class Export:
    """Write a dataset folder in the layout of nnU-Net v2, MONAI, COCO, or as paired folders; folds are split by
    group."""

    dataset: Dataset
    out: NewFolder
    format: Literal["nnunet", "monai", "coco", "paired"]  # nnunet: OUT is nnUNet_raw and receives Dataset501_NAME.
    folds: int = 5  # Folds of cross-validation, on real images only; 0 for none.
    seed: int = 0  # Seed of the folds.
    dataset_id: int = 501  # Dataset number for nnU-Net.

    def run(self) -> int:
        from emitdiff.datasets.export import Export as Settings
        from emitdiff.datasets.export import export

        written = export(Settings(**vars(self)))
        for note in written.notes:
            say(note)
        print(f"{written.images} images are in {written.folder}")
        return 0
