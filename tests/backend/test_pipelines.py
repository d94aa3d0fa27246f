from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from cachetools import LRUCache

from emitdiff.backend import pipelines
from emitdiff.errors import EmitDiffError
from emitdiff.synthesis import loading


def test_weights_are_loaded_once_for_everybody(request_of, monkeypatch):
    begun, second, everybody = [], threading.Event(), threading.Barrier(3)

    def begin(name):  # and give the others time to begin too
        begun.append(name)
        if len(begun) > 1:
            second.set()
        second.wait(0.5)

    def ask(_):
        everybody.wait(30)
        return pipelines.synthesizer(request_of.checkpoint)

    pipelines.synthesizer.cache_clear()  # whatever other tests have loaded
    monkeypatch.setattr(loading, "fetch_synthesizer", begin)
    with ThreadPoolExecutor(3) as pool:
        given = list(pool.map(ask, range(3)))
    assert len(begun) == 1 and len({id(pipeline) for pipeline in given}) == 1


def test_nobody_waits_for_weights_that_others_load(request_of, monkeypatch):
    ready = pipelines.synthesizer(request_of.checkpoint)
    begun, loaded, answered = (threading.Event() for _ in range(3))
    kept = LRUCache(2)
    kept.update(pipelines.synthesizer.cache)
    monkeypatch.setattr(pipelines.synthesizer, "cache", kept)
    monkeypatch.setattr(loading, "fetch_synthesizer", lambda name: None)
    monkeypatch.setattr(loading, "build_synthesizer", lambda name: begun.set() or loaded.wait(30))
    waiting = threading.Thread(target=lambda: (pipelines.synthesizer(request_of.checkpoint), answered.set()))
    slow = threading.Thread(target=pipelines.synthesizer, args=["slow"])
    slow.start()
    assert begun.wait(10)
    waiting.start()
    assert answered.wait(10)
    loaded.set()
    slow.join()
    waiting.join()
    assert pipelines.synthesizer(request_of.checkpoint) is ready


def test_weights_that_could_not_be_loaded_are_tried_again(tmp_path):
    file = tmp_path / "head.safetensors"
    with pytest.raises(EmitDiffError, match="There is no file"):
        pipelines.segmenter(str(file))
    file.touch()
    with pytest.raises(EmitDiffError, match="cannot be read"):
        pipelines.segmenter(str(file))


def test_of_each_kind_the_weights_used_last_stay(monkeypatch):
    loaded = []
    monkeypatch.setattr(pipelines.synthesizer, "cache", LRUCache(pipelines.synthesizer.cache.maxsize))
    monkeypatch.setattr(loading, "fetch_synthesizer", lambda name: None)
    monkeypatch.setattr(loading, "build_synthesizer", lambda name: loaded.append(name) or SimpleNamespace(name=name))
    for name in ("a", "b", "a", "c", "a", "b"):
        pipeline = pipelines.synthesizer(name)
        assert pipeline.name == name and pipeline.turns is pipelines.device
    assert loaded == ["a", "b", "c", "b"]


def test_a_head_from_elsewhere_fetches_no_weights(calls, tmp_path):
    import torch
    from safetensors.torch import save_file

    from emitdiff.segmentation.few_shot.head import KIND, REQUIRED_KEYS

    card = {**dict.fromkeys(REQUIRED_KEYS, ""), "checkpoint": "somebody/weights", "targets": ["disc"], "config": {}}
    card |= {"resolution": 256, "cell": 4}
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"kind": KIND, "card": json.dumps(card)})
    with pytest.raises(EmitDiffError, match="somebody/weights, which are not among"):
        calls.segment(np.zeros((32, 32, 3), np.uint8), "disc", 0.5, str(tmp_path / "a.safetensors"))


def test_two_kinds_of_weights_are_loaded_at_once_without_harm():
    """transformers builds under a default device that threads share: built side by side, tensors come out empty."""
    loads = (lambda: pipelines.synthesizer("emitdiff-mini"), lambda: pipelines.segmenter("textdiff-mini"))
    for _ in range(3):
        pipelines.synthesizer.cache_clear()
        pipelines.segmenter.cache_clear()
        with ThreadPoolExecutor(2) as pool:
            made = list(pool.map(lambda load: load(), loads))
        parts = (*made[0].pipe.components.values(), made[1].features, made[1].text, made[1].head)
        modules = [part for part in parts if hasattr(part, "parameters")]
        assert not any(weight.is_meta for module in modules for weight in module.parameters())


IMPORTING = """
import subprocess
import sys
import threading
from emitdiff.backend import pipelines, services
failures = []
def run(load):
    try:
        load()
    except BaseException as error:
        failures.append(error)
loads = (lambda: pipelines.synthesizer("emitdiff-mini"), lambda: pipelines.segmenter("textdiff-mini"),
         lambda: services.token_count("X-ray, chest, many more words", "emitdiff-mini"), pipelines.import_measures)
threads = [threading.Thread(target=run, args=(load,)) for load in loads]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not failures, failures
"""


@pytest.mark.slow
def test_libraries_are_imported_by_one_thread_at_a_time():
    """In a fresh process: what was imported once is no longer in danger."""
    done = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def test_weights_are_said_to_be_loaded_once_they_are(request_of, monkeypatch):
    monkeypatch.setattr(pipelines.synthesizer, "cache", LRUCache(2))
    assert not pipelines.is_loaded(request_of.checkpoint)
    pipelines.synthesizer(request_of.checkpoint)
    assert pipelines.is_loaded(request_of.checkpoint)
