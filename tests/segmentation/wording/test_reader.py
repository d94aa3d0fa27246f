"""What texts ask for: taught targets in many words, and never what was not taught."""

import re
from pathlib import Path

import numpy as np
import pytest

from emitdiff.checkpoints import find_checkpoint, local_folder
from emitdiff.segmentation import vocabulary
from emitdiff.segmentation.loading import _read_json
from emitdiff.segmentation.vocabulary import OTHER_NAMES, TARGETS, example_sentences
from emitdiff.segmentation.wording.reader import TaughtWords, TextReader, record_texts

HERE = Path(__file__).parent
TAUGHT = tuple(target.phrase for target in TARGETS)
MAX_WRONG = 0.02  # of the wordings of either half
FREE = (*vocabulary.TEMPLATES, *vocabulary.REMARKS)


@pytest.fixture(scope="module")
def mini():
    """The reader of the embedded weights."""
    card = _read_json(local_folder(find_checkpoint("textdiff-mini", "segmentation")) / "training.json")
    return TextReader(TAUGHT, TaughtWords.of_card(card))


def wordings(name):
    """(text, phrase), the phrase "-" for what was not taught."""
    return [line.split("\t") for line in (HERE / name).read_text(encoding="utf-8").splitlines()]


def phrase(reader, text):
    target = reader.read(text).target
    return "-" if target is None else target.phrase


@pytest.mark.parametrize("name", ["development.tsv", "final.tsv"])
def test_wordings_are_understood(mini, name):
    """200 wordings, half of them of taught targets. `final.tsv` was written first and is not to be tuned on."""
    rows = wordings(name)
    halves = [[row for row in rows if (row[1] == "-") is untaught] for untaught in (False, True)]
    for half in halves:
        wrong = [(text, meant, phrase(mini, text)) for text, meant in half if phrase(mini, text) != meant]
        assert len(half) == 100 and len(wrong) <= MAX_WRONG * len(half), wrong


def test_the_final_wordings_are_kept_apart():
    def plain(text):
        return " ".join(re.findall(r"[\w&]+", text.lower()))

    trained = set()
    for target in TARGETS:
        for name in (*target.names, *target.labels):
            asked = [form.format(name=name) for form in vocabulary.TEMPLATES]
            trained |= {*asked, *(form.format(name=name) for form in vocabulary.REMARKS)}
            trained |= {form.format(rest=rest, scene=scene) for form in vocabulary.WITH_IMAGE_KIND for rest in asked
                        for scene in vocabulary.IMAGE_KIND_PHRASES[target.image_kind]}  # fmt: skip
    seen = {plain(text) for text in trained} | {plain(text) for text, _ in wordings("development.tsv")}
    assert not [text for text, _ in wordings("final.tsv") if plain(text) in seen and plain(text)]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.phrase)
def test_what_the_encoder_was_trained_with_is_understood(mini, target):
    scenes = vocabulary.IMAGE_KIND_PHRASES[target.image_kind]
    own = [", ".join((*vocabulary.IMAGE_KINDS[target.image_kind], name)) for name in (*target.names, *target.labels)]
    texts = [form.format(name=name) for name in target.names for form in FREE] + own
    texts += [form.format(rest=f"segment the {name}", scene=scene) for name in target.names for scene in scenes
              for form in vocabulary.WITH_IMAGE_KIND]  # fmt: skip
    texts += [text for modality in ("", *{kind[0] for kind in vocabulary.IMAGE_KINDS.values()})
              for text in example_sentences((target.phrase,), modality)]  # fmt: skip
    wrong = [text for text in texts if phrase(mini, text) != target.phrase]
    assert len(wrong) <= 0.02 * len(texts), wrong


def test_other_things_are_never_asked_for(mini):
    texts = [form.format(name=name) for name in OTHER_NAMES for form in FREE]
    texts += [f"{name} in this {scene}" for name in OTHER_NAMES for scenes in vocabulary.IMAGE_KIND_PHRASES.values()
              for scene in scenes]  # fmt: skip
    assert not [text for text in texts if phrase(mini, text) != "-"]


@pytest.mark.parametrize("text, meant", [
    ("slice no. 12: liver", "liver"), ("liver on CT without contrast", "liver"),
    ("segment the lungs of the covid patient", "lung"), ("In this patient with pneumonia, segment the lungs", "lung"),
    ("liver of a 63-year-old man with cirrhosis", "liver"), ("focus on the left lung", "left lung"),
    ("the left lung and the right lung", "lung"), ("ventricle on the left", "left ventricle"),
    ("all pixels in the left lung", "left lung"), ("prostate in this prostate MRI", "prostate"),
    ("The tumour is in the upper outer quadrant of the left breast.", "breast lesion"), ("lung \U0001fac1", "lung"),
    ("draw a line around the liver", "liver"), ("nuclei in the upper left of the image", "nuclei"),
])  # fmt: skip
def test_what_stands_beside_a_target_leaves_it_what_it_is(mini, text, meant):
    assert phrase(mini, text) == meant


