import json
import weakref
from dataclasses import FrozenInstanceError, fields
from threading import Thread

import cv2
import numpy as np
import pytest
import torch

from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.greys import GreyLevels
from emitdiff.segmentation.loading import load_segmenter
from emitdiff.segmentation.model.features import working_size
from emitdiff.segmentation.model.presence import ImageKindClassifier, PresenceCalibration
from emitdiff.segmentation.pipeline import SegmentationPipeline


@pytest.fixture
def segment(features, text_encoder, head):
    return SegmentationPipeline(features, text_encoder, head, ("liver", "left lung"), resolution=64)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_presence_is_calibrated_by_the_mask_itself(segment, features, text_encoder, head):
    image = picture(64, 64)
    said, drawn = segment.presence_logits(image, "liver")
    assert segment(image, "liver").present == pytest.approx(1 / (1 + np.exp(-said)), abs=1e-6)
    highest = np.sort(segment(image, "liver").probability.ravel())[-41:].mean()  # 1 % of 64 x 64
    assert drawn == pytest.approx(np.log(highest / (1 - highest)), abs=1e-4)
    for bias in (-3.0, 3.0):
        numbers = PresenceCalibration(0.5, 2.0, bias - 2 * drawn)
        known = SegmentationPipeline(features, text_encoder, head, ("liver",), resolution=64, calibration=numbers)
        answer = known(image, "liver", 0.01)
        assert answer.present == pytest.approx(1 / (1 + np.exp(-0.5 * said - bias)), abs=1e-5)
        assert answer.absent == (answer.present < 0.5) and answer.mask.any() != answer.absent
    assert answer.present > 0.5


def test_between_absent_and_sure_the_answer_is_unsure(features, text_encoder, head):
    image, answers = picture(64, 64), {}
    for absent, sure in ((0.2, 0.9), (0.2, 0.4), (0.6, 0.9)):
        numbers = PresenceCalibration(0.0, 0.0, 0.0, absent, sure)  # says 0.5 of everything
        known = SegmentationPipeline(features, text_encoder, head, ("liver",), resolution=64, calibration=numbers)
        answers[absent, sure] = known(image, "liver", 0.01)
    assert {key: one.answer for key, one in answers.items()} == {
        (0.2, 0.9): "unsure", (0.2, 0.4): "found", (0.6, 0.9): "not there",
    }  # fmt: skip
    assert answers[0.2, 0.9].mask.any() and not answers[0.6, 0.9].mask.any()


def test_the_same_picture_in_another_window_gets_the_same_answer(features, text_encoder, head):
    names = ("abdominal CT", "chest x-ray")
    size = len(SegmentationPipeline(features, text_encoder, head, ("liver",), 64).encode(picture(64, 64)).signature)
    kinds = ImageKindClassifier(
        names, torch.zeros(size), torch.ones(size), torch.zeros(2, size), torch.tensor([3.0, 0])
    )
    smooth = cv2.GaussianBlur(picture(64, 64), (0, 0), 3)[..., :1].repeat(3, 2).astype(float)
    image, wide = (np.clip((smooth - 127) * gain + 127, 0, 255).astype(np.uint8) for gain in (5, 2.5))
    pipelines = [
        SegmentationPipeline(features, text_encoder, head, ("liver",), 64, image_kinds=kinds, greys=greys)
        for greys in ({}, {"abdominal CT": GreyLevels(20, 230)}, {"chest x-ray": GreyLevels(20, 230)})
    ]
    gaps = [np.abs(one(image, "liver").probability - one(wide, "liver").probability).mean() for one in pipelines]
    assert gaps[1] < 0.5 * gaps[0] and gaps[2] == gaps[0], "greys of another kind say nothing here"
    assert np.array_equal(pipelines[0].scaled(image), image) and not np.array_equal(pipelines[1].scaled(image), image)


def test_a_look_from_farther_away_covers_the_image_exactly(features, text_encoder, head):
    near = SegmentationPipeline(features, text_encoder, head, ("liver",), 64)
    far = SegmentationPipeline(features, text_encoder, head, ("liver",), 64, far_sizes=(96,))
    image = picture(64, 80)
    encoded = far.encode(image)
    assert [look.margin for look in encoded.features] == [(0, 0), (16, 20)] and encoded.size == (64, 80)
    assert far.segment(encoded, "liver").probability.shape == (64, 80)
    whole = SegmentationPipeline(features, text_encoder, head, ("liver",), 96)
    padded = whole(np.pad(image, ((16, 16), (20, 20), (0, 0)), "reflect"), "liver").probability
    found = far(image, "liver").probability * 2 - near(image, "liver").probability
    np.testing.assert_allclose(found, padded[16:-16, 20:-20], atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (37, 90), (300, 41), (8, 8)])
