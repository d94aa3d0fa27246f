"""From a dataset folder to a larger one: images are generated from the edges, mask and prompt of each image.

What is generated follows from the settings, the row and the number of the variant alone, and a file is there whole or
not at all. So a run that was stopped goes on where it was, and several processes share the work without talking.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from emitdiff.augmentation_settings import AugmentationSettings
from emitdiff.datasets.fingerprint import dataset_sha256
from emitdiff.datasets.folder import DatasetFolder, Sample, open_dataset, unique_stems
from emitdiff.datasets.rows import FIRST_COLUMNS
from emitdiff.datasets.splits import choose_rows
from emitdiff.datasets.writing import write_tables
from emitdiff.errors import EmitDiffError
from emitdiff.files import check_no_foreign_files, list_files, make_folder, read_record
from emitdiff.progress import NO_PROGRESS, Progress
from emitdiff.provenance import read_synthetic_settings, save_synthetic_png
from emitdiff.synthesis.loading import load_synthesizer
from emitdiff.synthesis.mask_edits import edit_mask, random_edit
from emitdiff.synthesis.pipeline import SynthesisPipeline
from emitdiff.synthesis.prompts import compose_prompt, prompt_of
from emitdiff.synthesis.training.captions import APPEARANCE_WORDS
from emitdiff.synthesis_settings import MaskEdit

PROVENANCE = "trainedAlgorithmicMedia"  # IPTC's word for pictures that a trained model made
COLUMNS = (
    *FIRST_COLUMNS, "source", "seed", "prompt", "appearance", "checkpoint", "structure", "edit", "steps", "guidance",
    "preset", "provenance",
)  # fmt: skip
RECORD = "augment.json"
LATER_FACTS = ("dataset_sha256", "weights_sha256")  # that older versions did not record
TABLES = ("dataset.json", "metadata.csv")
UNFINISHED = ".unfinished"
BAR_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left, {rate_noinv_fmt}]"
MAX_EDIT_DRAWS = 10  # after so many edits that push a small target out of the picture, the mask stays as it is


@dataclass(frozen=True)
class Augment(AugmentationSettings):
    """Settings of `augment`: from which dataset folder, into which folder, and how."""

    dataset: Path
    out: Path


@dataclass(frozen=True)
class ImageTask:
    """One file to write: variant number `variant` of row `index`, or the real image itself where it is None."""

    index: int
    variant: int | None
    image: str
    mask: str


def augment(
    settings: Augment, pipeline: SynthesisPipeline | None = None, progress: Progress = NO_PROGRESS
) -> DatasetFolder | None:
    """Writes a dataset folder of synthetic images, with where each comes from in every row; a rerun resumes where it
    stopped.

    Under `accelerate launch` or torchrun each process generates its share, and whichever is last writes the tables.
    Returns the folder, or None where other processes are still at it, or nothing was generated before `progress` ended
    the run. `pipeline` is that of the settings' checkpoint where it is loaded already.

    `dataset.json` keeps the source's name and every row its source's group, so that whoever splits by group keeps an
    image and what was generated from it on the same side.

    Raises:
        EmitDiffError: settings that cannot be used, an unreadable dataset, an unknown checkpoint, or an `out` that
            holds something else or was started with other settings.
    """
    settings.check()
    rank, world = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    dataset = open_dataset(settings.dataset)
    pipeline = pipeline or load_synthesizer(settings.checkpoint, _device(world))
    training = pipeline.checkpoint_card.training
    held_out = training.get("held_out", 0.2), training.get("split_seed", 0)
    real = dataset.real()
    if not len(real):
        raise EmitDiffError(f"All images of {settings.dataset} are synthetic; give a dataset with real images.")
    chosen = choose_rows(real, settings.split, settings.limit, *held_out)
    jobs = plan(chosen, settings)
    out = _start_folder(settings, chosen, jobs, pipeline)
    if rank == 0 and len(real) < len(dataset):
        _log(f"{len(dataset) - len(real)} images of {settings.dataset} are synthetic; nothing is generated from those.")
    copies, syntheses = ([job for job in jobs if (job.variant is None) == copied] for copied in (True, False))
    _generate_all(syntheses[rank::world], chosen, pipeline, settings, (rank, world), progress)
    for job in copies[rank::world]:
        if not (out / job.image).exists():
            _copy(chosen[job.index], job, out)
    if progress.cancelled():
        jobs = [job for job in jobs if (out / job.image).exists()]
    return _finish(jobs, chosen, out) if any(job.variant is not None for job in jobs) else None


def _device(world: int) -> str | None:
    """One card per process where there are several; None leaves the choice to `load_synthesizer`."""
    import torch

    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return "cpu"
    if world == 1 or not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"


def plan(dataset: DatasetFolder, settings: Augment) -> list[ImageTask]:
    """Every file there will be, row by row. Raises EmitDiffError where the ratio leaves nothing to generate."""
    whole, count = int(settings.ratio), len(dataset)
    names = [row["file_name"] for row in dataset.rows]
    drawn = sorted(range(count), key=lambda index: _hash(settings.seed, dataset.info.name, names[index], "one more"))
    more = set(drawn[: round((settings.ratio - whole) * count)])
    if not whole and not more:
        raise EmitDiffError(f"A ratio of {settings.ratio:g} of {count} image(s) is none; give a larger one.")
    jobs = []
    for index, stem in enumerate(unique_stems(names)):
        if settings.include_real:
            jobs.append(ImageTask(index, None, f"images/{stem}.png", f"masks/{stem}.png"))
        for variant in range(whole + (index in more)):
            name = f"synthetic_{stem}_{variant}.png"
            jobs.append(ImageTask(index, variant, f"images/{name}", f"masks/{name}"))
    return jobs


def _hash(*parts: object) -> int:
    """48 bits: enough to tell every image apart, few enough for any spreadsheet to keep."""
    return int.from_bytes(hashlib.sha256(":".join(map(str, parts)).encode()).digest()[:6])


def image_seed(settings: Augment, sample: Sample, name: str, variant: int) -> int:
    """The seed of a variant of a sample of the dataset called `name`: another one for every image and variant."""
    return _hash(settings.seed, name, sample.name, variant)


def _start_folder(
    settings: Augment, dataset: DatasetFolder, jobs: list[ImageTask], pipeline: SynthesisPipeline
) -> Path:
    """The folder, with the record of what it is made with. Raises EmitDiffError where it holds anything else."""
    out = Path(settings.out)
    rows = json.dumps(dataset.rows, sort_keys=True)
    record = {name: value for name, value in asdict(settings).items() if name not in ("dataset", "out")}
    record |= {
        "ratio": float(settings.ratio),
        "dataset": dataset.info.name,
        "rows": hashlib.sha256(rows.encode()).hexdigest(),
    }
    record |= {"weights": hashlib.sha256(json.dumps(pipeline.card, sort_keys=True).encode()).hexdigest()}
    record |= {"dataset_sha256": dataset_sha256(dataset)}
    if getattr(pipeline, "weights", ""):
        record["weights_sha256"] = pipeline.weights
    path = out / RECORD
    existing = list_files(out)  # before the record is read, for other processes write that first
    before = read_record(path, out)
    ours = isinstance(before, dict) and before.keys() >= {"ratio", "rows"}
    if before is not None and ours and set(existing) - {RECORD}:
        _compare(before, record, out)
    own = {RECORD, *TABLES, *(name for job in jobs for name in (job.image, job.mask))}
    check_no_foreign_files(out, own if ours else (), existing)
    for part in ("images", "masks", UNFINISHED):
        make_folder(out / part, named=out)
    if before != record:  # new, or given up before anything was generated
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        _write_atomically(path, out, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
    return out


def _compare(before: dict, now: dict, out: Path) -> None:
    words = {"rows": "other rows of the dataset", "weights": "other weights"}
    words |= {"dataset_sha256": "other images or masks", "weights_sha256": "weights of another content"}
    before = {**{name: now[name] for name in LATER_FACTS if name in now}, **before}
    changes = [
        words.get(name) or f"{name} {before.get(name)}, now {now.get(name)}"
        for name in now
        if before.get(name) != now[name]
    ]
    if changes:
        raise EmitDiffError(
            f"{out} was started with {'; '.join(changes)}. Give another folder, or the original settings."
        )


def _write_atomically(path: Path, out: Path, write: Callable[[Path], object]) -> None:
    """Has `write` make the file aside and moves it to `path`, so that whoever is killed leaves no half file there."""
    unfinished = out / UNFINISHED / f"{path.stem}.{os.getpid()}{path.suffix}"
    write(unfinished)
    os.replace(unfinished, path)


def _copy(sample: Sample, job: ImageTask, out: Path) -> None:
    """The real image, as PNG like the synthetic ones, for nothing but the content should tell them apart."""
    _write_atomically(out / job.mask, out, Image.fromarray(sample.mask).save)
    _write_atomically(out / job.image, out, Image.fromarray(sample.image).save)


def _generate_all(
    jobs, dataset: DatasetFolder, pipeline, settings: Augment, process: tuple[int, int], progress
) -> None:
    """Generates what is not there yet; Ctrl-C says how to go on."""
    (rank, world), out, warned = process, Path(settings.out), set()
    left = [job for job in jobs if not (out / job.image).exists()]
    share = f" (process {rank + 1} of {world})" if world > 1 else ""
    bar = tqdm(
        left, f"generating {dataset.info.name}{share}", len(jobs), initial=len(jobs) - len(left), disable=rank > 0,
        bar_format=BAR_FORMAT, unit=" images",
    )  # fmt: skip
    try:
        for done, job in enumerate(bar, start=len(jobs) - len(left)):
            progress.report(done, len(jobs))
            warning = _generate(job, dataset, pipeline, settings, progress)
            if progress.cancelled():
                break
            if warning and rank == 0 and warning not in warned:
                bar.write(warning, file=sys.stderr)
                warned.add(warning)
    except KeyboardInterrupt:
        bar.close()
        there = sum((out / job.image).exists() for job in jobs)
        _log(f"Stopped{share}: {there} of {len(jobs)} images are in {out}. The same command resumes from there.")
        raise


def _generate(
    job: ImageTask, dataset: DatasetFolder, pipeline: SynthesisPipeline, settings: Augment, progress: Progress
) -> str:
    """Generates and writes one variant, unless the run is ended; returns what the tokenizer would cut off its
    prompt."""
    out, sample = Path(settings.out), dataset[job.index]
    seed = image_seed(settings, sample, dataset.info.name, job.variant or 0)
    edit = _draw_edit(sample.mask, seed, settings.edit)
    mask = sample.mask if edit is None else edit_mask(sample.mask, edit)
    words = ", ".join(_draw_words(seed)) if settings.appearance else ""
    prompt = compose_prompt(prompt_of(dataset.info, mask, sample.finding), appearance=words)
    asked = settings.of_each_image.replace(prompt=prompt, seed=seed, edit=edit)
    results = pipeline(sample.image, sample.mask, asked, cancelled=progress.cancelled)
    if not results:
        return ""
    (result,) = results
    row = {
        "file_name": job.image, "mask": job.mask, "group": sample.group, "finding": sample.finding,
        "text": sample.text if edit is None else "",  # it may say where the target was
        "source": sample.name, "seed": str(seed), "prompt": prompt, "checkpoint": pipeline.name,
        "appearance": result.settings["appearance"],  # the phrase that a preset mixed in beside the prompt
        "structure": f"{settings.structure:g}", "edit": "" if edit is None else json.dumps(asdict(edit)),
        "steps": str(result.settings["num_inference_steps"]), "guidance": f"{result.settings['guidance_scale']:g}",
        "preset": settings.preset, "provenance": PROVENANCE,
    }  # fmt: skip
    label = mask if result.mask is None else result.mask
    _write_atomically(out / job.mask, out, Image.fromarray(label.astype(np.uint8)).save)
    _write_atomically(
        out / job.image, out, lambda path: save_synthetic_png(result.image, path, {**result.settings, "row": row})
    )
    return pipeline.prompt_warning(prompt)


def _draw_edit(mask: np.ndarray, seed: int, strength: float) -> MaskEdit | None:
    if not strength or not mask.any():
        return None
    rng = np.random.default_rng((seed, 1))
    for _ in range(MAX_EDIT_DRAWS):
        edit = random_edit(rng, strength)
        try:
            edit_mask(mask, edit)
        except EmitDiffError:
            continue
        return edit
    return None


def _draw_words(seed: int) -> list[str]:
    """One or two appearance words, never a word and its opposite."""
    rng = np.random.default_rng((seed, 2))
    pairs = rng.permutation(list(APPEARANCE_WORDS.values()))[: rng.integers(1, 3)]
    return [str(pair[rng.integers(2)]) for pair in pairs]


def _finish(jobs: list[ImageTask], dataset: DatasetFolder, out: Path) -> DatasetFolder | None:
    """The tables, once every picture is there; what was asked of a synthetic one is kept in the picture itself."""
    missing = sum(not (out / job.image).exists() for job in jobs)
    if missing:
        _log(f"This process has finished its share; {missing} of {len(jobs)} images are not there yet.")
        return None
    rows = []
    for job in jobs:
        if job.variant is None:
            rows.append({**dataset.rows[job.index], "file_name": job.image, "mask": job.mask, "provenance": ""})
        else:
            row = read_synthetic_settings(out / job.image)["row"]
            rows.append({column: row.get(column, "") for column in COLUMNS})
    written = write_tables(out, dataset.info, rows)
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)
    return written


def _log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
