"""What `study augmentation` found: tables with intervals as Markdown, and one HTML page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.evaluation import MEANS, summarise
from emitdiff.studies.augmentation.methods import METHODS, needs_painted
from emitdiff.studies.augmentation.page import Cell, Page, Section, write_page
from emitdiff.studies.augmentation.runs import CASES, KEYS, case_file
from emitdiff.studies.augmentation.statistics import Cases, Difference, compare, holm, mean_interval
from emitdiff.studies.charts import Bar, bar_charts
from emitdiff.studies.results_table import RECORD, RESULTS, markdown_table, read_table, write_report

TITLE, CHART = "Painted images beside classical augmentation", "augmentation.png"
REFERENCES = ("none", "classical")
MEASURED = (*MEANS, "false_mask_rate")
MEANING = (
    "Mean over the tested images that show the label, dice with the standard deviation over the seeds; hd95 and assd "
    "in pixels of the source; false masks: share of tested images without the label in which something was drawn. "
    "An empty answer where there is a label counts 0, and the image's diagonal for the two distances. Differences in "
    "dice, case by case and seed by seed: mean, bootstrap interval (95 %) over groups, and p of Wilcoxon's signed-rank "
    "test over groups, corrected by Holm for the methods of one table."
)


@dataclass(frozen=True)
class Report:
    """Settings of `report_study`: the folder of a `study augmentation`."""

    folder: Path
    json: bool = False


@dataclass(frozen=True)
class Part:
    """All runs of one method in one cell: their rows in results.csv, and all their cases with the seed."""

    method: str
    runs: list[dict[str, str]]
    cases: list[dict[str, Any]]

    def dice(self) -> Cases:
        """Of every case that shows its label."""
        return {
            (case["seed"], case["group"], case["file_name"], case["label"]): case["dice"]
            for case in self.cases if case["truth"]
        }  # fmt: skip


def report_study(settings: Report) -> dict:
    """Writes report.md, report.json and report.html into the folder, of the runs that are there, and returns what
    report.json says.

    Raises:
        EmitDiffError: the folder holds no such study, or no run has ended yet.
    """
    folder = Path(settings.folder)
    record = folder / RECORD
    facts = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    if facts.get("study") != "augmentation":
        raise EmitDiffError(f"{folder} is no folder of `study augmentation`: give what was its --out.")
    rows = read_table(folder / RESULTS)
    if not rows:
        raise EmitDiffError(f"No run of the study in {folder} has ended yet: start `study augmentation` again.")
    report = {
        "settings": facts,
        "notes": notes(rows, facts),
        "cells": [make_cell(parts) for parts in cells(folder, rows)],
    }
    draw_chart(folder / CHART, report)
    write_page(folder / "report.html", as_page(report, folder / CHART))
    write_report(folder, report, as_markdown(report), settings.json)
    return report


def cells(folder: Path, rows: Sequence[dict[str, str]]) -> list[list[Part]]:
    """The parts of every dataset, network and budget, methods in the order of `METHODS`."""

    def place(row: dict[str, str]) -> tuple:
        size = int(row["images"]) if row["images"].isdecimal() else float("inf")
        return row["dataset"], row["network"], size

    found = []
    for _, of_cell in groupby(sorted(rows, key=place), place):
        runs = list(of_cell)
        parts = [Part(name, own, _cases(folder, own)) for name in METHODS
                 if (own := [row for row in runs if row["method"] == name])]  # fmt: skip
        found.append(parts)
    return found


def _cases(folder: Path, runs: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Raises EmitDiffError where the file of a run is not there."""
    cases = []
    for row in runs:
        path = folder / CASES / case_file([row[name] for name in KEYS])
        if not path.is_file():
            raise EmitDiffError(
                f"{path} is not there, though {RESULTS} has its run: delete that row, and start the study again."
            )
        for case in read_table(path):
            counts: dict[str, Any] = {name: int(case[name]) for name in ("predicted", "truth", "overlap")}
            measures = {name: float(case[name]) for name in MEANS} if counts["truth"] else {}
            cases.append({**case, **counts, **measures, "seed": row["seed"]})
    return cases


