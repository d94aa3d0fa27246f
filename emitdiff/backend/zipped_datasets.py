"""Work on a zipped dataset folder, for programs: a head is taught from it, or weights are measured on it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emitdiff.backend.pipelines import import_measures, segmenter
from emitdiff.datasets.archive import strip_folders, unpack_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.ui.interface import EvaluateRequest, FewShotDatasetRequest

if TYPE_CHECKING:
    from emitdiff.backend.teaching import HeadProgress

MAX_EXAMPLES = 100  # of a dataset are learnt from at once
MAX_QUESTIONS = 2000  # of one evaluation: images x labels x texts


def teach_dataset(archive: str | Path, request: FewShotDatasetRequest) -> Iterator[HeadProgress]:
    """As `train_few_shot`, from a zipped dataset folder; of a large one, `MAX_EXAMPLES` real images are taken."""
    from emitdiff.backend.teaching import stream_progress
    from emitdiff.datasets.folder import open_dataset
    from emitdiff.datasets.splits import choose_rows
    from emitdiff.segmentation.few_shot.training import TrainFewShot, train_few_shot

    with _unpacked(archive) as folder:
        dataset = choose_rows(open_dataset(folder).real(), request.split, request.images or MAX_EXAMPLES)
        settings = TrainFewShot(request.seconds, request.label, request.checkpoint, request.seed)
        # The folder itself, not a list: its images are read one by one, and what is kept of each is small.
        steps = train_few_shot(segmenter(request.checkpoint), dataset, dataset.info, settings)
        yield from stream_progress(steps, request.label or dataset.info.name)


def evaluate(archive: str | Path, how: EvaluateRequest) -> Iterator[dict[str, Any] | None]:
    """None after each question, then the measures of `emitdiff evaluate-segmentation` on a zipped dataset folder.

    Raises EmitDiffError for more than `MAX_QUESTIONS`, before the first.
    """
    import_measures()
    from emitdiff.segmentation.evaluation import EvaluateSegmentation, chosen_rows, evaluate_stepwise, texts_of
    from emitdiff.segmentation.vocabulary import num_queries

    with _unpacked(archive) as folder:
        pipeline, settings = segmenter(how.checkpoint), EvaluateSegmentation(folder, **vars(how))
        dataset = chosen_rows(pipeline, settings)
        _check_questions(len(dataset), num_queries(dataset.info), len(texts_of(settings)))
        for found in evaluate_stepwise(pipeline, settings, dataset):
            yield found and {**found, "checkpoint": Path(how.checkpoint).name}  # of a head, not where it is stored


def _check_questions(images: int, targets: int, texts: int) -> None:
    """Raises EmitDiffError where they are more questions than a server answers at once."""
    if (asked := images * targets * texts) <= MAX_QUESTIONS:
        return
    fits = MAX_QUESTIONS // (targets * texts)
    advice = f"give a limit of at most {fits}" if fits else "leave out labels"
    other = " or one text" if texts > 1 else ""
    numbers = [f"{count:,} {word}{'s'[: count > 1]}" for count, word in ((images, "image"), (targets, "target"))]
    raise EmitDiffError(
        f"{', '.join(numbers)} and {texts} text{'s'[: texts > 1]} are {asked:,} questions; the limit here is "
        f"{MAX_QUESTIONS:,}: {advice}{other}, or use `python -m emitdiff evaluate-segmentation` with the folder."
    )


@contextmanager
def _unpacked(archive: str | Path) -> Iterator[Path]:
    """The dataset folder in a ZIP while it is needed; what is wrong with it is said without where it lay."""
    with tempfile.TemporaryDirectory(prefix="emitdiff_dataset_") as place:
        try:
            yield unpack_dataset(archive, place)
        except EmitDiffError as error:
            raise EmitDiffError(strip_folders(str(error), Path(place))) from error
