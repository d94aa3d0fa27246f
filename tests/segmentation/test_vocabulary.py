import numpy as np
import pytest

from emitdiff.datasets.folder import DatasetInfo, Sample
from emitdiff.segmentation import vocabulary
from emitdiff.segmentation.vocabulary import BY_PHRASE, TARGETS, example_sentences, match_target

from .conftest import disc

TAUGHT = tuple(target.phrase for target in TARGETS)


def info(modality, organ, *labels):
    return DatasetInfo("x", modality, organ, {"background": 0, **{name: i for i, name in enumerate(labels, 1)}})


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.phrase)
def test_sentences_are_many_and_keep_a_name(target):
    rng = np.random.default_rng(0)
    sentences = [vocabulary.compose_sentence(target, rng) for _ in range(200)]
    assert len(set(sentences)) > 120
    assert sum(vocabulary.match_target(sentence) is target for sentence in sentences) > 150
    assert all(sentence.strip() for sentence in sentences)


def test_datasets_map_to_targets_by_scene_and_label():
    assert vocabulary.target_of(info("Ultrasound", "breast", "lesion"), "lesion") is BY_PHRASE["breast lesion"]
    assert vocabulary.target_of(info("Microscopy", "nuclei", "nucleus"), "nucleus") is BY_PHRASE["nuclei"]
    assert vocabulary.target_of(info("Histology", "Cells", "nucleus"), "nucleus") is BY_PHRASE["nuclei"]
    assert vocabulary.target_of(info("MR", "cardiac", "LV"), "LV") is BY_PHRASE["left ventricle"]
    assert vocabulary.own_sentence(info("CT", "abdomen", "liver"), "liver") == "CT, abdomen, liver"


@pytest.mark.parametrize("modality, organ, label, phrase, home", [
    ("MRI", "brain", "lesion", "brain lesion", "MRI, brain"),
    ("X-ray", "chest", "infection", "infection", "chest x-ray"),
    ("OCT", "retina", "Optic_Disc", "optic disc", "OCT, retina"),
])  # fmt: skip
def test_other_labels_are_targets_by_their_own_name(modality, organ, label, phrase, home):
    target = vocabulary.target_of(info(modality, organ, label), label)
    assert (target.phrase, target.image_kind, target.absent_kinds) == (phrase, home, ())
    rng = np.random.default_rng(0)
    sentences = [vocabulary.compose_sentence(target, rng) for _ in range(100)]
    assert sum(getattr(vocabulary.match_target(text, [phrase]), "phrase", "") == phrase for text in sentences) > 90
    assert any(organ in sentence.lower() for sentence in sentences)


def test_of_targets_that_share_a_name_the_trained_one_is_meant():
    assert vocabulary.match_target("the tumour", ["brain tumour", "liver"]).phrase == "brain tumour"
    assert vocabulary.match_target("the tumour", ["breast lesion", "liver"]).phrase == "breast lesion"
    assert vocabulary.match_target("the optic disc", ["liver"]) is None


def test_what_a_dataset_labels_is_not_absent_from_it():
    assert "liver" not in {target.phrase for target in vocabulary.absent_targets(info("X-ray", "chest", "liver"))}


def test_unlabelled_neighbours_are_no_negatives():
    """In a CT labelled for the liver the spleen is there too, and a heart MRI may show a part of the liver."""
    absent = {target.phrase for target in vocabulary.absent_targets(info("CT", "abdomen", "liver"))}
    assert absent == {"prostate", "breast lesion", "nuclei"}
    absent = {target.phrase for target in vocabulary.absent_targets(info("MRI", "heart", "left ventricle"))}
    assert absent == {"pancreas", "prostate", "breast lesion", "nuclei"}
    assert vocabulary.absent_targets(info("MRI", "brain", "tumour")) == ()


def test_no_target_is_absent_at_home():
    assert all(target.image_kind not in target.absent_kinds for target in TARGETS)


