"""Sets of other sources beside those a segmenter learnt from."""

import json

import numpy as np
import pytest

from emitdiff.datasets.folder import DatasetInfo, Sample
from emitdiff.datasets.writing import write_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.segmentation import sources
from emitdiff.segmentation.evaluation import EvaluateSegmentation
from emitdiff.segmentation.pipeline import SegmentationPipeline
from emitdiff.segmentation.vocabulary import queries_of

from .conftest import disc


def folder(tmp_path, name, modality, organ, labels):
    """Four images, the last one without its first label."""

    def samples():
        for index in range(4):
            mask = np.zeros((64, 64), np.uint8)
            for value in labels.values():
                if value and not (value == 1 and index == 3):
                    mask[disc((64, 64), (14 * value, 30), 6)] = value
            image = np.full((64, 64, 3), 60 + 10 * index, np.uint8)
            yield Sample(image, mask, "", str(index // 2), "", f"images/{index}.png", {})

    return write_dataset(tmp_path / name, DatasetInfo(name, modality, organ, labels), samples())


@pytest.fixture
def near(tmp_path):
    return folder(tmp_path, "near", "CT", "abdomen", {"background": 0, "liver": 1})


@pytest.fixture
def far(tmp_path):
    labels = {"background": 0, "liver": 1, "gallbladder": 2, "spleen": 3, "lesion": 4}
    return folder(tmp_path, "far", "CT", "abdomen", labels)


def test_labels_of_another_source_are_asked_as_they_were_taught(far, tmp_path):
    asked, phrases = sources.as_taught(far, ("liver", "spleen", "breast lesion"), {})
    assert phrases == {"liver", "spleen"}, "a lesion of the abdomen is none of the breast"
    assert len(asked) == 4 and asked[0].mask.max() == 4
    cells = folder(tmp_path, "tissue", "Histology", "nuclei", {"background": 0, "nucleus": 1})
    asked, phrases = sources.as_taught(cells, ("nuclei",), {})
    assert phrases == {"nuclei"}
    assert [query[:2] for query in queries_of(asked[0], asked)] == [("nuclei", "Microscopy, nuclei, nucleus")]


def test_a_label_may_be_translated(tmp_path):
    strange = folder(tmp_path, "strange", "CT", "abdomen", {"background": 0, "lobus": 1, "x": 2})
    with pytest.raises(EmitDiffError, match="--map LABEL=TARGET"):
        sources.as_taught(strange, ("liver",), {})
    asked, phrases = sources.as_taught(strange, ("liver",), {"lobus": "liver"})
    assert phrases == {"liver"} and asked.info.labels == {"background": 0, "liver": 1, "x": 2}
    for mapping, words in (({"heart": "liver"}, "No dataset has a label 'heart'"), ({"x": "bone"}, "was not taught")):
        with pytest.raises(EmitDiffError, match=words):
            sources.check_mapping(mapping, [strange], ("liver",))


def test_internal_and_external_stand_side_by_side(near, far, features, text_encoder, head, monkeypatch, capsys):
    pipeline = SegmentationPipeline(features, text_encoder, head, ("liver", "spleen"), resolution=64)
    monkeypatch.setattr(sources, "load_segmenter", lambda name: pipeline)
    settings = EvaluateSegmentation(near.folder, split="held-out", json=True)
    first, second = sources.compare_sources(settings, [near.folder], [far.folder], {})
    assert (first["source"], first["split"], second["source"], second["split"]) == (
        "internal", "held-out", "external", "all",
    )  # fmt: skip
    assert set(first["targets"]) == {"liver"} and set(second["targets"]) == {"liver", "spleen"}
    found = second["targets"]["liver"]
    assert (found["n"], found["n_empty"], found["groups"]) == (3, 1, 2) and second["targets"]["spleen"]["n"] == 4
    assert 0 <= found["false_refusal_rate"] <= 1 and found["unsure_rate"] == 0
    printed = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["dataset"] for line in printed[-2:]] == ["near", "far"]
    assert [line.split()[:3] for line in printed[1:4]] == [
        ["liver", "internal", "near"], ["liver", "external", "far"], ["spleen", "external", "far"],
    ]  # fmt: skip
    assert "refused" in printed[0] and "unsure" in printed[0]


def test_an_unsure_mask_is_neither_false_nor_a_refusal():
    from emitdiff.segmentation import evaluation

    truth, nothing = np.ones((8, 8), bool), np.zeros((8, 8), bool)
    rows = [
        {"answer": answer, "group": "a", **evaluation.measure(found, there)}
        for answer, found, there in (
            ("unsure", truth, nothing), ("found", truth, nothing),
            ("unsure", truth, truth), ("not there", nothing, truth),
        )
    ]  # fmt: skip
    summary = evaluation.summarise(rows)
    rates = [summary[name] for name in ("false_mask_rate", "false_refusal_rate", "unsure_rate")]
    assert rates == [0.5, 0.5, 0.5] and summary["groups"] == 1
