"""Do painted images help on this dataset? Cross-validated, at equal steps, sized to the time there is, in one sentence.

The two arms are the same but for the painted images. The interval draws folds as well as groups, for all groups of a
fold were answered by the same few trainings, whose luck they share.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from emitdiff.datasets.folder import DatasetFolder, open_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.files import check_writable, make_folder, read_record, write_text
from emitdiff.studies.augmentation.folds import ALL, draw_budget, seen_groups
from emitdiff.studies.augmentation.methods import Draw, make_batches
from emitdiff.studies.augmentation.painting import paint_missing
from emitdiff.studies.augmentation.report import cells
from emitdiff.studies.augmentation.runs import Augmentation, folds_of, paint_settings
from emitdiff.studies.augmentation.statistics import GROUP, Cases
from emitdiff.studies.augmentation.study import check_settings, study_augmentation
from emitdiff.studies.augmentation.training import Train, measure_cases, train
from emitdiff.studies.results_table import RESULTS, read_table
from emitdiff.studies.unet_baseline import class_labels, read_pictures
from emitdiff.synthesis.loading import load_synthesizer

PLAN = "plan.json"
MOST_FOLDS, MOST_SEEDS = 5, 3
LEAST_STEPS, ENOUGH_STEPS, MOST_STEPS = 100, 300, 600
PAINTING, SPARE = 0.4, 0.9  # of the time: at most for painting; in all, so that it ends in time
TRIAL_STEPS = 6
RESAMPLES = 4000


@dataclass(frozen=True)
class Advise:
    """Settings of `advise`.

    `images` labelled images are used, None for all. `minutes` bounds the whole on this machine. With `classical` both
    arms are trained with the classical stack, without it with none. The rest as in `Augmentation`.
    """

    dataset: Path
    out: Path
    images: int | None = None
    minutes: float = 20.0
    classical: bool = True
    checkpoint: str = "emitdiff-mini"
    ratio: int = 4
    edit: float = 0.5
    resolution: int = 128
    workers: int = 1
    json: bool = False

    @property
    def arms(self) -> tuple[str, str]:
        """The methods that are compared: without painted images, and with them."""
        return ("classical", "classical+painted") if self.classical else ("none", "painted")


@dataclass(frozen=True)
class Plan:
    """How far the time reaches."""

    folds: int
    seeds: int
    steps: int
    ratio: int
    painted_limit: int


@dataclass(frozen=True)
class Costs:
    """Seconds on this machine: of a painted image, of a training step (mean of both arms), of testing one fold."""

    painted: float
    step: float
    test: float


def advise(settings: Advise) -> dict:
    """Trains both arms and prints the answer; `out` receives what `study augmentation` writes, and advice.json, which
    is returned: "answer" ("yes", "no gain", "harm"), "sentence", "dice", "low", "high" and the plan.

    Started again with the same `out`, it goes on with the plan it began with.

    Raises:
        EmitDiffError: a dataset that cannot be used, too little time, or an `out` started with other settings.
    """
    started = time.perf_counter()
    check_writable(settings.out)
    dataset = open_dataset(settings.dataset).real()
    study = _study(settings, Plan(_folds(dataset, settings), 1, LEAST_STEPS, settings.ratio, 10**6))
    check_settings(study)
    for fold in folds_of(dataset, study):
        draw_budget(fold, study.images[0])
    plan = _planned(settings, dataset, study, started)
    study = _study(settings, plan)
    study_augmentation(study)
    found = judge(settings, dataset, plan)
    write_text(settings.out / "advice.json", json.dumps(found, indent=1) + "\n")
    print(found["sentence"])
    if settings.json:
        print(json.dumps(found))
    return found


def _folds(dataset: DatasetFolder, settings: Advise) -> int:
    unseen = set(dataset.groups) - seen_groups(dataset, settings.checkpoint).groups
    return min(MOST_FOLDS, max(2, len(unseen)))


def _study(settings: Advise, plan: Plan) -> Augmentation:
    return Augmentation(
        (settings.dataset,), settings.out, settings.arms, ("unet",), (str(settings.images or ALL),),
        **asdict(plan), checkpoint=settings.checkpoint, edit=settings.edit, resolution=settings.resolution,
        workers=settings.workers,
    )  # fmt: skip


def _planned(settings: Advise, dataset: DatasetFolder, study: Augmentation, started: float) -> Plan:
    """The plan that `out` was begun with, or a new one after measuring how fast this machine is."""
    path = Path(settings.out) / PLAN
    free = ("out", "json", "workers")
    asked = {name: value for name, value in asdict(settings).items() if name not in free}
    asked = json.loads(json.dumps(asked, default=str))
    if before := read_record(path, settings.out):
        if before.get("asked") != asked:
            raise EmitDiffError(
                f"{settings.out} was started with other settings ({PLAN} has them). Give another folder, or those."
            )
        return Plan(**before["plan"])
    plan = make_plan(settings, _sources(dataset, study), measure_costs(dataset, study), study.folds,
                     60 * settings.minutes * SPARE - (time.perf_counter() - started))  # fmt: skip
    make_folder(path.parent, named=settings.out)
    write_text(path, json.dumps({"asked": asked, "plan": asdict(plan)}, indent=1) + "\n")
    print(
        f"{plan.folds} folds, {plan.seeds} seed(s), two trainings each of {plan.steps} steps; {plan.ratio} images "
        f"painted from each of at most {plan.painted_limit // plan.ratio} a fold.",
        file=sys.stderr,
    )
    return plan


def _sources(dataset: DatasetFolder, study: Augmentation) -> int:
    """How many images are painted from, all folds together, where none is left out."""
    folds = folds_of(dataset, study)
    return len({row["file_name"] for fold in folds for row in draw_budget(fold, study.images[0])[0].rows})


def measure_costs(dataset: DatasetFolder, study: Augmentation) -> Costs:
    """Paints from one image and trains a few steps, in this process."""
    fold = folds_of(dataset, study)[0]
    teaching, validating = draw_budget(fold, study.images[0])
    pipeline = load_synthesizer(study.checkpoint)
    begun = time.perf_counter()
    paint_missing(paint_settings(study), dataset, [teaching.rows[0]["file_name"]], study.out, pipeline)
    painted = (time.perf_counter() - begun) / study.ratio
    real, aside, test = (read_pictures(part, study.resolution) for part in (teaching, validating, fold.test))
    method = study.methods[0]
    begun = time.perf_counter()
    how = Train("unet", TRIAL_STEPS, study.learning_rate, 1, 0)
    channels = 1 + len(class_labels(dataset.info.labels))
    trained = train(how, channels, make_batches(method, real, None, Draw(TRIAL_STEPS, study.batch, 0.5, 0)), aside)
    step = (time.perf_counter() - begun) / TRIAL_STEPS
    begun = time.perf_counter()
    measure_cases(trained.model, fold.test, test)
    return Costs(painted, step, time.perf_counter() - begun)


def make_plan(settings: Advise, sources: int, costs: Costs, folds: int, seconds: float) -> Plan:
    """The most that `seconds` allow: painting takes at most a part of them; then as many folds as leave every training
    a few hundred steps, then as many seeds.

    Raises:
        EmitDiffError: not even two folds of `LEAST_STEPS` steps fit.
    """
    affordable = max(1, int(PAINTING * seconds / max(costs.painted, 1e-6)))
    ratio = max(1, min(settings.ratio, affordable // sources))
    limit = ratio * max(1, min(sources, affordable // ratio))
    left = seconds * settings.workers - min(sources * ratio, limit) * costs.painted * settings.workers

    def steps(folds: int, seeds: int) -> int:
        return math.floor((left / (2 * folds * seeds) - costs.test) / costs.step)

    while (folds > 3 and steps(folds, 1) < ENOUGH_STEPS) or (folds > 2 and steps(folds, 1) < LEAST_STEPS):
        folds -= 1
    if steps(folds, 1) < LEAST_STEPS:
        training = 2 * folds * (LEAST_STEPS * costs.step + costs.test) / settings.workers
        minutes = math.ceil((training + min(sources, limit) * costs.painted) / SPARE / 60) + 1
        raise EmitDiffError(
            f"{settings.minutes:g} minutes are too few on this machine: give --minutes {minutes}, or fewer --images."
        )
    seeds = max([1, *(seeds for seeds in range(2, MOST_SEEDS + 1) if steps(folds, seeds) >= ENOUGH_STEPS)])
    return Plan(folds, seeds, min(MOST_STEPS, steps(folds, seeds)), ratio, limit)


def judge(settings: Advise, dataset: DatasetFolder, plan: Plan) -> dict:
    """The answer, of the runs that are in `out`."""
    out = Path(settings.out)
    (parts,) = cells(out, read_table(out / RESULTS))
    dice = {part.method: part.dice() for part in parts}
    folds = {group: fold.number for fold in folds_of(dataset, _study(settings, plan)) for group in fold.test.groups}
    without, with_painted = (dice[name] for name in settings.arms)
    mean, low, high = interval(with_painted, without, folds)
    answer = "yes" if low > 0 else "harm" if high < 0 else "no gain"
    labelled = f"your {settings.images or len(dataset)} labelled images"
    beside = " beside classical augmentation" if settings.classical else ""
    figures = f"{mean:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}"
    command = f"python -m emitdiff augment {settings.dataset} NEW_FOLDER --ratio {plan.ratio} --edit {settings.edit:g} "
    command += "--appearance --include-real" + _weights(settings)
    sentence = {
        "yes": f"Yes: painted images raise Dice at {labelled}{beside} ({figures}): use {plan.ratio} of each, from "
        f"`{command}`.",
        "no gain": f"No gain found: painted images change Dice at {labelled}{beside} by {figures}: do not use them.",
        "harm": f"No: painted images lower Dice at {labelled}{beside} ({figures}): do not use them.",
    }[answer]
    means = {name: float(np.mean(list(own.values()))) for name, own in dice.items()}
    return {"answer": answer, "sentence": sentence, "dice": mean, "low": low, "high": high, "arms": means,
            "plan": asdict(plan)}  # fmt: skip


def _weights(settings: Advise) -> str:
    return "" if settings.checkpoint == Advise.checkpoint else f" --checkpoint {settings.checkpoint}"


def interval(own: Cases, other: Cases, folds: dict[str, int]) -> tuple[float, float, float]:
    """Mean difference of the cases that both have, and the 2.5th and 97.5th percentile over draws of the folds (by
    group) with replacement, and of the groups in each.

    Raises:
        EmitDiffError: both have no case, so that nothing can be said.
    """
    shared = sorted(set(own) & set(other))
    if not shared:
        raise EmitDiffError("No tested image shows a label: give more labelled images.")
    gains: dict[int, dict[str, list[float]]] = {}
    for key in shared:
        gains.setdefault(folds[key[GROUP]], {}).setdefault(key[GROUP], []).append(own[key] - other[key])
    sums = [np.array([[sum(values), len(values)] for values in groups.values()]) for groups in gains.values()]
    rng = np.random.default_rng(0)
    means = [_drawn_mean(sums, rng) for _ in range(RESAMPLES)]
    low, high = np.percentile(means, (2.5, 97.5))
    total = np.concatenate(sums).sum(0)
    return float(total[0] / total[1]), float(low), float(high)


def _drawn_mean(sums: Sequence[np.ndarray], rng: np.random.Generator) -> float:
    drawn = [sums[fold] for fold in rng.integers(len(sums), size=len(sums))]
    total = np.sum([own[rng.integers(len(own), size=len(own))].sum(0) for own in drawn], axis=0)
    return float(total[0] / total[1])
