from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from emitdiff.errors import EmitDiffError
from emitdiff.provenance import read_synthetic_settings, save_synthetic_png


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
