from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from emitdiff.errors import EmitDiffError
from emitdiff.provenance import (
    DIGITAL_SOURCE_TYPE,
    NOTICE,
    SETTINGS_KEY,
    copy_png_text,
    manifest_entry,
    read_synthetic_settings,
    save_synthetic_png,
    synthetic_manifest,
)


def test_synthetic_png_says_what_it_is_and_gives_its_settings_back(disc, tmp_path):
    path = save_synthetic_png(disc[0], tmp_path / "new" / "disc_3.png", {"seed": 3, "prompt": "MRI, médian"})
    assert path.name == "synthetic_disc_3.png"
    assert read_synthetic_settings(path) == {"synthetic": True, "seed": 3, "prompt": "MRI, médian"}
    with Image.open(path) as png:
        assert "Research use only" in png.text["Comment"]
    with Image.open(path) as png:
        assert np.array_equal(np.asarray(png), disc[0])
        assert "digitalsourcetype/trainedAlgorithmicMedia" in png.text["XML:com.adobe.xmp"]
        assert json.loads(png.text["emitdiff"])["seed"] == 3
    assert save_synthetic_png(disc[0], path, {}) == path, "the name is not prefixed twice"


def test_pictures_without_settings_are_refused(disc_files, tmp_path):
    truncated = save_synthetic_png(np.zeros((64, 64), np.uint8), tmp_path / "a.png", {})
    truncated.write_bytes(truncated.read_bytes()[:-40])
    for path in (disc_files[0], truncated, tmp_path / "missing.png", __file__):
        with pytest.raises(EmitDiffError, match="give a PNG that emitdiff wrote"):
            read_synthetic_settings(path)


def test_other_text_or_settings_of_another_form_are_refused(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text(SETTINGS_KEY, "[1, 2]")
    Image.new("L", (4, 4)).save(tmp_path / "list.png", pnginfo=text)
    with pytest.raises(EmitDiffError, match="list.png carries settings of an unknown form"):
        read_synthetic_settings(tmp_path / "list.png")


@pytest.mark.parametrize("settings", ['["' + 2**18 * "x" + '"]', "[" * 10_000], ids=["long", "deep"])
def test_settings_that_would_fill_memory_are_refused(tmp_path, settings):
    text = PngImagePlugin.PngInfo()
    text.add_text(SETTINGS_KEY, settings)
    Image.new("L", (4, 4)).save(tmp_path / "large.png", pnginfo=text)
    with pytest.raises(EmitDiffError, match="large.png carries no synthesis settings"):
        read_synthetic_settings(tmp_path / "large.png")


def test_a_copy_of_the_pixels_keeps_what_its_source_says(disc, tmp_path):
    source = save_synthetic_png(disc[0], tmp_path / "a.png", {"prompt": "médian"})
    Image.open(source).resize((8, 8)).save(tmp_path / "small.png", pnginfo=copy_png_text(source))
    assert read_synthetic_settings(tmp_path / "small.png")["prompt"] == "médian"
    with Image.open(tmp_path / "small.png") as png:
        assert DIGITAL_SOURCE_TYPE in png.text["XML:com.adobe.xmp"] and png.text["Comment"] == NOTICE


def test_of_a_picture_without_text_nothing_is_copied(disc_files, tmp_path):
    assert copy_png_text(disc_files[0]) is None and copy_png_text(__file__) is None
    assert copy_png_text(tmp_path / "missing.png") is None


def test_a_manifest_is_json_and_says_what_its_images_are():
    made = SimpleNamespace(seed=3, seconds=1.23456, settings={"prompt": "CT"})
    manifest = synthetic_manifest("scan.nii", [manifest_entry(made, "synthetic_0.png", None)])
    assert json.loads(json.dumps(manifest)) == manifest
    assert manifest["source"] == "scan.nii" and "Research use only" in manifest["notice"]
    assert manifest["digital_source_type"] == DIGITAL_SOURCE_TYPE
    (entry,) = manifest["images"]
    assert entry == {"file": "synthetic_0.png", "mask": None, "seed": 3, "seconds": 1.23, "settings": made.settings}
