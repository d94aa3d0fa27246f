"""EMIT-Diff's downstream study, as anyone can repeat it: segmenters trained with and without painted images.

What the released code leaves open is closed here: the baselines are there, every method takes the same steps and
forward passes, training images are shuffled, the epoch is chosen on a validation part of the labelled images and never
on the test part, and slices without a label are tested too.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

from tqdm import tqdm

from emitdiff.checkpoints import find_checkpoint, weights_fingerprint
from emitdiff.datasets.fingerprint import HASHES
from emitdiff.datasets.folder import DatasetFolder, open_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.files import make_folder
from emitdiff.studies.augmentation.folds import budget_count, draw_budget, seen_groups
from emitdiff.studies.augmentation.methods import check_methods, needs_painted
from emitdiff.studies.augmentation.painting import paint_missing, painted_folders
from emitdiff.studies.augmentation.report import Report, report_study
from emitdiff.studies.augmentation.runs import CASES, KEYS, Augmentation, Run, folds_of, paint_settings, run_one
from emitdiff.studies.networks import DIVISOR, check_network
from emitdiff.studies.results_table import RESULTS, open_study, read_table, write_table
from emitdiff.synthesis.loading import load_synthesizer
from emitdiff.version import __version__

FREE = ("out", "datasets", "methods", "network", "images", "seeds", "workers", "json")


def study_augmentation(settings: Augmentation) -> dict:
    """Paints what is missing into `out`/painted, then trains; `out`/results.csv gets a row as each run ends, `out`/runs
    a file of its cases; at the end come the files of `report_study`, whose report it returns.

    Run again, it trains only what is missing; datasets, methods, networks, budgets and seeds may be added.

    Raises:
        EmitDiffError: an unknown method or network, a dataset that cannot be used or has too few groups or images,
            weights that are not there or have seen what would be tested on, or an `out` started with other settings.
    """
    check_settings(settings)
    datasets = [open_dataset(folder) for folder in settings.datasets]
    if len({dataset.info.name for dataset in datasets}) < len(datasets):
        raise EmitDiffError("Two of the datasets have one name; give each its own name in dataset.json.")
    for dataset in datasets:
        for fold, images in product(folds_of(dataset, settings), settings.images):
            draw_budget(fold, images)
    record = {"study": "augmentation", **{key: value for key, value in asdict(settings).items() if key not in FREE}}
    weights = {}
    if any(map(needs_painted, settings.methods)):
        weights[settings.checkpoint] = weights_fingerprint(find_checkpoint(settings.checkpoint, "synthesis"))
    out = open_study(settings.out, record, weights, datasets)
    make_folder(out / CASES)
    done = {tuple(row[name] for name in KEYS) for row in read_table(out / RESULTS)}
    left = [run for run in runs_of(settings, datasets) if run.key not in done]
    _paint_all(settings, datasets, left)
    _train_all(settings, datasets, left)
    return report_study(Report(out, settings.json))


def check_settings(settings: Augmentation) -> None:
    """Raises EmitDiffError for settings that no run can use."""
    check_methods(settings.methods)
    for name in settings.network:
        check_network(name)
    for images in settings.images:
        budget_count(images)
    if settings.resolution % DIVISOR or settings.resolution < 2 * DIVISOR:
        raise EmitDiffError(f"The resolution was {settings.resolution}; give a multiple of {DIVISOR} from 64 on.")
    if settings.batch < 2:
        raise EmitDiffError(f"A batch of {settings.batch} was given: it takes two images, a real and a painted one.")
    if not 0 < settings.real_share < 1:
        raise EmitDiffError(f"The share of real images was {settings.real_share:g}; give a number between 0 and 1.")
    if not 0 <= settings.edit <= 1:
        raise EmitDiffError(f"The strength of mask edits was {settings.edit:g}; give a number from 0 (none) to 1.")


def runs_of(settings: Augmentation, datasets: Sequence[DatasetFolder]) -> Iterator[Run]:
    """In an order in which a study that is stopped early has the same seeds of everything."""
    names = [dataset.info.name for dataset in datasets]
    for seed, name, images in product(range(settings.seeds), names, settings.images):
        for network, fold, method in product(settings.network, range(settings.folds), settings.methods):
            yield Run(name, network, method, images, fold, seed)


def _paint_all(settings: Augmentation, datasets: Sequence[DatasetFolder], left: Sequence[Run]) -> None:
    how, pipeline = paint_settings(settings), None
    for dataset in datasets:
        wanted = {(run.images, run.fold): None for run in left
                  if run.dataset == dataset.info.name and needs_painted(run.method)}  # fmt: skip
        folds = folds_of(dataset, settings)
        sources: dict[str, None] = {}
        for images, fold in wanted:
            sources |= dict.fromkeys(how.sources(draw_budget(folds[fold], images)[0]))
        folders = painted_folders(settings.out, dataset.real())
        if all((folders[name] / "images" / "metadata.csv").exists() for name in sources):
            continue
        pipeline = pipeline or load_synthesizer(settings.checkpoint)
        paint_missing(how, dataset.real(), list(sources), settings.out, pipeline)


def _train_all(settings: Augmentation, datasets: Sequence[DatasetFolder], left: Sequence[Run]) -> None:
    path = Path(settings.out) / RESULTS
    rows: list[dict[str, Any]] = list(read_table(path))
    facts = {dataset.info.name: run_facts(settings, dataset) for dataset in datasets}
    folders = {dataset.info.name: dataset.folder for dataset in datasets}

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        write_table(path, rows)

    jobs = [(settings, folders[run.dataset], run, facts[run.dataset]) for run in left]
    with tqdm(total=len(jobs), desc="training segmenters", unit="run", disable=not jobs) as bar:
        for row in _results(jobs, min(settings.workers, len(jobs))):
            keep(row)
            bar.update()


def _results(jobs: Sequence[tuple], workers: int) -> Iterator[dict[str, Any]]:
    """The rows of all jobs as they end, in this process or in several."""
    if workers <= 1:
        yield from (run_one(*job) for job in jobs)
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    start = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=start, initializer=_begin_worker, initargs=(threads,)) as pool:
        waiting = [pool.submit(run_one, *job) for job in jobs]
        try:
            for future in as_completed(waiting):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker(threads: int) -> None:
    import torch

    from emitdiff.devices import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(threads)


def run_facts(settings: Augmentation, dataset: DatasetFolder) -> dict[str, str]:
    """What every row of a dataset says beside its measures: settings, hashes, versions, and how many of its groups the
    synthesis weights were trained on."""
    hashes = json.loads((Path(settings.out) / HASHES).read_text(encoding="utf-8"))
    names = ("steps", "batch", "learning_rate", "resolution", "validations", "folds", "ratio", "painted_limit", "edit",
             "real_share", "tested", "checkpoint")  # fmt: skip
    real = dataset.real()
    return {
        **{name: str(getattr(settings, name)) for name in names},
        "groups": str(len(set(real.groups))), "seen_groups": str(len(seen_groups(real, settings.checkpoint).groups)),
        "dataset_sha256": hashes["datasets"][dataset.info.name],
        "weights_sha256": hashes["weights"].get(settings.checkpoint, ""), "emitdiff": __version__,
        **{name: version(name) for name in ("torch", "monai", "numpy")},
    }  # fmt: skip
