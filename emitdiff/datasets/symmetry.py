"""Which images may be mirrored or turned and stay true, by what dataset.json says of them."""

from __future__ import annotations

from emitdiff.datasets.folder import DatasetInfo

# Anatomy without a side: elsewhere a mirrored patient would be a wrong patient (heart and liver on the other side).
MIRRORED_ORGANS = frozenset({"breast", "nuclei", "prostate"})
# Microscopy has no up or down either.
TURNED_ORGANS = frozenset({"nuclei"})
# Other ways in which dataset.json may put a modality or an organ.
SYNONYMS = {
    "histology": "microscopy", "histopathology": "microscopy", "pathology": "microscopy", "fluorescence": "microscopy",
    "nucleus": "nuclei", "cell": "nuclei", "cells": "nuclei", "mr": "mri", "us": "ultrasound", "xr": "x-ray",
    "radiograph": "x-ray", "thorax": "chest", "cardiac": "heart", "abdominal": "abdomen",
}  # fmt: skip


def canonical_kind(info: DatasetInfo) -> tuple[str, str]:
    """(modality, organ) in lower case, each in the way it is put most often."""
    modality, organ = (SYNONYMS.get(word, word) for word in (info.modality.lower(), info.organ.lower()))
    return modality, organ


def may_mirror(info: DatasetInfo) -> bool:
    """Whether left and right mean nothing in the images of a dataset."""
    return canonical_kind(info)[1] in MIRRORED_ORGANS


def may_turn(info: DatasetInfo) -> bool:
    """Whether up and down mean nothing either."""
    return canonical_kind(info)[1] in TURNED_ORGANS
