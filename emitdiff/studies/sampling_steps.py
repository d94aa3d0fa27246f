"""Metrics and time over sampling steps, guidance scale and scheduler."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from tqdm import tqdm

from emitdiff.datasets.folder import DatasetFolder, open_dataset
from emitdiff.datasets.splits import choose_rows
from emitdiff.errors import EmitDiffError
from emitdiff.studies.results_table import RESULTS, markdown_table, open_study, read_table, write_report, write_table
from emitdiff.synthesis.evaluation import MEASURES, VARIANTS, measure_sample
from emitdiff.synthesis.loading import load_synthesizer
from emitdiff.synthesis.pipeline import SynthesisPipeline
from emitdiff.synthesis_settings import SynthesisSettings

SCHEDULERS = {"ddim": "DDIMScheduler", "unipc": "UniPCMultistepScheduler", "dpm++": "DPMSolverMultistepScheduler"}
KEYS = ("scheduler", "steps", "guidance", "dataset")
SECONDS = "seconds_per_image"


@dataclass(frozen=True)
class Steps:
    """Settings of `study_steps`: every combination of `steps`, `guidance` and `schedulers` (see SCHEDULERS) on `limit`
    held-out images of each dataset, the same seeds for all."""

    datasets: tuple[Path, ...]
    out: Path
    checkpoint: str = "emitdiff-mini"
    steps: tuple[int, ...] = (4, 6, 8, 12, 20, 50)
    guidance: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0)
    schedulers: tuple[str, ...] = ("ddim",)
    limit: int = 4
    seed: int = 0
    json: bool = False


def study_steps(settings: Steps) -> list[dict]:
    """Writes `out`/results.csv, one row for each setting and dataset as it is measured, then report.md and report.json.

    Run again, it measures only what is missing; settings and datasets may be added. Returns the report's rows:
    the mean over the datasets for each scheduler, guidance and number of steps.

    Raises:
        EmitDiffError: an unknown scheduler or checkpoint, unreadable datasets, or an `out` started with other settings.
    """
    if unknown := sorted(set(settings.schedulers) - set(SCHEDULERS)):
        raise EmitDiffError(f"There is no scheduler called '{unknown[0]}': choose among {', '.join(SCHEDULERS)}.")
    opened = [open_dataset(folder) for folder in settings.datasets]
    pipeline = load_synthesizer(settings.checkpoint)
    chosen = [held_out_rows(dataset, pipeline, settings.limit) for dataset in opened]
    record = {name: getattr(settings, name) for name in ("checkpoint", "limit", "seed")}
    out = open_study(settings.out, record, {settings.checkpoint: pipeline.weights} if pipeline.weights else {}, opened)
    rows = read_table(out / RESULTS)
    done = {tuple(row[key] for key in KEYS) for row in rows}
    left = [(wanted, dataset) for wanted, dataset in _combinations(settings, chosen)
            if (*wanted, dataset.info.name) not in done]  # fmt: skip
    for (scheduler, steps, guidance), dataset in tqdm(left, desc="measuring", unit="setting"):
        set_scheduler(pipeline, scheduler)
        measured = _measure(pipeline, dataset, int(steps), float(guidance), settings.seed)
        rows.append(dict(zip(KEYS, (scheduler, steps, guidance, dataset.info.name), strict=True)) | measured)
        write_table(out / RESULTS, rows)
    report = summarise(rows, {wanted for wanted, _ in _combinations(settings, chosen)},
                       {dataset.info.name for dataset in chosen})  # fmt: skip
    used = json.loads(json.dumps(asdict(settings), default=str))
    page = as_markdown(report, chosen, settings.checkpoint)
    write_report(out, {"settings": used, "rows": report}, page, settings.json)
    return report


def held_out_rows(dataset: DatasetFolder, pipeline: SynthesisPipeline, limit: int) -> DatasetFolder:
    """`limit` real images spread over the groups that the checkpoint's training held out."""
    training = pipeline.checkpoint_card.training
    real = dataset.real()
    return choose_rows(real, "held-out", limit, training.get("held_out", 0.2), training.get("split_seed", 0))


def set_scheduler(pipeline: SynthesisPipeline, name: str) -> None:
    """Samples with another scheduler of diffusers, its noise schedule and what the network predicts unchanged."""
    import diffusers

    pipeline.pipe.scheduler = getattr(diffusers, SCHEDULERS[name]).from_config(pipeline.pipe.scheduler.config)


def _combinations(settings: Steps, chosen: list[DatasetFolder]) -> Iterator[tuple[tuple[str, str, str], DatasetFolder]]:
    for scheduler, guidance, steps, dataset in product(
        settings.schedulers, settings.guidance, settings.steps, chosen
    ):  # fmt: skip
        yield (scheduler, str(steps), f"{guidance:g}"), dataset


def _measure(pipeline: SynthesisPipeline, dataset: DatasetFolder, steps: int, guidance: float, seed: int) -> dict:
    asked = SynthesisSettings(num_inference_steps=steps, guidance_scale=guidance)
    measured = [
        measure_sample(pipeline, sample, dataset.info, asked.replace(seed=seed + index * VARIANTS))
        for index, sample in enumerate(dataset)
    ]
    means = {name: round(float(np.mean([row[name] for row in measured])), 4) for name in MEASURES}
    return {**means, SECONDS: round(sum(row["seconds"] for row in measured) / VARIANTS / len(measured), 3),
            "n": len(measured)}  # fmt: skip


def summarise(rows: list[dict], wanted: set[tuple[str, str, str]], datasets: set[str]) -> list[dict]:
    """Of rows of results.csv those wanted, (scheduler, steps, guidance): every measure's mean over the datasets."""
    found: dict[tuple, list[dict]] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in KEYS[:3])
        if key in wanted and row["dataset"] in datasets:
            found.setdefault(key, []).append(row)
    report = []
    for (scheduler, steps, guidance), own in found.items():
        means = {name: float(np.mean([float(row[name]) for row in own])) for name in (*MEASURES, SECONDS)}
        report.append({"scheduler": scheduler, "steps": int(steps), "guidance": float(guidance), **means,
                       "n": sum(int(row["n"]) for row in own)})  # fmt: skip
    return sorted(report, key=lambda row: (row["scheduler"], row["guidance"], row["steps"]))


def as_markdown(report: list[dict], datasets: list[DatasetFolder], checkpoint: str) -> str:
    """The report as a page of markdown."""
    columns = ["scheduler", "guidance", "steps", *MEASURES, SECONDS]
    cells = [
        [row["scheduler"], f"{row['guidance']:g}", str(row["steps"]), *(f"{row[name]:.3f}" for name in columns[3:])]
        for row in report
    ]
    names = ", ".join(f"{dataset.info.name} ({len(dataset)})" for dataset in datasets)
    return (
        f"# Sampling steps: {checkpoint}\n\n{VARIANTS} images generated per held-out image: {names}. Means "
        f"over the datasets.\n\n{markdown_table(columns, cells)}\n"
    )
