"""The weights that come with the repository, on examples that a program drew."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from emitdiff.checkpoints import checkpoints_folder
from emitdiff.scans.masks import read_mask
from emitdiff.scans.reading import read_scan
from emitdiff.synthesis.edges import detect_edges, edge_f1, edge_ridges
from emitdiff.synthesis.loading import load_synthesizer

EXAMPLES = Path(__file__).parents[2] / "emitdiff" / "ui" / "examples"


@pytest.fixture(scope="module")
def pipeline():
    return load_synthesizer("emitdiff-mini", device="cpu")


@pytest.fixture(scope="module")
def painted(pipeline):
    image = read_scan(EXAMPLES / "painted_abdominal_ct.png").image()
    mask = read_mask(EXAMPLES / "painted_abdominal_ct_mask.png", image.shape[:2])
    size = pipeline.working_size(*mask.shape)
    image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    mask = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)
    return image, pipeline(image, mask, prompt="CT, abdomen, liver", num_images=2, seed=0)


def test_it_follows_the_edges_it_was_given(painted):
    image, made = painted
    asked = edge_ridges(image)
    unrelated = np.rot90(asked, 1)
    for one in made:
        found = edge_ridges(one.image)
        assert edge_f1(asked, found) > 0.5
        assert edge_f1(asked, found) > edge_f1(unrelated, found) + 0.1


def test_it_adds_to_the_image_and_varies_with_the_seed(painted):
    image, (first, second) = painted
    assert np.abs(first.image.astype(int) - image).mean() > 3
    assert np.abs(first.image.astype(int) - second.image).mean() > 2


def test_without_the_control_the_edges_are_not_followed(pipeline, painted):
    image, made = painted
    settings = {"prompt": "CT, abdomen, liver", "num_images": 1, "seed": 0}
    free = pipeline(image, None, **settings, controlnet_conditioning_scale=0.0)[0].image
    asked = edge_ridges(image)
    assert edge_f1(asked, edge_ridges(free)) < edge_f1(asked, edge_ridges(made[0].image))


def test_the_prompt_steers_the_brightness_of_the_ground(pipeline, painted):
    image, _ = painted
    settings = {"num_images": 1, "seed": 0, "guidance_scale": 4.0}
    xray = pipeline(image, None, prompt="X-ray, chest", **settings)[0].image
    ct = pipeline(image, None, prompt="CT, abdomen", **settings)[0].image
    assert xray.mean() > ct.mean() + 5


def test_the_folder_holds_weights_their_card_and_nothing_else():
    files = [path for path in checkpoints_folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 80 * 2**20
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".md"}
    for name in ("emitdiff-mini", "textdiff-mini"):
        card = (checkpoints_folder() / name / "README.md").read_text(encoding="utf-8")
        assert "research" in card.lower() and "Not a medical device" in card and "@" not in card


def test_the_small_edge_detector_draws_outlines_and_not_the_speckle_between_them():
    """Grey, inverted and coloured discs on a speckled ground: what is drawn lies on the rim, wherever the disc is."""
    mask = np.zeros((160, 200), np.uint8)
    cv2.circle(mask, (120, 70), 40, 1, -1)
    speckle = np.random.default_rng(0).normal(0, 8, mask.shape)
    grey = np.clip(70 + 90 * mask + speckle, 0, 255).astype(np.uint8)
    tinted = np.where(mask[..., None] > 0, (200, 60, 120), (90, 140, 60)) + speckle[..., None]
    rim = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((9, 9), np.uint8)) > 0
    away = cv2.dilate(rim.astype(np.uint8), np.ones((25, 25), np.uint8)) == 0
    away[:8], away[-8:], away[:, :8], away[:, -8:] = False, False, False, False
    for image in (grey, 255 - grey, np.clip(tinted, 0, 255).astype(np.uint8)):
        edges = detect_edges(image if image.ndim == 3 else np.repeat(image[..., None], 3, -1), "hed-mini")
        assert edges.shape == mask.shape and edges[rim].mean() > 80
        assert edges[rim].mean() > 5 * edges[away].mean()
