"""What was found in a folder to import: cases, what it says of itself, and what belongs to no case."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from emitdiff.errors import EmitDiffError
from emitdiff.import_settings import ImportSettings

NO_MASK, NO_IMAGE, UNCLEAR = "image without a mask", "mask without an image", "unclear which belongs to which"
UNUSABLE, ASIDE, UNLISTED = "cannot be used", "test image", "not listed"
# How files say what they show, in the words of this project.
MODALITY_WORDS = {
    "CT": ("ct",),
    "MRI": ("mr", "mri", "t1", "t1w", "t1gd", "t1c", "t1ce", "t2", "t2w", "flair", "adc", "dwi", "dce", "pd", "cine"),
    "Ultrasound": ("us", "ultrasound"),
    "X-ray": ("x-ray", "xray", "cr", "dx", "cxr", "radiograph"),
    "Microscopy": ("microscopy", "histology"),
}
MAX_LISTED = 3  # names in a sentence


@dataclass(frozen=True)
class LeftOut:
    """Something that is not imported: `kind` is one of a few words, `name` a path in the source."""

    kind: str
    name: str
    why: str = ""


@dataclass(frozen=True)
class Case:
    """An image, or a volume, with its masks; paths are those in the source. `channels` has a file for each number of a
    channel; where it has one alone, that may hold all channels."""

    name: str
    channels: dict[int, str]
    masks: tuple[str, ...]
    row: dict[str, str] = field(default_factory=dict)  # further columns, among them `group` where the source says it

    def group(self, by: str) -> str:
        """What must not be divided: as the source says, else by a rule of `ImportSettings.groups`."""
        if self.row.get("group"):
            return self.row["group"]
        path = PurePosixPath(self.name)
        if by == "folder":
            return str(path.parent) if path.parent != PurePosixPath(".") else "."
        if by == "prefix":
            return re.sub(r"[ _.\-(]+[^ _.\-(]*$", "", path.name) or path.name
        return self.name


@dataclass
class Source:
    """A folder to import. `labels`, `modality`, `organ` and so on are what it says of itself, empty where it does not;
    `channels` are the names of several images of each case, of which one is chosen; `ignored` is a class id that marks
    what is to be ignored; `ids` counts the masks that show each class id, None before they were looked at."""

    root: Path
    layout: str
    cases: list[Case]
    left_out: list[LeftOut] = field(default_factory=list)
    name: str = ""
    modality: str = ""
    organ: str = ""
    labels: dict[str, int] = field(default_factory=dict)
    ignored: int | None = None
    licence: str = ""
    citation: str = ""
    channels: tuple[str, ...] = ()
    inside: bool = True  # the channels are volumes of one file, not files of their own
    notes: list[str] = field(default_factory=list)
    ids: dict[int, int] | None = None

    @property
    def volumes(self) -> bool:
        """Whether there are, by their names, files that may hold several slices."""
        names = (name for case in self.cases for name in case.channels.values())
        return any(re.search(r"\.(nii(\.gz)?|tiff?|dcm|dicom)$", name, re.IGNORECASE) for name in names)

    def channel_number(self, settings: ImportSettings) -> int | None:
        """The number of the channel that the settings choose; None where none is chosen.

        Raises:
            EmitDiffError: there is no such channel.
        """
        asked = settings.channel.strip()
        names = [name.casefold() for name in self.channels]
        if not asked:
            return None
        if names.count(asked.casefold()) == 1:
            return names.index(asked.casefold())
        if asked.isdecimal() and (not names or int(asked) < len(names)):
            return int(asked)
        known = f"choose {self.listed_channels()}" if names else "give its number, counted from 0"
        raise EmitDiffError(f"There is no channel '{asked}': {known}.")

    def listed_channels(self) -> str:
        return ", ".join(f"{number} ({name})" for number, name in enumerate(self.channels))

    def said_modality(self, settings: ImportSettings) -> str:
        """The modality given, or what the source says of the channel chosen; "" for none."""
        if settings.modality.strip() or self.modality:
            return settings.modality.strip() or self.modality
        names = self.channels
        number = self.channel_number(settings)
        chosen = names if number is None or number >= len(names) else (names[number],)
        found = {modality_of(name) for name in chosen}
        return found.pop() if len(found) == 1 else ""

    def named_labels(self, settings: ImportSettings) -> dict[str, int]:
        """Names with class ids: those of the source, and those given, which count first."""
        given = dict(settings.labels)
        own = {name: label for name, label in self.labels.items() if label not in given.values() and name not in given}
        return dict(sorted({**own, **given}.items(), key=lambda label: label[1]))


def modality_of(name: str) -> str:
    """The project's word for what a record calls a modality or a channel; "" where it is not known."""
    word = re.sub(r" 8 bit$", "", name.strip())
    for modality, words in MODALITY_WORDS.items():
        if word.casefold() in (modality.casefold(), *words):
            return modality
    return ""


def listed(names: list[str] | tuple[str, ...]) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more
