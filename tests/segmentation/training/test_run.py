import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from emitdiff.datasets.splits import split_by_group
from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.model.features import DiffusionFeatures, fold
from emitdiff.segmentation.training import backbone, examples, presence, statistics
from emitdiff.segmentation.training import head as head_training
from emitdiff.segmentation.training.run import train_segmentation
from emitdiff.segmentation.training.settings import TrainSegmentation
from emitdiff.segmentation.vocabulary import BY_PHRASE, match_target

from ..conftest import CHANNELS, disc


def test_images_are_read_at_the_training_resolution(lesions):
    (images,) = examples.read_labelled([lesions], 128)
    assert len(images) == 6
    assert images[0].image.shape == (128, 144, 3) and images[0].masks["breast lesion"].shape == (128, 144)
    assert not images[-1].masks["breast lesion"].any()


def test_image_and_mask_are_altered_together(lesions):
    (images,) = examples.read_labelled([lesions], 64)
    for seed in range(8):
        labelled = examples.augmented_image(images[0], 64, np.random.default_rng(seed))
        image, mask = labelled.image, labelled.masks["breast lesion"]
        assert image.shape == (64, 64, 3) and mask.shape == (64, 64) and mask.any()
        grey = image.mean(-1)
        assert grey[mask].mean() < grey[~mask & (grey > 0)].mean()


def test_lungs_are_never_mirrored():
    info = examples.DatasetInfo("x", "X-ray", "chest", {"background": 0, "lung": 1})
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 40:] = 250
    labelled = examples.LabelledImage(image, {"lung": disc((64, 64), (32, 50), 8)}, info)
    for seed in range(30):
        altered = examples.augmented_image(labelled, 64, np.random.default_rng(seed)).image
        assert altered[:, 44:].mean() > altered[:, :20].mean()


def test_questions_about_what_is_and_what_is_not_there(lesions):
    rng = np.random.default_rng(0)
    images = examples.sample_images(examples.read_labelled([lesions], 64), 30, 64, rng)
    tensor = examples.image_tensor(images)
    assert tensor.shape == (30, 3, 64, 64) and tensor.min() >= -1 and tensor.max() <= 1
    for labelled in images:
        text, mask, _ = examples.sample_query(labelled, True, rng)
        assert text and mask is labelled.masks["breast lesion"]
    asked = [examples.sample_query(labelled, False, rng) for labelled in images]
    assert any(text == "" for text, _, _ in asked)
    elsewhere = [mask for text, mask, _ in asked if match_target(text) not in (None, BY_PHRASE["breast lesion"])]
    assert elsewhere and not any(mask.any() for mask in elsewhere)


def test_only_what_some_image_shows_counts_as_trained(lesions):
    (images,) = examples.read_labelled([lesions], 64)
    assert examples.trained_phrases([images]) == ["breast lesion"]
    assert examples.trained_phrases([images[-1:]]) == []  # labelled, but not there
    lungs = {"right lung": disc((64, 64), (30, 20), 9), "lung": disc((64, 64), (30, 20), 9)}
    chest = [examples.LabelledImage(images[0].image, lungs, lesions.info)]
    assert examples.trained_phrases([images, chest]) == ["lung", "right lung", "breast lesion"]


def test_labels_of_ones_own_are_trained_by_their_name(lesions):
    (images,) = examples.read_labelled([lesions], 64)
    info = examples.DatasetInfo("mine", "OCT", "retina", {"background": 0, "optic disc": 1})
    own = [examples.LabelledImage(one.image, {"optic disc": one.masks["breast lesion"]}, info) for one in images]
    assert examples.trained_phrases([own, images]) == ["breast lesion", "optic disc"]
    rng = np.random.default_rng(0)
    for own_question in (True, False) * 10:
        text, mask, _ = examples.sample_query(own[0], own_question, rng)
        assert mask is own[0].masks["optic disc"] and (not text or "optic disc" in text.lower())


