"""The sentences offered for a kind of image: asked for what they say, and understood so."""

from emitdiff.segmentation.sentences import example_sentences
from emitdiff.segmentation.targets import TARGETS, asked_for

TAUGHT = tuple(target.phrase for target in TARGETS)


def test_each_sentence_is_understood_as_the_target_it_was_made_for():
    for target in TARGETS:
        sentences = example_sentences((target.phrase,), {"chest x-ray": "X-ray"}.get(target.home, target.home[-3:]))
        for sentence in sentences or example_sentences((target.phrase,)):
            assert asked_for(sentence, TAUGHT).phrase == target.phrase, sentence


def test_a_modality_keeps_the_sentences_of_its_own_targets():
    xray = example_sentences(TAUGHT, "X-ray")
    assert len(xray) == 9 and all("lung" in sentence for sentence in xray)
    assert len(example_sentences(TAUGHT)) == len(TARGETS)
    assert not example_sentences(("liver",), "MRI")


def test_a_target_taught_elsewhere_is_asked_for_plainly():
    assert example_sentences(("optic disc",), "CT")[0] == "segment the optic disc"
