"""How displayed slices lie in a file and in the patient, which values are shown, and what a DICOM series is called."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Window:
    """The values shown: from `centre` - `width` / 2 (black) to `centre` + `width` / 2 (white)."""

    centre: float
    width: float


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
    geometry fields of a NIfTI header, to be written back as they were.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    shape: tuple[int, ...]
    affine: np.ndarray
    fields: dict[str, np.ndarray] = field(default_factory=dict)

    def to_display(self, array: np.ndarray) -> np.ndarray:
        """File order to (slice, row, column)."""
        return np.flip(array.transpose(self.axes), self._flipped())

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
        if not known or not np.isfinite([down, across]).all() or not (down.any() and across.any()):
            return {}
        edges = {"left": -across, "right": across, "top": -down, "bottom": down}
        return {edge: _letters(towards) for edge, towards in edges.items()}

    def _flipped(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(3) if self.flips[axis])


def _letters(towards: np.ndarray) -> str:
    """Where a direction (3,) in RAS+ points to: its main axis, and the second where that is at least half as much."""
    lengths = np.abs(towards)
    first, second = np.argsort(-lengths)[:2]
    axes = [first, second] if lengths[second] >= 0.5 * lengths[first] else [first]
    return "".join(("RL", "AP", "HF")[axis][int(towards[axis] < 0)] for axis in axes)


@dataclass(frozen=True)
class SeriesReference:
    """The identifiers of a series. `images` has (SOP class, SOP instance, frame) for each slice in displayed order, the
    frame counted from 1 in a file of several and 0 in one of its own; `corners` has where the middle of its first pixel
    lies, in millimetres (LPS+, as in DICOM), or nothing where not all say so. `study` and `space` may be empty."""

    study: str
    series: str
    space: str
    images: tuple[tuple[str, str, int], ...]
    corners: tuple[tuple[float, ...], ...] = ()
