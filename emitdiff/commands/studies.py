"""The verb `study` and the studies it knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from emitdiff.commands.arguments import (
    SIDES,
    Backbone,
    Count,
    Dataset,
    Datasets,
    Folder,
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
    """Train a segmenter on synthetic images, test it on real ones: does it match one trained on the real images?"""

    dataset: Dataset
    out: Output  # Folder for results.csv, report.md, report.json and what is painted; started again, it goes on.
    checkpoint: SynthesisWeights = "emitdiff-mini"
    synthetic: Folder = None  # Folder that `augment` wrote; without it, images are painted into OUT/synthetic.
    # Sets of images, joined by +: real, synthetic; classical adds mirror, rotation, scale and contrast.
    arms: tuple[str, ...] = ("real", "synthetic")
    ratio: Count = None  # Images painted from each real one, 1 if not given; of --synthetic, at most so many, else all.
    limit: Count = None  # Paint from at most so many training images; every arm then rests on these alone.
    network: Network = "unet"  # Which segmenter is trained.
    steps: int = 300  # Training steps of every arm and seed.
    resolution: int = 128  # Side of the training images in pixels, a multiple of 32.
    seeds: int = 3  # How often each arm is trained, with seeds 0, 1, ...
    mix: Mix = "inputs"  # How real and synthetic join in one arm: merging mask on inputs or logits, or one pool.
    alpha: float = 0.6  # Share of real squares in the merging mask.
    patch: Count = None  # Side of its squares in pixels; without it, a sixth of the resolution, as in the paper.
    json: bool = False  # Print one JSON object as the last line.

    def run(self) -> int:
        from emitdiff.studies.utility import Utility as Settings
        from emitdiff.studies.utility import study_utility

        study_utility(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Steps:
    """Tabulate sampling steps, guidance and schedulers against measures and time, on held-out images."""

    datasets: Datasets
    out: Output  # Folder for results.csv, report.md and report.json; started again, it goes on.
    checkpoint: SynthesisWeights = "emitdiff-mini"
    steps: tuple[int, ...] = (4, 6, 8, 12, 20, 50)  # Sampling steps to try.
    guidance: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0)  # Guidance scales to try.
    schedulers: tuple[Literal["ddim", "unipc", "dpm++"], ...] = ("ddim",)  # Samplers to try.
    limit: int = 4  # Images of each dataset, spread evenly over its held-out groups; two are painted from each.
    seed: int = 0  # Seed of the images painted; the same for every setting.
    json: bool = False  # Print one JSON object as the last line.

    def run(self) -> int:
        require_datasets(self.datasets)
        from emitdiff.studies.sampling_steps import Steps as Settings
        from emitdiff.studies.sampling_steps import study_steps

        study_steps(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Copies:
    """Compare samples, and real images kept out, with the training images most like them: is anything repeated?"""

    datasets: Datasets
    out: Output  # Folder for copies.json, sheets of the nearest pairs and what is painted; started again, it goes on.
    checkpoint: SynthesisWeights = "emitdiff-mini"
    samples: int = 500  # Images painted from kept-out edges, and as many from masks alone, for each dataset.
    minutes: Strength = None  # Stop painting after that long and measure what is there.
    seed: int = 0  # Sample i uses this + i.
    json: bool = False  # Print one JSON object as the last line.

    def run(self) -> int:
        require_datasets(self.datasets)
        from emitdiff.studies.memorization import Copies as Settings
        from emitdiff.studies.memorization import study_copies

        study_copies(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Blocks:
    """Which decoder blocks and timesteps of a backbone find a dataset's labels best? A heat map, by a light probe."""

    dataset: Dataset
    out: Output  # Folder for results.csv, blocks.png, report.md and report.json; started again, it goes on.
    checkpoint: SegmentationWeights = "textdiff-mini"
    backbone: Backbone = None
    blocks: tuple[int, ...] = ()  # Decoder blocks, numbered from 0; without it, all.
    timesteps: tuple[int, ...] = (0, 20, 50, 100, 150, 250, 500)  # Noise levels to read at.
    images: int = 20  # Labelled images that each probe learns from.
    test: int = 20  # Images of held-out groups that it is measured on, at most.
    seeds: int = 3  # Draws of the labelled images.
    resolution: int = 256  # Short side of the images in pixels.
    json: bool = False  # Print one JSON object as the last line.

    def run(self) -> int:
        from emitdiff.studies.blocks import Blocks as Settings
        from emitdiff.studies.blocks import study_blocks

        study_blocks(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Labels:
    """How few labels are enough? A few-shot head and U-Nets on the same few labelled images, drawn repeatedly."""

    datasets: Datasets
    out: Output  # Folder for results.csv, labels.png, report.md and report.json; started again, it goes on.
    images: tuple[int, ...] = (5, 10, 20)  # Numbers of labelled images.
    draws: int = 5  # How often each is drawn; draw and training have seed 0, 1, ...
    arms: tuple[Literal["ours", "unet", "attention-unet"], ...] = ("ours", "unet", "attention-unet")  # What to compare.
    texts: tuple[Literal["own", "none", "shuffled"], ...] = ("own", "none", "shuffled")  # Sentences for ours.
    checkpoint: SegmentationWeights = "textdiff-mini"
    backbone: Backbone = None
    steps: int = 1000  # Training steps of each network.
    batch: int = 4  # Images in each of them.
    learning_rate: float = 3e-3  # Of the networks, falling to zero along a cosine.
    seconds: float = 300.0  # Time limit for training ours; it takes less where its recipe ends sooner.
    resolution: int = 256  # Side of the squares all images are brought to, a multiple of 32.
    split_column: Annotated[str | None, arg(metavar="NAME", help=SIDES, help_behavior_hint="")] = None
    folds: Count = None  # Folds by group instead of a fifth held out, so that every image is tested once.
    test_limit: Count = None  # At most so many test images, of each fold.
    # Names of datasets whose sentences were made from their masks: the report says so.
    derived: Annotated[tuple[str, ...], arg(metavar="[NAME ...]")] = ()
    json: bool = False  # Print one JSON object as the last line.

    def run(self) -> int:
        require_datasets(self.datasets)
        from emitdiff.studies.labels import Labels as Settings
        from emitdiff.studies.labels import study_labels

        study_labels(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Study:
    """Experiments on dataset folders, one result row a run; started again, they go on."""

    study: Utility | Steps | Copies | Blocks | Labels

    def run(self) -> int:
        return self.study.run()
