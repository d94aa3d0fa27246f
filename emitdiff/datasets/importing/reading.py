"""One case read: its image with its masks, united and laid over it, and the slices that are wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emitdiff.datasets.folder import class_ids
from emitdiff.datasets.importing.source import Case, Source, listed
from emitdiff.errors import EmitDiffError
from emitdiff.import_settings import ImportSettings
from emitdiff.pairing import SUFFIX
from emitdiff.scans.geometry import Window
from emitdiff.scans.masks import is_black_and_white, read_scan_mask, read_slice_mask
from emitdiff.scans.reading import read_scan
from emitdiff.scans.scan import Scan


@dataclass(frozen=True)
class ReadCase:
    """A `scan` with its class ids uint8 (S, H, W), and the `indices` of the slices to write; `window` is the name of
    the window that they are shown with, "" for values of 8 bit."""

    scan: Scan
    file: str
    masks: np.ndarray
    indices: tuple[int, ...]
    chosen: str | Window | None
    window: str

    def image(self, index: int) -> np.ndarray:
        """A slice as uint8 (H, W, 3)."""
        return self.scan.image(index, self.chosen)


def read_case(source: Source, case: Case, settings: ImportSettings) -> ReadCase:
    """Reads image and masks, each by the rules of its reader.

    Raises:
        EmitDiffError: one of them cannot be read, they do not fit each other, masks of one image show different
            classes, or a channel must be chosen.
    """
    number = source.channel_number(settings)
    file = _channel_file(source, case, number)
    scan = read_scan(source.root / file, time_point=number if source.inside else None)
    if number is None and any("volumes" in warning for warning in scan.warnings):
        raise EmitDiffError(f"'{file}' holds several volumes: choose one as the channel, counted from 0.")
    chosen = _window(settings.window)
    used = scan.window_used(0, chosen)
    masks = _united(source, case, scan, tuple(source.named_labels(settings)))
    shown = "" if used is None else chosen if isinstance(chosen, str) else f"{used.width:g}/{used.centre:g}"
    if used is not None and chosen is None:
        shown = next(iter(scan.windows))
    return ReadCase(scan, file, masks, _wanted(masks, settings.step()), chosen, shown)


def _channel_file(source: Source, case: Case, number: int | None) -> str:
    if source.inside or number is None:
        return next(iter(case.channels.values()))
    if number not in case.channels:
        raise EmitDiffError(f"'{case.name}' has no file of channel {number}.")
    return case.channels[number]


def _window(text: str) -> str | Window | None:
    """A name, or WIDTH/LEVEL."""
    width, _, level = text.partition("/")
    try:
        return Window(centre=float(level), width=float(width))
    except ValueError:
        return text.strip() or None


def _united(source: Source, case: Case, scan: Scan, classes: tuple[str, ...]) -> np.ndarray:
    """Class ids (S, H, W) of all masks of the case, which are of one class where they are several."""
    united = np.zeros((scan.num_slices, *scan.size), np.uint8)
    shown: dict[str, list[int]] = {}
    forms: dict[str, tuple[str, np.ndarray]] = {}
    for file in case.masks:
        path = source.root / file
        mask = read_slice_mask(path, scan, 0)[None] if scan.num_slices == 1 else read_scan_mask(path, scan)
        shown[file] = [label for label in class_ids(mask) if label]
        if len(classes) > 1 and shown[file] == [1] and is_black_and_white(path):
            raise EmitDiffError(
                f"Its mask {file} is black and white, and there are {len(classes)} classes ({listed(classes)}): nobody "
                "can tell which one white is. Save it with the id of the class."
            )
        twin, same = forms.setdefault(SUFFIX.sub("", file), (file, mask))
        if not np.array_equal(mask, same):
            raise EmitDiffError(f"Its masks {twin} and {file} are called alike and differ: keep the right one.")
        np.maximum(united, mask, out=united)
    if len(case.masks) > 1 and len({label for labels in shown.values() for label in labels}) > 1:
        each = "; ".join(f"{file}: {', '.join(map(str, labels)) or 'none'}" for file, labels in shown.items())
        raise EmitDiffError(
            f"Its {len(case.masks)} masks do not show one class alone ({each}), so they cannot be united: put them "
            "into one file with an id for each class."
        )
    return united


def _wanted(masks: np.ndarray, step: int | None) -> tuple[int, ...]:
    """The slices to write; a single one always."""
    count = len(masks)
    if step is None and count > 1:
        return tuple(np.flatnonzero(masks.any(axis=(1, 2))).tolist())
    return tuple(range(0, count, step or 1))
