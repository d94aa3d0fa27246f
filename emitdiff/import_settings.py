"""How data in another layout becomes a dataset folder: the settings that the command and the page share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args
from unicodedata import normalize

from emitdiff.errors import EmitDiffError

Groups = Literal["image", "folder", "prefix"]
GROUPS = get_args(Groups)
MAX_LABEL = 254
WHITE = 255  # of a black and white mask, which is read as class 1


@dataclass(frozen=True)
class ImportSettings:
    """What is empty is taken from the source, where it says it.

    `labels` maps names to class ids, 1 to 254. `channel` is the name or the number, from 0, of one of several images of
    a case. `slices` of volumes are "all", "labelled" or "every N". `window` is as `--window` of the commands. `groups`
    says what belongs together in splits: every "image" (of a volume all slices), the "folder" it lies in, or all whose
    names agree up to the last part ("prefix": P7_1 and P7_2).
    """

    name: str = ""
    modality: str = ""
    organ: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)
    channel: str = ""
    slices: str = "labelled"
    window: str = ""
    groups: Groups = "image"
    licence: str = ""
    citation: str = ""

    def check(self) -> None:
        """Raises EmitDiffError for what cannot be used, before anything is read."""
        check_labels(self.labels)
        self.step()
        if self.groups not in GROUPS:
            raise EmitDiffError(f"Groups by '{self.groups}' are not known: choose {', '.join(GROUPS)}.")

    def step(self) -> int | None:
        """Every how many slices of a volume one is taken; None for those that show a label."""
        words = self.slices.strip().lower()
        if words == "labelled":
            return None
        every = re.fullmatch(r"every[ :=-]*([1-9]\d{0,5})", words)
        if words != "all" and every is None:
            raise EmitDiffError(f"The slices '{self.slices}' are not known: give all, labelled, or every N (every 5).")
        return 1 if every is None else int(every[1])


def parse_labels(texts: Iterable[str]) -> dict[str, int]:
    """Names with their class ids from texts NAME=ID; the white of black and white masks, 255, is class 1.

    Raises:
        EmitDiffError: another form, or names and ids that are not different.
    """
    labels: dict[str, int] = {}
    for text in filter(str.strip, texts):
        name, _, number = (part.strip() for part in text.rpartition("="))
        if not name or not re.fullmatch(r"\d{1,5}", number):
            raise EmitDiffError(f"'{text.strip()}' is no label: give NAME=ID, like lesion=1.")
        name = normalize("NFC", name)
        if name in labels:
            raise EmitDiffError(f"The label '{name}' is given twice: one name for each class id.")
        labels[name] = int(number)
    if WHITE in labels.values() and 1 not in labels.values():
        labels = {name: 1 if value == WHITE else value for name, value in labels.items()}
    check_labels(labels)
    return labels


def check_labels(labels: Mapping[str, int]) -> None:
    """Raises EmitDiffError for names that are empty, and for ids that are not different or not from 1 to 254."""
    for name, value in labels.items():
        if not name.strip():
            raise EmitDiffError(f"Class {value} has no name: give it one, like lesion={value}.")
        if not 1 <= value <= MAX_LABEL:
            raise EmitDiffError(
                f"The label {name}={value} cannot be used: class ids go from 1 to {MAX_LABEL}; 0 is the background, "
                "and 255 the white of black and white masks alone, which is class 1."
            )
    ids = list(labels.values())
    if repeated := next((value for value in ids if ids.count(value) > 1), None):
        names = " and ".join(name for name, value in labels.items() if value == repeated)
        raise EmitDiffError(f"{names} have the same class id {repeated}: give each class one of its own.")
