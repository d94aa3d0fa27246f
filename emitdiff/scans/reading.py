"""Any medical file to a Scan, by the reader of its format.

The content of a file decides what it is, never its suffix. The readers live next door, in pictures.py, dicom.py and
nifti.py; each reads the size from the header and checks it before anything is decoded.
"""

from __future__ import annotations

from pathlib import Path

from emitdiff.scans.decoding import existing_file, is_dicom
from emitdiff.scans.foreign import check_format
from emitdiff.scans.geometry import Window
from emitdiff.scans.scan import Scan, Wanted


def read_scan(
    path: str | Path, index: int | None = None, time_point: int | None = None, window: str | Window | None = None
) -> Scan:
    """Read a file, a folder with a DICOM series, or a zip of one.

    With an `index` that slice alone is kept in memory, however many there are; naming the `window` that it is to be
    shown with spares a look at the others where the file or its modality has that window. `time_point` chooses among
    the volumes of a file or series that holds several, counted from 0; without it the first is read, with a warning.

    Raises:
        EmitDiffError: a sentence, where it cannot be read or has no such slice or volume.
    """
    path, wanted = Path(path), Wanted(index, time_point, window)
    kind = "folder" if path.is_dir() else sniff(existing_file(path))
    if kind == "picture":
        from emitdiff.scans.pictures import read_picture

        return read_picture(path).keep(wanted)
    if kind == "nifti":
        from emitdiff.scans.nifti import read_nifti

        return read_nifti(path, wanted)
    from emitdiff.scans.dicom import read_dicom

    return read_dicom(path, kind, wanted)


def sniff(path: Path) -> str:
    """What the first bytes say: "dicom", "zip", "nifti", or "picture" for all the rest. EmitDiffError, which names it,
    for a format that is known and not read."""
    with path.open("rb") as file:
        head = file.read(352)
    if is_dicom(head):
        return "dicom"
    if head[:4] in {b"PK\x03\x04", b"PK\x05\x06"}:
        return "zip"
    analyze = head[:4] in {b"\x5c\x01\0\0", b"\0\0\x01\x5c"}  # NIfTI's forerunner, which its reader refuses by name
    is_nifti = (
        analyze or head[:2] == b"\x1f\x8b" or head[344:348] in {b"n+1\0", b"ni1\0"} or head[4:8] in {b"n+2\0", b"ni2\0"}
    )
    if not is_nifti:
        check_format(path, head)
    return "nifti" if is_nifti else "picture"
