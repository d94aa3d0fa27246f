"""How often a mask is drawn on an image of the right kind that does not show the target, and how often one that does
is refused; as the checkpoint is, and calibrated on held-out images, tested on groups left out of that in turn.

    python -m benchmarks.presence DATASET [DATASET ...] --checkpoint FOLDER --write

With --write the numbers learnt from all of them go into FOLDER/segmenter.json. The images of a dataset that show the
target count alike together whatever their number, and so do those that do not. What is refused because another kind of
image was recognised stays out of it and stays refused.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from emitdiff.checkpoints import find_checkpoint, local_folder
from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.splits import choose_rows
from emitdiff.files import write_text
from emitdiff.mask_metrics import dice
from emitdiff.segmentation.loading import load_segmenter
from emitdiff.segmentation.model.presence import PresenceCalibration
from emitdiff.segmentation.pipeline import PRESENCE_THRESHOLD, SegmentationPipeline
from emitdiff.segmentation.vocabulary import queries_of

FOLDS = 6
REFUSALS_COUNT = 3.0  # times as much as false masks: who asks for a target mostly has it before them


class Question(NamedTuple):
    """One target asked for in one image: the logits that calibration is about, what the checkpoint says as it is,
    whether it took the image for another kind, whether the mask has a pixel without regard to that, and its Dice.
    """

    dataset: str
    group: str
    there: bool
    logits: tuple[float, float]
    present: float
    elsewhere: bool
    drawn: bool
    dice: float


def ask(pipeline: SegmentationPipeline, folder: Path) -> list[Question]:
    """Every held-out image of a dataset, asked for each target that it labels."""
    dataset, asked = choose_rows(open_dataset(folder), "held-out"), []
    for sample in tqdm(dataset, desc=dataset.info.name, leave=False):
        encoded = pipeline.encode(sample.image)
        for _, sentence, truth in queries_of(sample, dataset):
            answer = pipeline.segment(encoded, sentence)  # its probabilities are 0 where it was taken for another kind
            found = answer.probability > 0.5
            logits = pipeline.presence_logits(encoded, sentence)
            asked.append(Question(
                dataset.info.name, f"{dataset.info.name}/{sample.group}", bool(truth.any()), logits, answer.present,
                answer.present == 0, bool(found.any()), dice(found, truth),
            ))  # fmt: skip
    return asked


def calibrate(questions: list[Question]) -> PresenceCalibration:
    """Also from datasets whose images all show the target: it must not be refused there.

    Raises SystemExit where there are not both kinds of images.
    """
    questions = [one for one in questions if not one.elsewhere]
    if len({one.there for one in questions}) < 2:
        raise SystemExit("Images that show the target and images that do not are needed, of several groups each.")
    counts = Counter((one.dataset, one.there) for one in questions)
    weights = torch.tensor([(REFUSALS_COUNT if one.there else 1) / counts[one.dataset, one.there] for one in questions])
    there, logits = torch.tensor([one.there for one in questions]), torch.tensor([one.logits for one in questions])
    return PresenceCalibration.fit(logits, there, weights / weights.mean())


def left_out(questions: list[Question]) -> list[float]:
    """The probability of each, by a calibration that its group had no part in."""
    groups = sorted({one.group for one in questions})
    order = np.random.default_rng(0).permutation(len(groups))
    folds = {groups[index]: place % FOLDS for place, index in enumerate(order)}
    learnt = [calibrate([one for one in questions if folds[one.group] != fold]) for fold in range(FOLDS)]
    return [0.0 if one.elsewhere else learnt[folds[one.group]].probability(*one.logits) for one in questions]


def told(questions: list[Question], present: list[float]) -> str:
    pairs = list(zip(questions, present, strict=True))
    there = [(one.dice, one.drawn and value >= PRESENCE_THRESHOLD) for one, value in pairs if one.there]
    empty = [one.drawn and value >= PRESENCE_THRESHOLD for one, value in pairs if not one.there]
    dice = np.mean([dice * found for dice, found in there])
    missed = sum(not found for _, found in there)
    return f"false masks {sum(empty):3} of {len(empty):3}, not found {missed:3} of {len(there):3}, Dice {dice:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--checkpoint", default="textdiff-mini")
    parser.add_argument("--write", action="store_true", help="write what was learnt into its segmenter.json")
    arguments = parser.parse_args()
    pipeline = load_segmenter(arguments.checkpoint)
    questions = [one for folder in arguments.datasets for one in ask(pipeline, folder)]
    apart, learnt = left_out(questions), calibrate(questions)
    for name in dict.fromkeys(one.dataset for one in questions):
        rows = [index for index, one in enumerate(questions) if one.dataset == name]
        own = [questions[index] for index in rows]
        print(f"{name:22} as it is:        {told(own, [one.present for one in own])}")
        print(f"{'':22} groups left out: {told(own, [apart[index] for index in rows])}")
    print(f"learnt from all: {learnt}")
    if arguments.write:
        path = local_folder(find_checkpoint(arguments.checkpoint, "segmentation")) / "segmenter.json"
        write_text(path, json.dumps({**json.loads(path.read_text()), "presence": asdict(learnt)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