@pytest.mark.parametrize("text", [
    "bright spot in the liver", "liver spot", "dark area in the lung", "abnormal lung area", "left liver", "upper lung",
    "the lung at the left of the image", "the lung's left border", "left half of the liver", "centre of the lesion",
    "wall of the cyst", "lesion in this CT", "lesion in the chest", "LV mass", "tumour cells", "heart and lungs",
    "left ventricle of the brain", "\U0001fac1", "posterior prostate", "liver segment", "malignant liver", "stem cells",
])  # fmt: skip
def test_a_name_may_stand_for_something_else(mini, text):
    assert phrase(mini, text) == "-"


BESIDE = """{w} and {t}|{t} and {w}|{t} and the {w}|the {t} and the {w}|{t}, {w}|{w} of the {t}|{t} {w}|
the {t} {w}|{w} {t}|the {w} {t}|{w} in the {t}|{w} near {t}|{t} with {w}|the {t} with a {w}|{t} or {w}|
find the {w} in the {t}|the {t}'s {w}|is there {w} in the {t}?|is there a {w} in this {t}?|{t} has {w}|
does the {t} show {w}?|{w}: {t}|{t}: {w}|
{t} ({w})|segment {w} and {t}|segment {t} and {w}|segment the {t}, the {w}|segment the {w}, then the {t}|
mark the {w} {t}|all {w} of {t}|{w}|the {w}|find the {w}|segment the {w} please|{w} in this image|{t} plus {w}|
a {w} inside the {t}|{w}-like {t}|{w} at the {t}"""


@pytest.mark.parametrize("word", ["ureter", "omentum", "snark", "crackles", "bronchiolitis"])
def test_an_unknown_word_in_or_beside_the_name_asks_for_something_else(mini, word):
    forms = BESIDE.replace("\n", "").split("|")
    texts = [
        form.format(w=word, t=name) for form in forms for name in ("lung", "left lung", "liver", "nuclei", "lesion")
    ]
    assert not [text for text in texts if phrase(mini, text) != "-"]


@pytest.mark.parametrize("text, meant", [
    ("Use clustering to find the liver", "liver"), ("sketch the liver", "liver"), ("The liver. Respond in JSON.",
    "liver"),
    ("liver for my radiomics pipeline", "liver"), ("Using GrabCut, segment the prostate", "prostate"),
    ("I have to hand in my homework: mark the spleen", "spleen"), ("Apply thresholding to extract the nuclei",
    "nuclei"),
    ("outline the left lung with the crayon tool view", "left lung"), ("Could you doodle the left lung?", "left lung"),
])  # fmt: skip
def test_unknown_words_of_how_and_what_for_are_beside_the_point(mini, text, meant):
    assert phrase(mini, text) == meant


def test_why_a_text_asks_for_nothing_is_said(mini):
    assert mini.read("rib").problem == f"These weights were not taught “rib”. Taught: {', '.join(TAUGHT)}."
    assert mini.read("no lesion").problem == (
        "“no lesion” says what is not there or not wanted (“no”): name what to find."
    )
    assert "names several targets, liver and spleen: ask for one at a time" in mini.read("liver and spleen").problem
    assert mini.read(" ").problem == "" and mini.read(" ").target is None
    assert len(mini.read("pneumonia " * 500).problem) < 250


@pytest.mark.parametrize("text, nearest", [
    ("pneumonia", "lung"), ("rib", "lung"), ("pneumonia in the left lung", "left lung"), ("liver lesion", "liver"),
    ("no tumour", "breast lesion"), ("right ventricle", "left ventricle"), ("prostata", "prostate"), ("panceras",
    "pancreas"),
    ("gallbladder", "liver"), ("cytoplasm", "nuclei"), ("banana", None), ("\u809d\u81d3", None), ("", None),
])  # fmt: skip
def test_the_nearest_target_is_offered(mini, text, nearest):
    assert mini.read(text).nearest == nearest


def test_the_network_is_asked_in_words_that_it_learnt(mini):
    assert mini.read("Outline BOTH LUNGS!").spoken == "Outline BOTH LUNGS!"
    assert (
        mini.read("pulmonary tissue").spoken == "lung"
        and mini.read("blood pool of the LV").spoken == "blood pool of the LV"
    )
    assert mini.read("banana").spoken == "banana"


