"""Text in the pixels is warned about where devices write it; tissue is not taken for text."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from emitdiff.scans.burned_in import WARNING, has_text_at_rim

NAME = "DOE JANE 12.03.1961 ID 77-381"


def tissue(height: int = 512, width: int = 640, seed: int = 0) -> np.ndarray:
    """Speckle, and edges as smooth as organs have them, with a black rim as of a sector: uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    inside = ((rows - height / 2) / (0.42 * height)) ** 2 + ((columns - width / 2) / (0.42 * width)) ** 2 < 1
    organs = 90 + 60 * np.sin(rows / 23 + seed) * np.cos(columns / 31)
    grey = np.clip(inside * (organs + rng.normal(0, 25, (height, width))), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def written(
    image: np.ndarray, place: tuple[int, int], height: int = 16, colour=(255, 255, 255), text=NAME
) -> np.ndarray:
    picture = Image.fromarray(image)
    ImageDraw.Draw(picture).text(place, text, font=ImageFont.load_default(height), fill=colour)
    return np.asarray(picture)


@pytest.mark.parametrize("seed", range(4))
def test_tissue_is_no_text(seed):
    assert not has_text_at_rim(tissue(seed=seed))
    assert not has_text_at_rim(np.zeros((256, 256, 3), np.uint8))
    noise = np.random.default_rng(seed).integers(0, 256, (256, 256, 3), np.uint8)
    assert not has_text_at_rim(noise) and not has_text_at_rim(noise[..., 0])


@pytest.mark.parametrize("place", [(8, 6), (330, 6), (8, 480), (440, 480)])
@pytest.mark.parametrize("height", [12, 16, 28])
def test_a_name_at_the_rim_is_found(place, height):
    assert has_text_at_rim(written(tissue(), place, height, text=NAME[: (600 - place[0]) // height * 2]))


@pytest.mark.parametrize("colour", [(170, 170, 170), (250, 220, 40), (90, 200, 255)])
def test_in_any_colour(colour):
    assert has_text_at_rim(written(tissue(), (8, 6), colour=colour))


def test_dark_on_light_and_in_a_large_image():
    image = tissue()
    image[:30] = 235
    assert has_text_at_rim(written(image, (8, 6), colour=(0, 0, 0)))
    large = np.zeros((2400, 3000, 3), np.uint8)
    assert has_text_at_rim(written(large, (40, 30), 80)) and not has_text_at_rim(large)


def test_the_marker_of_a_side_names_nobody():
    assert not has_text_at_rim(written(tissue(), (8, 6), 30, text="R"))
    assert not has_text_at_rim(written(tissue(), (8, 6), 30, text="L  AP"))


def test_the_command_line_the_page_and_a_dataset_warn(tmp_path, monkeypatch, capsys):
    import json

    from emitdiff import cli
    from emitdiff.backend.services import read_scan
    from emitdiff.datasets.check import check_dataset

    for part in ("images", "masks"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for name, image in (("named", written(tissue(), (8, 6))), ("clean", tissue())):
        Image.fromarray(image).save(tmp_path / "set" / "images" / f"{name}.png")
        Image.fromarray(np.ones(image.shape[:2], np.uint8)).save(tmp_path / "set" / "masks" / f"{name}.png")
        path = tmp_path / "set" / "images" / f"{name}.png"
        assert (WARNING in read_scan(path).warnings) == (name == "named")
        assert cli.main(["edges", str(path), "-o", str(tmp_path / "out")]) == 0
        assert (WARNING in capsys.readouterr().err) == (name == "named")
    info = {"name": "set", "modality": "Ultrasound", "organ": "breast", "labels": {"lesion": 1}}
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(info))
    lines = "file_name,mask,group\nimages/named.png,masks/named.png,1\nimages/clean.png,masks/clean.png,2\n"
    (tmp_path / "set" / "metadata.csv").write_text(lines)
    report = check_dataset(tmp_path / "set")
    assert report.texts == ("images/named.png",) and report.ok
    assert "may identify a patient: 1 image(s): images/named.png" in str(report)
