"""app.py as a process: up at once, nothing heavy imported before it is needed, wrong names answered with a sentence."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import httpx
import pytest

from benchmarks.application import ROOT, answering, application

HEAVY = {"torch", "diffusers", "transformers", "monai", "scipy"}


def test_app_is_a_page_long():
    assert len((ROOT / "app.py").read_text(encoding="utf-8").splitlines()) <= 40


def test_nothing_heavy_is_imported_before_the_page_is_built():
    code = (
        "import sys; from emitdiff.backend.services import build_callables; from emitdiff.ui.demo import build_demo;"
        "build_demo(build_callables('emitdiff-mini', 'textdiff-mini')); print(*sys.modules)"
    )
    modules = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not HEAVY & set(modules.split())


def processor_seconds() -> float:
    """Spent by the processes that were started here and have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system


def test_the_page_is_up_soon():
    """Measured in processor time and by the import of Gradio, as a busy machine is slow at both."""
    begun = processor_seconds()
    subprocess.run([sys.executable, "-c", "import gradio"], check=True)
    imported = processor_seconds()
    with application() as (address, _):
        assert "Research use only" in urllib.request.urlopen(address, timeout=60).read().decode()
    assert processor_seconds() - imported < 2 * (imported - begun), "a third more than Gradio alone on an idle machine"


def test_unknown_weights_are_answered_with_a_sentence():
    command = [sys.executable, "app.py", "--port", "7999", "--synthesis-checkpoint", "no-such-weights"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 2
    assert "no-such-weights" in answer.stderr and "Traceback" not in answer.stderr


@pytest.mark.parametrize("port", ["taken", "99999", "abc"])
def test_a_port_that_cannot_be_had_is_answered_with_a_sentence(port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        given = str(other.getsockname()[1]) if port == "taken" else port
        surroundings = os.environ | {"GRADIO_SERVER_PORT": given}
        command = [sys.executable, "app.py"]
        answer = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 2 and given in answer.stderr and "--port" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.fixture
def place(tmp_path):
    """(the surroundings of an application, where its temporary files lie)."""
    return {**os.environ, "TMPDIR": str(tmp_path), "HF_HUB_OFFLINE": "1"}, tmp_path


def heed_signals():
    """Whoever runs the tests in the background, or with nohup, hands down that these are ignored."""
    for one in (signal.SIGINT, signal.SIGHUP):
        signal.signal(one, signal.SIG_DFL)


def started(surroundings, *options):
    """(the process, its address) of app.py once its page is up."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "app.py", "--port", port, *options]
    app = subprocess.Popen(
        command, cwd=ROOT, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=heed_signals,
    )  # fmt: skip
    return app, answering(app, f"http://127.0.0.1:{port}")


def uploaded(address: str) -> Path:
    """Where a scan was stored that somebody sent."""
    answer = httpx.post(f"{address}/gradio_api/upload", files={"files": ("scan.dcm", b"DOE^JANE")})
    return Path(answer.json()[0])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_stays_of_a_server_that_was_asked_to_end(place, how):
    """As `docker stop` asks, which waits for ten seconds."""
    app, address = started(place[0])
    scan = uploaded(address)
    assert scan.exists() and scan.is_relative_to(place[1])
    with httpx.stream("GET", f"{address}/gradio_api/heartbeat/abc") as page:  # somebody has a page open
        next(page.iter_text())
        app.send_signal(how)
        said, _ = app.communicate(timeout=10)
    assert app.returncode == 0 and "Traceback" not in said, said
    assert not [path for path in place[1].rglob("*") if path.is_file()]


def test_what_a_killed_server_left_goes_with_the_next_start_and_what_another_has_stays(place):
    app, address = started(place[0])
    scan = uploaded(address)
    app.kill()
    app.communicate(timeout=10)
    assert scan.exists(), "or this test tells nothing"
    second, address = started(place[0])
    assert not scan.exists()
    of_second = uploaded(address)
    third, _ = started(place[0])
    assert of_second.exists()
    for one in (second, third):
        one.terminate()
        one.communicate(timeout=10)
