"""The import itself: what is still to be asked, the dataset folder written, and everything left out named."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import PngImagePlugin
from tqdm import tqdm

from emitdiff.datasets.folder import DatasetInfo, Sample, class_ids, unique_stems
from emitdiff.datasets.importing.reading import ReadCase, read_case
from emitdiff.datasets.importing.source import ASIDE, UNUSABLE, Case, LeftOut, Source, listed
from emitdiff.datasets.writing import DatasetWriter
from emitdiff.errors import EmitDiffError
from emitdiff.files import check_new_folder, check_output_folder, locked, unfinished_folder, write_text
from emitdiff.import_settings import ImportSettings, check_labels
from emitdiff.progress import NO_PROGRESS, Progress
from emitdiff.provenance import copy_png_text, read_origin
from emitdiff.scans.burned_in import has_text_at_rim
from emitdiff.scans.masks import read_mask_slices

RECORD = "import.json"  # in the folder written: where it comes from, and what was left out
SYNTHETIC = "trainedAlgorithmicMedia"
EXPECTED = {ASIDE}  # left out as they should be


@dataclass(frozen=True)
class Missing:
    """What neither the source nor the settings say: `ids` are class ids without a name, with how many masks show them;
    `channels` the names to choose from."""

    modality: bool
    organ: bool
    ids: dict[int, int]
    channels: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.modality or self.organ or self.ids or self.channels)

    def flags(self) -> str:
        """The options that say it: "--modality and --label NAME=1"."""
        wanted = ["--modality"] * self.modality + ["--organ"] * self.organ
        wanted += [f"--label NAME={label}" for label in self.ids] + ["--channel"] * bool(self.channels)
        return " and ".join([", ".join(wanted[:-1]), wanted[-1]] if len(wanted) > 1 else wanted)


@dataclass(frozen=True)
class Imported:
    """What was written where: `images` in `groups`, how many images show each class, what was left out, and what its
    user should know in sentences."""

    folder: Path
    images: int
    groups: int
    classes: dict[str, int]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]

    @property
    def problems(self) -> tuple[LeftOut, ...]:
        """What was left out though it was meant to be taken."""
        return tuple(left for left in self.left_out if left.kind not in EXPECTED)


def find_missing(source: Source, settings: ImportSettings, progress: Progress = NO_PROGRESS) -> Missing:
    """What is still to be said before the source can be imported. Masks are read only where nothing names a class.

    Raises:
        EmitDiffError: settings that cannot be used, or no mask can be read.
    """
    settings.check()
    channels = source.channels if source.channel_number(settings) is None else ()
    ids = {} if source.named_labels(settings) else dict(count_ids(source, progress))
    return Missing(not source.said_modality(settings), not (settings.organ.strip() or source.organ), ids, channels)


def count_ids(source: Source, progress: Progress = NO_PROGRESS) -> dict[int, int]:
    """How many masks show each class id above 0; it is found once. Masks that cannot be read do not count.

    Raises:
        EmitDiffError: none can be read, or none shows a class.
    """
    if not source.cases:
        raise EmitDiffError(
            f"No image of '{source.name}' has a mask that belongs to it by name. {_left_out_kinds(source.left_out)} "
            "Put the images into images/ and the masks into masks/ with the same names, or call them x.png and "
            "x_mask.png."
        )
    if source.ids is None:
        counts: Counter[int] = Counter()
        first: EmitDiffError | None = None
        cases = tqdm(source.cases, desc=f"looking at masks of {source.name}", unit="case", delay=2)
        for number, case in enumerate(cases):
            if progress.cancelled():
                return {}
            for file in case.masks:
                try:
                    counts.update(label for label in class_ids(read_mask_slices(source.root / file)) if label)
                except EmitDiffError as error:  # told by name when the case is read
                    first = first or error
            progress.report(number + 1, len(source.cases))
        if not counts:
            raise first or EmitDiffError(f"None of the masks of '{source.name}' shows a class: all are empty.")
        source.ids = dict(sorted(counts.items()))
    return source.ids


def import_dataset(
    source: Source,
    out: str | Path,
    settings: ImportSettings,
    progress: Progress = NO_PROGRESS,
    max_images: int | None = None,
) -> Imported | None:
    """Writes the dataset folder `out`, whole or not at all; None where `progress` ended it before.

    What cannot be taken is left out, with its name and the reason; `RECORD` in the folder lists all of it.

    Raises:
        EmitDiffError: `out` holds something, something is still to be said (`find_missing`), nothing can be imported,
            or there would be more than `max_images`.
    """
    out = Path(out)
    check_new_folder(out)
    check_output_folder(out, (), [source.root])
    if missing := find_missing(source, settings):
        raise EmitDiffError(f"'{source.name}' does not say everything that is needed: give {missing.flags()}.")
    labels = source.named_labels(settings)
    check_labels(labels)
    info = DatasetInfo(
        settings.name.strip() or source.name,
        source.said_modality(settings),
        settings.organ.strip() or source.organ,
        {"background": 0, **labels},
        settings.licence.strip() or source.licence,
        settings.citation.strip() or source.citation,
    )
    with unfinished_folder(out) as unfinished:
        run = _Run(source, settings, DatasetWriter(unfinished, info), max_images)
        if not run.write_all(progress):
            return None
        imported = run.finish(out)
        with locked(out.parent, wait=True):
            check_new_folder(out)  # another import may have been quicker
            os.replace(unfinished, out)
    return imported


@dataclass
class _Run:
    """One import, case by case, with what is counted on the way."""

    source: Source
    settings: ImportSettings
    writer: DatasetWriter
    max_images: int | None
    left_out: list[LeftOut] = field(default_factory=list)
    united: list[str] = field(default_factory=list)
    unlabelled: int = 0  # slices of volumes
    windows: Counter[str] = field(default_factory=Counter)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    classes: Counter[int] = field(default_factory=Counter)
    texts: list[str] = field(default_factory=list)
    framed: list[str] = field(default_factory=list)  # labelled at all corners
    studies: dict[str, str] = field(default_factory=dict)  # of DICOM, with their groups

    def write_all(self, progress: Progress) -> bool:
        """False where it was ended before."""
        cases = self.source.cases
        stems = unique_stems([case.name for case in cases])
        bar = tqdm(zip(cases, stems, strict=True), f"importing {self.source.name}", len(cases), unit="case", delay=2)
        for number, (case, stem) in enumerate(bar):
            if progress.cancelled():
                return False
            try:
                read = read_case(self.source, case, self.settings)
                text, row = self._origin(read)
            except EmitDiffError as error:
                self.left_out.append(LeftOut(UNUSABLE, case.channels[min(case.channels)], str(error)))
            else:
                self._check_ids(read)
                self._write(case, stem, read, text, row)
            progress.report(number + 1, len(cases))
        return True

    def _origin(self, read: ReadCase) -> tuple[PngImagePlugin.PngInfo | None, dict[str, str]]:
        """What a picture that says that it is synthetic goes on saying."""
        if read.scan.kind != "image":
            return None, {}
        path = self.source.root / read.file
        origin = read_origin(path)
        if not origin.synthetic:
            return None, {}
        return copy_png_text(path), {"provenance": origin.source_type or SYNTHETIC}

    def _check_ids(self, read: ReadCase) -> None:
        """EmitDiffError where a class has no name, with all that have none."""
        known = {0, *self.writer.info.labels.values()} | ({self.source.ignored} if self.source.ignored else set())
        if set(class_ids(read.masks)) <= known:
            return
        nameless = [label for label in count_ids(self.source) if label not in known]
        flags = " ".join(f"--label NAME={label}" for label in nameless)
        raise EmitDiffError(
            f"The masks show class ids without a name: {', '.join(map(str, nameless))} (first in {read.file}). "
            f"Name every one: {flags}."
        )

    def _write(
        self, case: Case, stem: str, read: ReadCase, text: PngImagePlugin.PngInfo | None, row: dict[str, str]
    ) -> None:
        indices = self._without_ignored(read)
        self.unlabelled += read.scan.num_slices - len(read.indices)
        if len(case.masks) > 1:
            self.united.append(case.name)
        for warning in read.scan.warnings:
            self.warnings.setdefault(warning, []).append(read.file)
        if read.window and indices:
            self.windows[read.window] += 1
        for index in indices:
            image, mask = read.image(index), read.masks[index]
            one = {**row, **case.row, "imported_image": read.file, "imported_mask": "; ".join(case.masks)}
            one |= {"slice": str(index)} if read.scan.num_slices > 1 else {}
            one |= {"window": read.window} if read.window else {}
            name = self._free_name(f"{stem}_{index:03d}" if read.scan.num_slices > 1 else stem)
            group, finding, words = self._group(case, read), one.get("finding", ""), one.get("text", "")
            self.writer.add(Sample(image, mask, words, group, finding, f"{name}.png", one), text)
            self.classes.update(label for label in class_ids(mask) if label)
            self.texts += [name] if has_text_at_rim(image) else []
            self.framed += [name] if mask[:: len(mask) - 1 or 1, :: len(mask[0]) - 1 or 1].all() else []
            if self.max_images is not None and len(self.writer.rows) > self.max_images:
                raise EmitDiffError(
                    f"More than {self.max_images:,} images would be written, the limit here: take every 5th slice, for "
                    "example, or use `python -m emitdiff import-dataset`."
                )

    def _group(self, case: Case, read: ReadCase) -> str:
        """DICOM files of one study are of one patient, though each be an image of its own."""
        group, origin = case.group(self.settings.groups), read.scan.origin
        if self.settings.groups != "image" or case.row.get("group") or origin is None or not origin.study:
            return group
        return self.studies.setdefault(origin.study, group)

    def _without_ignored(self, read: ReadCase) -> list[int]:
        """The slices to write; those with pixels that are to be ignored, for which there is no class, are left out."""
        ignored = self.source.ignored
        if ignored is None:
            return list(read.indices)
        marked = {index for index in read.indices if (read.masks[index] == ignored).any()}
        why = f"holds pixels to be ignored (class id {ignored}), which a dataset folder has no word for"
        slices = read.scan.num_slices > 1
        self.left_out += [
            LeftOut(UNUSABLE, f"{read.file}, slice {index}" if slices else read.file, why) for index in sorted(marked)
        ]
        return [index for index in read.indices if index not in marked]

    def _free_name(self, name: str) -> str:
        """Itself unless an image has it already: slice 1 of `a` and the picture `a_001`, for example."""
        free, number = name, 2
        while free.casefold() in self.writer.rows:
            free, number = f"{name}-{number}", number + 1
        return free

    def finish(self, out: Path) -> Imported:
        """Writes tables and record; what was imported into the folder that will be called `out`."""
        left_out = (*self.source.left_out, *self.left_out)
        if not self.writer.rows:
            raise EmitDiffError(f"Nothing of '{self.source.name}' can be imported. {self._why_nothing(left_out)}")
        dataset = self.writer.finish()
        names = {label: name for name, label in dataset.info.labels.items() if label}
        classes = {name: self.classes[label] for label, name in names.items()}
        imported = Imported(out, len(dataset), len(set(dataset.groups)), classes, left_out, tuple(self._notes()))
        record: dict[str, Any] = {
            "source": self.source.root.name, "layout": self.source.layout, "settings": asdict(self.settings),
            "images": imported.images, "groups": imported.groups, "notes": imported.notes,
            "left_out": [asdict(left) for left in left_out],
        }  # fmt: skip
        write_text(self.writer.folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        return imported

    def _why_nothing(self, left_out: tuple[LeftOut, ...]) -> str:
        if not left_out:
            return "No volume shows a label: choose all slices to take them without."
        return _left_out_kinds(left_out)

    def _notes(self) -> list[str]:
        source = self.source
        notes = [f"Layout: {source.layout}, {len(source.cases)} case(s)."]
        if self.united:
            notes.append(
                f"{len(self.united)} image(s) have several masks of one class, which were united: "
                f"{listed(self.united)}."
            )
        if source.channels:
            number = source.channel_number(self.settings) or 0
            notes.append(f"Channel {number} ({source.channels[number]}) of {len(source.channels)} was taken.")
        if self.unlabelled:
            which = "without a label" if self.settings.step() is None else "between those chosen"
            notes.append(f"{self.unlabelled} slice(s) {which} were not taken.")
        notes += [f"{count} scan(s) are shown with the window {name}." for name, count in self.windows.items()]
        if self.settings.groups == "image" and not any(case.row.get("group") for case in source.cases):
            notes.append(
                "Every image, or volume, is a group of its own: where several are of one patient, choose groups by "
                "folder or prefix."
            )
        if self.framed:
            notes.append(
                f"{len(self.framed)} image(s) are labelled at all four corners: {listed(self.framed)}. Look at them: "
                "black and white may be swapped, or the masks may show the field of view."
            )
        notes += source.notes
        notes += [f"{warning} ({listed(files)})" for warning, files in self.warnings.items()]
        if self.texts:
            notes.append(
                f"{len(self.texts)} image(s) seem to show text at the rim, which may identify a patient: "
                f"{listed(self.texts)}."
            )
        return notes


def _left_out_kinds(left_out: Sequence[LeftOut]) -> str:
    kinds = ", ".join(f"{kind}: {count}" for kind, count in Counter(left.kind for left in left_out).items())
    told = next((left for left in left_out if left.why), left_out[0])
    return f"Left out: {kinds}. First: {told.name}" + (f": {told.why}" if told.why else ".")


def left_out_lines(left_out: tuple[LeftOut, ...], limit: int | None = None) -> list[str]:
    """What was left out in lines, by kind with how many, each by its name; of each kind the first `limit`."""
    lines = []
    for kind, count in Counter(left.kind for left in left_out).items():
        lines.append(f"{kind}: {count}")
        names = [f"  {left.name}" + (f": {left.why}" if left.why else "") for left in left_out if left.kind == kind]
        lines += names[:limit]
        if limit is not None and count > limit:
            lines.append(f"  and {count - limit} more, listed in {RECORD}")
    return lines
