import json
import math

import numpy as np
import pytest

from emitdiff.datasets.folder import DatasetInfo, Sample
from emitdiff.datasets.writing import write_dataset
from emitdiff.segmentation import evaluation, vocabulary
from emitdiff.segmentation.evaluation import EvaluateSegmentation, evaluate_segmentation
from emitdiff.segmentation.pipeline import SegmentationPipeline

from .conftest import disc

EMPTY = np.zeros((40, 50), bool)
TRUTH = np.zeros((40, 50), bool)
TRUTH[10:20, 10:30] = True
SHIFTED = np.roll(TRUTH, 5, axis=1)


def test_measures_of_one_image_by_hand():
    found = evaluation.image_measures(SHIFTED, TRUTH)
    assert found["dice"] == pytest.approx(2 * 150 / 400)
    assert found["iou"] == pytest.approx(150 / 250)
    assert found["precision"] == found["recall"] == pytest.approx(0.75)
    assert found["hd95"] == pytest.approx(5)
    assert 0 < found["assd"] < 5


def test_a_perfect_and_an_empty_prediction():
    perfect = evaluation.image_measures(TRUTH, TRUTH)
    assert (perfect["dice"], perfect["iou"], perfect["hd95"], perfect["assd"]) == (1, 1, 0, 0)
    nothing = evaluation.image_measures(EMPTY, TRUTH)
    assert (nothing["dice"], nothing["iou"], nothing["precision"], nothing["recall"]) == (0, 0, 0, 0)
    assert nothing["hd95"] == nothing["assd"] == pytest.approx(math.hypot(40, 50))


def summarised(*pairs):
    return evaluation.summarise([evaluation.measure(*pair) for pair in pairs])


def test_means_pooled_and_false_masks_are_kept_apart():
    summary = summarised((TRUTH, TRUTH), (EMPTY, TRUTH | SHIFTED), (TRUTH, EMPTY), (EMPTY, EMPTY))
    assert summary["n"] == 2 and summary["n_empty"] == 2 and summary["false_mask_rate"] == 0.5
    assert summary["dice"] == pytest.approx(0.5) and summary["dice_sd"] == pytest.approx(0.5**0.5)
    assert summary["dice_pooled"] == pytest.approx(400 / 650)
    assert tuple(summary) == evaluation.MEASURES


def test_what_no_image_allows_is_none():
    assert summarised((EMPTY, EMPTY))["dice"] is None
    assert summarised((TRUTH, TRUTH))["false_mask_rate"] is None


def test_shuffled_text_is_another_rows_or_another_targets():
    own = [("nuclei", "dense above"), ("nuclei", "sparse"), ("nuclei", "sparse")]
    shuffled = evaluation.shuffled_sentences(own, 0)
    assert all(
        text in ("dense above", "sparse") and text != sentence
        for text, (_, sentence) in zip(shuffled, own, strict=True)
    )
    alike = evaluation.shuffled_sentences([("liver", "CT, abdomen, liver")] * 9, 0)
    assert all("liver" not in text for text in alike)
    assert alike == evaluation.shuffled_sentences([("liver", "CT, abdomen, liver")] * 9, 0)


def test_shuffled_text_contradicts_what_is_asked():
    own = [(name, f"X-ray, chest, {name}") for name in ("lung", "left lung", "right lung")] * 20
    shuffled = evaluation.shuffled_sentences(own, 0)
    assert all("lung" not in text for (name, _), text in zip(own, shuffled, strict=True) if name == "lung")
    assert all(name not in text and not text.endswith(", lung")
               for (name, _), text in zip(own, shuffled, strict=True))  # fmt: skip
    organs = [(name, f"CT, abdomen, {name}") for name in ("liver", "spleen")] * 4
    assert evaluation.shuffled_sentences(organs, 0) == ["CT, abdomen, spleen", "CT, abdomen, liver"] * 4
    labelled = [(name, f"X-ray, chest, {name}") for name in ("left lung", "right lung")]
    assert evaluation.shuffled_sentences(labelled, 0) == ["X-ray, chest, right lung", "X-ray, chest, left lung"]
    with_heart = [*own, ("heart", "X-ray, chest, heart")]
    assert evaluation.shuffled_sentences(with_heart, 0)[-1] == "X-ray, chest, lung"


