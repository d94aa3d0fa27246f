"""The command `study` and the studies it knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from emitdiff.commands.arguments import (
    SPLIT_COLUMN_HELP,
    Backbone,
    Count,
    Dataset,
    Datasets,
    Folder,
    JsonLine,
    Method,
    Mix,
    Network,
    Output,
    SegmentationWeights,
    Strength,
    SynthesisWeights,
)
from emitdiff.commands.io import require_datasets


@dataclass(frozen=True)
class Utility:
    """Train a segmenter on synthetic images, test on real ones, and compare with training on real images."""

    dataset: Dataset
    # Folder for results.csv, report.md, report.json and what is generated; a rerun resumes where it stopped.
    out: Output
    checkpoint: SynthesisWeights = "emitdiff-mini"
    synthetic: Folder = None  # Folder that `augment` wrote; without it, images are generated into OUT/synthetic.
    # Training sets, joined by +: real, synthetic; classical adds flips, rotation, scale and contrast.
    arms: tuple[str, ...] = ("real", "synthetic")
    # Images generated from each real one, 1 if not given; of --synthetic, at most so many, else all.
    ratio: Count = None
    limit: Count = None  # Maximum number of training images; all arms use the same ones.
    network: Network = "unet"  # Which segmenter is trained.
    steps: int = 300  # Training steps of every arm and seed.
    resolution: int = 128  # Side of the training images in pixels, a multiple of 32.
    seeds: int = 3  # How often each arm is trained, with seeds 0, 1, ...
    mix: Mix = "inputs"  # How real and synthetic are combined: merging mask on inputs or logits, or one pool.
    alpha: float = 0.6  # Fraction of real patches in the merging mask.
    patch: Count = None  # Patch size in pixels; default: a sixth of the resolution, as in the paper.
    json: JsonLine = False

    def run(self) -> int:
        from emitdiff.studies.utility import Utility as Settings
        from emitdiff.studies.utility import study_utility

        study_utility(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Steps:
    """Metrics and time over sampling steps, guidance scale and scheduler, on held-out images."""

    datasets: Datasets
    out: Output  # Folder for results.csv, report.md and report.json; a rerun resumes where it stopped.
    checkpoint: SynthesisWeights = "emitdiff-mini"
    steps: tuple[int, ...] = (4, 6, 8, 12, 20, 50)  # Sampling steps to try.
    guidance: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0)  # Guidance scales to try.
    schedulers: tuple[Literal["ddim", "unipc", "dpm++"], ...] = ("ddim",)  # Samplers to try.
    limit: int = 4  # Images of each dataset, spread evenly over its held-out groups; two are generated from each.
    seed: int = 0  # Seed of the images generated; the same for every setting.
    json: JsonLine = False

    def run(self) -> int:
        require_datasets(self.datasets)
        from emitdiff.studies.sampling_steps import Steps as Settings
        from emitdiff.studies.sampling_steps import study_steps

        study_steps(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Copies:
    """Test for memorization: compare samples and held-out real images with their nearest training images."""

    datasets: Datasets
    # Folder for copies.json, sheets of the nearest pairs and what is generated; a rerun resumes where it stopped.
    out: Output
    checkpoint: SynthesisWeights = "emitdiff-mini"
    samples: int = 500  # Images generated per dataset from held-out edges, and as many from masks alone.
    minutes: Strength = None  # Stop generating after this time and evaluate what exists.
    seed: int = 0  # Sample i uses this + i.
    json: JsonLine = False

    def run(self) -> int:
        require_datasets(self.datasets)
        from emitdiff.studies.memorization import Memorization as Settings
        from emitdiff.studies.memorization import study_memorization

        study_memorization(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Blocks:
    """Compare decoder blocks and timesteps of a backbone by linear probing; draws a heat map."""

    dataset: Dataset
    out: Output  # Folder for results.csv, blocks.png, report.md and report.json; a rerun resumes where it stopped.
    checkpoint: SegmentationWeights = "textdiff-mini"
    backbone: Backbone = None
    blocks: tuple[int, ...] = ()  # Decoder blocks, numbered from 0; without it, all.
    timesteps: tuple[int, ...] = (0, 20, 50, 100, 150, 250, 500)  # Timesteps (noise levels).
    images: int = 20  # Labelled training images per probe.
    test: int = 20  # Maximum number of held-out test images.
    seeds: int = 3  # Draws of the labelled images.
    resolution: int = 256  # Short side of the images in pixels.
    json: JsonLine = False

    def run(self) -> int:
        from emitdiff.studies.blocks import Blocks as Settings
        from emitdiff.studies.blocks import study_blocks

        study_blocks(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Labels:
    """Label efficiency: few-shot heads and U-Nets trained on the same few labelled images, repeatedly drawn."""

    datasets: Datasets
    out: Output  # Folder for results.csv, labels.png, report.md and report.json; a rerun resumes where it stopped.
    images: tuple[int, ...] = (5, 10, 20)  # Numbers of labelled images.
    draws: int = 5  # How often each is drawn; draw and training have seed 0, 1, ...
    arms: tuple[Literal["ours", "unet", "attention-unet"], ...] = ("ours", "unet", "attention-unet")  # What to compare.
    texts: tuple[Literal["own", "none", "shuffled"], ...] = ("own", "none", "shuffled")  # Sentences for ours.
    checkpoint: SegmentationWeights = "textdiff-mini"
    backbone: Backbone = None
    steps: int = 1000  # Training steps of each network.
    batch: int = 4  # Batch size of the networks.
    learning_rate: float = 3e-3  # Learning rate of the networks, cosine schedule.
    seconds: float = 300.0  # Maximum training time of ours.
    resolution: int = 256  # Side to which all images are resized, a multiple of 32.
    split_column: Annotated[str | None, arg(metavar="NAME", help=SPLIT_COLUMN_HELP, help_behavior_hint="")] = None
    folds: Count = None  # Folds by group instead of a fifth held out, so that every image is tested once.
    test_limit: Count = None  # Maximum number of test images per fold.
    # Datasets whose sentences were derived from their masks, noted in the report.
    derived: Annotated[tuple[str, ...], arg(metavar="[NAME ...]")] = ()
    json: JsonLine = False

    def run(self) -> int:
        require_datasets(self.datasets)
        from emitdiff.studies.labels import Labels as Settings
        from emitdiff.studies.labels import study_labels

        study_labels(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Augmentation:
    """EMIT-Diff's study: segmenters trained with and without painted images and classical augmentation, by folds."""

    datasets: Datasets
    out: Output  # Folder for results.csv, the measures of every case, painted images and reports; a rerun resumes.
    # What is done to the training images; painted adds painted ones, painted-only leaves out the real ones.
    methods: tuple[Method, ...] = ("none", "classical", "painted", "classical+painted", "painted-only")
    network: tuple[Network, ...] = ("unet",)  # Which segmenters are trained.
    # Numbers of labelled images, each part of the next, or all; a fifth of their groups chooses the epoch.
    images: tuple[str, ...] = ("10", "20", "50", "all")
    folds: int = 3  # Folds by group; every tested group is tested once.
    seeds: int = 3  # How often each run is repeated, with seeds 0, 1, ...
    steps: int = 600  # Training steps of every run.
    batch: int = 8  # Images of a step.
    learning_rate: float = 1e-3  # Learning rate, cosine schedule.
    resolution: int = 128  # Side of the training images in pixels, a multiple of 32.
    validations: int = 10  # How often the validation part is looked at; the best of them is kept.
    checkpoint: SynthesisWeights = "emitdiff-mini"
    ratio: int = 4  # Images painted from each labelled one.
    # Maximum number of painted images of a budget; beyond it, only its first images are painted from.
    painted_limit: int = 400
    edit: float = 0.5  # Strength of random mask edits before painting, from 0 (none) to 1.
    real_share: float = 0.5  # Fraction of each batch that is real where real and painted images are mixed.
    # Which groups are tested on: those the synthesis weights were not trained on, or all.
    tested: Literal["unseen", "all"] = "unseen"
    workers: int = 1  # Processes that train at the same time.
    json: JsonLine = False

    def run(self) -> int:
        require_datasets(self.datasets)
        from emitdiff.studies.augmentation.runs import Augmentation as Settings
        from emitdiff.studies.augmentation.study import study_augmentation

        study_augmentation(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Report:
    """Tables and one HTML page of what `study augmentation` has found so far, with intervals and tests."""

    # Folder of the study; receives report.md, report.html, report.json and augmentation.png.
    folder: Positional[Annotated[Path, arg(metavar="DIR")]]
    json: JsonLine = False

    def run(self) -> int:
        from emitdiff.studies.augmentation.report import Report as Settings
        from emitdiff.studies.augmentation.report import report_study

        report_study(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Advise:
    """Whether painted images help on your dataset: cross-validated at equal steps, ends in one sentence."""

    dataset: Dataset
    out: Output  # Folder for the runs, their report and advice.json; a rerun resumes where it stopped.
    images: Count = None  # Number of labelled images to learn from; default: all.
    minutes: float = 20.0  # Time for all of it on this machine; folds, steps and painted images follow from it.
    classical: bool = True  # Compare without classical augmentation; default: both arms have it.
    checkpoint: SynthesisWeights = "emitdiff-mini"
    ratio: int = 4  # Images painted from each labelled one, fewer where time is short.
    edit: float = 0.5  # Strength of random mask edits before painting, from 0 (none) to 1.
    resolution: int = 128  # Side of the training images in pixels, a multiple of 32.
    workers: int = 1  # Processes that train at the same time.
    json: JsonLine = False

    def run(self) -> int:
        from emitdiff.studies.advice import Advise as Settings
        from emitdiff.studies.advice import advise

        advise(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Study:
    """Experiments on dataset folders, one result row per run; reruns resume."""

    study: Utility | Augmentation | Report | Steps | Copies | Blocks | Labels

    def run(self) -> int:
        return self.study.run()
