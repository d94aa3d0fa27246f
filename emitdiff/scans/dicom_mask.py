"""DICOM files as masks: Segmentations, images of class ids, and what is neither."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLossless, JPEGLosslessSV1

from emitdiff.errors import EmitDiffError
from emitdiff.scans.decoding import damaged_file_error
from emitdiff.scans.dicom_seg_reading import SegFile, is_segmentation, read_segmentation
from emitdiff.scans.mask_volumes import MaskVolume, read_mask_volume

# What is drawn on images and is no image: what it holds, and how it becomes one.
NO_PIXELS = {
    "RTSTRUCT": ("contours (an RT Structure Set), not pixels",
                 "Save it as DICOM SEG or NIfTI, for example with 3D Slicer or plastimatch"),
    "RTPLAN": ("a plan of a radiotherapy", "Give the mask itself"),
    "SR": ("a report with measurements", "Give the mask itself"),
    "PR": ("how an image is to be shown (a presentation state)", "Give the mask itself"),
    "KO": ("a choice of images", "Give the mask itself"),
    "REG": ("how images lie over each other", "Give the mask itself"),
    "M3D": ("surfaces, not pixels", "Save it as DICOM SEG or NIfTI, for example with 3D Slicer"),
    "RTDOSE": ("a dose, not classes", "Save a mask as DICOM SEG or NIfTI"),
}  # fmt: skip
SURFACES = "1.2.840.10008.5.1.4.1.1.66.5"
JPEGS = "1.2.840.10008.1.2.4."  # of the transfer syntaxes, with what is never lossy below
LOSSLESS = {JPEGLossless, JPEGLosslessSV1, "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90",
            "1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202"}  # fmt: skip


def read_dicom_mask(path: Path) -> MaskVolume | SegFile:
    """A Segmentation, or an image whose values are class ids. Raises EmitDiffError for everything else."""
    elements = _identity(path)
    if is_segmentation(elements):
        return read_segmentation(path)
    modality = "M3D" if elements.get("SOPClassUID") == SURFACES else str(elements.get("Modality", ""))
    if modality in NO_PIXELS:
        what, remedy = NO_PIXELS[modality]
        raise EmitDiffError(f"The mask '{path.name}' holds {what}. {remedy}.")
    syntax = str(elements.file_meta.get("TransferSyntaxUID", ""))
    lossy = str(elements.get("LossyImageCompression", "")) == "01" or (
        syntax.startswith(JPEGS) and syntax not in LOSSLESS
    )
    return read_mask_volume(path, "DICOM image compressed with loss" if lossy else "")


def _identity(path: Path) -> pydicom.Dataset:
    """The elements that say what kind of file it is."""
    try:
        with path.open("rb") as file:
            read_preamble(file, force=True)
            # Deflated files would be inflated whole, whatever their size.
            meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
            if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
                raise EmitDiffError(
                    f"'{path.name}' is a deflated DICOM file, which is not read. Convert it without deflation."
                )
            file.seek(0)
            wanted = ["SOPClassUID", "Modality", "LossyImageCompression"]
            return pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=wanted)
    except EmitDiffError:
        raise
    except Exception:  # whatever the parser stumbles over, the file is at fault
        raise damaged_file_error(path.name) from None
