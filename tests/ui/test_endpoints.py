"""What a program sees: six named endpoints with plain typed arguments, and the same as tools."""

from __future__ import annotations

import json
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import cv2
import gradio as gr
import httpx
import numpy as np
import pytest
from fakes import Step, TrainingProgress, fake_callables
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError, ValidationError

from emitdiff.provenance import read_synthetic_settings
from emitdiff.ui.demo import build_demo, launch_settings
from emitdiff.ui.programs.arguments import FILE, Argument, documented, structure_arguments
from emitdiff.ui.programs.endpoints import Endpoints


def test_exactly_the_named_endpoints_are_public(client):
    api = client.view_api(return_format="dict")
    assert set(api["named_endpoints"]) == {"/synthesize", "/edges", "/segment", "/teach", "/evaluate", "/models"}
    assert not api["unnamed_endpoints"]
    assert all(endpoint["description"] for endpoint in api["named_endpoints"].values())


def test_arguments_say_their_type_their_choices_and_whether_they_are_needed(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    described = {name: {one["parameter_name"]: one for one in endpoint["parameters"]}
                 for name, endpoint in endpoints.items()}  # fmt: skip
    needed = {name: {key for key, one in found.items() if not one["parameter_has_default"]}
              for name, found in described.items()}  # fmt: skip
    assert needed == {"/synthesize": {"prompt"}, "/edges": set(), "/segment": {"image", "text"}, "/teach": {"dataset"},
                      "/evaluate": {"dataset"}, "/models": set()}  # fmt: skip
    painted = described["/synthesize"]
    assert painted["num_images"]["python_type"]["type"] == "int" and painted["num_images"]["parameter_default"] == 1
    assert painted["checkpoint"]["type"]["enum"] == ["emitdiff-mini", "sd15-canny"]
    shared = set(painted) & set(described["/edges"])
    assert {"mask", "structure", "deform"} <= shared == set(described["/edges"])


def test_synthesize_returns_images_with_their_settings(client, example):
    image, mask = handle_file(str(example.image)), handle_file(str(example.mask))
    files, manifest = client.predict(image, "X-ray, chest", mask=mask, num_images=2, seed=7, api_name="/synthesize")
    assert len(files) == 2
    assert [entry["seed"] for entry in manifest["images"]] == [7, 8]
    assert "Research use only" in manifest["notice"]
    assert manifest["digital_source_type"].endswith("trainedAlgorithmicMedia")
    settings = read_synthetic_settings(files[1])
    assert settings["seed"] == 8 and settings["prompt"] == "X-ray, chest"
    assert "synthetic_" in files[0]


def test_synthesize_warns_of_a_prompt_for_another_kind_of_image(example):
    seen = ("breast ultrasound", "Ultrasound", "breast")
    with gr.Blocks():
        endpoints = Endpoints(fake_callables(image_kind=lambda image: seen))

    def warnings(prompt, **given):
        *_, (_, manifest) = endpoints.synthesize(
            str(example.image), None, 1, None, prompt=prompt, checkpoint="emitdiff-mini", preset="default", **given
        )
        return manifest["warnings"]

    assert warnings("MRI, prostate") == ["This looks like a breast ultrasound; the prompt says MRI, prostate."]
    assert warnings("Ultrasound, breast") == warnings("MRI, prostate", structure=0) == []


def test_synthesize_needs_only_an_image_and_a_prompt(client, example):
    files, manifest = client.predict(handle_file(str(example.image)), "X-ray", api_name="/synthesize")
    assert len(files) == 1 and manifest["images"][0]["mask"] is None


def test_synthesize_takes_structure_edits_and_presets_and_needs_no_image_for_them(client, example):
    mask, settings = handle_file(str(example.mask)), {"structure": 0.6, "move_x": 0.1, "detector": "canny"}
    files, manifest = client.predict(None, "X-ray", mask=mask, preset="paper", **settings, api_name="/synthesize")
    (entry,) = manifest["images"]
    assert entry["settings"]["structure"] == 0.6 and entry["settings"]["move_x"] == 0.1 and entry["mask"]
    assert "painted_chest_xray_mask" in files[0]
    _, manifest = client.predict(prompt="X-ray", structure=0, api_name="/synthesize")
    assert manifest["images"][0]["settings"]["structure"] == 0 and manifest["images"][0]["mask"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": None}, "set the structure to 0"),
        ({"structure": 2}, "structure is 2"),
        ({"preset": "best"}, "No preset is called"),
        ({"detector": "sobel"}, "No edge detector"),
        ({"prompt": " "}, "prompt is empty"),
        ({"num_images": 9}, "number of images is 9"),
        ({"seed": -2}, "seed is -2"),
        ({"checkpoint": "somebody/else"}, "give one of emitdiff-mini"),
        ({"slice_number": 5}, "slice_number is 5: 'painted_chest_xray.png' has one slice, 1"),
        ({"slice_number": 0}, "slice_number is 0: "),
        ({"slice_number": 1.5}, r"slice_number is 1\.5: give a whole number"),
        ({"num_images": 1.5}, r"num_images is 1\.5: give a whole number"),
        ({"num_images": True}, "num_images is True: give a whole number"),
        ({"seed": [1]}, "seed is .1.: give a whole number"),
        ({"seed": {"a": 1}}, "seed is .'a': 1.: give a whole number"),
        ({"seed": "abc"}, "seed is 'abc': give a whole number"),
        ({"seed": 10**30}, "The seed is 1e[+]30"),
        ({"structure": "0.5"}, r"structure is '0\.5': give a number"),
        ({"prompt": ["a"]}, "prompt is .'a'.: give text"),
        ({"prompt": "a" * 20_000}, "prompt has 20,000 characters: give at most 10,000"),
        ({"negative_prompt": 7}, "negative_prompt is 7: give text"),
        ({"checkpoint": ["emitdiff-mini"]}, "checkpoint is .'emitdiff-mini'.: give text"),
        ({"prompt": json.loads("[" * 400 + "]" * 400)}, r"prompt is .*: give text"),
        ({"image": "abc"}, "image is 'abc': give a file"),
        ({"mask": [1, 2]}, "mask is .1, 2.: give a file"),
    ],
)
def test_synthesize_answers_bad_arguments_with_a_sentence(client, example, changes, words):
    arguments = {"image": handle_file(str(example.image)), "prompt": "X-ray"} | changes
    with pytest.raises((AppError, ValidationError), match=words):
        client.predict(**arguments, api_name="/synthesize")


