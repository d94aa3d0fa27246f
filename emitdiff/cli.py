"""`python -m emitdiff COMMAND`: a frozen dataclass per command, whose fields go to the function that does the work.

Nothing heavy is imported before a command runs, so that help is there at once.
"""

from __future__ import annotations

import math
import os
import sys
from functools import reduce
from operator import or_
from typing import Any

import tyro

from emitdiff.commands.datasets import Augment, CheckDataset, Export, Filter
from emitdiff.commands.hed import ConvertHed, EvaluateHed, TrainHed
from emitdiff.commands.importing import ImportDataset
from emitdiff.commands.inspection import Inspect
from emitdiff.commands.io import say
from emitdiff.commands.segmentation import (
    ConvertAdm,
    EvaluateSegmentation,
    Segment,
    Teach,
    TrainPublished,
    TrainSegmentation,
)
from emitdiff.commands.spaces import DeploySpace
from emitdiff.commands.studies import Advise, Study
from emitdiff.commands.synthesis import Edges, EvaluateSynthesis, Synthesize, TrainSynthesis
from emitdiff.commands.weights import CheckWeights
from emitdiff.devices import quiet_libraries
from emitdiff.errors import EmitDiffError, explain
from emitdiff.serve import Serve

POSITIVE = {"num_images", "steps", "resolution", "minutes", "threads", "limit", "ratio", "seeds", "patch"}
POSITIVE |= {"samples", "batch", "gradient_accumulation", "learning_rate", "images", "validation_images", "epochs"}
POSITIVE |= {"seconds", "test", "draws", "side", "test_limit", "validations", "workers", "painted_limit"}

COMMANDS = (
    Synthesize, Segment, Edges, TrainSynthesis, TrainSegmentation, EvaluateSynthesis, EvaluateSegmentation,
    ImportDataset, CheckDataset, CheckWeights, ConvertAdm, TrainPublished, Teach, Filter, Augment, Export, ConvertHed,
    TrainHed, EvaluateHed, Inspect, Serve, DeploySpace, Advise, Study,
)  # fmt: skip


def parse(arguments: list[str]) -> Any:
    """The command, an instance of one of COMMANDS, that `arguments` name; without any, help. Exits 2 on a wrong one."""
    return tyro.cli(
        reduce(or_, COMMANDS),
        prog="python -m emitdiff",
        description="Synthetic medical images from edges and text, segmentation from an image and a sentence.",
        args=arguments or ["--help"],
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes),
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs one command, that of the process's arguments where none are given, and returns the exit status: 2, with a
    sentence on stderr, for anything the user can put right."""
    command = parse(sys.argv[1:] if arguments is None else arguments)
    quiet_libraries()
    try:
        _check_numbers(command.study if isinstance(command, Study) else command)
        return command.run()
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except BrokenPipeError:  # whoever read what is printed has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still writes at its end
        return 141
    except Exception as error:
        if (sentence := explain(error)) is None:
            raise  # a defect of this program: its place helps whoever mends it
        say(f"emitdiff: {sentence}")
        return 2


def _check_numbers(command: Any) -> None:
    """EmitDiffError for a number that no command can use, before anything is read or loaded."""
    for name, value in vars(command).items():
        values = value if isinstance(value, tuple) else (value,)
        numbers = [one for one in values if isinstance(one, int | float)]
        flag = f"--{name.replace('_', '-')} {' '.join(map(str, values))}"
        if name in POSITIVE and not all(number > 0 and math.isfinite(number) for number in numbers):
            raise EmitDiffError(f"{flag} is invalid: give a number above 0.")
        if name == "threshold" and not 0 < value < 1:
            raise EmitDiffError(f"{flag} is invalid: give a probability between 0 and 1, like 0.5.")
        if name == "seed" and value < 0:
            raise EmitDiffError(f"{flag} is invalid: give an integer of at least 0.")
