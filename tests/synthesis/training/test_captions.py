import numpy as np
import pytest

from emitdiff.datasets.folder import DatasetInfo
from emitdiff.synthesis.training.captions import AppearanceScale, caption, describe_view, mask_words, measure_appearance
from emitdiff.synthesis.training.corpus import Item, random_view

INFO = DatasetInfo("discs", "Ultrasound", "breast", {"background": 0, "lesion": 1})


@pytest.fixture
def items(disc):
    image, mask = disc
    rng = np.random.default_rng(0)
    tones = [np.clip(image * factor, 0, 255).astype(np.uint8) for factor in np.linspace(0.4, 1.3, 8)]
    return [Item(tone, mask, INFO, "benign", str(rng.integers(99))) for tone in tones]


def test_each_measure_follows_what_its_word_says(disc):
    image, _ = disc
    measured = measure_appearance(image)
    brighter = measure_appearance(np.clip(image.astype(int) + 40, 0, 255).astype(np.uint8))
    flatter = measure_appearance((image // 3 + 70).astype(np.uint8))
    rng = np.random.default_rng(0)
    noisier = measure_appearance(
        np.clip(image + rng.normal(0, 30, image.shape[:2])[..., None], 0, 255).astype(np.uint8)
    )
    assert brighter["brightness"] > measured["brightness"]
    assert flatter["contrast"] < measured["contrast"]
    assert noisier["grain"] > measured["grain"]


def test_words_are_relative_to_the_modality(items):
    scale = AppearanceScale.from_items(items)
    assert "dark" in scale.words(items[0].image, "Ultrasound")
    assert "bright" in scale.words(items[-1].image, "Ultrasound")
    assert not {"dark", "bright"} & set(scale.words(items[4].image, "Ultrasound"))


def test_mask_words_say_size_place_and_count():
    mask = np.zeros((90, 90), np.uint8)
    mask[5:15, 70:85] = 1
    assert mask_words(mask, INFO.labels) == [("lesion", "small", "top right")]
    mask[:, :] = 0
    assert mask_words(mask, INFO.labels) == []
    mask[10::12, 10::12] = 1
    assert mask_words(mask, INFO.labels)[0][1] == "many small"


def test_captions_vary_and_never_contradict_the_facts(items):
    facts = describe_view(items[0], items[0].image, items[0].mask, AppearanceScale.from_items(items))
    rng = np.random.default_rng(0)
    captions = {caption(facts, rng) for _ in range(200)}
    assert len(captions) > 50
    assert not any(word in text for text in captions for word in ("CT", "bright", "normal"))
    assert sum("benign" in text for text in captions) > 50


@pytest.mark.parametrize("size", [32, 64, 96])
def test_views_keep_image_and_mask_together(items, size):
    rng = np.random.default_rng(1)
    for whole in (0.0, 1.0):
        image, mask = random_view(items[4], size, rng, whole)
        assert image.shape == (size, size, 3) and mask.shape == (size, size)
        if mask.any() and not mask.all():
            assert image[mask > 0].mean() > image[mask == 0].mean() + 20
