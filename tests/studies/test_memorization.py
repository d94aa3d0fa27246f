from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.splits import split_by_group
from emitdiff.errors import EmitDiffError
from emitdiff.studies.memorization import Memorization, study_memorization


@pytest.fixture(scope="module")
def checkpoint(tiny_synthesis_folder, tmp_path_factory) -> Path:
    """The tiny pipeline, told to generate small and in one step, and what was held out."""
    folder = shutil.copytree(tiny_synthesis_folder, tmp_path_factory.mktemp("copies") / "tiny")
    card = {"control_layout": "joined", "area": 64 * 64, "defaults": {"num_inference_steps": 1}}
    (folder / "emitdiff.json").write_text(json.dumps({**card, "training": {"held_out": 0.4, "split_seed": 3}}))
    return folder


@pytest.fixture
def settings(checkpoint, dataset_folder, tmp_path) -> Memorization:
    return Memorization((dataset_folder,), tmp_path / "out", str(checkpoint), samples=3)


def paintings(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("synthetic_*.webp"))}


def test_held_out_images_are_compared_with_training_images_alone(settings, capsys):
    (result,) = study_memorization(settings).values()
    train, held = split_by_group(open_dataset(settings.datasets[0]), 0.4, 3)
    assert {kind: row["n"] for kind, row in result.items()} == {"real": len(held), "edges": 3, "outline": 3}
    trained, kept_out = ({row["file_name"] for row in split.rows} for split in (train, held))
    for row in result.values():
        assert row["p1"] <= row["p50"] <= row["p99"] <= row["max"] <= 1
        assert {pair["training"] for pair in row["nearest"]} <= trained
        assert {pair["source"] for pair in row["nearest"]} <= kept_out
        similarities = [pair["similarity"] for pair in row["nearest"]]
        assert similarities == sorted(similarities, reverse=True) and similarities[0] == row["max"]
    written = json.loads((settings.out / "copies.json").read_text())
    assert written["datasets"]["discs"]["edges"]["n"] == 3 and written["settings"]["seed"] == 0
    assert min(Image.open(settings.out / "nearest_discs.png").size) > 300
    assert "generated, mask alone" in capsys.readouterr().out


def test_it_resumes_where_it_was_and_comes_to_the_same(settings):
    whole = study_memorization(settings)
    before = paintings(settings.out)
    assert len(before) == 6
    again = replace(settings, out=settings.out.with_name("again"))
    study_memorization(replace(again, samples=1))
    lost = again.out / "discs" / "edges" / "synthetic_0000.webp"
    stamp = (again.out / "discs" / "outline" / "synthetic_0000.webp").stat().st_mtime_ns
    lost.unlink()
    resumed = study_memorization(again)
    assert paintings(again.out) == before
    assert (again.out / "discs" / "outline" / "synthetic_0000.webp").stat().st_mtime_ns == stamp, "generated once"
    assert {kind: row["max"] for kind, row in resumed["discs"].items()} == {
        kind: row["max"] for kind, row in whole["discs"].items()
    }


def test_a_planted_copy_is_counted_even_mirrored_and_darker(settings):
    study_memorization(settings)
    train, _ = split_by_group(open_dataset(settings.datasets[0]), 0.4, 3)
    copied = (train[1].image[:, ::-1] * 0.6).astype(np.uint8)
    Image.fromarray(copied).save(settings.out / "discs" / "edges" / "synthetic_0001.webp", lossless=True)
    row = study_memorization(settings)["discs"]["edges"]
    assert row["copies"] == 1 and row["closer_than_real"] >= 1 and row["max"] > 0.98
    assert row["nearest"][0]["training"] == train.rows[1]["file_name"] and row["nearest"][0]["mirrored"]


def test_without_time_the_real_images_are_measured_and_other_settings_refused(settings):
    result = study_memorization(replace(settings, minutes=1e-9))
    assert set(result["discs"]) == {"real"} and not paintings(settings.out)
    with pytest.raises(EmitDiffError, match="seed"):
        study_memorization(replace(settings, seed=1))
    with pytest.raises(EmitDiffError, match="one name"):
        study_memorization(replace(settings, datasets=settings.datasets * 2))
