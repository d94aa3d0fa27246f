"""Few-shot training as a service: progress without networks in it, and the head as a file."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cachetools import TTLCache

from emitdiff.datasets.folder import DatasetInfo, Sample
from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.few_shot.head import SUFFIX
from emitdiff.segmentation.few_shot.training import (
    FewShotTrainer,
    TrainFewShot,
    TrainingProgress,
    keep_training,
    train_few_shot,
)
from emitdiff.segmentation.pipeline import SegmentationPipeline
from emitdiff.ui.interface import FewShotRequest

HEAD_LIFETIME = 24 * 3600  # a head can be used and downloaded
# what its folder's name begins with; the rest is at random and known to who trained it
HEAD_FOLDER_PREFIX = "emitdiff_head_"
# The last trainings, with their examples, by the file of the head that each ended with: they can go on.
TRAINER_LIFETIME, MAX_TRAINERS = 3600, 2
_trainers: TTLCache[str, FewShotTrainer] = TTLCache(MAX_TRAINERS, TRAINER_LIFETIME)
_trainers_lock = threading.Lock()
NOT_KEPT = (
    "This training cannot go on: the server keeps the last {} for an hour, until it is started again. Press Teach to "
    "begin anew."
)


@dataclass(frozen=True)
class HeadProgress:
    """A `TrainingProgress` without its head; `file` is the head's, in the last one."""

    step: int
    steps: int
    seconds: float
    loss: float
    dice: float | None
    preview: np.ndarray | None
    file: Path | None
    shortfall: str = ""


def stream_progress(updates: Iterable[TrainingProgress], name: str) -> Iterator[HeadProgress]:
    """Training progress as it comes; the head of the last item is written to a file called after `name`."""
    for update in updates:
        file = None
        if update.head:
            stem = "".join(letter if letter.isalnum() else "-" for letter in name.lower())[:40]
            file = update.head.save(_head_folder() / f"{stem}{SUFFIX}")
            if update.trainer:
                with _trainers_lock:
                    _trainers[str(file)] = update.trainer
        yield HeadProgress(update.step, update.steps, update.seconds, update.loss, update.dice, update.preview, file,
                         update.shortfall)  # fmt: skip


def teach_examples(
    pipeline: SegmentationPipeline, examples: Sequence[tuple[np.ndarray, np.ndarray, str]], request: FewShotRequest,
    cancelled: Callable[[], bool],
) -> Iterator[HeadProgress]:  # fmt: skip
    """As `train_few_shot`, on `pipeline`, from examples as `dataset_from_examples` takes them."""
    samples, info = dataset_from_examples(examples, request.name, request.modality, request.organ)
    settings = TrainFewShot(request.seconds, checkpoint=request.checkpoint, seed=request.seed)
    return stream_progress(train_few_shot(pipeline, samples, info, settings, cancelled=cancelled), request.name)


def keep_teaching(file: str, seconds: float, cancelled: Callable[[], bool] = lambda: False) -> Iterator[HeadProgress]:
    """As `stream_progress`, of the training that ended with the head in `file`, which goes on for `seconds`.

    Raises EmitDiffError where it is not kept any more; one that goes on is kept by its next file alone.
    """
    with _trainers_lock:
        _trainers.expire()
        trainer = _trainers.pop(file, None)
    if trainer is None:
        raise EmitDiffError(NOT_KEPT.format(MAX_TRAINERS))
    yield from stream_progress(keep_training(trainer, seconds, cancelled), Path(file).stem)


def dataset_from_examples(
    examples: Sequence[tuple[np.ndarray, np.ndarray, str]], name: str, modality: str, organ: str
) -> tuple[list[Sample], DatasetInfo]:
    """Examples (image uint8 (H, W, 3), mask 0/1 (H, W), file name) of one target `name` as a dataset to teach from."""
    kind = (modality or "medical", organ or "image")  # words for sentences, where none were given
    info = DatasetInfo("drawn on the page", *kind, {"background": 0, name: 1})
    return [
        Sample(image, mask, "", f"{file} {k}", "", file, {}) for k, (image, mask, file) in enumerate(examples)
    ], info


def head_exists(file: str | Path) -> bool:
    """Whether `stream_progress` wrote `file` on this machine and it is still there. The name may come from anyone."""
    try:
        path = Path(file).resolve()
        own = (
            path.parent.name.startswith(HEAD_FOLDER_PREFIX)
            and path.parent.parent == Path(tempfile.gettempdir()).resolve()
        )
        return own and path.suffix == SUFFIX and path.is_file()
    except (OSError, ValueError, RuntimeError):  # no path at all
        return False


def remove_old_heads() -> None:
    """Those trained longer ago than `HEAD_LIFETIME`, and what is kept of trainings for longer than theirs."""
    with _trainers_lock:
        _trainers.expire()
    for old in Path(tempfile.gettempdir()).glob(f"{HEAD_FOLDER_PREFIX}*"):
        with suppress(FileNotFoundError):  # another server was quicker
            if time.time() - old.stat().st_mtime > HEAD_LIFETIME:
                shutil.rmtree(old, ignore_errors=True)


def _head_folder() -> Path:
    """A new folder; those of heads trained long ago are removed."""
    remove_old_heads()
    return Path(tempfile.mkdtemp(prefix=HEAD_FOLDER_PREFIX))