def test_masks_have_the_size_of_the_source(segment, size):
    output = segment(picture(*size), "liver")
    assert output.mask.shape == output.probability.shape == size
    assert output.mask.dtype == np.uint8 and set(np.unique(output.mask)) <= {0, 1}
    assert output.probability.dtype == np.float32 and 0 <= output.probability.min() <= output.probability.max() <= 1
    assert output.found == bool(output.mask.any()) and output.seconds > 0


def test_threshold_cuts_the_probability(segment):
    image = picture(64, 64)
    probability = segment(image, "liver").probability
    low, high = float(probability.min()) + 1e-4, min(0.999, float(probability.max()) + 1e-4)
    assert segment(image, "liver", low).mask.sum() > 0
    assert not segment(image, "liver", high).found


def test_the_same_question_gets_the_same_answer_whatever_was_asked_between(segment):
    first = segment(picture(64, 64), "liver").probability
    segment(picture(64, 64, seed=1), "left lung")
    assert np.array_equal(segment(picture(64, 64), "liver").probability, first)
    assert not np.array_equal(segment(picture(64, 64), "left lung").probability, first)


def test_words_that_were_not_taught_are_marked(segment):
    asked = {text: segment(picture(64, 64), text).untaught for text in ("the liver", "heart", " ", "left lung")}
    assert asked == {"the liver": False, "heart": True, " ": False, "left lung": False}


def test_a_text_about_nothing_that_was_taught_gets_no_mask(segment):
    encoded = segment.encode(picture(64, 64))
    answer = segment.segment(encoded, "liver tumour", 0.01)
    assert not (answer.mask.any() or answer.probability.any() or answer.uncertainty.any() or answer.found)
    assert answer.untaught and answer.nearest == "liver" and answer.present is None and answer.target is None
    assert answer.warnings == (
        "These weights were not taught “liver tumour”. Taught: liver, left lung. Nearest: liver?",
    )
    assert not answer.at(0.001).mask.any()
    assert "says what is not there" in segment.segment(encoded, "no liver").warnings[0]
    assert segment.segment(encoded, "pancreas").nearest is None


def test_what_was_not_taught_is_looked_for_only_where_that_is_asked(segment):
    image = picture(64, 64)
    tried = segment(image, "the kidney", 0.01, untaught="try")
    assert tried.mask.any() and tried.untaught and not tried.found and tried.target is None
    assert "what is marked means little" in tried.warnings[0]
    assert_same_answer(segment(image, "the liver", untaught="try"), segment(image, "the liver"))
    with pytest.raises(EmitDiffError, match="give 'refuse' or 'try'"):
        segment(image, "the kidney", untaught="guess")


def test_a_synonym_is_asked_by_the_name_that_the_head_learnt(segment):
    image = picture(64, 64)
    synonym, name = segment(image, "hepatic tissue of this woman"), segment(image, "liver")
    assert synonym.target == "liver" and np.array_equal(synonym.probability, name.probability)
    literal = segment(image, "Outline the liver")
    assert literal.target == "liver" and not np.array_equal(literal.probability, name.probability)


def test_nothing_is_marked_outside_the_field_of_view(segment):
    image = picture(96, 80)
    rows, columns = np.mgrid[:96, :80]
    outside = rows + columns < 50  # a black corner, as beside an ultrasound sector
    image[outside] = 0
    for text, untaught in (("liver", "refuse"), ("", "refuse"), ("kidney", "try")):
        answer = segment(image, text, 0.001, untaught)
        assert answer.mask[~outside].all() and not answer.mask[rows + columns < 45].any()
        assert not answer.probability[rows + columns < 45].any()


def test_the_nearest_target_is_one_that_the_image_can_show(features, text_encoder, head):
    class Chest:
        def conflicting_kind(self, target, signature):
            return "chest x-ray" if "chest x-ray" in target.absent_kinds else ""

        def likely_kind(self, signature):
            return "chest x-ray"

    phrases = ("liver", "right lung", "breast lesion")
    chest = SegmentationPipeline(features, text_encoder, head, phrases, resolution=64, image_kinds=Chest())
    assert chest(picture(64, 64), "banana").nearest == "right lung"
    assert chest(picture(64, 64), "pulmonary nodule").nearest == "right lung"  # and not the breast's
    assert chest(picture(64, 64), "upper lobe of the right lung").nearest == "right lung"


def assert_same_answer(one, other):
    for field in fields(one):
        if field.name != "seconds":
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


def test_to_encode_and_segment_is_to_call(segment):
    image = picture(90, 64)
    encoded = segment.encode(image)
    for text, threshold in (("liver", 0.5), ("the left lung", 0.3), ("", 0.5)):
        assert_same_answer(segment.segment(encoded, text, threshold), segment(image, text, threshold))
    assert segment.presence_logits(encoded, "liver") == segment.presence_logits(image, "liver")
    grey = image[..., 0]
    assert_same_answer(segment.segment(segment.encode(grey), "liver"), segment(grey, "liver"))