def make_cell(parts: Sequence[Part]) -> dict:
    """The table of one dataset, network and budget."""
    first = parts[0].runs[0]
    dice = {part.method: part.dice() for part in parts}
    rows = [_row(part, dice[part.method]) for part in parts]
    for reference in REFERENCES:
        compared = {name: compare(own, dice[reference]) for name, own in dice.items()
                    if name != reference and reference in dice}  # fmt: skip
        known = {name: found for name, found in compared.items() if found}
        corrected = dict(zip(known, holm([found.p for found in known.values()]), strict=True))
        for row in rows:
            found = known.get(row["method"])
            row[f"minus_{reference}"] = asdict(found) | {"holm": corrected[row["method"]]} if found else None
    facts = {name: first[name] for name in ("dataset", "network", "images")}
    seeds, folds = ({row[name] for part in parts for row in part.runs} for name in ("seed", "fold"))
    groups = {case["group"] for part in parts for case in part.cases}
    return {**facts, "seeds": len(seeds), "folds": len(folds), "groups": len(groups), "rows": rows,
            "verdicts": verdicts(dice)}  # fmt: skip


def _row(part: Part, dice: Cases) -> dict:
    found, (low, high) = summarise(part.cases), mean_interval(dice)
    seeds = {key[0] for key in dice}
    means = [float(np.mean([value for key, value in dice.items() if key[0] == seed])) for seed in sorted(seeds)]
    sizes = {name: float(np.mean([int(row[name]) for row in part.runs])) for name in ("n_train", "n_painted")}
    return {
        "method": part.method, "runs": len(part.runs), "n": len({key[1:] for key in dice}), **sizes,
        **{name: found[name] for name in MEASURED}, "dice_low": low, "dice_high": high,
        "dice_sd": float(np.std(means, ddof=1)) if len(means) > 1 else None,
        "seconds": float(np.mean([float(row["seconds"]) for row in part.runs])),
    }  # fmt: skip


def verdicts(dice: dict[str, Cases]) -> list[str]:
    """What painted images did, in a sentence for each method with them beside the same one without."""
    beside = {False: "none", True: "classical"}
    pairs = [(name, beside[name.startswith("classical+")]) for name in METHODS if needs_painted(name)]
    found = [(own, other, compare(dice[own], dice[other])) for own, other in pairs if own in dice and other in dice]
    return [f"{own} against {other}: {verdict(difference)}" for own, other, difference in found if difference]


def verdict(found: Difference) -> str:
    """A difference in Dice in words."""
    words = {1: "a gain", 0: "no difference found", -1: "a loss"}[found.sign]
    return f"{words} in Dice, {found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f}) over {found.groups} groups."


def notes(rows: Sequence[dict[str, str]], facts: dict) -> list[str]:
    """What a reader must know of the synthesis weights, and of runs that are missing."""
    found = []
    painted = [row for row in rows if needs_painted(row["method"])]
    for name, seen, groups in sorted({(row["dataset"], row["seen_groups"], row["groups"]) for row in painted}):
        if seen != "0":
            found.append(
                f"{facts['checkpoint']} was trained on images and masks of {seen} of the {groups} groups of {name}, "
                "more than a budget's labels. None of them was tested on; all may have taught. Methods without "
                "painted images learn from the budget alone."
            )
        else:
            found.append(f"{facts['checkpoint']} was not trained on {name}, as far as its card says.")
    wanted = {name: {row[name] for row in rows} for name in ("seed", "fold")}
    full = len(wanted["seed"]) * facts["folds"]
    counts: dict[tuple[str, ...], int] = {}
    for row in rows:
        place = tuple(row[name] for name in ("dataset", "network", "images", "method"))
        counts[place] = counts.get(place, 0) + 1
    if short := [place for place, count in counts.items() if count < full]:
        found.append(
            f"Not finished: {len(short)} of {len(counts)} methods have fewer than {full} runs ({', '.join(short[0])} "
            "among them); differences are over what both have."
        )
    return found