def test_a_file_that_is_no_image_is_answered_with_a_sentence(client, tmp_path):
    path = tmp_path / "scan.png"
    path.write_text("not an image")
    with pytest.raises(AppError, match="scan.png"):
        client.predict(handle_file(str(path)), "lung", api_name="/segment")


def test_edges_gives_the_control_image(client, example):
    path, record = client.predict(handle_file(str(example.image)), detector="canny", api_name="/edges")
    assert record == {"warnings": []}
    assert cv2.imread(path).shape == (256, 256, 3)
    with pytest.raises(AppError, match="No edge detector"):
        client.predict(handle_file(str(example.image)), detector="sobel", api_name="/edges")
    image, mask = handle_file(str(example.image)), handle_file(str(example.mask))
    alone, _ = client.predict(image, mask, detector="canny", structure=0.5, api_name="/edges")
    assert np.array_equal(cv2.imread(alone), cv2.imread(client.predict(mask=mask, api_name="/edges")[0]))


@pytest.mark.parametrize(
    ("given", "used"), [({}, "soft"), ({"preset": "paper"}, "hed"), ({"detector": "canny"}, "canny")]
)
def test_edges_are_those_of_preset_and_weights_where_none_are_named(given, used, example):
    asked = []

    def control_image(image, mask, request):
        asked.append(request.settings.detector)
        return image

    calls = fake_callables(control_image=control_image)
    with gr.Blocks():
        endpoints = Endpoints(calls)
    edges = documented(endpoints.edges, {"image": Argument("", FILE), **structure_arguments(calls)})
    edges(image=str(example.image), **given)
    assert asked == [used]


def test_segment_gives_mask_and_result(client, example):
    mask, result = client.predict(handle_file(str(example.image)), "lung", api_name="/segment")
    assert result["found"] and result["answer"] == "found" and result["target"] == "lung"
    assert np.unique(cv2.imread(mask, cv2.IMREAD_GRAYSCALE)).size == 2
    _, result = client.predict(handle_file(str(example.image)), "spleen", api_name="/segment")
    assert result["found"] is False and result["answer"] == "not there"
    _, result = client.predict(handle_file(str(example.image)), "perhaps lung", api_name="/segment")
    assert result["found"] and result["answer"] == "unsure"
    with pytest.raises(ValidationError, match="text is empty"):
        client.predict(handle_file(str(example.image)), "", api_name="/segment")


