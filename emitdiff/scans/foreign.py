"""Files of the field that are not read, by their first bytes: what they are, and what to make of them."""

from __future__ import annotations

from pathlib import Path

from emitdiff.errors import EmitDiffError

AS_NIFTI = "Save it as NIfTI, for example with 3D Slicer or ITK-SNAP"
AS_PNG = "Save it as PNG"
FOREIGN = {
    b"NRRD": ("an NRRD file", AS_NIFTI),
    b"ObjectType": ("a MetaImage file", AS_NIFTI),
    b"NDims": ("a MetaImage file", AS_NIFTI),
    b"# vtk": ("a VTK file", AS_NIFTI),
    b"solid ": ("a surface (STL), not pixels", AS_NIFTI),
    b"\x93NUMPY": ("an array of NumPy", "Save a mask as PNG, a volume as NIfTI"),
    b"\x89HDF": ("an HDF5 file", "Save what is needed of it as PNG, or as NIfTI"),
    b"MATLAB ": ("a MATLAB file", "Save what is needed of it as PNG, or as NIfTI"),
    b"{": ("text (JSON), not pixels", "Draw its outlines or runs into a PNG"),
    b"[": ("text (JSON), not pixels", "Draw its outlines or runs into a PNG"),
    b"<": ("text (XML or SVG), not pixels", "Draw its outlines into a PNG"),
    b"\0\0\0\x0cjP": ("a JPEG 2000 picture", AS_PNG),
    b"BZh": ("compressed with bzip2", "Unpack it, or compress it with gzip"),
    b"\x28\xb5\x2f\xfd": ("compressed with Zstandard", "Unpack it, or compress it with gzip"),
    b"7z\xbc\xaf": ("a 7z archive", "Unpack it, or pack a ZIP"),
}

TEXTS = {b"{", b"[", b"<"}  # what may stand behind a mark and spaces


def check_format(path: Path, head: bytes) -> None:
    """Raises EmitDiffError where the first bytes `head` are those of a format that is known and not read."""
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t")
    for begin, (what, remedy) in FOREIGN.items():
        if head.startswith(begin) or (begin in TEXTS and text.startswith(begin)):
            raise EmitDiffError(f"'{path.name}' is {what}, which is not read. {remedy}.")
    if head[4:8] == b"ftyp":
        raise EmitDiffError(f"'{path.name}' is a HEIF or AVIF picture, which is not read. {AS_PNG}.")
