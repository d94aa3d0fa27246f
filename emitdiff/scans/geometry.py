"""How displayed slices lie in a file and in the patient, which values are shown, and what a DICOM series is called."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Window:
    """The values shown: from `centre` - `width` / 2 (black) to `centre` + `width` / 2 (white).

    `function` is one of DICOM's (PS3.3 C.11.2.1): "LINEAR_EXACT" as above; "LINEAR", whose width counts whole numbers
    at both ends and is one more than the distance between them; or "SIGMOID", a curve through the middle. With a
    `table`, the values from `first` on are looked up in it (its entries are from 0, black, to 1).
    """

    centre: float
    width: float
    function: str = field(default="LINEAR_EXACT", compare=False)
    table: np.ndarray | None = field(default=None, compare=False, repr=False)
    first: int = field(default=0, compare=False)

    def grey_levels(self, values: np.ndarray) -> np.ndarray:
        """Values of any shape and number type as uint8 grey levels."""
        if self.table is not None:
            place = np.clip(np.rint(values.astype(np.float64)) - self.first, 0, len(self.table) - 1).astype(np.int64)
            looked_up: np.ndarray = np.rint(255 * self.table).astype(np.uint8)[place]
            return looked_up
        narrow = values.dtype.itemsize <= 2 or values.dtype == np.float32  # float64 takes twice the memory
        from_centre: np.ndarray = np.subtract(values, self.centre, dtype=np.float32 if narrow else np.float64)
        if self.function == "SIGMOID":
            scaled = 255 / (1 + np.exp(np.clip(-4 * from_centre / self.width, -80, 80)))
        elif self.function == "LINEAR" and self.width <= 1:
            scaled = np.where(from_centre > -0.5, 255, 0)
        elif self.function == "LINEAR":
            scaled = (from_centre + self.width / 2) * (255 / (self.width - 1))
        else:
            scaled = (from_centre + self.width / 2) * (255 / self.width)
        levels: np.ndarray = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
        return levels


# Hounsfield units, the usual choices of a radiology workstation.
WINDOWS = {
    "soft tissue": Window(40, 400),
    "lung": Window(-600, 1500),
    "brain": Window(40, 80),
    "bone": Window(400, 1800),
}


@dataclass(frozen=True, eq=False)
class Geometry:
    """How the displayed slices lie in a file: display axis d shows file axis `axes[d]`, backwards where `flips[d]`.

    `shape` is the file's own, `affine` (4, 4) takes its voxel indices to millimetres (RAS+), and `fields` are the
    geometry fields of a NIfTI header, to be written back as they were. Where the slices are not evenly spaced, and the
    affine leads past them, `corners` has the middle of the first pixel of each displayed one, (S, 3) in LPS+.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    shape: tuple[int, ...]
    affine: np.ndarray
    fields: dict[str, np.ndarray] = field(default_factory=dict)
    corners: np.ndarray | None = None

    @property
    def even(self) -> bool:
        """Whether the affine says where every slice lies."""
        return self.corners is None

    def planes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the displayed slices, in millimetres (LPS+, as in DICOM): the middle of the first pixel of each (S, 3),
        and a step down and a step across (3,)."""
        affine = np.diag([-1.0, -1, 1, 1]) @ self.display_affine()
        count = (*self.shape, 1)[self.axes[0]]
        evenly = affine[:3, 3] + np.arange(count)[:, None] * affine[:3, 0]
        return evenly if self.corners is None else self.corners, affine[:3, 1], affine[:3, 2]

    def to_display(self, array: np.ndarray) -> np.ndarray:
        """File order to (slice, row, column); what follows the three, as colours do, stays behind them."""
        return np.flip(array.transpose(*self.axes, *range(3, array.ndim)), self._flipped())

    def to_file(self, slices: np.ndarray) -> np.ndarray:
        """(slice, row, column) to file order."""
        return np.flip(slices, self._flipped()).transpose(np.argsort(self.axes)).reshape(self.shape)

    def display_affine(self) -> np.ndarray:
        """(4, 4), from (slice, row, column, 1) as displayed to millimetres (RAS+)."""
        order = np.zeros((4, 4))
        order[3, 3] = 1
        for display, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            order[axis, display] = -1 if flip else 1
            order[axis, 3] = (*self.shape, 1)[axis] - 1 if flip else 0
        return self.affine @ order

    def edge_letters(self) -> dict[str, str]:
        """The patient's side at each edge of a displayed slice, as {"left": "R", "right": "L", "top": "A", ...}.

        R and L, A and P (front and back), H and F (head and feet); two letters where a slice lies askew; {} where the
        file does not say how the patient lies.
        """
        known = not self.fields or any(self.fields[code] for code in ("qform_code", "sform_code"))
        down, across = (self.display_affine()[:3, axis] for axis in (1, 2))
        return edge_letters(down, across) if known else {}

    def _flipped(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(3) if self.flips[axis])


def edge_letters(down: np.ndarray, across: np.ndarray) -> dict[str, str]:
    """The letters of `Geometry.edge_letters` where columns and rows point to `down` and `across` (3,), RAS+."""
    if not np.isfinite([down, across]).all() or not (down.any() and across.any()):
        return {}
    edges = {"left": -across, "right": across, "top": -down, "bottom": down}
    return {edge: _letters(towards) for edge, towards in edges.items()}


def _letters(towards: np.ndarray) -> str:
    """Where a direction (3,) in RAS+ points to: its main axis, and the second where that is at least half as much."""
    lengths = np.abs(towards)
    first, second = np.argsort(-lengths)[:2]
    axes = [first, second] if lengths[second] >= 0.5 * lengths[first] else [first]
    return "".join(("RL", "AP", "HF")[axis][int(towards[axis] < 0)] for axis in axes)


@dataclass(frozen=True)
class ImagePlane:
    """Where an image lies, in millimetres (LPS+, as in DICOM): the middle of its first pixel (3 numbers), the
    directions of its rows and columns (6), and the distances of its rows and columns (2)."""

    corner: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]


@dataclass(frozen=True)
class SeriesReference:
    """The identifiers of a series. `images` has (SOP class, SOP instance, frame) for each slice in displayed order, the
    frame counted from 1 in a file of several and 0 in one of its own; `planes` has where each lies, or nothing where
    not all say so; `thickness` is that of a slice, in millimetres. `study` and `space` may be empty."""

    study: str
    series: str
    space: str
    images: tuple[tuple[str, str, int], ...]
    planes: tuple[ImagePlane, ...] = ()
    thickness: float = 1.0