def test_the_patients_left_lung_is_on_the_images_right():
    mask = disc((64, 80), (30, 20), 12) | disc((64, 80), (30, 60), 10)
    left, right = vocabulary.split_lungs(mask)
    assert left[30, 60] and not left[30, 20]
    assert right[30, 20] and not right[30, 60]
    assert np.array_equal(left | right, mask)


def test_a_crumb_goes_to_its_own_side():
    mask = disc((64, 80), (30, 20), 12) | disc((64, 80), (30, 60), 10)
    mask[60, 70] = True
    left, right = vocabulary.split_lungs(mask)
    assert left[60, 70] and not right[60, 70]


@pytest.mark.parametrize("mask", [
    disc((64, 80), (30, 40), 20),
    disc((64, 80), (15, 40), 12) | disc((64, 80), (48, 40), 12),
    disc((64, 80), (30, 20), 15) | disc((64, 80), (30, 60), 3),
    np.zeros((64, 80), bool),
])  # fmt: skip
def test_unclear_sides_are_not_guessed(mask):
    assert vocabulary.split_lungs(mask) is None


def test_masks_of_a_labelled_image():
    mask = (disc((64, 80), (30, 20), 12) | disc((64, 80), (30, 60), 10)).astype(np.uint8)
    sample = Sample(np.zeros((64, 80, 3), np.uint8), mask, "", "a", "", "a.png", {})
    assert list(vocabulary.target_masks(sample, info("X-ray", "chest", "lung"))) == ["lung", "left lung", "right lung"]
    assert list(vocabulary.target_masks(sample, info("CT", "abdomen", "liver"))) == ["liver"]
    assert list(vocabulary.target_masks(sample, info("MRI", "brain", "tumour"))) == ["brain tumour"]
    assert list(vocabulary.target_masks(sample, info("CT", "thorax", "lung"))) == ["lung"]


def test_the_longest_name_in_a_sentence_wins():
    assert vocabulary.match_target("Show me the LEFT LUNG.").phrase == "left lung"
    assert vocabulary.match_target("where is the tumour in the breast?").phrase == "breast lesion"
    assert vocabulary.match_target("both lungs").phrase == "lung"
    assert vocabulary.match_target("the kidney") is None and vocabulary.match_target("") is None


@pytest.mark.parametrize("text, phrase", [
    ("left lung!", "left lung"), ("(liver)", "liver"), ("liver; axial CT", "liver"), ("lung: both", "lung"),
    ("left-lung", "left lung"), ("left sided lung", "left lung"), ("the patient\u2019s left lung", "left lung"),
    ('"Pancreas"', "pancreas"), ("CT/spleen", "spleen"), ("H&E: cell-nuclei", "nuclei"),
])  # fmt: skip
def test_punctuation_does_not_hide_a_name(text, phrase):
    assert vocabulary.match_target(text).phrase == phrase


@pytest.mark.parametrize("text", ["livery", "massive", "!?", "delivered"])
def test_a_name_within_another_word_is_no_name(text):
    assert vocabulary.match_target(text) is None


def test_each_sentence_is_understood_as_the_target_it_was_made_for():
    for target in TARGETS:
        sentences = example_sentences(
            (target.phrase,), {"chest x-ray": "X-ray"}.get(target.image_kind, target.image_kind[-3:])
        )
        for sentence in sentences or example_sentences((target.phrase,)):
            assert match_target(sentence, TAUGHT).phrase == target.phrase, sentence


def test_a_modality_keeps_the_sentences_of_its_own_targets():
    xray = example_sentences(TAUGHT, "X-ray")
    assert len(xray) == 9 and all("lung" in sentence for sentence in xray)
    assert len(example_sentences(TAUGHT)) == len(TARGETS)
    assert not example_sentences(("liver",), "MRI")


def test_a_target_trained_elsewhere_is_asked_for_plainly():
    assert example_sentences(("optic disc",), "CT")[0] == "segment the optic disc"
