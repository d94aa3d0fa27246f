"""What the functions behind the pages give, told by its attributes: the UI knows no room in which it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

import numpy as np

if TYPE_CHECKING:
    from typing_extensions import TypeIs  # of typing from Python 3.13 on


class Dataclass(Protocol):
    """Something that `dataclasses.replace` takes."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


class Window(Protocol):
    """Which values are shown, from black to white."""

    @property
    def width(self) -> float: ...
    @property
    def centre(self) -> float: ...


class Scan(Protocol):
    """A decoded file. `spacing` is (slice, row, column) in mm, `size` (H, W) of a slice, `middle` the one shown first;
    `windows` are those that apply, the default first; `volume` says which of the file's `volumes`
    (time points) this is, from 0."""

    @property
    def name(self) -> str: ...
    @property
    def modality(self) -> str | None: ...
    @property
    def num_slices(self) -> int: ...
    @property
    def middle(self) -> int: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def spacing(self) -> tuple[float, float, float] | None: ...
    @property
    def orientation(self) -> str: ...
    @property
    def windows(self) -> Mapping[str, Window]: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    @property
    def mask_forms(self) -> tuple[str, ...]: ...
    @property
    def volumes(self) -> int: ...
    @property
    def volume(self) -> int: ...
    @property
    def laterality(self) -> str | None: ...

    def edge_letters(self) -> Mapping[str, str]:
        """The patient's side at each edge, {"left": "R", ...}; {} where the file does not tell."""

    def image(self, index: int = 0, window: str | None = None, /) -> np.ndarray:
        """Slice `index`, uint8 (H, W, 3)."""

    def save_mask(
        self,
        masks: np.ndarray | dict[int, np.ndarray],
        folder: Path,
        form: str | None = None,
        label: str = "",
        /,
    ) -> Path:
        """Writes class ids, (S, H, W) or {slice: (H, W)}, in the geometry of the file; one of `mask_forms`."""


class SamplingStep(Protocol):
    """One step of image `image_index` is done; `preview` is uint8 (H, W, 3) now and then."""

    @property
    def image_index(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def preview(self) -> np.ndarray | None: ...


class SyntheticImage(Dataclass, Protocol):
    """`image` uint8 (H, W, 3), its label `mask` (H, W), and the `settings` that make it again."""

    @property
    def image(self) -> np.ndarray: ...
    @property
    def mask(self) -> np.ndarray | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def settings(self) -> dict[str, Any]: ...
    @property
    def seconds(self) -> float: ...


def is_image(event: SamplingStep | SyntheticImage) -> TypeIs[SyntheticImage]:
    """What tells the two apart: a step has no `image`."""
    return hasattr(event, "image")


class SegmentationOutput(Dataclass, Protocol):
    """`mask` uint8 (H, W) 0 or 1; `probability` and `uncertainty` float32 (H, W) in 0..1, `present` too. `target` is
    the trained target that the text names; `untaught` says that it asks for nothing the weights were taught, and
    `nearest` which target to ask for instead. `present` is None where nothing was looked for. `answer` is what to tell:
    a mask that is "unsure" may be altogether wrong."""

    @property
    def mask(self) -> np.ndarray: ...
    @property
    def probability(self) -> np.ndarray: ...
    @property
    def uncertainty(self) -> np.ndarray: ...
    @property
    def found(self) -> bool: ...
    @property
    def target(self) -> str | None: ...
    @property
    def present(self) -> float | None: ...
    @property
    def absent(self) -> bool: ...
    @property
    def untaught(self) -> bool: ...
    @property
    def answer(self) -> Literal["found", "unsure", "not there", "not taught"]: ...
    @property
    def nearest(self) -> str | None: ...
    @property
    def seconds(self) -> float: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...

    def at(self, threshold: float, /) -> Self:
        """The same answer with the mask of another threshold."""


class TrainingProgress(Protocol):
    """One step of the few-shot training. `preview` is the example kept aside, uint8 (H, W, 3), now and then, with what
    is marked filled and its own mask outlined; the last one has the `file` of the head, which may be given as a
    checkpoint, and says in `shortfall` why it is not good enough, "" where it is."""

    @property
    def step(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def loss(self) -> float: ...
    @property
    def dice(self) -> float | None: ...
    @property
    def preview(self) -> np.ndarray | None: ...
    @property
    def file(self) -> Path | None: ...
    @property
    def shortfall(self) -> str: ...


class Defect(Protocol):
    @property
    def kind(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def what(self) -> str: ...


class DatasetInfo(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def modality(self) -> str: ...
    @property
    def organ(self) -> str: ...


class DatasetReport(Protocol):
    """What is in a dataset folder: `classes` maps a label to (images that show it, pixels)."""

    @property
    def info(self) -> DatasetInfo | None: ...
    @property
    def num_images(self) -> int: ...
    @property
    def num_groups(self) -> int: ...
    @property
    def classes(self) -> Mapping[str, tuple[int, int]]: ...
    @property
    def findings(self) -> Mapping[str, int]: ...
    @property
    def defects(self) -> Sequence[Defect]: ...


class ForeignData(Protocol):
    """Data in another layout to import: what it says of itself, "" where it does not. `classes` maps the class ids of
    its masks to their names; `channels` are to choose from; `volumes`: there may be several slices."""

    @property
    def name(self) -> str: ...
    @property
    def layout(self) -> str: ...
    @property
    def cases(self) -> int: ...
    @property
    def modality(self) -> str: ...
    @property
    def organ(self) -> str: ...
    @property
    def classes(self) -> Mapping[int, str]: ...
    @property
    def channels(self) -> tuple[str, ...]: ...
    @property
    def volumes(self) -> bool: ...


class Pair(Protocol):
    """A real image and one generated from it, uint8 (H, W, 3), each with its mask, class ids (H, W)."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> np.ndarray: ...
    @property
    def source_mask(self) -> np.ndarray: ...
    @property
    def image(self) -> np.ndarray: ...
    @property
    def mask(self) -> np.ndarray: ...
