"""Teaching for those who wait for it elsewhere: lessons without networks in them, and the head as a file."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emitdiff.datasets.folder import DatasetInfo, Sample
from emitdiff.segmentation.few_shot.head import SUFFIX
from emitdiff.segmentation.few_shot.training import Lesson

HEAD_SECONDS = 24 * 3600  # a head can be used and downloaded
FOLDER = "emitdiff_head_"  # what its folder's name begins with; the rest is at random and known to who taught it


@dataclass(frozen=True)
class LessonTold:
    """A `Lesson` without its head; `file` is the head's, in the last one."""

    step: int
    steps: int
    seconds: float
    loss: float
    dice: float | None
    picture: np.ndarray | None
    file: Path | None
    warning: str = ""


def told(lessons: Iterable[Lesson], name: str) -> Iterator[LessonTold]:
    """Lessons as they come; the head of the last one is written to a file called after `name`."""
    for lesson in lessons:
        file = None
        if lesson.head:
            stem = "".join(letter if letter.isalnum() else "-" for letter in name.lower())[:40]
            file = lesson.head.save(_head_folder() / f"{stem}{SUFFIX}")
        yield LessonTold(lesson.step, lesson.steps, lesson.seconds, lesson.loss, lesson.dice, lesson.picture, file,
                         lesson.warning)  # fmt: skip


def drawn_dataset(
    examples: Sequence[tuple[np.ndarray, np.ndarray, str]], name: str, modality: str, organ: str
) -> tuple[list[Sample], DatasetInfo]:
    """Examples (image uint8 (H, W, 3), mask 0/1 (H, W), file name) of one target `name` as a dataset to teach from."""
    kind = (modality or "medical", organ or "image")  # words for sentences, where none were given
    info = DatasetInfo("drawn on the page", *kind, {"background": 0, name: 1})
    return [
        Sample(image, mask, "", f"{file} {k}", "", file, {}) for k, (image, mask, file) in enumerate(examples)
    ], info


def is_kept(file: str | Path) -> bool:
    """Whether `told` wrote `file` on this machine and it is still there. The name may come from anyone."""
    try:
        path = Path(file).resolve()
        own = path.parent.name.startswith(FOLDER) and path.parent.parent == Path(tempfile.gettempdir()).resolve()
        return own and path.suffix == SUFFIX and path.is_file()
    except (OSError, ValueError, RuntimeError):  # no path at all
        return False


def _head_folder() -> Path:
    """A new folder; those of heads taught long ago are removed."""
    for old in Path(tempfile.gettempdir()).glob(f"{FOLDER}*"):
        with suppress(FileNotFoundError):  # another server was quicker
            if time.time() - old.stat().st_mtime > HEAD_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=FOLDER))
