"""Whether the current mask is kept when another image is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emitdiff.ui.interface import Callables
from emitdiff.ui.messages import note, sentence
from emitdiff.ui.results import Scan


@dataclass(frozen=True, eq=False)
class RemovedImage:
    """What stood on the page when its image was taken away: the scan, what was shown of it, and its mask."""

    scan: Scan
    slice_number: float
    window: str | None
    mask_file: str | None


def owner_of(mask_file: str | None, scan: Scan | None, before: RemovedImage | None) -> str:
    """The name of the image that the mask was brought for, "" for a mask that was given alone."""
    if scan is not None:
        return scan.name
    return before.scan.name if before is not None and before.mask_file == mask_file else ""


def mask_removal_note(calls: Callables, mask_file: str | None, scan: Scan, owner: str) -> str:
    """ "" where the mask stays with `scan`, which just came; else HTML that says that it goes, and why.

    It stays where it fits and was given alone, without an `owner`.
    """
    if not mask_file:
        return ""
    if owner:
        return note(f"The mask {Path(mask_file).name} of {owner} was removed.")
    try:
        calls.read_mask(mask_file, scan, scan.middle)
    except Exception as error:
        return note(f"The mask was removed. {sentence(error)}", "warning")
    return ""
