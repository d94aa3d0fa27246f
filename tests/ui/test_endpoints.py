"""What a program sees: four named endpoints with plain typed arguments."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from emitdiff.images import read_synthetic_settings


def test_exactly_the_named_endpoints_are_public(client):
    api = client.view_api(return_format="dict")
    assert set(api["named_endpoints"]) == {"/synthesize", "/edges", "/segment", "/models"}
    assert not api["unnamed_endpoints"]
    assert all(endpoint["description"] for endpoint in api["named_endpoints"].values())


def test_synthesize_returns_images_with_their_settings(client, example):
    image, mask = handle_file(str(example.image)), handle_file(str(example.mask))
    files, manifest = client.predict(image, "X-ray, chest", mask, num_images=2, seed=7, api_name="/synthesize")
    assert len(files) == 2
    assert [entry["seed"] for entry in manifest["images"]] == [7, 8]
    assert "Research use only" in manifest["notice"]
    assert manifest["digital_source_type"].endswith("trainedAlgorithmicMedia")
    settings = read_synthetic_settings(files[1])
    assert settings["seed"] == 8 and settings["prompt"] == "X-ray, chest"
    assert "synthetic_" in files[0]


def test_synthesize_needs_only_an_image_and_a_prompt(client, example):
    files, manifest = client.predict(handle_file(str(example.image)), "X-ray", api_name="/synthesize")
    assert len(files) == 1 and manifest["images"][0]["mask"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": " "}, "prompt is empty"),
        ({"num_images": 9}, "number of images is 9"),
        ({"seed": -1}, "seed is -1"),
        ({"checkpoint": "somebody/else"}, "give one of emitdiff-mini"),
        ({"slice_number": 5}, "slice"),
    ],
)
def test_synthesize_answers_bad_arguments_with_a_sentence(client, example, changes, words):
    arguments = {"image": handle_file(str(example.image)), "prompt": "X-ray"} | changes
    with pytest.raises(AppError, match=words):
        client.predict(**arguments, api_name="/synthesize")


def test_a_file_that_is_no_image_is_answered_with_a_sentence(client, tmp_path):
    path = tmp_path / "scan.png"
    path.write_text("not an image")
    with pytest.raises(AppError, match="scan.png"):
        client.predict(handle_file(str(path)), "lung", api_name="/segment")


def test_edges_gives_the_control_image(client, example):
    path = client.predict(handle_file(str(example.image)), None, "canny", api_name="/edges")
    assert cv2.imread(path).shape == (256, 256, 3)
    with pytest.raises(AppError, match="No edge detector"):
        client.predict(handle_file(str(example.image)), None, "sobel", api_name="/edges")


def test_segment_gives_mask_and_result(client, example):
    mask, result = client.predict(handle_file(str(example.image)), "lung", api_name="/segment")
    assert result["found"] and result["target"] == "lung"
    assert np.unique(cv2.imread(mask, cv2.IMREAD_GRAYSCALE)).size == 2
    _, result = client.predict(handle_file(str(example.image)), "spleen", api_name="/segment")
    assert result["found"] is False
    with pytest.raises(AppError, match="text is empty"):
        client.predict(handle_file(str(example.image)), "", api_name="/segment")


def test_callers_at_the_same_time_get_their_own_results(served, example):
    def call(seed: int) -> list[int]:
        arguments = (handle_file(str(example.image)), "X-ray", None, 2, seed)
        _, manifest = Client(served, verbose=False).predict(*arguments, api_name="/synthesize")
        return [entry["seed"] for entry in manifest["images"]]

    with ThreadPoolExecutor(6) as callers:
        seeds = list(callers.map(call, range(0, 60, 10)))
    assert seeds == [[seed, seed + 1] for seed in range(0, 60, 10)]


def test_models_lists_weights_and_targets(client):
    models = {model["name"]: model for model in client.predict(api_name="/models")}
    assert models["emitdiff-mini"]["defaults"]["num_inference_steps"] == 4
    assert "left lung" in models["textdiff-mini"]["targets"]
