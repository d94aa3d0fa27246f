"""Painting where ZeroGPU lends the card: in a process that is forked for it, through a stand-in of `spaces`.

With EMITDIFF_ASK_REGISTRY=1 pip brings the release that `deploy-space` asks for, and the same is done through it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

import emitdiff
from emitdiff import zero_gpu
from emitdiff.backend.painting import LONGEST, TO_BEGIN, painting_seconds
from emitdiff.commands.deployment import SPACES

HERE = Path(__file__).parent
STAND_IN = HERE / "stand_in"
DONE = ("images", "cancelled", "closed", "refused", "failing", "quota", "busy")
ROOT = Path(emitdiff.__file__).resolve().parents[1]


class Lender:
    """A stand-in of the service that lends cards: by what was being done, what it was asked for, in order."""

    def __init__(self):
        self.doing = "start"
        self.asked: dict[str, list[tuple[str, dict[str, str]]]] = {}
        lender = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):  # noqa: N802 - its name
                where = urlsplit(self.path)
                values = {name: value[0] for name, value in parse_qs(where.query).items()}
                status, body = lender.answer(where.path, values)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str, values: dict[str, str]) -> tuple[int, dict]:
        if path == "/begin":
            self.doing = values["what"]
        else:
            self.asked.setdefault(self.doing, []).append((path, values))
        if path == "/schedule" and self.doing == "quota":
            return 429, {"left": 3, "wait": 60}
        return 200, {"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "token"}

    def of(self, what: str, path: str) -> list[dict[str, str]]:
        return [values for where, values in self.asked.get(what, []) if where == path]


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """Where `spaces` lies."""
    if not os.environ.get("EMITDIFF_ASK_REGISTRY"):
        return STAND_IN
    folder = tmp_path_factory.mktemp("packages")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), SPACES]
    subprocess.run(pip, check=True, timeout=240)
    return folder


@pytest.fixture(scope="module")
def lender():
    lender = Lender()
    yield lender
    lender.server.shutdown()
    lender.server.server_close()


@pytest.fixture(scope="module")
def checkpoint(tiny_synthesis_folder, tmp_path_factory) -> Path:
    """The tiny weights, told to paint 64 x 64 pixels."""
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    shutil.copytree(tiny_synthesis_folder, folder)
    (folder / "emitdiff.json").write_text(json.dumps({"area": 64 * 64, "multiple": 8}))
    return folder


@pytest.fixture(scope="module")
def said(checkpoint, lender, package, tmp_path_factory) -> dict[str, dict]:
    """What came of everything that is done in a Space of its own."""
    group = tmp_path_factory.mktemp("group") / "cgroup"
    group.write_text("0::/space\n")
    env = {**os.environ, "SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": lender.address}
    env |= {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, package))), "OMP_NUM_THREADS": "1"}
    env |= {"ZEROGPU_PROC_SELF_CGROUP_PATH": str(group), "HOME": str(group.parent)}
    command = [sys.executable, str(HERE / "space.py"), str(checkpoint), *DONE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert not any("raised" in each for each in told.values()), (told, done.stderr[-2000:])
    return told


def test_the_process_with_the_card_paints_what_this_one_would(said, lender):
    came = said["images"]
    assert came["steps"] == 8 and came["previews"] == 4 and came["seeds"] == [4, 5] and came["same"] == [True, True]
    (allowed,) = lender.of("images", "/allow")
    assert int(allowed["pid"]) != came["pid"], "painted where no card is"
    (scheduled,) = lender.of("images", "/schedule")
    assert int(scheduled["durationSeconds"]) == round(painting_seconds(2, 4, 64, 64))
    assert len(lender.of("images", "/release")) == 1
    assert came["waits"] and came["chosen"] == "cpu" and came["device"].startswith("ZeroGPU for generating")
    assert came["loaded"] == [False, True]
    assert came["read"] == 1, "the first weights are read before anybody asks, once"


@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_a_run_that_is_given_up_ends_between_two_steps(said, lender, how):
    assert said["cancelled"]["seen"] == [False, False] and said["closed"]["first"] == "SamplingStep"
    assert said[how]["seconds"] < 20, "of 1000 steps"
    assert len(lender.of(how, "/release")) == 1, "the card is given back"


def test_what_does_not_fit_is_refused_before_a_card_is_asked_for(said, lender):
    assert "0 steps were asked for" in said["refused"]["settings"] and "image" in said["refused"]["image"]
    assert not lender.of("refused", "/schedule")


def test_what_goes_wrong_beside_the_card_is_told_in_the_same_words(said):
    assert said["failing"]["sentence"] == "Do this." and "not enough memory" in said["failing"]["memory"]
    assert said["failing"]["defect"] == "ZeroGPU worker error: KeyError"


def test_no_quota_is_a_sentence(said, lender):
    assert said["quota"]["sentence"].startswith("ZeroGPU quota exceeded: "), said
    assert not lender.of("quota", "/allow")


def test_it_is_not_forked_while_a_library_is_imported(said):
    assert said["busy"]["images"] == 1 and said["busy"]["forked"] == [False] and said["busy"]["free"]


def test_how_long_the_card_is_asked_for_grows_with_the_request_within_bounds():
    four = painting_seconds(4, 20, 512, 512)
    assert TO_BEGIN < painting_seconds(1, 20, 512, 512) < four < painting_seconds(4, 50, 512, 512) <= LONGEST
    assert painting_seconds(4, 20, 768, 768) > four
    assert painting_seconds(24, 1000, 4096, 4096) == LONGEST


def test_elsewhere_nothing_is_decorated_and_nothing_imported(monkeypatch):
    def task():
        yield 1

    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    assert zero_gpu.with_lent_card(lambda: 1.0)(task) is task and not zero_gpu.waits_for_card()
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setitem(sys.modules, "spaces", None)
    assert not zero_gpu.is_here(), "without its package there is nobody to ask"
