"""What whoever runs the server is told: the state of the weights, and numbers without anything of a caller."""

from __future__ import annotations

import re
import threading
import time
from contextlib import contextmanager
from functools import partial

import fakes
import httpx
import pytest
from gradio_client import Client, handle_file
from prometheus_client.parser import text_string_to_metric_families

from emitdiff.ui.demo import build_demo, launch_settings
from emitdiff.ui.serving.metrics import Metrics
from emitdiff.version import __version__


@contextmanager
def serving(**changes):
    """(address, client) of a page whose work is measured."""
    metrics = Metrics()
    calls = metrics.watch(fakes.fake_callables(**changes))
    demo = build_demo(calls)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_settings(calls, metrics=metrics))
    try:
        yield url, Client(url, verbose=False)
    finally:
        demo.close()


def told(url: str) -> dict[tuple[str, ...], float]:
    """Every sample of the page of metrics by its name and the values of its labels, in order."""
    families = text_string_to_metric_families(httpx.get(f"{url}metrics").text)
    return {(one.name, *sorted(one.labels.values())): one.value for family in families for one in family.samples}


def test_work_is_counted_and_timed_by_its_kind_and_end(example):
    with serving() as (url, client):
        image = handle_file(str(example.image))
        client.predict(image, "chest", num_images=2, api_name="/synthesize")
        client.predict(image, "lung", api_name="/segment")
        with pytest.raises(Exception, match="text"):
            client.predict(image, "", api_name="/segment")
        httpx.get(f"{url}config", headers={"Host": "evil.example"})
        found = told(url)
    assert found["emitdiff_painted_images_total",] == 2
    assert found["emitdiff_work_seconds_count", "done", "synthesize"] == 1
    assert found["emitdiff_work_seconds_count", "done", "segment"] == 1
    assert found["emitdiff_refusals_total", "host"] == 1 and found["emitdiff_answers_total", "4xx"] == 2
    assert found["emitdiff_answers_total", "2xx"] > 3 and found["emitdiff_uploaded_bytes_total",] > 1000
    assert found["process_resident_memory_bytes",] > 2**26


def test_work_that_fails_or_is_left_is_told_apart():
    metrics, left = Metrics(), Metrics()
    with pytest.raises(ValueError, match="bad"):
        metrics._timed("segment", partial(int, "bad"))()
    assert metrics.registry.get_sample_value("emitdiff_work_seconds_count", {"work": "segment", "end": "failed"}) == 1
    pieces = left._timed_pieces("teach", lambda: iter("abc"))()
    next(pieces)
    pieces.close()
    assert left.registry.get_sample_value("emitdiff_work_seconds_count", {"work": "teach", "end": "left"}) == 1


def test_health_is_told_while_a_generation_runs(example):
    begun, end = threading.Event(), threading.Event()

    def waiting(*given):
        begun.set()
        end.wait(30)
        yield from fakes.synthesize(*given)

    with serving(synthesize=waiting) as (url, client):
        job = client.submit(handle_file(str(example.image)), "chest", api_name="/synthesize")
        assert begun.wait(30)
        started = time.monotonic()
        answer = httpx.get(f"{url}health")
        assert time.monotonic() - started < 5
        running = told(url)["emitdiff_queue_running",]
        end.set()
        job.result()
    assert running == 1
    assert answer.json() == {
        "status": "ok",
        "version": __version__,
        "weights": {
            "synthesis": {"name": "emitdiff-mini", "status": "ready (embedded)", "loaded": True},
            "segmentation": {"name": "textdiff-mini", "status": "ready (embedded)", "loaded": False},
        },
    }


def test_nothing_of_a_caller_is_in_the_numbers(example, tmp_path):
    marked = tmp_path / "DOE^JANE.png"
    marked.write_bytes(example.image.read_bytes())
    with serving() as (url, client):
        client.predict(handle_file(str(marked)), "marked prompt", api_name="/synthesize")
        pages = [httpx.get(f"{url}{page}", headers={"X-Forwarded-For": "203.0.113.77"}).text for page in ("metrics",
                 "health", "metrics")]  # fmt: skip
    for page in pages:
        assert "emitdiff" in page
        assert not re.search(r"DOE|JANE|marked|203\.0|127\.0|\.png|/tmp", page)
