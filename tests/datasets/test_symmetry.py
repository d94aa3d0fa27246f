import pytest

from emitdiff.datasets.folder import DatasetInfo
from emitdiff.datasets.symmetry import canonical_kind, may_mirror, may_turn


@pytest.mark.parametrize(
    ("modality", "organ", "mirrored", "turned"),
    [
        ("Ultrasound", "breast", True, False),
        ("MRI", "Prostate", True, False),
        ("Microscopy", "nuclei", True, True),
        ("Histology", "cells", True, True),
        ("X-ray", "chest", False, False),
        ("CT", "abdomen", False, False),
        ("MRI", "heart", False, False),
        ("Ultrasound", "thyroid", False, False),
    ],
)
def test_only_what_has_no_sides_is_mirrored_and_only_what_has_no_upright_is_turned(modality, organ, mirrored, turned):
    info = DatasetInfo("any", modality, organ, {"background": 0, "target": 1})
    assert (may_mirror(info), may_turn(info)) == (mirrored, turned)


def test_other_words_for_one_kind_are_one_kind():
    kinds = [("MR", "Cardiac"), ("mri", "heart"), ("MRI", "heart")]
    infos = [DatasetInfo("any", modality, organ, {"background": 0}) for modality, organ in kinds]
    assert {canonical_kind(info) for info in infos} == {("mri", "heart")}
