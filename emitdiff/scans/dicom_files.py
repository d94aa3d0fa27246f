"""The DICOM files of a path: one, those of a folder, or those in a ZIP, which is never unpacked to disk."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import pydicom
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from emitdiff.errors import EmitDiffError
from emitdiff.scans.decoding import is_dicom
from emitdiff.scans.dicom_frame import SLICE_ELEMENTS, Header, Source

MAX_FILES = 4096
MAX_ARCHIVE_BYTES = 2**30  # of a zip, unpacked


def folder_sources(folder: Path) -> list[Source]:
    files = (path for path in folder.rglob("[!.]*") if path.is_file())
    paths = sorted(islice(files, MAX_FILES + 1))
    if len(paths) > MAX_FILES:
        raise EmitDiffError(f"The folder '{folder.name}' holds more than {MAX_FILES} files. Give one series alone.")
    return file_sources(paths)


def file_sources(paths: Iterable[Path]) -> list[Source]:
    def opener(path: Path) -> Source:
        return lambda: path.open("rb")

    return [opener(path) for path in paths]


def archive_sources(path: Path, archive: zipfile.ZipFile) -> list[Source]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir() and "__MACOSX" not in entry.filename]
    size = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_FILES or size > MAX_ARCHIVE_BYTES:
        raise EmitDiffError(
            f"'{path.name}' unpacks to {len(entries)} files and {size / 2**20:,.0f} MiB. Limits: {MAX_FILES} files and "
            f"{MAX_ARCHIVE_BYTES / 2**20:,.0f} MiB. Give one series alone."
        )
    if any(entry.flag_bits & 1 for entry in entries):
        raise EmitDiffError(f"'{path.name}' is protected by a password. Give it without one.")
    open_entry = cast(Callable[[zipfile.ZipInfo], BinaryIO], archive.open)  # its own type does not say that it seeks
    return [partial(open_entry, entry) for entry in entries]


def read_header(name: str, source: Source, alone: bool) -> Header | None:
    """The listed elements before the pixels; None for a file among others that is not DICOM, or lists some."""
    with source() as file:
        head = file.read(352)
        if not alone and not is_dicom(head):
            return None
        file.seek(0)
        read_preamble(file, force=True)
        # Deflated files would be inflated whole, whatever their size, before their header could be looked at.
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise EmitDiffError(f"'{name}' is a deflated DICOM file, which is not read. Convert it without deflation.")
        file.seek(0)
        elements = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=SLICE_ELEMENTS)
    return Header(source, elements)
