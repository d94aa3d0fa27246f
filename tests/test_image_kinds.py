"""Whether a prompt fits the image, and the words that would."""

from __future__ import annotations

import pytest

from emitdiff.image_kinds import ImageKind, contradiction, fitting_prompt, kind_of_image, with_article

BREAST = ImageKind("Ultrasound", "breast", "This looks like a breast ultrasound", True)
SEEN = ("breast ultrasound", "Ultrasound", "breast")


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("MRI, prostate, prostate", "MRI, prostate"),
        ("a T2-weighted magnetic resonance image, dark", "MRI"),
        ("Ultrasound, liver", "Ultrasound, abdomen"),
        ("X-RAY, lungs", "X-ray, chest"),
    ],
)
def test_another_kind_is_named_as_the_prompt_says_it(prompt, said):
    assert contradiction(prompt, BREAST) == f"This looks like a breast ultrasound; the prompt says {said}."


@pytest.mark.parametrize(
    "prompt",
    ["Ultrasound, breast, benign lesion", "", "dark, noisy", "sonogram", "a breast", "heart, breast"],
)
def test_a_prompt_that_may_mean_the_image_is_left_in_peace(prompt):
    assert contradiction(prompt, BREAST) == ""
    assert contradiction("MRI, prostate", None) == ""


def test_words_are_looked_for_whole():
    assert contradiction("direct sunlight, secretory carcinoma", BREAST) == "", "no CT in it"
    assert contradiction("postmenopausal, nucleic acids", BREAST) == ""


def test_the_fitting_prompt_keeps_what_does_not_contradict():
    findings = ("prostate", "benign lesion", "normal")
    assert fitting_prompt("MRI, prostate, prostate", BREAST, findings) == "Ultrasound, breast"
    assert fitting_prompt("T2 MRI of the prostate, normal, dark, of a child", BREAST, findings) == (
        "Ultrasound, breast, dark, of a child"
    )
    assert fitting_prompt("", BREAST) == "Ultrasound, breast"


def test_a_file_that_names_only_its_modality_leaves_the_organ_alone():
    kind = kind_of_image("ct", None)
    assert contradiction("MRI, heart", kind) == "The file says CT; the prompt says MRI, heart."
    assert fitting_prompt("MRI, heart, left ventricle", kind, ("left ventricle",)) == "CT, heart, left ventricle"
    assert contradiction("heart", kind) == ""


def test_what_the_file_says_holds_against_a_guess():
    assert kind_of_image("MRI", SEEN) == ImageKind("MRI", "", "The file says MRI")
    assert kind_of_image("Ultrasound", SEEN) == kind_of_image(None, SEEN) == BREAST
    assert kind_of_image("PT", SEEN) is None and kind_of_image(None, None) is None


def test_articles():
    assert [with_article(kind) for kind in ("abdominal CT", "chest x-ray", "microscopy")] == [
        "an abdominal CT", "a chest x-ray", "microscopy",
    ]  # fmt: skip
