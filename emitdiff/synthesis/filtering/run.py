"""A dataset folder of the synthetic images that are fit to train on, with a table of all scores and a report.

The real set is looked at once (small views, grey values); then every synthetic image is scored beside its source.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from emitdiff.datasets.folder import DatasetFolder, open_dataset
from emitdiff.datasets.writing import write_tables
from emitdiff.errors import EmitDiffError
from emitdiff.files import check_alone, held_files, make_folder, read_record, write_text
from emitdiff.progress import NOBODY, Watch
from emitdiff.synthesis.filtering.report import report_page
from emitdiff.synthesis.filtering.scoring import Filter, RealSet, Scored, is_painted, judge, score
from emitdiff.synthesis.similarity import Answers

OPEN = ".filter.json"  # in a folder that is no dataset yet: the files that `filter_images` wrote, or was about to


def filter_images(settings: Filter, answers: Answers | None = None, watch: Watch = NOBODY) -> DatasetFolder | None:
    """Scores all synthetic images; writes `quality.csv`, `report.html` and, of those kept, a dataset folder.

    Args:
        answers: a segmenter's masks for a sample, see `Answers`; None leaves the Dice out.

    Returns:
        The dataset folder with the images kept, or None if there are none, or `watch` ended the run: then nothing
        is written.

    Raises:
        EmitDiffError: unreadable folders, a source that the real set does not have, thresholds out of range, or an
            `out` that holds anything but what an earlier run left without a dataset.
    """
    synthetic, real = open_dataset(settings.synthetic), open_dataset(settings.real)
    out = _checked_output(settings)
    painted = [index for index, row in enumerate(synthetic.rows) if is_painted(row)]
    originals = real.subset([index for index, row in enumerate(real.rows) if not is_painted(row)])
    if not painted or not len(originals):
        without = settings.real if painted else settings.synthetic
        kind = "real" if painted else "synthetic"
        raise EmitDiffError(f"{without} has no {kind} images: give first what `augment` wrote, then its dataset.")
    reals = RealSet(originals, answers, [synthetic.rows[index] for index in painted])
    make_folder(out)
    scored = []
    for index in tqdm(painted, desc=f"scoring {synthetic.info.name}", unit="image"):
        watch.told(len(scored), len(painted))
        if watch.cancelled():
            return None
        scored.append(score(synthetic[index], index, reals, answers))
    judge(scored, settings)
    ranked = sorted(scored, key=lambda one: (one.margin, one.index))
    dropped = {one.index for one in scored if not one.kept}
    rows = [index for index in range(len(synthetic)) if index not in dropped] if len(dropped) < len(scored) else []
    _claim(out, [synthetic.rows[index] for index in rows])
    _write_atomically(out / "quality.csv", _table(ranked))
    _write_atomically(out / "report.html", report_page(ranked, synthetic, originals, settings))
    return _copy(synthetic, rows, scored, out) if rows else None


def _checked_output(settings: Filter) -> Path:
    for name, top in (("edges", 1), ("dice", 1), ("histogram", 255), ("copy", 1), ("twin", 1)):
        if not 0 <= settings.limit(name) <= top:
            raise EmitDiffError(
                f"The threshold for {name} was {settings.limit(name):g}; give a number from 0 to {top}."
            )
    out = Path(settings.out)
    if out.resolve() in (Path(settings.synthetic).resolve(), Path(settings.real).resolve()):
        raise EmitDiffError(f"{out} is one of the folders compared: give another one for what is kept.")
    check_alone(out, read_record(out / OPEN, out) or ())
    return out


def _claim(out: Path, rows: Sequence[dict[str, str]]) -> None:
    """Removes what an earlier run left here, and notes what this one writes: so that, stopped or without anything good
    to keep, the folder may be given again."""
    for name in set(held_files(out)).intersection(read_record(out / OPEN, out) or ()):
        (out / name).unlink()
    names = [Path(name).as_posix() for row in rows for name in (row["file_name"], row["mask"])]
    write_text(out / OPEN, json.dumps(["quality.csv", "report.html", "dataset.json", *names]))


def _cells(one: Scored) -> dict[str, str]:
    """The scores of one image as cells of a table; empty where one does not apply."""
    numbers = {"score_edges": one.values["edges"], "score_dice": one.dice, "score_dice_source": one.dice_source,
               "score_dice_share": one.values["dice"], "score_histogram": one.values["histogram"],
               "score_source": one.source_similarity, "score_copy": one.values["copy"],
               "score_twin": one.values["twin"], "margin": one.margin}  # fmt: skip
    cells = {name: "" if value is None else f"{value:.4f}" for name, value in numbers.items()}
    mirrored = "yes" if one.nearest.mirrored else "no"
    return {**cells, "nearest": one.nearest_name, "nearest_mirrored": mirrored, "twin_of": one.twin_of}


def _table(ranked: Sequence[Scored]) -> str:
    """quality.csv, worst first: one row an image."""
    rows = [
        {"file_name": one.row["file_name"], "source": one.row["source"], "kept": "yes" if one.kept else "no",
         "failed": " ".join(one.failed), **_cells(one), "reason": one.reason}
        for one in ranked
    ]  # fmt: skip
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _copy(synthetic: DatasetFolder, kept: Sequence[int], scored: Sequence[Scored], out: Path) -> DatasetFolder:
    """Copies files as they are, for their metadata says how they were made; real rows among them are copied too."""
    judged = {one.index: one for one in scored}
    rows = []
    for index in kept:
        row, one = synthetic.rows[index], judged.get(index)
        for name in (row["file_name"], row["mask"]):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(synthetic.folder / name, out / name)
        rows.append({**row, **(_cells(one) if one is not None else {})})
    written = write_tables(out, synthetic.info, rows)
    (out / OPEN).unlink()
    return written


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.part")
    with partial.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
    partial.replace(path)
