"""The weights that come with the repository, on examples that a program drew."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from emitdiff.checkpoints import checkpoints_folder
from emitdiff.scans.masks import read_mask
from emitdiff.scans.reading import read_scan
from emitdiff.synthesis.edges import edge_f1, edge_ridges
from emitdiff.synthesis.loading import load_synthesizer

EXAMPLES = Path(__file__).parents[2] / "emitdiff" / "ui" / "examples"


@pytest.fixture(scope="module")
def pipeline():
    return load_synthesizer("emitdiff-mini", device="cpu")


@pytest.fixture(scope="module")
def painted(pipeline):
    image = read_scan(EXAMPLES / "drawn_abdominal_ct.png").image()
    mask = read_mask(EXAMPLES / "drawn_abdominal_ct_mask.png", image.shape[:2])
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
