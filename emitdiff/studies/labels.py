"""Label efficiency: few-shot heads and U-Nets trained on exactly the same few labelled images.

For every dataset, number of labelled images and draw of them, every arm is trained and asked for the masks of images of
groups held out, at one size. The figures are the papers': Dice of the foreground per image at 256 x 256.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, product
from pathlib import Path

from tqdm import tqdm

from emitdiff.datasets.folder import DatasetFolder, Sample, open_dataset
from emitdiff.datasets.splits import choose_rows, draw_labelled
from emitdiff.errors import EmitDiffError
from emitdiff.files import file_stem, make_folder
from emitdiff.images import resize_image, resize_mask
from emitdiff.segmentation.evaluation import TEXTS, measure, shuffled_sentences, summarise
from emitdiff.segmentation.few_shot.head import fingerprints
from emitdiff.segmentation.pipeline import SegmentationPipeline
from emitdiff.segmentation.vocabulary import queries_of
from emitdiff.studies.arms import ARMS, NO_TEXT, OURS, Segment, TrainArm, check_arms, load_base, train_arm
from emitdiff.studies.label_report import RunResults, as_markdown, draw_chart, make_report
from emitdiff.studies.networks import DIVISOR
from emitdiff.studies.results_table import RESULTS, open_study, read_table, write_report, write_table
from emitdiff.studies.splits import TrainTest, split_train_test

KEYS = ("dataset", "images", "draw", "fold", "arm")


@dataclass(frozen=True)
class Labels:
    """Settings of `study_labels`.

    `images` are the numbers of labelled images, `draws` how often each is drawn; draw and training have seed 0, 1, ...
    `split_column` and `folds` as in `split_train_test`, the column for those datasets that have it; with folds, a draw
    is one of every fold's training groups, and its Dice is over all images, each tested once. `test_limit` takes evenly
    spread test images of each fold. `derived` names datasets whose sentences were made from their masks, which the
    report then says. `checkpoint` and `backbone` as in `load_base`, `steps` to `seconds` as in `TrainArm`.
    """

    datasets: tuple[Path, ...]
    out: Path
    images: tuple[int, ...] = (5, 10, 20)
    draws: int = 5
    arms: tuple[str, ...] = ARMS
    texts: tuple[str, ...] = TEXTS
    checkpoint: str = "textdiff-mini"
    backbone: Path | None = None
    steps: int = 1000
    batch: int = 4
    learning_rate: float = 3e-3
    seconds: float = 300.0
    resolution: int = 256
    split_column: str | None = None
    folds: int | None = None
    test_limit: int | None = None
    derived: tuple[str, ...] = ()
    json: bool = False


@dataclass(frozen=True)
class Run:
    """One training: an arm, on one draw of so many images of one fold's training groups."""

    dataset: str
    images: int
    draw: int
    fold: int
    arm: str

    @property
    def key(self) -> tuple[str, ...]:
        """Its place in results.csv, as it is read from there."""
        return tuple(str(getattr(self, name)) for name in KEYS)

    @property
    def file(self) -> str:
        """The name of its file of rows, one for each image."""
        return f"{file_stem(self.dataset)}-{self.images}-{self.draw}-{self.fold}-{self.arm}.csv"


