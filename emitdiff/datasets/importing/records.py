"""Folders with a record of their own: nnU-Net, versions 1 and 2, and tasks of the Medical Segmentation Decathlon.

The layouts are those of nnU-Net's documentation/reference/dataset-format.md (and, for version 1, its
dataset_conversion.md), and of medicaldecathlon.com, whose `training` lists pairs of files. A record may come from
anyone: it names files in its own folder or none.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emitdiff.cells import from_cell
from emitdiff.datasets.importing.source import (
    ASIDE,
    NO_IMAGE,
    NO_MASK,
    UNCLEAR,
    UNLISTED,
    UNUSABLE,
    Case,
    LeftOut,
    Source,
    listed,
    modality_of,
)
from emitdiff.datasets.names import clean_path, escapes_folder
from emitdiff.datasets.rows import PATH_COLUMNS
from emitdiff.datasets.tables import read_record, read_table
from emitdiff.errors import EmitDiffError
from emitdiff.import_settings import MAX_LABEL, check_labels
from emitdiff.pairing import SUFFIX, is_picture, stem

IMAGES, MASKS = "imagestr/", "labelstr/"
TESTS = ("imagests/", "labelsts/", "imagesva/", "labelsva/")
CHANNEL_FILE = re.compile(r"(.+)_(\d{4})$")
OWN_DESCRIPTION = re.compile(r"([^,]+), ([^,]+); \d+ real and \d+ synthetic images\.")  # as `export` writes it
PROVENANCE = "provenance.csv"
OWN_FILES = {"dataset.json", "splits_final.json", PROVENANCE}
EXPORT_COLUMNS = {"case", "exported_image", "exported_label", *PATH_COLUMNS}


def is_record_folder(folder: Path, files: list[str]) -> bool:
    """Whether the paths `files` in a folder are those of nnU-Net or the Decathlon."""
    if any(file.casefold().startswith(IMAGES) for file in files):
        return True
    return "dataset.json" in files and bool({"training", "dataset"} & set(_record(folder, files)))


def read_record_folder(folder: Path, files: list[str]) -> Source:
    """The cases of such a folder, and what its record says.

    Raises:
        EmitDiffError: the record cannot be used, or names files outside of its folder.
    """
    record = _record(folder, files)
    found = _Found(folder, files, record.get("file_ending"))
    pairs = _listed_pairs(record, found)
    if pairs is None:
        pairs = _pairs_of_folders(found)
    inside = any(pair.whole for pair in pairs.values())
    source = Source(folder, "Medical Segmentation Decathlon" if inside else "nnU-Net", [], inside=inside)
    _add_cases(source, pairs, found)
    _describe(source, record, {number for pair in pairs.values() for number in pair.channels})
    _add_provenance(source, found)
    named = {file for case in source.cases for file in (*case.channels.values(), *case.masks)}
    named |= {left.name for left in source.left_out} | OWN_FILES
    if others := sorted(set(files) - named):
        source.notes.append(f"{len(others)} other file(s) were not looked at: {listed(others)}.")
    return source


@dataclass
class _Pair:
    label: str = ""
    channels: dict[int, str] = field(default_factory=dict)
    named: str = ""  # what the record calls the image
    whole: bool = False  # that is one file, with all channels
    several: tuple[str, ...] = ()  # files of which one alone can be meant, and nobody knows which


class _Found:
    """The files of a folder by their paths in one spelling, and in any capitals where only one file is called so.

    Where files end in what the record says, the others in their folder are no cases: previews, for example.
    """

    def __init__(self, folder: Path, files: list[str], ending: Any = None) -> None:
        self.folder, self.files = folder, {clean_path(file): file for file in files}
        self.folded: dict[str, list[str]] = {}
        for key, file in self.files.items():
            self.folded.setdefault(key.casefold(), []).append(file)
        ending = ending.casefold() if isinstance(ending, str) else ""
        self.ending = {part: ending if self._below(part, ending) else "" for part in (IMAGES, MASKS)}
        self.channels: dict[str, dict[int, list[str]]] = {}
        for key, file in sorted(self.files.items()):
            ignored = key.casefold().startswith(IMAGES) and not key.casefold().endswith(self.ending[IMAGES])
            if is_picture(key) and not ignored and (found := CHANNEL_FILE.match(SUFFIX.sub("", key))):
                self.channels.setdefault(found[1], {}).setdefault(int(found[2]), []).append(file)

    def get(self, named: str) -> str | None:
        if escapes_folder(named):
            raise EmitDiffError(
                f"dataset.json names '{named}', which is outside of its folder: copy the files into it."
            )
        path = clean_path(named)
        alike = self.folded.get(path.casefold(), [])
        return self.files.get(path) or (alike[0] if len(alike) == 1 else None)

    def below(self, part: str) -> list[str]:
        return self._below(part, self.ending.get(part, ""))

    def of_channels(self, case: str) -> dict[int, list[str]]:
        """The files of a case by the number of their channel, in order; `case` is a path without the number."""
        alike = [key for key in self.channels if key.casefold() == case.casefold()]
        key = case if case in self.channels else alike[0] if len(alike) == 1 else ""
        return dict(sorted(self.channels.get(key, {}).items()))

    def _below(self, part: str, ending: str) -> list[str]:
        keys = ((key.casefold(), key) for key in sorted(self.files))
        wanted = (key for low, key in keys if low.startswith(part) and low.endswith(ending) and is_picture(low))
        return [self.files[key] for key in wanted]


def _pair(label: str, channels: dict[int, list[str]], labels: list[str], named: str = "") -> _Pair:
    """A pair of the only file of each channel and of the label; several of one are told."""
    several = next((files for files in (*channels.values(), labels) if len(files) > 1), [])
    return _Pair(label, {number: files[0] for number, files in channels.items()}, named, several=tuple(several))


def _record(folder: Path, files: list[str]) -> dict[str, Any]:
    content = read_record(folder / "dataset.json") if "dataset.json" in files else {}
    if not isinstance(content, dict):
        raise EmitDiffError("dataset.json should be a record with names and values: it is a list or a single value.")
    return content


def _listed_pairs(record: dict[str, Any], found: _Found) -> dict[str, _Pair] | None:
    """The pairs that a record lists: `training` of version 1 and the Decathlon, `dataset` of version 2; None where it
    lists none."""
    pairs: dict[str, _Pair] = {}
    entries = record.get("training")
    if isinstance(entries, list) and entries:
        return _training_pairs(entries, found)
    cases = record.get("dataset")
    if not isinstance(cases, dict) or not cases:
        return None
    for name, entry in cases.items():
        images = entry.get("images") if isinstance(entry, dict) else None
        if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
            raise EmitDiffError(f"dataset.json should give \"images\" of the case '{name}' as a list of files.")
        pair = pairs.setdefault(name, _Pair(_text(entry, "label", "dataset")))
        pair.named = images[0] if images else name
        pair.channels = {number: file for number, image in enumerate(images) if (file := found.get(image))}
    return pairs


def _training_pairs(entries: list[Any], found: _Found) -> dict[str, _Pair]:
    """Each by its name, with its folders where others are called like it in another folder."""
    listed_labels: dict[str, dict[str, str]] = {}
    for entry in entries:
        image, label = (_text(entry, key, "training") for key in ("image", "label"))
        listed_labels.setdefault(clean_path(image), {})[clean_path(label)] = label
    stems = Counter(stem(image) for image in listed_labels)
    pairs = {}
    for image, labels in listed_labels.items():
        own = found.get(image)
        channels = {0: [own]} if own else found.of_channels(SUFFIX.sub("", image))
        there = [file for label in labels.values() if (file := found.get(label))]
        pair = _pair(next(iter(labels.values())), channels, there, image)
        pair.whole = own is not None
        pairs[stem(image) if stems[stem(image)] == 1 else SUFFIX.sub("", image).partition("/")[2]] = pair
    return pairs


def _text(entry: Any, key: str, where: str) -> str:
    if not isinstance(entry, dict) or not isinstance(entry.get(key), str):
        raise EmitDiffError(
            f'dataset.json should list pairs of files under "{where}", like {{"image": "./imagesTr/a.nii.gz", "label": '
            '"./labelsTr/a.nii.gz"}.'
        )
    text: str = entry[key]
    return text


def _pairs_of_folders(found: _Found) -> dict[str, _Pair]:
    """imagesTr/CASE_0000 and labelsTr/CASE, by their names."""
    labels: dict[str, list[str]] = {}
    for file in found.below(MASKS):
        labels.setdefault(_case_name(file), []).append(file)
    folded: dict[str, list[str]] = {}
    for name in labels:
        folded.setdefault(name.casefold(), []).append(name)
    pairs: dict[str, _Pair] = {}
    for key in sorted(key for key in found.channels if key.casefold().startswith(IMAGES)):
        name = key.partition("/")[2]
        alike = folded.get(name.casefold(), [])
        own = labels.get(name) or (labels[alike[0]] if len(alike) == 1 else [])
        pairs[name] = _pair(own[0] if own else "", found.of_channels(key), own)
    return pairs


def _case_name(file: str) -> str:
    return SUFFIX.sub("", clean_path(file)).partition("/")[2]


def _add_cases(source: Source, pairs: dict[str, _Pair], found: _Found) -> None:
    used: set[str] = set()
    for name, pair in sorted(pairs.items()):
        label = found.get(pair.label) if pair.label else None
        used |= {*pair.channels.values(), *([label] if label else []), *pair.several}
        if pair.several:
            why = f"it is not clear which of {' and '.join(pair.several)} is meant"
            first = pair.channels[min(pair.channels)] if pair.channels else pair.several[0]
            source.left_out.append(LeftOut(UNCLEAR, first, why))
        elif pair.channels and label:
            source.cases.append(Case(name, pair.channels, (label,)))
        elif pair.channels:
            why = f"dataset.json names {pair.label}, which is not there" if pair.label else ""
            source.left_out += [LeftOut(NO_MASK, file, why) for file in pair.channels.values()]
        elif label:
            source.left_out.append(LeftOut(NO_IMAGE, label, f"dataset.json names {pair.named}, which is not there"))
        else:
            source.left_out.append(LeftOut(UNUSABLE, pair.named or name, "neither the image nor its mask is there"))
    rest = {part: [file for file in found.below(part) if file not in used] for part in (IMAGES, MASKS)}
    record = "dataset.json" in found.files and bool(pairs) and any(pair.named for pair in pairs.values())
    for part, kind in ((IMAGES, NO_MASK), (MASKS, NO_IMAGE)):
        why = "the list in dataset.json does not have it" if record else ""
        source.left_out += [LeftOut(UNLISTED if record else kind, file, why) for file in rest[part]]
    source.left_out += [LeftOut(ASIDE, file) for part in TESTS for file in found.below(part)]


def _describe(source: Source, record: dict[str, Any], numbers: set[int]) -> None:
    """Name, labels, channels and licence."""
    texts = {key: record.get(key) for key in ("name", "description", "licence", "license", "reference")}
    said = {key: text.strip() for key, text in texts.items() if isinstance(text, str)}
    source.name = said.get("name") or re.sub(r"^(Dataset|Task)\d+_", "", source.root.name)
    source.licence = said.get("licence") or said.get("license", "")
    source.citation = said.get("reference", "")
    names = record.get("channel_names", record.get("modality"))
    names = {str(key): str(name) for key, name in names.items()} if isinstance(names, dict) else {}
    many = range(len(names) if source.inside else max(numbers, default=0) + 1)
    channels = tuple(names.get(str(number), f"channel {number}") for number in many)
    if len(channels) > 1:
        source.channels = channels
    elif names:
        source.modality = modality_of(next(iter(names.values())))
    if own := OWN_DESCRIPTION.match(said.get("description", "")):
        source.modality, source.organ = own[1], own[2]
    _read_labels(source, record.get("labels"))


def _read_labels(source: Source, labels: Any) -> None:
    """The names of the classes: {"1": "liver"} of version 1 and the Decathlon, {"liver": 1} of version 2."""
    if not isinstance(labels, dict):
        return
    old = all(str(key).isdecimal() for key in labels)
    named = {str(name): key for key, name in labels.items()} if old else labels
    regions = [name for name, value in named.items() if isinstance(value, list)]
    ids = {name.strip(): int(value) for name, value in named.items() if str(value).isdecimal() and len(str(value)) < 6}
    source.ignored = ids.pop("ignore", None)
    source.labels = {name: value for name, value in ids.items() if 1 <= value <= MAX_LABEL}
    check_labels(source.labels)
    if regions:
        source.notes.append(
            f"dataset.json names regions of several classes ({listed(regions)}), which no class id stands for."
        )


def _add_provenance(source: Source, found: _Found) -> None:
    """The columns that `export` of this project keeps of every case: groups, findings, texts, and what is synthetic."""
    if PROVENANCE not in found.files:
        return
    columns, rows = read_table(found.folder / PROVENANCE)
    columns = list(map(from_cell, columns))
    if not {"case", "group"} <= set(columns):
        return
    kept = [dict(zip(columns, map(from_cell, cells), strict=False)) for cells in rows.values()]
    by_case = {
        row["case"]: {key: row[key] for key in row if key not in EXPORT_COLUMNS} for row in kept if "case" in row
    }
    source.cases = [Case(case.name, case.channels, case.masks, by_case.get(case.name, {})) for case in source.cases]
    source.notes.append(f"Groups and further columns were taken from {PROVENANCE}.")
