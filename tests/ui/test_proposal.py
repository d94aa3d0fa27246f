"""A mask proposed by the segmenter."""

from __future__ import annotations

import cv2
import gradio as gr
import nibabel
import numpy as np
import pytest
from fakes import failing, fake_callables, scan_that_saves

from emitdiff.ui.synthesis.proposal import build_proposal, fitting_target

TARGETS = ("lung", "liver", "prostate", "breast lesion", "nuclei", "left ventricle")


def propose(example, text="", organ="", finding="", scan=True, meanwhile=None, **changes):
    """The mask file and the sentence; `meanwhile` is what is chosen while the segmenter works."""
    with gr.Blocks():
        proposal, file = build_proposal(fake_callables(**changes)), gr.File()
    shown = {"scan": scan_that_saves(example.image) if scan else None, "slice_number": 1, "window": None}
    updates = proposal.propose(text, organ, finding, **shown)
    updates |= proposal.apply(file, updates.get(proposal.found), **{**shown, **(meanwhile or {})})
    assert updates[proposal.found] is None, "nothing waits any longer"
    return updates.get(file), updates[proposal.note]


def test_what_is_found_becomes_the_mask_file(example):
    path, words = propose(example, "lung")
    mask = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    assert mask.shape == (256, 256) and set(np.unique(mask)) == {0, 255}
    assert path.endswith("painted_chest_xray_proposed_mask.png")
    assert "Found “lung”" in words and f"{100 * (mask > 0).mean():.1f} % of the image" in words
    assert "check the outline" in words


def test_the_words_of_the_prompt_are_asked_for_where_none_is_written(example):
    assert "Found “breast lesion”" in propose(example, "", "breast", "benign lesion")[1]
    assert "Found “liver”" in propose(example, "liver", "breast", "benign lesion")[1]


def test_what_is_not_found_leaves_the_mask_as_it_was(example):
    path, words = propose(example, "spleen")
    assert path is None and "no pixel of" in words and "is unchanged" in words


def test_a_mask_does_not_land_on_an_image_that_was_chosen_meanwhile(example):
    same_size = scan_that_saves(example.image)
    for scan in (same_size, None):
        path, words = propose(example, "lung", meanwhile={"scan": scan})
        assert path is None and "The image or slice was changed during the run" in words


def test_nor_on_another_slice(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.arange(3840.0).reshape(40, 32, 3), np.eye(4)), tmp_path / "scan.nii.gz")
    scan = scan_that_saves(tmp_path / "scan.nii.gz")
    with gr.Blocks():
        proposal, file = build_proposal(fake_callables()), gr.File()
    found = proposal.propose("lung", "", "", scan, 1, None)[proposal.found]
    assert file in proposal.apply(file, found, scan, 1, None)
    assert file not in proposal.apply(file, found, scan, 2, None)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"scan": False, "text": "lung"}, "No image yet"),
        ({"organ": "knee"}, "Name the target"),
        ({"text": "lung", "segment": failing}, "weights are not here"),
        ({"targets": failing, "organ": "chest"}, "Name the target"),
    ],
)
def test_what_is_missing_is_said(example, given, words):
    path, said = propose(example, **given)
    assert path is None and words in said and 'role="alert"' in said


@pytest.mark.parametrize(
    ("organ", "finding", "target"),
    [
        ("abdomen", "liver", "liver"),
        ("breast", "malignant lesion", "breast lesion"),
        ("prostate", "", "prostate"),
        ("nuclei", "fluorescence", "nuclei"),
        ("chest", "normal", ""),
    ],
)
def test_the_target_that_fits(organ, finding, target):
    assert fitting_target(TARGETS, organ, finding) == target
