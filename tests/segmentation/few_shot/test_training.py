import json
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from emitdiff.datasets.folder import DatasetInfo, Sample, open_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.few_shot.fineness import dice_on_cells
from emitdiff.segmentation.few_shot.head import FewShotHead, PcaReduction, PixelFeatures, load_few_shot_head
from emitdiff.segmentation.few_shot.queries import QuerySampler, View, read_examples
from emitdiff.segmentation.few_shot.recipe import Recipe
from emitdiff.segmentation.few_shot.training import TrainFewShot, keep_training, train_few_shot
from emitdiff.segmentation.loading import load_segmenter
from emitdiff.segmentation.model.features import DiffusionFeatures, stage_ends
from emitdiff.segmentation.model.textdiff import HeadConfig, TextDiff
from emitdiff.segmentation.pipeline import SegmentationPipeline
from emitdiff.segmentation.training.backbone import build_backbone, build_scheduler
from emitdiff.segmentation.training.head import build_head

BRIEF = Recipe(views=4, steps=6, batch=2)
QUICK = Recipe(views=16, steps=70, batch=4)
INFO = DatasetInfo("cells", "Microscopy", "plankton", {"background": 0, "liver": 1, "spleen": 2}, "CC0", "drawn")


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    unet = build_backbone((8, 16, 16, 32), sample_size=64)
    features = DiffusionFeatures(unet, build_scheduler(), stage_ends(unet), (20,))
    text = load_segmenter().text  # one that tells words apart
    return SegmentationPipeline(features, text, build_head(features, text).eval(), ("liver",), resolution=64)


@pytest.fixture(scope="module")
def updates(base):
    """Of five images with two labels."""
    torch.set_num_threads(1)
    return list(
        train_few_shot(base, [drawn(index) for index in range(5)], INFO, TrainFewShot(seconds=600), recipe=QUICK)
    )


def drawn(index, shows=(1, 2)):
    """A bright ring with a dark core somewhere on grey noise."""
    rng = np.random.default_rng(index)
    rows, columns = np.mgrid[:64, :72]
    distance = np.hypot(rows - rng.uniform(24, 40), columns - rng.uniform(24, 48))
    mask = np.where(distance < 8, 2, np.where(distance < 18, 1, 0)).astype(np.uint8)
    mask[~np.isin(mask, shows)] = 0
    image = rng.uniform(100, 130, (64, 72)) + 90 * (mask == 1) - 90 * (mask == 2)
    name = f"images/{index}.png"
    return Sample(image.astype(np.uint8)[..., None].repeat(3, 2), mask, "", str(index), "", name, {})


def last_lesson(pipeline, samples, recipe, settings=None, **more):
    *_, update = train_few_shot(pipeline, samples, INFO, settings or TrainFewShot(seconds=600), recipe=recipe, **more)
    return update


def dice(found, truth):
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def test_several_labels_become_targets_answered_by_name(updates):
    segment = updates[-1].head.pipeline()
    assert segment.targets == ("liver", "spleen")
    for text, phrase, value in (("please mark the liver", "liver", 1), ("Where is the SPLEEN?", "spleen", 2)):
        tests = [drawn(index) for index in range(9, 14)]
        found = [segment(test.image, text) for test in tests]
        assert {one.target for one in found} == {phrase}
        overlaps = [dice(one.mask > 0, test.mask == value) for one, test in zip(found, tests, strict=True)]
        assert np.mean(overlaps) > 0.6
    assert found[0].uncertainty.shape == tests[0].mask.shape and 0 <= found[0].present <= 1


def test_updates_tell_how_far_it_is_and_hold_one_image_back(updates):
    assert [update.step for update in updates] == [*range(1, 71), 70]
    assert updates[-2].loss < updates[0].loss and all(update.head is None for update in updates[:-1])
    last = updates[-1]
    assert "70 training steps (at least 100 are needed)" in last.shortfall and not updates[-2].shortfall
    assert not replace(last, step=100, dice=0.3).shortfall and not replace(last, step=100, dice=None).shortfall
    assert "Dice 0.03 on the image kept aside" in replace(last, step=100, dice=0.03).shortfall
    validations = [update for update in updates[:-1] if update.preview is not None]
    assert len(validations) == 5 and all(0 <= update.dice <= 1 for update in validations)
    assert validations[-1].step < 70 * 2 / 3 and updates[-1].dice == validations[-1].dice  # then it is learnt from
    assert validations[0].preview.shape[0] == 64 and validations[0].preview.dtype == np.uint8
    head = updates[-1].head
    assert head.card["validation_dice"] == round(updates[-1].dice, 4)
    assert (head.card["images"], head.card["groups"], head.card["licence"]) == (5, 5, "CC0")