def settings_sentence(facts: dict) -> str:
    """How every run was trained."""
    side = facts["resolution"]
    return (
        f"Every run: {facts['steps']} steps of {facts['batch']} images at {side} x {side}, AdamW "
        f"{facts['learning_rate']:g} falling along a cosine, the best of {facts['validations']} validations on a "
        f"fifth of the budget's groups. Painted with {facts['checkpoint']}, {facts['ratio']} of each image (at most "
        f"{facts['painted_limit']}), masks edited by {facts['edit']:g}; mixed batches are "
        f"{facts['real_share']:.0%} real."
    )


def title_and_facts(cell: dict) -> tuple[str, str]:
    """The heading of a cell, and the line below it."""
    budget = "all images" if cell["images"] == "all" else f"{cell['images']} labelled images"
    tested = f"{cell['groups']} groups tested, {cell['rows'][0]['n']} labels in them"
    counts = f"{cell['folds']} folds, {cell['seeds']} seed{'s' if cell['seeds'] > 1 else ''}, {tested}."
    return f"{cell['dataset']}, {budget}, {cell['network']}", counts


def as_markdown(report: dict) -> str:
    """The report as a page of markdown."""
    sections = []
    for cell in report["cells"]:
        title, facts = title_and_facts(cell)
        table = markdown_table(COLUMNS, [cells_of(row) for row in cell["rows"]])
        sections += [f"## {title}", facts, table, "\n".join(f"- {sentence}" for sentence in cell["verdicts"])]
    chart = f"![Dice of every method]({CHART})"
    parts = [f"# {TITLE}", settings_sentence(report["settings"]), chart, *report["notes"]]
    return "\n\n".join(part for part in [*parts, *sections, MEANING] if part) + "\n"


def as_page(report: dict, chart: Path) -> Page:
    """The report as `write_page` takes it: differences whose interval leaves out zero in colour."""
    sections = []
    for cell in report["cells"]:
        rows = []
        for row in cell["rows"]:
            texts, kinds = cells_of(row), [_kind(row[f"minus_{name}"]) for name in REFERENCES]
            kinds = [""] * (len(texts) - len(kinds)) + kinds
            rows.append([Cell(text, kind) for text, kind in zip(texts, kinds, strict=True)])
        sections.append(Section(*title_and_facts(cell), rows, cell["verdicts"]))
    return Page(TITLE, settings_sentence(report["settings"]), report["notes"], COLUMNS, sections, MEANING, chart)


def _kind(difference: dict | None) -> str:
    if difference is None:
        return ""
    return "good" if difference["low"] > 0 else "bad" if difference["high"] < 0 else ""


def draw_chart(path: Path, report: dict) -> None:
    """Dice of every method with its interval: a panel for each dataset and network, a cluster for each budget."""
    panels: dict[str, dict[str, dict[str, Bar]]] = {}
    for cell in report["cells"]:
        bars = {row["method"]: Bar(row["dice"], row["dice_low"], row["dice_high"]) for row in cell["rows"]
                if row["dice"] is not None}  # fmt: skip
        panels.setdefault(f"{cell['dataset']}, {cell['network']}", {})[cell["images"]] = bars
    bar_charts(path, panels, "labelled images", "Dice")


COLUMNS = ["method", "runs", "dice", "95 %", "iou", "precision", "recall", "hd95", "assd", "false masks",
           "- none (95 %; p)", "- classical (95 %; p)"]  # fmt: skip


def cells_of(row: dict) -> list[str]:
    """A row of `COLUMNS` as it is printed."""
    spread = "" if row["dice_sd"] is None else f" +- {row['dice_sd']:.3f}"
    numbers = [_number(row[name], 3) for name in ("iou", "precision", "recall")]
    numbers += [_number(row[name], 1) for name in ("hd95", "assd")] + [_number(row["false_mask_rate"], 2)]
    return [row["method"], str(row["runs"]), _number(row["dice"], 3) + spread,
            f"{row['dice_low']:.3f} to {row['dice_high']:.3f}", *numbers,
            *(_difference(row[f"minus_{name}"]) for name in REFERENCES)]  # fmt: skip


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _difference(value: dict | None) -> str:
    if value is None:
        return "-"
    p = "<0.001" if value["holm"] < 0.001 else f"{value['holm']:.3f}"
    return f"{value['mean']:+.3f} ({value['low']:+.3f} to {value['high']:+.3f}; {p})"