def test_a_dataset_of_background_alone_is_refused(lesions, tmp_path):
    content = json.loads((lesions.folder / "dataset.json").read_text())
    (lesions.folder / "dataset.json").write_text(json.dumps({**content, "labels": {"background": 0}}))
    with pytest.raises(EmitDiffError, match="dataset.json"):
        train_segmentation(TrainSegmentation((lesions.folder,), tmp_path / "out", 0.01))


def test_joint_training_moves_the_backbone_and_a_frozen_one_stays(lesions, features, text_encoder):
    (images,) = examples.read_labelled([lesions], 64)
    rng = np.random.default_rng(0)
    drawn = examples.sample_images([images], 3, 64, rng)
    frozen = head_training._model(features, text_encoder, drawn, joint=False)
    head_training.training_step(frozen, features, drawn, rng).backward()
    assert all(parameter.grad is None for parameter in features.parameters())
    assert all(parameter.grad is not None for parameter in frozen["head"].attention.parameters())
    joint = head_training._model(features, text_encoder, drawn, joint=True)
    head_training.training_step(joint, features, drawn, rng).backward()
    assert all(parameter.grad is not None for parameter in joint["unet"].parameters())


def test_joint_reading_sees_what_the_features_will_give(features):
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    rng = np.random.default_rng(0)  # its first draw reads at the head's own step
    torch.manual_seed(0)
    _, maps, legible = head_training.joint_forward(features.unet, features, image, rng)
    torch.manual_seed(0)
    noise = torch.randn_like(fold(image, 4).contiguous(memory_format=torch.channels_last))
    seen = DiffusionFeatures(features.unet, features.scheduler, features.blocks, (20,))
    seen._noise = lambda shape: noise
    assert legible.tolist() == [True]
    with torch.autocast("cpu", torch.bfloat16):
        alone = seen(image)
    for one, other in zip(maps, alone, strict=True):
        torch.testing.assert_close(one, other.float(), atol=0.02, rtol=0.02)


def test_steps_are_mostly_the_one_that_is_read():
    steps = head_training.sample_timesteps(4000, 20, 1000, np.random.default_rng(0))
    assert 0.57 < (steps == 20).float().mean() < 0.66 and steps.min() >= 0 and steps.max() < 1000
    assert (steps[steps != 20] > 300).any()


def test_half_the_side_first_then_several_sizes_by_turns():
    settings = TrainSegmentation((), None, resolution=256, batch=5)
    assert head_training.batch_plan(0.1, 1, settings) == (128, 20)
    plans = [head_training.batch_plan(0.9, step, settings) for step in range(5)]
    assert sorted(plans) == [(128, 20), (192, 9), (192, 9), (256, 5), (256, 5)]
    small = TrainSegmentation((), None, resolution=64, batch=1)
    assert all(head_training.batch_plan(0.9, step, small)[0] % 32 == 0 for step in range(5))