def test_training_goes_on_from_before_the_image_kept_aside_was_learnt_from(base):
    first = last_lesson(base, [drawn(index) for index in range(5)], BRIEF)
    trainer, before = first.trainer, first.head.head.state_dict()
    kept, unseen = {name: value.clone() for name, value in before.items()}, trainer.unseen.step
    assert unseen == 4 and len(trainer.views) == 5 and first.preview.dtype == np.uint8
    more: list = []
    for update in keep_training(trainer, 600, lambda: len(more) >= 8):
        more.append(update)
    assert [update.step for update in more[:3]] == [5, 6, 7], "steps count on from the image's joining in"
    last = more[-1]
    assert last.head and last.step == last.head.card["steps"] > 10 and last.seconds > first.seconds
    assert last.dice is not None and last.preview is not None, "stopped before it was looked at, it is at the end"
    assert len(trainer.views) > 5, "more time pays for more altered images"
    assert all(torch.equal(value, kept[name]) for name, value in before.items()), "the first head stays as it was"
    with pytest.raises(EmitDiffError, match="0 seconds"):
        next(keep_training(trainer, 0))


def test_few_images_are_all_learnt_from_and_a_given_one_is_looked_at(base):
    assert last_lesson(base, [drawn(0), drawn(1)], BRIEF).dice is None
    assert last_lesson(base, [drawn(0), drawn(1)], BRIEF, validation=drawn(2)).dice > 0