def test_segment_gives_no_mask_of_what_was_not_taught(client, example):
    image = handle_file(str(example.image))
    mask, result = client.predict(image, "pneumonia", api_name="/segment")
    assert mask is None and result["untaught"] and not result["found"] and result["nearest"] == "lung"
    assert result["warnings"] and result["highest_probability"] == result["fraction_of_image"] == 0
    mask, result = client.predict(image, "pneumonia", threshold=0.2, untaught="try", api_name="/segment")
    assert cv2.imread(mask, cv2.IMREAD_GRAYSCALE).any() and result["untaught"] and not result["found"]
    with pytest.raises(ValidationError, match="untaught is 'guess': give refuse or try"):
        client.predict(image, "pneumonia", untaught="guess", api_name="/segment")


def test_callers_at_the_same_time_get_their_own_results(served, example):
    clients = [Client(served, verbose=False, httpx_kwargs={"timeout": 120}) for _ in range(6)]
    everybody = threading.Barrier(6)

    def call(client: Client, seed: int) -> list[int]:
        arguments = {"image": handle_file(str(example.image)), "prompt": "X-ray", "num_images": 2, "seed": seed}
        everybody.wait(120)
        _, manifest = client.predict(**arguments, api_name="/synthesize")
        return [entry["seed"] for entry in manifest["images"]]

    with ThreadPoolExecutor(6) as callers:
        seeds = list(callers.map(call, clients, range(0, 60, 10)))
    assert seeds == [[seed, seed + 1] for seed in range(0, 60, 10)]


class Endless:
    """A call that goes on and on, and knows when it is ended."""

    def __init__(self, step):
        self.step, self.steps, self.ended = step, 0, threading.Event()

    def __call__(self, *given):
        try:
            while self.steps < 1000:
                time.sleep(0.02)
                self.steps += 1
                yield self.step
        finally:
            self.ended.set()

    def was_ended(self):
        return self.ended.wait(20) and self.steps < 900


@contextmanager
def serving(**calls):
    demo = build_demo(fake_callables(**calls))
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_settings())
    try:
        yield url
    finally:
        for call in calls.values():
            call.steps = 1000
        demo.close()


@pytest.mark.parametrize("leave", ["cancel", "disconnect"])
def test_generation_ends_with_the_wish_for_it(leave):
    """Both a caller that cancels and one that is gone: nobody waits for 8 x 200 steps."""
    painting = Endless(Step(0, 1, 1000, None))
    with serving(synthesize=painting) as url:
        if leave == "cancel":
            job = Client(url, verbose=False).submit(prompt="X-ray", structure=0, api_name="/synthesize")
            wait_until(lambda: painting.steps)
            job.cancel()
        else:
            call = httpx.post(f"{url}gradio_api/call/synthesize", json={"data": whole_request(url)}).json()
            with httpx.stream("GET", f"{url}gradio_api/call/synthesize/{call['event_id']}", timeout=30):
                wait_until(lambda: painting.steps)
        assert painting.was_ended()


@pytest.mark.parametrize(
    ("endpoint", "name", "step"),
    [("/teach", "teach_dataset", TrainingProgress(1, 1000, 0.1, 0.5)), ("/evaluate", "evaluate", None)],
)
def test_work_on_a_dataset_ends_with_the_wish_for_it(dataset, endpoint, name, step):
    working = Endless(step)
    with serving(**{name: working}) as url:
        job = Client(url, verbose=False).submit(dataset, api_name=endpoint)
        wait_until(lambda: working.steps)
        job.cancel()
        assert working.was_ended()


def wait_until(there):
    for _ in range(300):
        if there():
            return
        time.sleep(0.1)
    raise AssertionError("nothing was started")


def whole_request(url: str) -> list:
    """What /synthesize is given, in its order: its defaults, and no image."""
    described = Client(url, verbose=False).view_api(return_format="dict", print_info=False)["named_endpoints"]
    given = {"prompt": "X-ray", "structure": 0}
    return [given.get(one["parameter_name"], one.get("parameter_default"))
            for one in described["/synthesize"]["parameters"]]  # fmt: skip