def study_labels(settings: Labels) -> dict:
    """Writes `out`/results.csv as each run ends, and its measures of every image to `out`/runs; then labels.png,
    report.md and report.json.

    Run again, it trains only what is missing; datasets, numbers of images, draws and arms may be added. Returns
    what report.json says.

    Raises:
        EmitDiffError: an unknown arm or text, a dataset that cannot be used or has too few labelled images, weights
            that are not there, or an `out` started with other settings.
    """
    check_arms(settings.arms)
    _check(settings)
    datasets = [open_dataset(folder) for folder in settings.datasets]
    columns = {dataset.info.name: _column(dataset, settings) for dataset in datasets}
    if settings.split_column and not any(columns.values()):
        raise EmitDiffError(f"No dataset has a column '{settings.split_column}': name one of metadata.csv, or none.")
    sides = {dataset.info.name: _sides(dataset, settings, columns[dataset.info.name]) for dataset in datasets}
    if len(sides) < len(datasets):
        raise EmitDiffError(f"Two datasets have one name ({', '.join(sides)}): give each its own name.")
    if unknown := [name for name in settings.derived if name not in sides]:
        raise EmitDiffError(f"--derived names {', '.join(unknown)}; the datasets here are {', '.join(sides)}.")
    base = load_base(settings.checkpoint, settings.backbone) if OURS in settings.arms else None
    free = ("out", "datasets", "images", "draws", "arms", "derived", "json")
    record = {name: value for name, value in asdict(settings).items() if name not in free}
    out = open_study(settings.out, record, {} if base is None else fingerprints(base), datasets)
    runs = list(_runs(settings, sides))
    _train_all_runs(settings, runs, sides, base, out)
    facts = {name: _facts(folds, settings, columns[name]) for name, folds in sides.items()}
    report = {"settings": json.loads(json.dumps(asdict(settings), default=str)), "datasets": facts,
              **make_report(collect(runs, out))}  # fmt: skip
    draw_chart(out / "labels.png", report)
    write_report(out, report, as_markdown(report), settings.json)
    return report


def _check(settings: Labels) -> None:
    if unknown := [text for text in settings.texts if text not in TEXTS]:
        raise EmitDiffError(f"The text '{unknown[0]}' is not known: choose among {', '.join(TEXTS)}.")
    if settings.resolution % DIVISOR or settings.resolution < 2 * DIVISOR:
        raise EmitDiffError(f"The resolution was {settings.resolution}; give a multiple of {DIVISOR} from 64 on.")


def _column(dataset: DatasetFolder, settings: Labels) -> str | None:
    return settings.split_column if settings.split_column in dataset.rows[0] else None


def _sides(dataset: DatasetFolder, settings: Labels, column: str | None) -> list[TrainTest]:
    """Every fold's (train, test), after looking that each can be drawn from."""
    sides = split_train_test(dataset, settings.folds, column)
    for train, _ in sides:
        draw_labelled(train, max(settings.images), 0)
    return [(train, choose_rows(test, limit=settings.test_limit)) for train, test in sides]


def _runs(settings: Labels, sides: dict[str, list[TrainTest]]) -> Iterator[Run]:
    """In an order in which a study that is stopped early has the same draws of everything."""
    for draw, (name, folds), images in product(range(settings.draws), sides.items(), settings.images):
        for fold, arm in product(range(len(folds)), settings.arms):
            yield Run(name, images, draw, fold, arm)


def _train_all_runs(settings: Labels, runs: Sequence[Run], sides: dict[str, list[TrainTest]],
               base: SegmentationPipeline | None, out: Path) -> None:  # fmt: skip
    rows = read_table(out / RESULTS)
    done = {tuple(row[name] for name in KEYS) for row in rows}
    make_folder(out / "runs")
    tests: dict[tuple[str, int], list[Sample]] = {}
    for run in tqdm([run for run in runs if run.key not in done], desc="teaching", unit="run"):
        train, test = sides[run.dataset][run.fold]
        if (run.dataset, run.fold) not in tests:
            tests = {(run.dataset, run.fold): [resized(sample, settings.resolution) for sample in test]}
        drawn = draw_labelled(train, run.images, run.draw)
        samples = [resized(sample, settings.resolution) for sample in drawn]
        segment, seconds = train_arm(_arm_settings(settings, run), base, samples, train.info)
        texts = settings.texts if run.arm == OURS else (NO_TEXT,)
        measured = measure_arm(segment, tests[run.dataset, run.fold], test, texts)
        write_table(out / "runs" / run.file, measured)
        facts = {**{name: getattr(run, name) for name in KEYS}, "seconds": round(seconds, 1)}
        names = "|".join(row["file_name"] for row in drawn.rows)
        rows += [{**facts, **line, "drawn": names} for line in _lines(measured)]
        write_table(out / RESULTS, rows)


