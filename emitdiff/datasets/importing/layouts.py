"""Which layout a folder has: a record of nnU-Net or the Decathlon, folders of images and masks, or pairs by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from emitdiff.datasets.archive import strip_folders, unpack_archive
from emitdiff.datasets.importing.records import is_record_folder, read_record_folder
from emitdiff.datasets.importing.source import NO_IMAGE, NO_MASK, UNCLEAR, Case, LeftOut, Source, listed
from emitdiff.datasets.tables import read_record
from emitdiff.errors import EmitDiffError
from emitdiff.files import list_files
from emitdiff.import_settings import check_labels
from emitdiff.pairing import IMAGE_FOLDERS, MASK_FOLDERS, Pairing, is_picture, pair_folders, pair_mixed, stem
from emitdiff.scans.decoding import is_dicom
from emitdiff.scans.reading import read_scan

MAX_DEPTH = 3  # folders above images/ and masks/
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
KNOWN = (
    "Known are: folders images/ and masks/ (or imgs/ and labels/, image/ and mask/, img/ and gt/); pairs by name "
    "(x.png and x_mask.png); nnU-Net (imagesTr/ and labelsTr/); the Medical Segmentation Decathlon (dataset.json with "
    "training pairs)."
)


@contextmanager
def opened_source(source: str | Path) -> Iterator[Source]:
    """What is in a folder or in a ZIP, which is unpacked while it is needed.

    Raises:
        EmitDiffError: neither, a ZIP that cannot be unpacked safely, or no layout that is known.
    """
    source = Path(source)
    if source.is_dir():
        yield find_source(source)
        return
    if not source.is_file():
        raise EmitDiffError(f"There is no folder or ZIP '{source}': check the path.")
    if source.name.lower().endswith((".tar", ".tar.gz", ".tgz", ".7z", ".rar")):
        raise EmitDiffError(f"'{source.name}' is an archive that is not read: unpack it and give the folder, or a ZIP.")
    with TemporaryDirectory(prefix="emitdiff_import_") as place:
        try:
            yield find_source(unpack_archive(source, place))
        except EmitDiffError as error:
            raise EmitDiffError(strip_folders(str(error), Path(place))) from error


def find_source(folder: Path) -> Source:
    """The cases in a folder, and what it says of itself. No image is decoded.

    Raises:
        EmitDiffError: no layout that is known, or several of them.
    """
    name, files = folder.resolve().name, sorted(list_files(folder))
    while (inside := _only_folder(files)) is not None:
        folder = folder / inside
        files = [file.partition("/")[2] for file in files]
    if {"dataset.json", "metadata.csv"} <= set(files):
        raise EmitDiffError(
            f"'{name}' is a dataset folder already, with dataset.json and metadata.csv: use it as it is."
        )
    _refuse_several(folder, files)
    if is_record_folder(folder, files):
        source = read_record_folder(folder, files)
    else:
        source = _pictures(folder, files)
        _read_own_record(source)
    if not source.cases and not source.left_out:
        there = f"It holds {listed(files)}." if files else "It is empty."
        raise EmitDiffError(f"No images with masks were found in '{name}'. {there} {KNOWN}")
    source.name = source.name or name
    source.modality = source.modality or _dicom_modality(source)
    return source


def _only_folder(files: list[str]) -> str | None:
    """The one folder that everything lies in, unless it says by its name what is in it."""
    first = {file.partition("/")[0] for file in files}
    if len(first) != 1 or "/" not in files[0]:
        return None
    (only,) = first
    return None if only.casefold() in IMAGE_FOLDERS | MASK_FOLDERS | {"imagestr", "labelstr"} else only


def _refuse_several(folder: Path, files: list[str]) -> None:
    roots = {file.partition("/")[0] for file in files if file.count("/") == 1 and file.endswith("/dataset.json")}
    if len(roots) > 1:
        raise EmitDiffError(
            f"'{folder.name}' holds {len(roots)} datasets with a dataset.json: {listed(sorted(roots))}. Give one of "
            "them."
        )


def _pictures(folder: Path, files: list[str]) -> Source:
    """Folders of images and masks, or else pairs by name."""
    pictures = [file for file in files if is_picture(file) or _is_dicom_file(folder / file)]
    places = _places(pictures)
    source = Source(folder, "folders of images and masks" if places else "pairs by name", [])
    if not places:
        _add(source, pair_mixed(pictures), "", "")
        if not source.cases and all(left.kind == NO_MASK for left in source.left_out):
            source.left_out = []  # pictures alone are no data to learn from
    taken: set[str] = set()
    for place, (images, masks) in sorted(places.items()):
        inside = [[file[len(part) :] for file in pictures if file.startswith(part)] for part in (images, masks)]
        taken |= {file for file in pictures if file.startswith((images, masks))}
        _add(source, pair_folders(*inside), images, masks, place)
    if places:
        why = "it lies neither in a folder of images nor in one of masks beside it"
        source.left_out += [LeftOut(NO_MASK, file, why) for file in pictures if file not in taken]
    if others := [file for file in files if file not in {*pictures, "dataset.json"}]:
        source.notes.append(f"{len(others)} file(s) that are no pictures were not looked at: {listed(others)}.")
    return source


def _places(pictures: list[str]) -> dict[str, tuple[str, str]]:
    """Every folder that has a folder of images and one of masks: both, each as a path that ends in /."""
    folders = {
        PurePosixPath(*parts[: depth + 1])
        for parts in (PurePosixPath(file).parent.parts for file in pictures)
        for depth in range(min(len(parts), MAX_DEPTH))
    }
    found: dict[str, tuple[str, str]] = {}
    for parent in sorted({path.parent for path in folders}, key=lambda path: (len(path.parts), str(path))):
        beside = sorted(path for path in folders if path.parent == parent)
        images, masks = (
            [f"{path}/" for path in beside if path.name.casefold() in words] for words in (IMAGE_FOLDERS, MASK_FOLDERS)
        )
        inside = any(f"{parent}/".startswith(above) for pair in found.values() for above in pair)
        if not images or not masks or inside:
            continue
        if len(images) > 1 or len(masks) > 1:
            several = ", ".join(images if len(images) > 1 else masks)
            raise EmitDiffError(
                f"It is not clear which of {several} are meant: leave one folder of images and one of masks."
            )
        found["" if parent == PurePosixPath(".") else f"{parent}/"] = (images[0], masks[0])
    return found


def _add(source: Source, pairing: Pairing, images: str, masks: str, place: str = "") -> None:
    """The pairs as cases, the others as left out; `images` and `masks` are the folders that the names begin in."""
    for image, own in pairing.pairs.items():
        inner = PurePosixPath(image)
        above = PurePosixPath(f"{place}{image}").parts[0].casefold() if place or len(inner.parts) > 1 else ""
        row = {"split": SPLITS[above]} if above in SPLITS else {}
        name = f"{place}{inner.parent / stem(image)}"
        source.cases.append(Case(name, {0: images + image}, tuple(masks + mask for mask in own), row))
    unclear = {image for several in pairing.unclear.values() for image in several}
    for mask, several in pairing.unclear.items():
        named = " or ".join(images + image for image in several)
        why = f"it may be the mask of {named}" if named else "it may be an image or a mask"
        source.left_out.append(LeftOut(UNCLEAR, masks + mask, why))
    for image in pairing.images:
        kind, why = (UNCLEAR, "its masks are not clear") if image in unclear else (NO_MASK, "")
        source.left_out.append(LeftOut(kind, images + image, why))
    source.left_out += [LeftOut(NO_IMAGE, masks + mask) for mask in pairing.masks]


def _read_own_record(source: Source) -> None:
    """dataset.json of this project beside images and masks that have no table."""
    path = source.root / "dataset.json"
    content = read_record(path) if path.is_file() else {}
    if not isinstance(content, dict):
        return
    said = {key: content.get(key) for key in ("name", "modality", "organ", "licence", "citation")}
    for key, text in said.items():
        if isinstance(text, str) and text.strip():
            setattr(source, key, text.strip())
    labels = content.get("labels")
    if isinstance(labels, dict) and all(type(value) is int for value in labels.values()):
        source.labels = {str(name): value for name, value in labels.items() if value}
        check_labels(source.labels)


def _is_dicom_file(path: Path) -> bool:
    """DICOM files often have no suffix, or the end of a number for one."""
    with path.open("rb") as file:
        return is_dicom(file.read(352))


def _dicom_modality(source: Source) -> str:
    """What the first image says of itself, where it is DICOM."""
    if not source.cases or not _is_dicom_file(path := source.root / source.cases[0].channels[0]):
        return ""
    try:
        return read_scan(path).modality or ""
    except EmitDiffError:  # told when it is imported
        return ""