def test_bad_arguments_are_answered_while_long_work_fills_the_queue(dataset):
    """Four trainings take all places of /teach: a fifth would wait for them, but its bad argument is told at once."""
    working = Endless(TrainingProgress(1, 1000, 0.1, 0.5))
    with serving(teach_dataset=working) as url:
        client = Client(url, verbose=False)
        jobs = [client.submit(dataset, api_name="/teach") for _ in range(4)]
        wait_until(lambda: working.steps)
        for bad, words in (({"seconds": 3600}, "seconds is 3600"), ({"images": 1.5}, "images is 1.5")):
            with pytest.raises(ValidationError, match=words):
                client.submit(dataset, **bad, api_name="/teach").result(timeout=10)
        with pytest.raises(ValidationError, match="dataset is 'abc': give a file"):
            client.submit("abc", api_name="/teach").result(timeout=10)
        assert not working.ended.is_set()
        for job in jobs:
            job.cancel()


def test_models_lists_weights_and_targets(client):
    models = {model["name"]: model for model in client.predict(api_name="/models")}
    assert models["emitdiff-mini"]["defaults"]["num_inference_steps"] == 4
    assert "left lung" in models["textdiff-mini"]["targets"]


@pytest.fixture
def dataset(tmp_path):
    """A zip that the fakes take for a dataset folder."""
    with zipfile.ZipFile(tmp_path / "my-data.zip", "w") as zipped:
        zipped.writestr("my-data/dataset.json", "{}")
    return handle_file(str(tmp_path / "my-data.zip"))


def test_a_dataset_trains_a_head_that_others_take(client, example, dataset):
    head, record = client.predict(dataset, label="lesion", seconds=9, api_name="/teach")
    assert head.endswith("lesion.safetensors") and record["seconds"] == 9 and record["dice"] == 0.8
    assert "Research use only" in record["notice"]
    _, result = client.predict(handle_file(str(example.image)), "lesion", head=handle_file(head), api_name="/segment")
    assert result["target"] == "lesion"
    assert client.predict(dataset, seconds=None, api_name="/teach")[1]["seconds"] == 60, "None is the default"
    measures = client.predict(dataset, text="all", limit=3, head=handle_file(head), api_name="/evaluate")
    assert measures["n"] == 3 and measures["text"] == "all" and measures["checkpoint"] == "lesion.safetensors"


@pytest.mark.parametrize(
    ("endpoint", "changes", "words"),
    [
        ("/teach", {"seconds": 3600}, "seconds is 3600: give a number from 5 to 300"),
        ("/teach", {"images": 0}, "images is 0"),
        ("/teach", {"checkpoint": "somebody/else"}, "give one of textdiff-mini"),
        ("/evaluate", {"limit": 5000}, "limit is 5000"),
        ("/evaluate", {"threshold": 2}, "threshold is 2"),
    ],
)
def test_a_server_takes_only_so_much_at_once(client, dataset, endpoint, changes, words):
    with pytest.raises((AppError, ValidationError), match=words):
        client.predict(dataset, **changes, api_name=endpoint)


def test_a_head_is_a_file_of_weights(client, example, dataset):
    with pytest.raises(ValidationError, match="not a .safetensors file"):
        client.predict(dataset, head=handle_file(str(example.image)), api_name="/evaluate")


def test_what_is_said_of_a_scan_reaches_callers(client, tmp_path):
    import nibabel

    lost = nibabel.Nifti1Image(np.random.default_rng(0).integers(0, 99, (64, 64, 3, 2)).astype(np.int16), None)
    nibabel.save(lost, tmp_path / "lost.nii.gz")  # neither an orientation nor one volume
    file = handle_file(str(tmp_path / "lost.nii.gz"))
    answers = [
        client.predict(file, "lung", api_name="/segment")[1],
        client.predict(file, api_name="/edges")[1],
        client.predict(file, "X-ray, chest", api_name="/synthesize")[1],
    ]
    answers.append(answers[2]["images"][0]["settings"])
    for answer in answers:
        assert [words in " ".join(answer["warnings"]) for words in ("no orientation", "2 volumes")] == [True, True]
    _, chosen = client.predict(file, time_point=2, api_name="/edges")
    assert len(chosen["warnings"]) == 1
    with pytest.raises(AppError, match="2 volume"):
        client.predict(file, time_point=3, api_name="/edges")
