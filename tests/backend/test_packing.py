from __future__ import annotations

import csv
import json
import zipfile
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from emitdiff.backend.packing import name_classes, pack_results
from emitdiff.errors import EmitDiffError
from emitdiff.provenance import NOTICE, read_synthetic_settings, save_synthetic_png
from emitdiff.ui.interface import PackRequest

PACKING = {"name": "chest", "modality": "X-ray", "organ": "chest", "classes": ("lung",)}


@dataclass(frozen=True)
class Result:
    image: np.ndarray
    mask: np.ndarray | None
    seed: int
    settings: dict = field(default_factory=lambda: {"prompt": "X-ray, chest", "checkpoint": "tiny", "structure": 1.0})


@pytest.fixture
def made(tmp_path, disc):
    results = [Result(*(np.roll(array, 6 * seed, axis=1) for array in disc), seed) for seed in range(2)]
    paths = [
        save_synthetic_png(one.image, tmp_path / f"synthetic_chest_{one.seed}.png", one.settings) for one in results
    ]
    return results, paths


def test_nnunet_holds_images_labels_and_where_they_come_from(made, tmp_path):
    results, paths = made
    archive, notes = pack_results(results, paths, PackRequest("nnunet", **PACKING), tmp_path)
    assert archive == tmp_path / "synthetic_chest_nnunet.zip" and not notes
    with zipfile.ZipFile(archive) as zipped:
        top = "Dataset501_chest"
        described = json.loads(zipped.read(f"{top}/dataset.json"))
        label = np.asarray(Image.open(BytesIO(zipped.read(f"{top}/labelsTr/synthetic_chest_1.png"))))
        (tmp_path / "out.png").write_bytes(zipped.read(f"{top}/imagesTr/synthetic_chest_1_0000.png"))
        rows = list(csv.DictReader(zipped.read(f"{top}/provenance.csv").decode().splitlines()))
    assert described["labels"] == {"background": 0, "lung": 1} and described["numTraining"] == 2
    assert NOTICE in described["description"]
    np.testing.assert_array_equal(label, results[1].mask)
    assert read_synthetic_settings(tmp_path / "out.png")["prompt"] == "X-ray, chest"
    assert [row["seed"] for row in rows] == ["0", "1"] and {row["group"] for row in rows} == {"chest"}
    assert {row["provenance"] for row in rows} == {"trainedAlgorithmicMedia"}


def test_coco_names_the_classes_and_leaves_nothing_else_behind(made, tmp_path):
    archive, _ = pack_results(*made, PackRequest("coco", **PACKING), tmp_path)
    with zipfile.ZipFile(archive) as zipped:
        content = json.loads(zipped.read("synthetic_chest/annotations/instances.json"))
    assert [category["name"] for category in content["categories"]] == ["lung"]
    assert [one["area"] for one in content["annotations"]] == [int(result.mask.sum()) for result in made[0]]
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_what_cannot_be_exported_is_said(made, tmp_path):
    results, paths = made
    bare = [Result(results[0].image, None, 0), results[1]]
    with pytest.raises(EmitDiffError, match="without a label"):
        pack_results(bare, paths, PackRequest("coco", **PACKING), tmp_path)
    with pytest.raises(EmitDiffError, match="different names"):
        name_classes(("lung", "Lung"), {1, 2})


def test_ids_without_a_name_are_called_after_their_number():
    assert name_classes(("lung",), {1, 3}) == {"background": 0, "lung": 1, "class 3": 3}
    assert name_classes(("liver", "spleen"), {2}) == {"background": 0, "liver": 1, "spleen": 2}