def chest(folder, text="", labels=None):
    mask = (disc((64, 80), (30, 20), 12) | disc((64, 80), (30, 60), 10)).astype(np.uint8)
    greys = [np.full((64, 80, 3), 40 * i, np.uint8) for i in range(5)]
    rows = [Sample(grey, mask, text, str(i), "", f"images/{i}.png", {}) for i, grey in enumerate(greys)]
    return write_dataset(folder, DatasetInfo("c", "X-ray", "chest", labels or {"background": 0, "lung": 1}), rows)


def test_every_label_is_asked_for_and_both_sides_of_a_lung(tmp_path):
    dataset = chest(tmp_path / "a")
    asked = {name: text for name, text, _ in vocabulary.queries_of(dataset[0], dataset)}
    assert asked == {"lung": "X-ray, chest, lung", "left lung": "X-ray, chest, left lung",
                     "right lung": "X-ray, chest, right lung"}  # fmt: skip
    dataset = chest(tmp_path / "b", text="Bilateral.")
    assert vocabulary.queries_of(dataset[0], dataset)[0][1] == "Bilateral."


@pytest.mark.parametrize("labels, own", [
    ({"lung": 1}, "Bilateral."),
    ({"background": 0, "lung": 1, "heart": 2}, "X-ray, chest, lung"),
    ({"lung": 1, "heart": 2}, "X-ray, chest, lung"),
])  # fmt: skip
def test_a_rows_text_is_asked_where_one_thing_is_labelled(tmp_path, labels, own):
    dataset = chest(tmp_path / "a", "Bilateral.", labels)
    assert vocabulary.queries_of(dataset[0], dataset)[0][:2] == ("lung", own)


@pytest.mark.parametrize("text", ["own", "none", "shuffled"])
def test_a_whole_evaluation(monkeypatch, capsys, tmp_path, features, head, text, text_encoder):
    pipeline = SegmentationPipeline(features, text_encoder, head, ("lung",), resolution=64)
    monkeypatch.setattr(evaluation, "load_segmenter", lambda checkpoint: pipeline)
    dataset = chest(tmp_path / "a")
    result = evaluate_segmentation(EvaluateSegmentation(dataset.folder, text=text, limit=2, json=True))
    lines = capsys.readouterr().out.strip().splitlines()
    assert json.loads(lines[-1]) == result
    assert set(evaluation.MEASURES) <= set(result) and result["n"] == 2
    assert set(result["targets"]) == {"lung", "left lung", "right lung"}


def test_own_no_and_shuffled_text_side_by_side_from_one_look_at_an_image(
    monkeypatch, capsys, tmp_path, features, head, text_encoder
):
    pipeline, looks = SegmentationPipeline(features, text_encoder, head, ("lung",), resolution=64), []
    features.register_forward_hook(lambda *_: looks.append(1))
    monkeypatch.setattr(evaluation, "load_segmenter", lambda checkpoint: pipeline)
    dataset = chest(tmp_path / "a")
    result = evaluate_segmentation(EvaluateSegmentation(dataset.folder, text="all", json=True))
    assert len(looks) == len(dataset), "three questions with three texts, and one pass through the backbone"
    lines = capsys.readouterr().out.strip().splitlines()
    assert json.loads(lines[-1]) == result
    for text in evaluation.TEXTS:
        alone = evaluate_segmentation(EvaluateSegmentation(dataset.folder, text=text))
        assert {name: alone[name] for name in (*evaluation.MEASURES, "targets")} == result["texts"][text]
        assert any(line.startswith(f"lung, {text} ") for line in lines)
    gain = result["differences"]["own - shuffled"]
    assert gain["dice"] == pytest.approx(result["texts"]["own"]["dice"] - result["texts"]["shuffled"]["dice"])
    assert gain["low"] <= gain["dice"] <= gain["high"] and gain["groups"] == 5


def test_what_a_text_adds_is_counted_by_group():
    def rows(*dices):
        groups = ("a", "a", "b", "c")
        return [{"group": group, "truth": 1, "dice": dice} for group, dice in zip(groups, dices, strict=True)]

    empty = {"group": "d", "truth": 0}
    gain = evaluation.paired_difference([*rows(0.5, 0.6, 0.7, 0.8), empty], [*rows(0.4, 0.5, 0.6, 0.9), empty])
    assert gain["dice"] == pytest.approx(0.05) and gain["groups"] == 3
    assert gain["low"] == pytest.approx(-0.1) and gain["high"] == pytest.approx(0.1)
    assert evaluation.paired_difference([empty], [empty])["dice"] is None