def test_an_encoded_image_says_its_size_and_what_it_weighs(segment):
    encoded = segment.encode(picture(90, 64))
    assert encoded.size == (90, 64) and len(encoded.features) == len(segment.sizes)
    maps = sum(4 * part.numel() for look in encoded.features for part in (*look.maps, look.pixels))
    assert encoded.nbytes == maps + 4 * len(encoded.signature) + 90 * 64
    with pytest.raises(FrozenInstanceError):
        encoded.size = (1, 1)


def test_another_sentence_does_not_touch_the_backbone_again(segment):
    passes = []
    segment.features.unet.conv_in.register_forward_hook(lambda *_: passes.append(1))
    encoded = segment.encode(picture(64, 64))
    assert len(passes) == 1
    for text in ("liver", "left lung"):
        segment.segment(encoded, text)
        segment.presence_logits(encoded, text)
    assert len(passes) == 1


def test_nothing_of_an_image_is_kept(segment):
    image = picture(64, 64)
    encoded = weakref.ref(segment.encode(image))
    segment(image, "liver")
    assert encoded() is None
    passes = []
    segment.features.unet.conv_in.register_forward_hook(lambda *_: passes.append(1))
    segment(image, "left lung")
    assert len(passes) == 1


def test_what_was_not_encoded_here_is_refused(segment, features, text_encoder, head):
    other = SegmentationPipeline(features, text_encoder, head, ("liver",), resolution=64)
    with pytest.raises(EmitDiffError, match="another segmenter: encode it"):
        segment.segment(other.encode(picture(64, 64)), "liver")
    for call in (segment.segment, segment.presence_logits):
        with pytest.raises(EmitDiffError, match="give"):
            call(np.zeros((2, 2)), "liver")
        with pytest.raises(EmitDiffError, match="give a sentence"):
            call(segment.encode(picture(64, 64)), None)


def test_looks_at_several_sizes_are_averaged_and_encoded_once(features, text_encoder, head):
    image, passes = picture(90, 64), []

    def answer(*sizes):
        return SegmentationPipeline(features, text_encoder, head, ("liver",), resolution=64, sizes=sizes)

    one, other, both = answer(64), answer(96), answer(64, 96)
    assert np.array_equal(answer()(image, "liver").probability, one(image, "liver").probability)
    features.unet.conv_in.register_forward_hook(lambda *_: passes.append(1))
    found = [pipeline(image, "liver") for pipeline in (one, other, both)]
    for name in ("probability", "present"):
        first, second, mean = (getattr(output, name) for output in found)
        assert not np.array_equal(first, second)
        np.testing.assert_allclose(mean, np.add(first, second) / 2, atol=1e-6)
    assert np.array_equal(found[0].uncertainty, found[2].uncertainty)
    assert len(passes) == 4, "1 + 1 + 2"
    encoded = both.encode(image)
    assert len(encoded.features) == 2 and len(passes) == 6
    both.segment(encoded, "left lung")
    assert len(passes) == 6


def test_targets_and_warnings(segment):
    image = picture(64, 64)
    assert segment(image, "Where is the LIVER?").target == "liver"
    assert segment(image, "liver").warnings == ()
    assert segment(image, "prostate").target is None  # a word it knows, a target these weights were not trained
    assert "liver, left lung" in segment(image, "the kidney").warnings[0]
    assert "No text" in segment(image, "").warnings[0]
    assert "tokens" in segment(image, "the liver " * 40).warnings[-1]
    assert "squeezed" in segment(picture(20, 90), "liver").warnings[-1]


def test_grey_and_transparent_pictures_are_taken(segment):
    grey = picture(64, 64)[..., 0]
    expected = segment(np.repeat(grey[..., None], 3, 2), "liver").probability
    assert np.array_equal(segment(grey, "liver").probability, expected)


@pytest.mark.parametrize("image, text, threshold", [
    (np.zeros((64, 64), np.float32), "liver", 0.5),
    (np.zeros((64, 64, 2), np.uint8), "liver", 0.5),
    (np.zeros((4, 64, 3), np.uint8), "liver", 0.5),
    (np.zeros((64, 64), np.uint8), None, 0.5),
    (np.zeros((64, 64), np.uint8), "liver", 1.5),
])  # fmt: skip
def test_what_cannot_be_segmented_is_said(segment, image, text, threshold):
    looks = []
    segment.features.register_forward_hook(lambda *_: looks.append(1))
    with pytest.raises(EmitDiffError, match="give"):
        segment(image, text, threshold)
    assert not looks


