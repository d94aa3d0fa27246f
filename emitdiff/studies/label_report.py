"""What `study labels` found: means, spreads and intervals over the draws, as numbers, a page and a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.evaluation import MEANS, summarise
from emitdiff.studies.arms import NO_TEXT, OURS
from emitdiff.studies.charts import Point, line_charts
from emitdiff.studies.results_table import markdown_table

BASELINE = "unet"
MEAN = "mean"  # of the targets, where there are several
COUNTS = ("predicted", "truth", "overlap")


@dataclass(frozen=True)
class RunResults:
    """One run and its `rows`, one for each image, target and text, as they are read from its file."""

    dataset: str
    images: int
    draw: int
    arm: str
    seconds: float
    rows: list[dict[str, str]]


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, standard deviation and the t interval (95 %) of the mean; None for what one value does not tell."""
    found = {"mean": float(np.mean(values)), "sd": None, "low": None, "high": None}
    if len(values) > 1:
        from scipy.stats import t

        deviation = float(np.std(values, ddof=1))
        reach = float(t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
        found |= {"sd": deviation, "low": found["mean"] - reach, "high": found["mean"] + reach}
    return found


def make_report(collected: Sequence[RunResults]) -> dict:
    """ "results": for every dataset, number of images, arm, text and target, `spread` over the draws of dice and
    dice_pooled, and of the difference in dice to `BASELINE`, draw by draw. "texts": likewise what the own text adds.

    The folds of one draw are one: all their images together. With several targets there is also their `MEAN`.

    Raises:
        EmitDiffError: no test image of a dataset shows a label.
    """
    draws = per_draw(collected)
    if unseen := {run.dataset for run in collected} - {dataset for dataset, *_ in draws}:
        raise EmitDiffError(f"No test image of '{min(unseen)}' shows a label: test on more images of it.")
    seconds: dict[tuple, list[float]] = {}
    for run in collected:
        seconds.setdefault((run.dataset, run.images, run.arm), []).append(run.seconds)
    results, texts = [], []
    for (dataset, images, arm, text, target), own in draws.items():
        beside = draws.get((dataset, images, BASELINE, NO_TEXT, target), {}) if arm != BASELINE else {}
        results.append({
            "dataset": dataset, "images": images, "arm": arm, "text": text, "target": target, "draws": len(own),
            "seconds": float(np.mean(seconds[dataset, images, arm])),
            **{name: spread([row[name] for row in own.values()]) for name in ("dice", "dice_pooled")},
            "false_mask_rate": _mean_of_known([row["false_mask_rate"] for row in own.values()]),
            "n": next(iter(own.values()))["n"], "minus_unet": paired(own, beside),
        })  # fmt: skip
        if text == "own":
            others = {name: draws.get((dataset, images, arm, name, target), {}) for name in ("none", "shuffled")}
            texts.append({"dataset": dataset, "images": images, "target": target,
                          **{f"own - {name}": paired(own, other) for name, other in others.items()}})  # fmt: skip
    return {"results": results, "texts": texts}


def per_draw(collected: Sequence[RunResults]) -> dict[tuple, dict[int, dict]]:
    """(dataset, images, arm, text, target) to the measures of every draw, without draws that show it nowhere."""
    rows: dict[tuple, list[dict]] = {}
    for run in collected:
        for row in run.rows:
            key = (run.dataset, run.images, run.arm, row["text"], row["target"], run.draw)
            rows.setdefault(key, []).append(_numbers(row))
    found: dict[tuple, dict[int, dict]] = {}
    for (*of_run, draw), own in rows.items():
        if (measured := summarise(own))["n"]:
            found.setdefault(tuple(of_run), {})[draw] = measured
    groups: dict[tuple, list[dict[int, dict]]] = {}
    for (*of_text, _), draws in found.items():
        groups.setdefault(tuple(of_text), []).append(draws)
    means = {(*key, MEAN): _means(targets) for key, targets in groups.items() if len(targets) > 1}
    return dict(sorted({**found, **means}.items(), key=lambda item: (*item[0][:4], item[0][4] != MEAN)))


def _numbers(row: dict[str, str]) -> dict:
    counts = {name: int(row[name]) for name in COUNTS}
    return counts | ({name: float(row[name]) for name in MEANS} if counts["truth"] else {})


def _means(targets: list[dict[int, dict]]) -> dict[int, dict]:
    """Over the targets, of every draw that has all."""
    shared = set.intersection(*(set(own) for own in targets))
    return {draw: {"n": sum(own[draw]["n"] for own in targets),
                   **{name: _mean_of_known([own[draw][name] for own in targets])
                      for name in ("dice", "dice_pooled", "false_mask_rate")}}
            for draw in sorted(shared)}  # fmt: skip


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def paired(own: dict[int, dict], other: dict[int, dict]) -> dict | None:
    """`spread` of the difference in dice over the draws that both have; None where there are none."""
    shared = sorted(set(own) & set(other))
    return spread([own[draw]["dice"] - other[draw]["dice"] for draw in shared]) if shared else None


def draw_chart(path: Path, report: dict) -> None:
    """Dice over the number of labelled images, a panel for each dataset; the shade is a standard deviation wide."""
    panels: dict[str, dict[str, list[Point]]] = {}
    for row in _main(report["results"]):
        if row["text"] == "shuffled":
            continue
        name = f"{row['arm']}, no text" if row["text"] == "none" else row["arm"]
        mean, deviation = row["dice"]["mean"], row["dice"]["sd"] or 0.0
        point = Point(row["images"], mean, mean - deviation, mean + deviation)
        panels.setdefault(row["dataset"], {}).setdefault(name, []).append(point)
    line_charts(path, panels, "labelled images", "Dice per image")


def _main(results: list[dict]) -> list[dict]:
    """The rows of the targets' mean, and of the only target where there is one."""
    several = {row["dataset"] for row in results if row["target"] == MEAN}
    return [row for row in results if row["dataset"] not in several or row["target"] == MEAN]


def as_markdown(report: dict) -> str:
    """The report as a page of markdown."""
    settings = report["settings"]
    how = (
        f"Every arm is trained on the same labelled images, altered in the same ways, at {settings['resolution']} x "
        f"{settings['resolution']} pixels, and tested at that size on groups held out: {settings['draws']} draws. "
        f"Networks: {settings['steps']} steps of {settings['batch']} images, AdamW {settings['learning_rate']:g} "
        f"falling along a cosine, last step. {OURS}: {settings['backbone'] or settings['checkpoint']}, trained as "
        "`teach` does."
    )
    sections = [_section(name, facts, report) for name, facts in report["datasets"].items()]
    meaning = (
        "dice: of each image, over those that show the target, mean +- standard deviation over the draws, with the t "
        "interval (95 %) of that mean; pooled: all pixels together; - unet: difference in dice to unet on the same "
        "draws, with its t interval; false masks: share of images without the target in which a mask was drawn; "
        "seconds: of training. The test images are the same in every draw: the intervals tell the luck of the draw, "
        "not that of the choice of test images."
    )
    return (
        "\n\n".join(["# Label efficiency", how, "![Dice over labelled images](labels.png)", *sections, meaning]) + "\n"
    )


def _section(name: str, facts: dict, report: dict) -> str:
    results = [row for row in report["results"] if row["dataset"] == name]
    columns = ["images", "arm", "text", "dice", "95 %", "pooled", "- unet (95 %)", "false masks", "seconds"]
    cells = [[str(row["images"]), row["arm"], row["text"], _plus(row["dice"]), _range(row["dice"]),
              _plus(row["dice_pooled"]), _difference(row["minus_unet"]), _number(row["false_mask_rate"]),
              f"{row['seconds']:.0f}"] for row in _main(results)]  # fmt: skip
    tested = " + ".join(map(str, facts["test"]))
    how = f"Tested on {tested} images ({facts['split']}). Own text: {facts['own_text']}."
    parts = [f"## {name}", how, markdown_table(columns, cells)]
    if any(row["target"] == MEAN for row in results):
        parts += ["Dice of each target:", _target_table([row for row in results if row["target"] != MEAN])]
    added = [row for row in _main(report["texts"]) if row["dataset"] == name]
    pairs = [f"own - {text}" for text in ("none", "shuffled") if any(row[f"own - {text}"] for row in added)]
    if pairs:
        lines = [[str(row["images"]), *(_difference(row[pair]) for pair in pairs)] for row in added]
        parts += [f"What its own text adds to the dice of {OURS}:", markdown_table(["images", *pairs], lines)]
    return "\n\n".join(parts)


def _target_table(results: list[dict]) -> str:
    targets = list(dict.fromkeys(row["target"] for row in results))
    lines = []
    for key, rows in groupby(results, key=lambda row: (str(row["images"]), row["arm"], row["text"])):
        dice = {row["target"]: _plus(row["dice"]) for row in rows}
        lines.append([*key, *(dice.get(target, "-") for target in targets)])
    return markdown_table(["images", "arm", "text", *targets], lines)


def _plus(value: dict) -> str:
    return f"{value['mean']:.3f}" + ("" if value["sd"] is None else f" +- {value['sd']:.3f}")


def _range(value: dict) -> str:
    return "-" if value["low"] is None else f"{value['low']:.3f} to {value['high']:.3f}"


def _difference(value: dict | None) -> str:
    if value is None:
        return "-"
    between = "" if value["low"] is None else f" ({value['low']:+.3f} to {value['high']:+.3f})"
    return f"{value['mean']:+.3f}{between}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