def own(labels, modality, organ, texts=()):
    info = {"modality": modality, "organ": organ, "labels": dict.fromkeys(labels, 1)}
    return TaughtWords.of_card({"datasets": [info], "texts": record_texts(texts)})


def test_own_targets_are_known_by_their_labels_and_common_synonyms():
    labels = ("kidney left", "kidney right", "aorta", "portal vein and splenic vein", "TZ_core")
    reader = TextReader(("kidney left", "kidney right", "aorta", "tz core"), own(labels, "CT", "abdomen"))
    meant = {"left kidney": "kidney left", "the kidney on the right": "kidney right",
    "Renal parenchyma, left": "kidney left",
             "aortic region": "aorta", "CT, abdomen, kidney left": "kidney left", "TZ core": "tz core",
             "both kidneys": "-", "kidney": "-", "lung": "-", "liver": "-", "left kidney tumour": "-",
             "spleen": "-"}  # fmt: skip
    assert {text: phrase(reader, text) for text in meant} == meant
    assert reader.read("renal cyst").nearest == reader.read("kidney").nearest == "kidney left"


def test_what_another_checkpoint_was_taught_does_not_count():
    reader = TextReader(("liver",), own(("liver",), "CT", "abdomen"))
    assert phrase(reader, "lung") == "-" and phrase(reader, "hepatic parenchyma") == "liver"


def test_a_lesion_is_that_of_its_own_organ():
    reader = TextReader(("skin lesion",), own(("lesion",), "Dermoscopy", "skin"))
    meant = {"lesion": "skin lesion", "the lesions": "skin lesion", "Dermoscopy, skin, lesion": "skin lesion",
             "breast lesion": "-", "lesion in the breast": "-", "mass": "-", "skin": "-"}  # fmt: skip
    assert {text: phrase(reader, text) for text in meant} == meant


def test_of_two_lesions_a_plain_one_means_neither():
    reader = TextReader(("skin lesion", "brain lesion"))
    assert phrase(reader, "lesion") == "-" and phrase(reader, "brain lesion") == "brain lesion"


def test_labels_of_any_script_are_names():
    reader = TextReader(("\u816b\u7624", "l\u00e4sion", "1"))
    assert (
        phrase(reader, "\u816b\u7624") == "\u816b\u7624" and phrase(reader, "segment the L\u00e4sion") == "l\u00e4sion"
    )
    assert phrase(reader, "1") == "1"


SENTENCES = ("Bilateral pulmonary infection, two infected areas, upper left lung and lower right lung.",
             "Unilateral pulmonary opacity, one area, all left lung.", "No focus is seen.")  # fmt: skip


def test_the_sentences_of_its_rows_are_known_to_a_head_that_learnt_from_them():
    """As the published model does: its texts say where, in words that elsewhere name other targets."""
    reader = TextReader(("infection",), own(("infection",), "X-ray", "chest", SENTENCES))
    assert all(phrase(reader, text) == "infection" for text in SENTENCES)
    assert phrase(reader, "Unilateral pulmonary infection, one infected area, lower left lung.") == "infection"
    assert phrase(reader, "left lung") == "-" and phrase(reader, "rib") == "-" and phrase(reader, "no infection") == "-"
    bare = TextReader(("infection",), own(("infection",), "X-ray", "chest"))
    assert phrase(bare, SENTENCES[0]) == "-" and phrase(bare, "infection") == "infection"


def test_a_card_does_not_give_the_sentences_away():
    record = record_texts(SENTENCES)
    assert not any(word in str(record) for word in ("lung", "infection", "bilateral"))
    assert len(record["sentences"]) == 3 and record_texts(["", " "]) == {}


@pytest.mark.parametrize("card", [
    {}, {"datasets": 3, "texts": [1]}, {"datasets": [None, {"modality": 1, "organ": "x"}], "texts": {"words": 5}},
    {"modality": "CT", "organ": "abdomen", "targets": ["liver"]},
])  # fmt: skip
def test_a_card_of_any_form_can_be_read(card):
    assert phrase(TextReader(("liver",), TaughtWords.of_card(card)), "the liver") == "liver"


def test_any_text_is_answered(mini):
    rng = np.random.default_rng(0)
    letters = [*"abcLUNGliver .,;:-?!&'\u2019\n\t0123%()/\u00e9\u809d", " liver ", " no ", " left "]
    for _ in range(300):
        request = mini.read("".join(rng.choice(letters, rng.integers(1, 40))))
        assert bool(request.problem) == (request.target is None) or not request.problem