def _facts(folds: list[TrainTest], settings: Labels, column: str | None) -> dict:
    """What the report says of a dataset."""
    info, tests = folds[0][0].info, [row for _, test in folds for row in test.rows]
    spoken = sum(bool(row.get("text", "").strip()) for row in tests) if sum(map(bool, info.labels.values())) == 1 else 0
    own = "sentences of the rows" if spoken else "modality, organ and label"
    if info.name in settings.derived:
        own += ", derived from the masks"
    split = (
        f"column {column}" if column else f"{len(folds)} folds by group" if settings.folds else "a fifth of the groups"
    )
    counts = {"train": [len(train) for train, _ in folds], "test": [len(test) for _, test in folds]}
    return {**counts, "split": f"column {column}" if column else split, "own_text": own}


def collect(runs: Sequence[Run], out: Path) -> list[RunResults]:
    """What every run left in `out`."""
    seconds = {tuple(row[name] for name in KEYS): float(row["seconds"]) for row in read_table(out / RESULTS)}
    return [
        RunResults(run.dataset, run.images, run.draw, run.arm, seconds[run.key], read_table(out / "runs" / run.file))
        for run in runs
    ]


def _arm_settings(settings: Labels, run: Run) -> TrainArm:
    return TrainArm(run.arm, settings.resolution, settings.steps, settings.batch, settings.learning_rate,
                    settings.seconds, run.draw)  # fmt: skip


def resized(sample: Sample, side: int) -> Sample:
    """The sample with image and mask at `side` x `side`, whatever its aspect ratio, as in the paper; the mask by
    nearest neighbour."""
    size = (side, side)
    return replace(sample, image=resize_image(sample.image, size), mask=resize_mask(sample.mask, size))


def queries_for(samples: Sequence[Sample], rows: DatasetFolder, texts: Sequence[str]) -> list[dict]:
    """For every sample and label: `sample`, `label`, `target`, `truth` (bool mask), and under "said" a sentence for
    each of `texts`."""
    labels = [label for label, value in rows.info.labels.items() if value]
    # queries_of names the labels in their order first, then what is only derived from them
    queries = [(sample, label, *question) for sample in samples
             for label, question in zip(labels, queries_of(sample, rows), strict=False)]  # fmt: skip
    shuffled = [""] * len(queries)
    if "shuffled" in texts:
        shuffled = shuffled_sentences([(target, own) for _, _, target, own, _ in queries], 0)
    found = []
    for (sample, label, target, own, truth), other in zip(queries, shuffled, strict=True):
        sentences = {"own": own, "none": "", "shuffled": other, NO_TEXT: ""}
        found.append({"sample": sample, "label": label, "target": target, "truth": truth,
                      "said": {text: sentences[text] for text in texts}})  # fmt: skip
    return found


def measure_arm(segment: Segment, samples: Sequence[Sample], rows: DatasetFolder, texts: Sequence[str]) -> list[dict]:
    """A row of `measure` for every sample, label and text; `samples` are `rows` at one size."""
    measured = []
    for name, grouped in groupby(queries_for(samples, rows, texts), key=lambda asked: asked["sample"].name):
        queries = list(grouped)
        sample = queries[0]["sample"]
        sentences = [(asked["label"], sentence) for asked in queries for sentence in asked["said"].values()]
        masks = segment(sample.image, sentences)
        for (asked, text), mask in zip(product(queries, texts), masks, strict=True):
            names = {"file_name": name, "group": sample.group, "target": asked["target"], "text": text}
            measured.append(names | measure(mask, asked["truth"]))
    return measured


def _lines(measured: list[dict]) -> list[dict]:
    """Of the rows of one run, a line for each text and target."""
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in measured:
        groups.setdefault((row["text"], row["target"]), []).append(row)
    return [{"text": text, "target": target, **summarise(rows)} for (text, target), rows in groups.items()]