def test_presence_learns_alone(lesions, features, text_encoder, head):
    (images,) = examples.read_labelled([lesions], 64)
    rng, before = np.random.default_rng(0), {name: value.clone() for name, value in head.state_dict().items()}
    drawn = examples.sample_images([images], 4, 64, rng)
    optimizer = torch.optim.AdamW(head.presence.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = presence.presence_loss(head, text_encoder, features, drawn, rng)
        loss.backward()
        optimizer.step(), optimizer.zero_grad()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    moved = [name for name, value in head.state_dict().items() if not torch.equal(value, before[name])]
    assert moved and all(name.startswith("presence.") for name in moved)
    assert all(value.grad is None for name, value in head.named_parameters() if not name.startswith("presence."))


def test_loss_falls_towards_the_truth_and_forgives_nothing_on_empty_masks():
    mask = torch.zeros(1, 8, 8)
    mask[:, 2:5, 2:5] = 1
    right = torch.stack([-8 * (2 * mask - 1), 8 * (2 * mask - 1)], 1)
    assert head_training.segmentation_loss(right, mask) < 0.05 < head_training.segmentation_loss(-right, mask)
    empty = torch.zeros(1, 8, 8)
    assert head_training.segmentation_loss(right, empty) > 1


def test_what_is_not_known_counts_for_nothing():
    mask, known = torch.zeros(2, 8, 8), torch.ones(2, 8, 8)
    mask[0, 2:5, 2:5], known[:, :, 4:] = 1, 0
    logits = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    other = logits.clone()
    other[:, :, :, 4:] += 5 * torch.randn(2, 2, 8, 4, generator=torch.Generator().manual_seed(1))
    loss = head_training.segmentation_loss(logits, mask, known)
    torch.testing.assert_close(loss, head_training.segmentation_loss(other, mask, known))
    assert loss != head_training.segmentation_loss(other, mask)
    whole = torch.ones_like(known)
    torch.testing.assert_close(head_training.segmentation_loss(logits, mask, whole),
                               head_training.segmentation_loss(logits, mask))  # fmt: skip


@pytest.fixture
def small_networks(monkeypatch):
    monkeypatch.setattr(head_training, "TEXT_STEPS", 5)
    monkeypatch.setattr(statistics, "BATCHES", 2)
    build = backbone.build_backbone
    monkeypatch.setattr(backbone, "build_backbone", lambda sample_size: build(CHANNELS, sample_size))


def named(dataset, name, folder, **facts):
    """A copy of a dataset folder under another name."""
    shutil.copytree(dataset.folder, folder)
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**content, "name": name, **facts}))
    return folder


def test_a_folder_resumes_only_as_it_was_started(lesions, tmp_path, small_networks):
    others = named(lesions, "others", tmp_path / "others")
    settings = TrainSegmentation((lesions.folder,), tmp_path / "out", 0.002, resolution=64, batch=1)
    train_segmentation(settings)
    before = {path: path.read_bytes() for path in settings.out.rglob("*") if path.is_file()}
    for change, words in (
        ({"datasets": (others,)}, r"started with datasets \['drawn'\], now \['others'\]"),
        ({"datasets": (others,), "stage": "joint"}, "started with datasets"),
        ({"resolution": 128}, "started with resolution 64, now 128"),
        ({"resolution": 128, "stage": "backbone"}, "started with resolution 64, now 128"),
        ({"seed": 1}, "started with seed 0, now 1"),
        ({"stage": "head"}, "started with stage joint, now head"),
    ):
        with pytest.raises(EmitDiffError, match=words):
            train_segmentation(replace(settings, minutes=5, **change))
    assert {path: path.read_bytes() for path in settings.out.rglob("*") if path.is_file()} == before


def test_a_backbone_may_learn_from_other_images_than_the_head(lesions, tmp_path, small_networks):
    plain = named(lesions, "plain", tmp_path / "plain")
    settings = TrainSegmentation((plain, lesions.folder), tmp_path / "out", 0.002, "backbone", 64, batch=1)
    train_segmentation(settings)
    taught = replace(settings, datasets=(lesions.folder,), stage="head")
    for _ in range(2):
        card = json.loads((train_segmentation(taught) / "training.json").read_text())
        assert [dataset["name"] for dataset in card["datasets"]] == ["drawn"]
        assert card["backbone"]["datasets"] == ["drawn", "plain"] and card["targets"] == ["breast lesion"]
    with pytest.raises(EmitDiffError, match="started with datasets"):
        train_segmentation(replace(taught, datasets=(plain,)))
    with pytest.raises(EmitDiffError, match="started with datasets"):
        train_segmentation(replace(taught, stage="backbone"))
    backbone = settings.out / "checkpoint" / "backbone" / "diffusion_pytorch_model.safetensors"
    before = backbone.read_bytes()
    with pytest.raises(EmitDiffError, match="holds a head that reads its backbone"):
        train_segmentation(replace(settings, minutes=1))
    assert backbone.read_bytes() == before
    assert json.loads((settings.out / "checkpoint" / "training.json").read_text()) == card


