"""A dataset folder of the synthetic images that are fit to train on, with a table of all scores and a report.

The real set is looked at once (small views, grey values); then every synthetic image is scored beside its source.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from emitdiff.cells import write_cells
from emitdiff.datasets.folder import DatasetFolder, open_dataset
from emitdiff.datasets.writing import write_tables
from emitdiff.errors import EmitDiffError
from emitdiff.files import check_no_foreign_files, list_files, make_folder, read_record, write_text
from emitdiff.progress import NO_PROGRESS, Progress
from emitdiff.synthesis.filtering.report import report_page
from emitdiff.synthesis.filtering.scoring import Filter, RealSet, ScoredImage, apply_thresholds, is_generated, score
from emitdiff.synthesis.similarity import LabelPredictor

RUN_RECORD = ".filter.json"  # in a folder that is no dataset yet: the files that `filter_images` wrote, or was about to


def filter_images(
    settings: Filter, predict_labels: LabelPredictor | None = None, progress: Progress = NO_PROGRESS
) -> DatasetFolder | None:
    """Scores all synthetic images; writes `quality.csv`, `report.html` and, of those kept, a dataset folder.

    Args:
        answers: a segmenter's masks for a sample, see `LabelPredictor`; None leaves the Dice out.

    Returns:
        The dataset folder with the images kept, or None if there are none, or `progress` ended the run: then nothing
        is written.

    Raises:
        EmitDiffError: unreadable folders, a source that the real set does not have, thresholds out of range, or an
            `out` that holds anything but what an earlier run left without a dataset.
    """
    synthetic, real = open_dataset(settings.synthetic), open_dataset(settings.real)
    out = _checked_output(settings)
    generated = [index for index, row in enumerate(synthetic.rows) if is_generated(row)]
    originals = real.subset([index for index, row in enumerate(real.rows) if not is_generated(row)])
    if not generated or not len(originals):
        without = settings.real if generated else settings.synthetic
        kind = "real" if generated else "synthetic"
        raise EmitDiffError(
            f"{without} has no {kind} images: give the folder that `augment` wrote first, then the real dataset."
        )
    reals = RealSet(originals, predict_labels, [synthetic.rows[index] for index in generated])
    make_folder(out)
    scored: list[ScoredImage] = []
    for index in tqdm(generated, desc=f"scoring {synthetic.info.name}", unit="image"):
        progress.report(len(scored), len(generated))
        if progress.cancelled():
            return None
        scored.append(score(synthetic[index], index, reals, predict_labels))
    apply_thresholds(scored, settings)
    ranked = sorted(scored, key=lambda one: (one.margin, one.index))
    dropped = {one.index for one in scored if not one.kept}
    rows = [index for index in range(len(synthetic)) if index not in dropped] if len(dropped) < len(scored) else []
    _start_folder(out, [synthetic.rows[index] for index in rows])
    _write_atomically(out / "quality.csv", _table(ranked))
    _write_atomically(out / "report.html", report_page(ranked, synthetic, originals, settings))
    return _copy(synthetic, rows, scored, out) if rows else None


def _checked_output(settings: Filter) -> Path:
    for name, top in (("edges", 1), ("dice", 1), ("histogram", 255), ("copy", 1), ("duplicate", 1)):
        if not 0 <= settings.limit(name) <= top:
            raise EmitDiffError(
                f"The threshold for {name} was {settings.limit(name):g}; give a number from 0 to {top}."
            )
    out = Path(settings.out)
    if out.resolve() in (Path(settings.synthetic).resolve(), Path(settings.real).resolve()):
        raise EmitDiffError(f"{out} is one of the input folders: give another output folder.")
    check_no_foreign_files(out, read_record(out / RUN_RECORD, out) or ())
    return out


def _start_folder(out: Path, rows: Sequence[dict[str, str]]) -> None:
    """Removes what an earlier run left here, and notes what this one writes: so that, stopped or without anything good
    to keep, the folder may be given again."""
    for name in set(list_files(out)).intersection(read_record(out / RUN_RECORD, out) or ()):
        (out / name).unlink()
    names = [Path(name).as_posix() for row in rows for name in (row["file_name"], row["mask"])]
    write_text(out / RUN_RECORD, json.dumps(["quality.csv", "report.html", "dataset.json", *names]))


def _cells(one: ScoredImage) -> dict[str, str]:
    """The scores of one image as cells of a table; empty where one does not apply."""
    numbers = {"score_edges": one.values["edges"], "score_dice": one.dice, "score_dice_source": one.dice_source,
               "score_dice_share": one.values["dice"], "score_histogram": one.values["histogram"],
               "score_source": one.source_similarity, "score_copy": one.values["copy"],
               "score_duplicate": one.values["duplicate"], "margin": one.margin}  # fmt: skip
    cells = {name: "" if value is None else f"{value:.4f}" for name, value in numbers.items()}
    mirrored = "yes" if one.nearest.mirrored else "no"
    return {**cells, "nearest": one.nearest_name, "nearest_mirrored": mirrored, "duplicate_of": one.duplicate_of}


def _table(ranked: Sequence[ScoredImage]) -> str:
    """quality.csv, worst first: one row an image."""
    rows = [
        {"file_name": one.row["file_name"], "source": one.row["source"], "kept": "yes" if one.kept else "no",
         "failed": " ".join(one.failed), **_cells(one), "reason": one.reason}
        for one in ranked
    ]  # fmt: skip
    text = io.StringIO(newline="")
    write_cells(text, list(rows[0]), rows)
    return text.getvalue()


def _copy(synthetic: DatasetFolder, kept: Sequence[int], scored: Sequence[ScoredImage], out: Path) -> DatasetFolder:
    """Copies files as they are, for their metadata says how they were made; real rows among them are copied too."""
    by_index = {one.index: one for one in scored}
    rows = []
    for index in kept:
        row, one = synthetic.rows[index], by_index.get(index)
        for name in (row["file_name"], row["mask"]):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(synthetic.path(name), out / name)
        rows.append({**row, **(_cells(one) if one is not None else {})})
    written = write_tables(out, synthetic.info, rows)
    (out / RUN_RECORD).unlink()
    return written


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.part")
    with partial.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
    partial.replace(path)