def test_threads_share_one_pipeline(segment):
    images = [picture(64, 64, seed) for seed in range(4)]
    alone = [segment(image, "liver").probability for image in images]
    together = [None] * 4

    def work(index):
        together[index] = segment(images[index], "liver").probability

    threads = [Thread(target=work, args=(index,)) for index in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_working_size_keeps_the_aspect_up_to_two_to_one():
    assert working_size((256, 256), 256) == (256, 256)
    assert working_size((512, 640), 256) == (256, 320)
    assert working_size((100, 1000), 256) == (256, 512)


def test_a_folder_without_a_segmenter_is_said(tmp_path):
    with pytest.raises(EmitDiffError):
        load_segmenter(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(EmitDiffError, match="train-segmentation"):
        load_segmenter(str(tmp_path))


BLOCKS = ["up_blocks.0.attentions.1", *(f"up_blocks.{stage}.resnets.1" for stage in (1, 2, 3))]
FACTS = {"blocks": BLOCKS, "timesteps": [20], "noise_seed": 0, "place": False, "cell": 4, "resolution": 64,
         "targets": ["liver"]}  # fmt: skip


@pytest.fixture
def saved(tmp_path, features, text_encoder, head):
    """A checkpoint folder as training leaves it."""
    features.unet.save_pretrained(tmp_path / "backbone")
    features.scheduler.save_pretrained(tmp_path / "backbone")
    text_encoder.save(tmp_path / "text")
    head.save(tmp_path / "head")
    (tmp_path / "segmenter.json").write_text(json.dumps(FACTS))
    return tmp_path


def test_a_checkpoint_without_the_later_facts_is_read(saved):
    facts = {key: value for key, value in FACTS.items() if key not in ("place", "cell")}
    (saved / "segmenter.json").write_text(json.dumps(facts))
    segment = load_segmenter(str(saved), "cpu")
    assert segment(picture(64, 64), "liver").target == "liver" and segment.cell == 4


@pytest.mark.parametrize("name, content, answer", [
    ("segmenter.json", "{", "segmenter.json cannot be read"),
    ("segmenter.json", "[1]", "holds a list"),
    ("segmenter.json", '{"blocks": []}', "lacks timesteps, noise_seed, resolution, targets"),
    ("segmenter.json", json.dumps({**FACTS, "presence": {"said": 1, "bias": 0}}), "not the numbers said, drawn, bias"),
    ("segmenter.json", json.dumps({**FACTS, "greys": {"abdominal CT": [200, 30]}}), "two levels from 0 to 255"),
    ("segmenter.json", json.dumps({**FACTS, "greys": [20, 200]}), "two levels from 0 to 255"),
    ("segmenter.json", json.dumps({**FACTS, "far_sizes": [100]}), "far_sizes \\[100\\] that cannot be used"),
    ("segmenter.json", json.dumps({**FACTS, "sizes": [96, 64]}), "has sizes .96, 64. that cannot be used"),
    ("training.json", "{", "training.json cannot be read"),
    ("head/config.json", "{", "head cannot be read"),
    ("head/config.json", '{"dim": 3}', "head cannot be read"),
    ("head/model.safetensors", "cut", "head cannot be read"),
    ("head/model.safetensors", None, "head cannot be read"),
    ("text/config.json", "{", "text cannot be read"),
    ("scenes.safetensors", "cut", "scenes.safetensors cannot be read"),
    ("backbone/config.json", "{", "backbone cannot be read"),
])  # fmt: skip
def test_a_damaged_checkpoint_is_said(saved, name, content, answer):
    if content is None:
        (saved / name).unlink()
    else:
        (saved / name).write_text(content)
    with pytest.raises(EmitDiffError, match=answer):
        load_segmenter(str(saved), "cpu")


@pytest.mark.parametrize("part", ["backbone", "head", "text"])
def test_a_checkpoint_without_a_part_is_said(saved, part):
    (saved / part).rename(saved / "away")
    with pytest.raises(EmitDiffError, match=f"no folder {part}: .*again"):
        load_segmenter(str(saved), "cpu")


def test_presence_is_doubted_where_the_kind_of_image_is(features, text_encoder, head):
    """Below a quarter, in proportion; an image of no known kind is left to the head."""

    class Shown:
        def __init__(self, share):
            self.share = share

        def probability_of(self, target, signature):
            return self.share

        def conflicting_kind(self, target, signature):
            return ""

        untaught_kind = conflicting_kind

    def present(scenes, text="liver"):
        pipeline = SegmentationPipeline(features, text_encoder, head, ("liver",), resolution=64, image_kinds=scenes)
        return pipeline(picture(64, 64), text).present

    whole = present(None)
    assert present(Shown(1.0)) == present(Shown(0.25)) == whole
    assert present(Shown(0.125)) == pytest.approx(whole / 2)
    assert present(Shown(0.05), "") == present(None, "")
