from __future__ import annotations

import gc
import json
import zipfile

import cv2
import numpy as np
import pytest
from fakes import Painted, Step

from emitdiff.provenance import read_synthetic_settings
from emitdiff.synthesis_settings import SynthesisSettings
from emitdiff.ui import archive
from emitdiff.ui.interface import SynthesisRequest
from emitdiff.ui.synthesis.runs import Run


def picture(seed: int = 3) -> Painted:
    image = np.full((8, 6, 3), seed, np.uint8)
    return Painted(image, np.eye(8, 6, dtype=np.uint8), seed, {"prompt": "CT", "seed": seed}, 0.5)


@pytest.fixture
def run():
    run = Run(
        SynthesisRequest(SynthesisSettings("CT", num_images=3, seed=3)), np.zeros((8, 6, 3), np.uint8), None, "scan"
    )
    yield run
    run.remove()


def test_tiles_stand_for_every_image_from_the_start(run):
    assert [caption for _, caption in run.tiles()] == ["seed 3 ...", "seed 4 ...", "seed 5 ..."]
    assert run.add_event(Step(0, 1, 4, np.zeros((8, 6, 3), np.uint8)))
    assert not run.add_event(Step(0, 2, 4, None))
    assert run.add_event(picture())
    tiles = run.tiles()
    assert len(tiles) == 3 and tiles[0][1] == "seed 3" and "synthetic_scan_000_seed3.png" in tiles[0][0]
    run.running = False
    assert len(run.tiles()) == 1


def test_progress_in_words(run):
    assert run.words.startswith("Preparing") and run.fraction == 0
    run.add_event(Step(1, 2, 4, None))
    assert run.words.startswith("Image 2 of 3, step 2 of 4") and run.fraction == 0.5
    assert run.summary(stopped=True) == "Stopped before an image was finished."
    run.add_event(picture())
    assert run.summary(stopped=True).startswith("Stopped: 1 synthetic image of 3")


def test_the_archive_holds_images_masks_and_manifest(run):
    assert run.archive() is None
    run.add_event(picture())
    with zipfile.ZipFile(run.archive()) as archive:
        names = set(archive.namelist())
        assert names == {"images/synthetic_scan_000_seed3.png", "masks/synthetic_scan_000_seed3.png", "manifest.json"}
        mask = np.frombuffer(archive.read("masks/synthetic_scan_000_seed3.png"), np.uint8)
        manifest = json.loads(archive.read("manifest.json"))
    np.testing.assert_array_equal(cv2.imdecode(mask, cv2.IMREAD_GRAYSCALE), np.eye(8, 6))
    assert manifest["images"][0] | {"settings": 0} == {
        "file": "images/synthetic_scan_000_seed3.png",
        "mask": "masks/synthetic_scan_000_seed3.png",
        "seed": 3,
        "seconds": 0.5,
        "settings": 0,
    }
    assert read_synthetic_settings(run.images[0].path)["prompt"] == "CT"
    run.remove()
    assert not run.folder.exists()


def test_what_is_said_of_the_source_goes_with_its_images():
    run = Run(SynthesisRequest(SynthesisSettings("CT")), None, None, "scan", ("The file has no orientation.",))
    run.add_event(picture())
    with zipfile.ZipFile(run.archive()) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    inside = read_synthetic_settings(run.images[0].path)
    for place in (manifest, manifest["images"][0]["settings"], inside):
        assert place["warnings"] == ["The file has no orientation."]
    run.remove()


def test_a_folder_that_another_request_removes_is_no_failure(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(archive.Path, "glob", lambda folder, pattern: iter([tmp_path / "emitdiff_answer_gone"]))
    assert archive.answer_folder().is_dir()


def test_what_nothing_holds_any_more_leaves_no_files():
    run = Run(SynthesisRequest(SynthesisSettings("CT", num_images=1, seed=3)), None, None, "scan")
    run.add_event(picture())
    path = run.images[0].path
    assert path.exists()
    del run
    gc.collect()
    assert not path.parent.parent.exists()
