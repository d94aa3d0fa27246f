"""A dataset folder becomes a folder that segments, whole at tiny size: real classes, ADM's layout, random weights."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.splits import split_by_group
from emitdiff.errors import EmitDiffError
from emitdiff.images import resize_image
from emitdiff.segmentation.evaluation import EvaluateSegmentation, evaluate_segmentation
from emitdiff.segmentation.few_shot.training import train_few_shot
from emitdiff.segmentation.loading import load_segmenter
from emitdiff.segmentation.model.text import build_text_encoder
from emitdiff.segmentation.published.model import prepare_mask
from emitdiff.segmentation.published.run import TrainPublished, train_published

from .adm_reference import TINY, random_weights
from .test_adm import converted


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return converted(random_weights(TINY), tmp_path_factory.mktemp("adm"))


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("text")
    build_text_encoder(["Ultrasound, breast, lesion", "a lesion in the upper left"] * 3, dim=32, layers=1).save(folder)
    return folder


@pytest.fixture
def settings(backbone, text_model, lesions, tmp_path):
    return TrainPublished(
        lesions.folder, tmp_path / "out", backbone, text_model=str(text_model), images=2, held_out=0.3, epochs=2,
        size=(64, 64), quarter_turns=False, cache=tmp_path / "features",
    )  # fmt: skip


def test_from_a_dataset_to_a_segmenter_that_is_measured(settings, lesions, capsys):
    out = train_published(settings)
    said = capsys.readouterr().err
    assert "trainable parameters, 2 training images; 2 validation images" in said
    assert "4 of them have no text" in said and "'Ultrasound, breast, lesion' is read" in said
    assert "2 views per training image" in said and "kept for backward" in said
    card = json.loads((out / "training.json").read_text())
    dices = [epoch["dice"] for epoch in card["epochs"]]
    assert len(dices) == 2 and card["best"] == 1 + dices.index(max(dices))
    segment = load_segmenter(str(out), device="cpu")
    sample = open_dataset(lesions.folder)[0]
    found = segment(sample.image, "breast lesion")
    assert found.mask.shape == sample.mask.shape and found.target == "breast lesion" and not found.warnings
    assert found.uncertainty.shape == sample.mask.shape and 0 <= found.uncertainty.min() <= found.uncertainty.max() <= 1
    assert found.present == found.probability.max()
    assert not np.array_equal(found.probability, segment(sample.image, "the upper left").probability)
    assert segment(sample.image, "").warnings
    with pytest.raises(EmitDiffError, match="run train-published"):
        next(train_few_shot(segment, [sample], open_dataset(lesions.folder).info))
    for text in ("own", "none", "shuffled"):
        evaluate = EvaluateSegmentation(lesions.folder, text, str(out), "held-out")
        assert evaluate_segmentation(evaluate)["n"] == 2


def test_the_answer_is_that_of_the_head_on_the_features(settings, lesions):
    """Measured as in training, the folder's Dice is the best epoch's: nothing is lost between them but half a digit."""
    out = train_published(replace(settings, size=(64, 96), epochs=3))
    best = max(epoch["dice"] for epoch in json.loads((out / "training.json").read_text())["epochs"])
    segment, found = load_segmenter(str(out), device="cpu"), []
    for sample in split_by_group(open_dataset(lesions.folder), 0.3)[1]:
        truth = prepare_mask(sample.mask, segment.settings)[0].numpy() > 0
        mask = segment(resize_image(sample.image, (64, 96)), "Ultrasound, breast, lesion").mask > 0
        if truth.any():
            found.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert np.mean(found) == pytest.approx(best, abs=0.01)


def test_a_stopped_run_resumes_to_the_same_weights_and_to_more_epochs(settings, tmp_path):
    whole = train_published(replace(settings, epochs=3, views=1))
    stopped = replace(settings, out=tmp_path / "stopped", views=1, epochs=1)
    train_published(stopped)
    again = train_published(replace(stopped, epochs=3))
    for name in ("head/model.safetensors", "training.json", "segmenter.json"):
        assert (whole / name).read_bytes() == (again / name).read_bytes()
    with pytest.raises(EmitDiffError, match="was started with seed 0, now 1"):
        train_published(replace(stopped, seed=1))


def test_settings_of_the_paper_and_a_named_column(settings, lesions):
    rows = open_dataset(lesions.folder).rows
    for index, row in enumerate(rows):
        row |= {"split": ("train", "val", "test")[index % 3], "text": "a lesion in the upper left"}
    with open(lesions.folder / "metadata.csv", "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    out = train_published(replace(settings, settings="paper", preset="qata", split_column="split"))
    segment = load_segmenter(str(out), device="cpu")
    assert segment.settings.channel_order == "bgr" and segment.text.max_tokens == 10
    assert segment.features.blocks[0] == "up_blocks.1.attentions.1"
    assert "was truncated" in segment(np.zeros((50, 40), np.uint8), "a lesion " * 10).warnings[0]
    evaluate = EvaluateSegmentation(lesions.folder, checkpoint=str(out), split="held-out")
    result = evaluate_segmentation(evaluate)
    assert result["n"] + result["n_empty"] == 2  # the rows that say val


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backbone": "nowhere"}, "nowhere holds no backbone: run `python -m emitdiff convert-adm"),
        ({"text_model": "nowhere/text"}, "^The text model nowhere/text is not on this machine"),
        ({"size": (100, 64)}, "100x64 was given: height and width must be multiples of 32"),
        ({"label": "cyst"}, "labels lesion, and it has no label 'cyst'"),
        ({"images": 50}, "50 were asked for"),
        ({"split_column": "split"}, "The column 'split' of 'drawn' says nothing"),
        ({"epochs": 0}, "epochs was 0"),
        ({"views": 10**9}, "The disk of .* may be too small"),
    ],
)
def test_what_cannot_be_used_is_answered_with_a_sentence(settings, change, said, monkeypatch):
    if "views" in change:
        monkeypatch.setattr("emitdiff.segmentation.published.run.view_transforms", lambda *_: (range(10**9), []))
        change = {}
    with pytest.raises(EmitDiffError, match=said):
        train_published(replace(settings, **change))


def test_several_labels_want_one_named(settings, lesions):
    info = json.loads((lesions.folder / "dataset.json").read_text())
    info["labels"] |= {"cyst": 2}
    (lesions.folder / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(EmitDiffError, match="labels lesion, cyst, and the published head tells one .* --label"):
        train_published(settings)
    with pytest.raises(EmitDiffError, match="None of the 2 images chosen .* shows 'cyst'"):
        train_published(replace(settings, label="cyst"))


def test_a_folder_that_holds_something_else_is_left_alone(settings):
    settings.out.mkdir()
    (settings.out / "notes.txt").write_text("mine")
    with pytest.raises(EmitDiffError, match="contains other files: notes.txt"):
        train_published(settings)
    for out in (settings.dataset, settings.dataset / "head", settings.backbone / "head"):
        with pytest.raises(EmitDiffError, match="is the folder of .* or inside it"):
            train_published(replace(settings, out=out))
        assert not (settings.dataset / "state").exists() and not (settings.backbone / "head").exists()


def test_another_backbone_is_not_taken_for_the_one_trained_on(settings, backbone, tmp_path):
    out = train_published(replace(settings, epochs=1))
    (tmp_path / "other").mkdir()
    other = converted(random_weights(TINY, seed=1), tmp_path / "other")
    other.rename(out / "backbone")
    with pytest.raises(EmitDiffError, match="trained on another backbone"):
        load_segmenter(str(out))
    (out / "backbone").rename(tmp_path / "away")
    facts = json.loads((out / "segmenter.json").read_text())
    facts["backbone"]["place"] = "gone"
    (out / "segmenter.json").write_text(json.dumps(facts))
    with pytest.raises(EmitDiffError, match="write where it is into"):
        load_segmenter(str(out))
    (out / "backbone").symlink_to(backbone)
    assert load_segmenter(str(out), device="cpu").targets == ("breast lesion",)
    (out / "segmenter.json").write_text('{"kind": "published"}')
    with pytest.raises(EmitDiffError, match="is damaged"):
        load_segmenter(str(out))


def test_damaged_weights_are_answered_with_a_sentence(settings, tmp_path):
    for name in ("backbone", "text"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(EmitDiffError, match="backbone cannot be read .*: convert it again"):
        train_published(replace(settings, backbone=tmp_path / "backbone"))
    with pytest.raises(EmitDiffError, match="text cannot be read .* with its tokenizer"):
        train_published(replace(settings, text_model=str(tmp_path / "text")))