def test_a_folder_of_an_older_version_has_no_record_and_resumes(lesions, tmp_path, small_networks):
    settings = TrainSegmentation((lesions.folder,), tmp_path / "out", 0.002, resolution=64, batch=1)
    train_segmentation(settings)
    for stage in ("backbone", "head"):
        (settings.out / stage / "begun.json").unlink()
    train_segmentation(settings)
    with pytest.raises(EmitDiffError, match="started with seed 0, now 1"):
        train_segmentation(replace(settings, seed=1))


def test_nothing_is_written_among_the_images_or_beside_other_files(lesions, tmp_path):
    before = sorted(lesions.folder.rglob("*"))
    for out in (lesions.folder, lesions.folder / "weights"):
        with pytest.raises(EmitDiffError, match="is the folder of drawn or inside it"):
            train_segmentation(TrainSegmentation((lesions.folder,), out, 0.01, resolution=64))
    with pytest.raises(EmitDiffError, match="contains other files: drawn/dataset.json"):
        train_segmentation(TrainSegmentation((lesions.folder,), tmp_path, 0.01, resolution=64))
    assert sorted(lesions.folder.rglob("*")) == before


def test_all_stages_resume_and_load(lesions, tmp_path, small_networks):
    from emitdiff.segmentation.loading import load_segmenter

    settings = {"datasets": (lesions.folder,), "out": tmp_path / "out", "resolution": 64, "batch": 1}
    folder = train_segmentation(TrainSegmentation(**settings, minutes=0.002))
    first = torch.load(tmp_path / "out" / "head" / "state.pt", weights_only=True)
    train_segmentation(TrainSegmentation(**settings, minutes=first["seconds"] / 57 + 0.01, stage="joint"))
    assert torch.load(tmp_path / "out" / "head" / "state.pt", weights_only=True)["steps"] > first["steps"]
    record = json.loads((folder / "training.json").read_text())
    assert record["datasets"][0]["images"] == len(split_by_group(lesions, 0.2, 0)[0])
    assert str(tmp_path) not in json.dumps(record)
    segment = load_segmenter(str(folder))
    assert segment.sizes == (64,)
    assert segment.targets == tuple(record["targets"]) == ("breast lesion",)
    assert segment(lesions[0].image, "breast lesion").mask.shape == (64, 72)
    assert segment.card == record


@pytest.mark.parametrize(
    "change, answer", [({"resolution": 100}, "multiple of 64"), ({"stage": "head"}, "--stage backbone")]
)
def test_what_cannot_be_trained_is_said(lesions, tmp_path, change, answer):
    with pytest.raises(EmitDiffError, match=answer):
        train_segmentation(TrainSegmentation((lesions.folder,), tmp_path / "out", 0.01, **change))
    assert not (tmp_path / "out").exists()


def test_statistics_are_counted_anew_and_weights_stay(lesions, tmp_path, small_networks):
    settings = TrainSegmentation((lesions.folder,), tmp_path / "out", 0.002, resolution=64, batch=1)
    folder = train_segmentation(settings)
    weights = folder / "head" / "model.safetensors"
    before = load_file(weights)
    counted = {name for name in before if name.endswith(("running_mean", "running_var"))}
    save_file({name: values + torch.inf if name in counted else values
               for name, values in before.items()}, weights)  # fmt: skip
    sets = examples.read_labelled([lesions], 64)
    statistics.estimate_statistics(sets, settings, folder, torch.device("cpu"))
    after = load_file(weights)
    assert counted and all(values.isfinite().all() for values in after.values())
    assert all(torch.equal(before[name], after[name]) for name in before if name not in counted)


def test_scaling_is_folded_into_the_saved_head(features, head):
    maps = features(torch.rand(3, 3, 64, 64))
    scaling = head_training.ChannelScaling(maps)
    scaled = scaling(maps)
    torch.testing.assert_close(scaled[0].std(dim=(0, 2, 3)), torch.ones(scaled[0].shape[1]), atol=1e-2, rtol=1e-2)
    plain = scaling.folded(head).project(maps)
    for one, other in zip(plain, head.project(scaled), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_scaling_of_a_saved_head_is_taken_back(features, head):
    maps = features(torch.rand(3, 3, 64, 64))
    scaling = head_training.ChannelScaling(maps)
    for one, other in zip(scaling.unfolded(head).project(scaling(maps)), head.project(maps), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_training_goes_on_from_other_weights(lesions, tmp_path, small_networks):
    from emitdiff.segmentation.loading import load_segmenter

    settings = TrainSegmentation((lesions.folder,), tmp_path / "first", 0.01, resolution=64, batch=1)
    first = train_segmentation(settings)
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    later = replace(settings, out=tmp_path / "second", start=str(first))
    folder = train_segmentation(later)
    record = json.loads((folder / "training.json").read_text())
    assert record["settings"]["start"] == "checkpoint" and not (tmp_path / "second" / "backbone").exists()
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before
    for part in ("text/model.safetensors", "text/tokenizer.json"):
        assert (folder / part).read_bytes() == (first / part).read_bytes()
    for part in ("backbone/diffusion_pytorch_model.safetensors", "head/model.safetensors"):
        assert (folder / part).read_bytes() != (first / part).read_bytes()
    old, new = (load_segmenter(str(path))(lesions[0].image, "breast lesion").probability for path in (first, folder))
    assert np.abs(old - new).mean() < 0.1, "a second of training at most has passed"
    with pytest.raises(EmitDiffError, match="started with start"):
        train_segmentation(replace(later, start=None, stage="joint"))
    for change, words in (
        ({"stage": "backbone"}, "--stage joint"),
        ({"seed": 1}, "seed 0, now 0.2 with seed 1"),
        ({"start": "emitdiff-mini"}, "emitdiff-mini"),
    ):
        with pytest.raises(EmitDiffError, match=words):
            train_segmentation(replace(later, out=tmp_path / "third", **change))
    assert not (tmp_path / "third").exists()


def test_a_frozen_backbone_goes_on_as_it_is(lesions, tmp_path, small_networks):
    settings = TrainSegmentation((lesions.folder,), tmp_path / "first", 0.002, resolution=64, batch=1)
    first = train_segmentation(settings)
    folder = train_segmentation(replace(settings, out=tmp_path / "second", start=str(first), stage="head"))
    weights = "backbone/diffusion_pytorch_model.safetensors"
    assert (folder / weights).read_bytes() == (first / weights).read_bytes()


def test_a_finished_checkpoint_knows_its_greys_and_what_to_be_unsure_about(lesions, tmp_path, small_networks):
    from emitdiff.segmentation.greys import GREY_LEVELS
    from emitdiff.segmentation.loading import load_segmenter

    folder = train_segmentation(TrainSegmentation((lesions.folder,), tmp_path / "out", 0.002, resolution=64, batch=1))
    segment = load_segmenter(str(folder))
    assert segment.greys == GREY_LEVELS and segment.sizes == (64,) and segment.far_sizes == ()
    assert segment.calibration is not None and 0 <= segment.calibration.absent <= segment.calibration.sure <= 1


def test_a_kind_of_image_of_ones_own_is_trained_and_answered(lesions, tmp_path, small_networks):
    from emitdiff.segmentation.loading import load_segmenter

    content = json.loads((lesions.folder / "dataset.json").read_text())
    (lesions.folder / "dataset.json").write_text(json.dumps({**content, "modality": "MRI", "organ": "brain"}))
    folder = train_segmentation(TrainSegmentation((lesions.folder,), tmp_path / "out", 0.002, resolution=64, batch=1))
    segment = load_segmenter(str(folder))
    assert segment.targets == ("brain lesion",)
    assert segment(lesions[0].image, "Show me the lesion!").target == "brain lesion"
    assert segment(lesions[0].image, "liver").target is None
