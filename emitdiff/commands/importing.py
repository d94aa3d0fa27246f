"""The command that makes a dataset folder of data in another layout: import-dataset."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, UseAppendAction, arg

from emitdiff.commands.arguments import WindowOption
from emitdiff.commands.io import say
from emitdiff.errors import EmitDiffError
from emitdiff.import_settings import Groups, ImportSettings, parse_labels

if TYPE_CHECKING:
    from emitdiff.datasets.importing.run import Imported, Missing
    from emitdiff.datasets.importing.source import Source

SHOWN = 20  # of what was left out, of each kind
SOURCE = arg(metavar="SOURCE", help="Folder or ZIP: images/ and masks/, pairs by name, nnU-Net, or a Decathlon task.")
OUT = arg(aliases=["-o"], metavar="FOLDER", help="Dataset folder to write; must be empty or new.")
LABEL = arg(
    metavar="NAME=ID", help="Name of a class id in the masks; give it once for each class.", help_behavior_hint=""
)
MODALITY = arg(metavar="TEXT", help="What the images are: Ultrasound, MRI, CT, ...", help_behavior_hint="")
ORGAN = arg(metavar="TEXT", help="What they show: breast, prostate, ...", help_behavior_hint="")
NAME = arg(metavar="TEXT", help="Name of the dataset; default: that of the source.", help_behavior_hint="")
CHANNEL = arg(metavar="NAME", help="Which of several images of a case: its name or number.", help_behavior_hint="")
SLICES = arg(metavar="WHICH", help="Slices of volumes: labelled, all, or every N (every 5).")
GROUPS = arg(help="Images of one group are never split: each alone, one folder, or names up to their last part.")
LICENCE = arg(metavar="TEXT", help="Licence of the data, where the source says none.", help_behavior_hint="")
CITATION = arg(metavar="TEXT", help="Who made the data, where the source does not say.", help_behavior_hint="")


@dataclass(frozen=True)
class ImportDataset:
    """Write a dataset folder from images and masks in another layout; what is not said is asked for on a terminal.

    Exit status 1 where something was left out; import.json in the folder lists it.
    """

    source: Positional[Annotated[Path, SOURCE]]
    out: Annotated[Path, OUT]
    modality: Annotated[str, MODALITY] = ""
    organ: Annotated[str, ORGAN] = ""
    label: UseAppendAction[Annotated[tuple[str, ...], LABEL]] = ()
    name: Annotated[str, NAME] = ""
    channel: Annotated[str, CHANNEL] = ""
    slices: Annotated[tuple[str, ...], SLICES] = ("labelled",)
    window: WindowOption = None
    groups: Annotated[Groups, GROUPS] = "image"
    licence: Annotated[str, LICENCE] = ""
    citation: Annotated[str, CITATION] = ""

    def run(self) -> int:
        from emitdiff.datasets.importing.layouts import opened_source
        from emitdiff.datasets.importing.run import find_missing, import_dataset
        from emitdiff.files import check_new_folder

        settings = self._settings()
        settings.check()
        check_new_folder(self.out)
        with opened_source(self.source) as source:
            if missing := find_missing(source, settings):
                settings = _ask(source, settings, missing)
            imported = import_dataset(source, self.out, settings)
        assert imported is not None  # nobody ends it here
        _tell(imported)
        return 1 if imported.problems else 0

    def _settings(self) -> ImportSettings:
        return ImportSettings(
            self.name, self.modality, self.organ, parse_labels(self.label), self.channel, " ".join(self.slices),
            self.window or "", self.groups, self.licence, self.citation,
        )  # fmt: skip


def _tell(imported: Imported) -> None:
    from emitdiff.datasets.importing.run import left_out_lines

    for line in (*imported.notes, *left_out_lines(imported.left_out, SHOWN)):
        say(line)
    shown = ", ".join(f"{name} in {count}" for name, count in imported.classes.items())
    print(f"{imported.images} images in {imported.groups} groups are in {imported.folder}; {shown}")


def _ask(source: Source, settings: ImportSettings, missing: Missing) -> ImportSettings:
    """What is missing, from whoever sits at the terminal.

    Raises:
        EmitDiffError: nobody does; the sentence names the options.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise EmitDiffError(f"'{source.name}' does not say everything that is needed: give {missing.flags()}.")
    from emitdiff.synthesis.prompts import MODALITIES, ORGANS

    say(f"{source.name}: {source.layout}, {len(source.cases)} case(s). Some things it does not say:")
    if missing.channels:
        settings = replace(settings, channel=_answer(f"Channel, {source.listed_channels()}"))
        source.channel_number(settings)  # which says where there is none of that name
    if missing.modality and not source.said_modality(settings):
        settings = replace(settings, modality=_answer(f"Modality ({', '.join(MODALITIES)}, or another)"))
    if missing.organ:
        settings = replace(settings, organ=_answer(f"Organ ({', '.join(ORGANS)}, or another)"))
    named = {_answer(f"What is class {label}, shown by {count} mask(s)"): label for label, count in missing.ids.items()}
    if len(named) < len(missing.ids):
        raise EmitDiffError("Two classes were given one name: start again, and give each a name of its own.")
    return replace(settings, labels={**settings.labels, **named})


def _answer(question: str) -> str:
    while True:
        print(f"{question}: ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise EmitDiffError(
                "The questions were not answered: give --modality, --organ and --label NAME=ID instead."
            )
        if line.strip():
            return line.strip()