def test_the_same_seed_trains_the_same_and_changes_neither_backbone_nor_text(base):
    samples, parts = [drawn(0), drawn(1)], (base.features.unet, base.text.model)
    before = [{name: value.clone() for name, value in part.state_dict().items()} for part in parts]
    first, again = (last_lesson(base, samples, BRIEF).head.head.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    for part, old in zip(parts, before, strict=True):
        assert all(torch.equal(value, old[name]) for name, value in part.state_dict().items())


def test_the_time_is_kept_whatever_the_recipe_asks_for(base):
    recipe = Recipe(views=8, steps=100_000, batch=4)
    *_, update = train_few_shot(base, [drawn(0), drawn(1)], INFO, TrainFewShot(seconds=2), recipe=recipe)
    assert update.seconds < 3 and 1 <= update.step < 100_000


def test_a_saved_head_answers_alike_bit_for_bit(base, updates, tmp_path):
    head = updates[-1].head
    path = head.save(tmp_path / "mine" / "rings.safetensors")
    again = load_few_shot_head(path, base)
    assert again.card == json.loads(json.dumps(head.card))
    test = drawn(9).image
    first, second = head.pipeline()(test, "the liver"), again.pipeline()(test, "the liver")
    assert np.array_equal(first.mask, second.mask) and np.array_equal(first.probability, second.probability)
    assert path.stat().st_size < 2**20
    card = path.with_suffix(".md").read_text()
    assert "liver, spleen" in card and "Research use only" in card and "licence of the images: CC0" in card


def test_one_flipped_bit_of_a_head_is_found(base, updates, tmp_path):
    path = updates[-1].head.save(tmp_path / "rings.safetensors")
    content = bytearray(path.read_bytes())
    for place in (-1, content.index(b"spleen")):  # of a weight, of the card
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(EmitDiffError, match=r"'rings.safetensors' is damaged \(its sha256 is not what it was\)"):
            load_few_shot_head(path, base)
        content[place] ^= 1


def test_another_backbone_is_refused(base, updates, tmp_path):
    path = updates[-1].head.save(tmp_path / "rings.safetensors")
    torch.manual_seed(1)
    unet = build_backbone((8, 16, 16, 32), sample_size=64)
    features = DiffusionFeatures(unet, build_scheduler(), stage_ends(unet), (20,))
    with pytest.raises(EmitDiffError, match="trained on another backbone"):
        load_few_shot_head(path, SegmentationPipeline(features, base.text, base.head, ("liver",), resolution=64))


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x10\0\0\0\0\0\0\0{}"])
def test_what_is_no_few_shot_head_is_said(tmp_path, content):
    path = tmp_path / "wrong.safetensors"
    with pytest.raises(EmitDiffError, match="no file"):
        load_segmenter(str(path))
    path.write_bytes(content)
    with pytest.raises(EmitDiffError, match="cannot be read|no few-shot head"):
        load_segmenter(str(path))


def test_a_card_that_would_fill_memory_is_not_read(tmp_path):
    path = tmp_path / "large.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"kind": "emitdiff taught head", "card": "[" + "{}," * 2**19 + "{}]"})
    with pytest.raises(EmitDiffError, match="header is too long"):
        load_segmenter(str(path))


def test_cards_that_disagree_with_the_weights_are_said(base, updates, tmp_path):
    head = updates[-1].head
    odd = FewShotHead(head.head, base, {**head.card, "config": {**head.card["config"], "dim": 8}})
    with pytest.raises(EmitDiffError, match="damaged"):
        load_few_shot_head(odd.save(tmp_path / "odd.safetensors"), base)
    with pytest.raises(EmitDiffError, match="ends in .safetensors"):
        head.save(tmp_path / "head.pt")


def test_what_nothing_can_be_trained_from_is_said(base):
    empty = drawn(0, shows=())
    small = drawn(0)
    odd = Sample(small.image[:32], small.mask, "", "", "", "images/odd.png", {})
    for samples, settings, words in (
        ([empty], None, "None of the 1 image"),
        ([], None, "None of the 0 image"),
        ([odd], None, "must be of one size"),
        ([small], TrainFewShot(label="kidney"), "has no label 'kidney': it has liver, spleen"),
        ([small], TrainFewShot(seconds=0), "0 seconds"),
    ):
        with pytest.raises(EmitDiffError, match=words):
            next(train_few_shot(base, samples, INFO, settings))


def test_the_pixels_are_looked_at_again_where_masks_are_fine(base):
    _, coarse = read_examples([drawn(0, shows=(1,))], INFO, "liver", 64)
    dots = np.zeros((64, 72), np.uint8)
    dots[8:60:6, 8:66:6] = dots[9:60:6, 8:66:6] = 1
    _, fine = read_examples([replace(drawn(0), mask=dots)], INFO, "liver", 64)
    assert dice_on_cells(coarse, 4) > 0.85 > 0.3 > dice_on_cells(fine, 4)
    assert dice_on_cells(coarse, 1) == dice_on_cells(fine, 1) == 1
    taught_so = [last_lesson(base, [replace(drawn(0), mask=mask)], replace(BRIEF, hidden=(8, 8)))
                 for mask in (dots, np.pad(np.ones((32, 40), np.uint8), 16))]  # fmt: skip
    assert [update.head.head.config.detail for update in taught_so] == [BRIEF.refinement_channels, 0]
    assert [update.head.pipeline().sizes for update in taught_so] == [(64, 96), (64,)]


def test_images_without_the_target_teach_that_it_may_be_absent(base):
    shown, empty = [drawn(0), drawn(1)], [drawn(index, shows=()) for index in (2, 3)]
    assert last_lesson(base, [*shown, empty[0]], BRIEF).head.head.presence is None
    head = last_lesson(base, [*shown, *empty], BRIEF).head
    answer = head.pipeline()(empty[0].image, "the liver")
    assert head.head.presence is not None and answer.present != float(answer.probability.max())


def test_one_label_can_be_trained_alone(base):
    head = last_lesson(base, [drawn(0), drawn(1)], BRIEF, TrainFewShot(600, "spleen")).head
    assert head.card["targets"] == ["spleen"]


def test_the_text_of_a_row_is_asked_with_its_sides_kept(base):
    one = Sample(*vars(drawn(0)).values())
    one = Sample(one.image, one.mask, "a spleen in the upper left", "", "", "images/0.png", {})
    info, examples = read_examples([one], INFO, "spleen", 64)
    sampler, view = QuerySampler(info, examples), View(examples[0].labelled.masks, 0)
    asked = [sampler.sample(view, True, np.random.default_rng(seed))[0] for seed in range(30)]
    assert "a spleen in the upper left" in asked and "" in asked and len(set(asked)) > 5
    both, several = read_examples([one], INFO, None, 64)
    assert several[0].text == "" and set(both.labels) == {"liver", "spleen"}


def test_what_is_surely_not_there_is_asked_about_too(base, lesions):
    info, examples = read_examples(list(lesions), lesions.info, None, 64)
    sampler, view = QuerySampler(info, examples), View(examples[0].labelled.masks, 0)
    asked = [sampler.sample(view, False, np.random.default_rng(seed)) for seed in range(10)]
    assert not any(mask.any() for _, mask in asked) and view.masks["breast lesion"].any()


def test_reducing_is_folded_into_the_projections():
    torch.manual_seed(0)
    maps = [torch.randn(2, 9 + 5, 4, 4) * 3 + 7, torch.randn(2, 20 + 5, 8, 8) / 50]
    reduction = PcaReduction(maps, 6, 0.5)
    reduced = reduction(maps)
    assert [part.shape[1] for part in reduced] == [11, 11]
    assert torch.equal(reduced[0][:, -5:], maps[0][:, -5:])  # coordinates pass
    head = TextDiff(HeadConfig((11, 11), (0, 1), 8, 16, 2, 4, (8, 8), light=True)).eval()
    tokens = torch.randn(2, 3, 16)
    torch.testing.assert_close(reduction.folded(head)(maps, tokens), head(reduced, tokens), rtol=1e-3, atol=1e-4)


def test_reducing_stays_on_the_device_of_the_maps():
    reduction = PcaReduction([torch.zeros(2, 13, 4, 4, device="meta")], 4, 0.5)
    assert {buffer.device.type for buffer in reduction.buffers()} == {"meta"}


def test_pixels_are_one_more_scale(features):
    image = torch.rand(1, 3, 64, 96) * 2 - 1
    *maps, pixels = PixelFeatures(features, 4)(image)
    plain = features(image)
    assert all(torch.equal(part[:, :-5], old) for part, old in zip(maps, plain, strict=True))
    assert pixels.shape == (1, 3 * 16 + 5, 16, 24)
    assert torch.equal(pixels[0, :16, 0, 0], image[0, 0, :4, :4].flatten())


@pytest.mark.slow
def test_the_embedded_weights_learn_from_a_drawn_dataset_and_the_file_is_a_checkpoint(lesions, tmp_path):
    base = load_segmenter()
    dataset = open_dataset(lesions.folder)
    recipe = Recipe(views=24, steps=40, batch=4)
    *_, update = train_few_shot(base, list(dataset), dataset.info, TrainFewShot(seconds=600), recipe=recipe)
    path = update.head.save(tmp_path / "lesion.safetensors")
    segment = load_segmenter(str(path))
    test = dataset[1]
    first, again = update.head.pipeline()(test.image, "the lesion"), segment(test.image, "the lesion")
    assert np.array_equal(first.mask, again.mask) and segment.targets == ("breast lesion",)
    assert dice(again.mask > 0, test.mask > 0) > 0.5


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("config", "dim"), 2_000_000),
        (("config", "hidden"), [2_000_000, 24]),
        (("config", "feature_channels"), [8] * 100_000),
        (("resolution",), 10**9),
        (("cell",), 0),
        (("sizes",), [64, 96] * 100),
        (("sizes",), [64, 32 * 10**5]),
        (("targets",), []),
        (("targets",), ["x" * 10_000]),
    ],
)
def test_a_card_cannot_ask_for_more_than_its_file_holds(base, updates, tmp_path, place, value):
    path = updates[-1].head.save(tmp_path / "rings.safetensors")
    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no dict
        metadata = file.metadata()
    card = json.loads(metadata["card"])
    inside = card
    for name in place[:-1]:
        inside = inside[name]
    inside[place[-1]] = value
    save_file(weights, path, {**metadata, "card": json.dumps(card)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EmitDiffError, match="damaged"):
        load_few_shot_head(path, base)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes
