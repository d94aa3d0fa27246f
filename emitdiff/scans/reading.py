"""Any medical file to a Scan, by the reader of its format.

The content of a file decides what it is, never its suffix. The readers live next door, in pictures.py, dicom.py and
nifti.py; each reads the size from the header and checks it before anything is decoded.
"""

from __future__ import annotations

import re
from pathlib import Path

from emitdiff.scans.decoding import existing_file
from emitdiff.scans.scan import Scan


def read_scan(path: str | Path) -> Scan:
    """Read a file, a folder with a DICOM series, or a zip of one. EmitDiffError, a sentence, where it cannot be."""
    path = Path(path)
    kind = "folder" if path.is_dir() else sniff(existing_file(path))
    if kind == "picture":
        from emitdiff.scans.pictures import read_picture

        return read_picture(path)
    if kind == "nifti":
        from emitdiff.scans.nifti import read_nifti

        return read_nifti(path)
    from emitdiff.scans.dicom import read_dicom

    return read_dicom(path, kind)


def sniff(path: Path) -> str:
    """What the first bytes say: "dicom", "zip", "nifti", or "picture" for all the rest."""
    with path.open("rb") as file:
        head = file.read(352)
    if head[128:132] == b"DICM" or re.match(rb"[\x02\x08]\0[\0-\x18]\0([A-Z]{2}|.\0\0\0)", head, re.DOTALL):
        return "dicom"  # the second form has no preamble: straight into group 2 or 8
    if head[:4] in {b"PK\x03\x04", b"PK\x05\x06"}:
        return "zip"
    is_nifti = head[:2] == b"\x1f\x8b" or head[344:348] in {b"n+1\0", b"ni1\0"} or head[4:8] in {b"n+2\0", b"ni2\0"}
    return "nifti" if is_nifti else "picture"
