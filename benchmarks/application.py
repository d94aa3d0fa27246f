"""The application as a process of its own, for measurements and tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 60  # seconds until its page must be up


@contextmanager
def application(*command: str | Path, folder: Path = ROOT, path: str = "") -> Iterator[tuple[str, int]]:
    """(address, process id) of app.py, or of another `command` run in `folder` with `path` as PYTHONPATH, on the
    embedded weights, once its page is up; its files go when it ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    files = tempfile.mkdtemp(prefix="emitdiff_served_")
    surroundings = os.environ | {"HF_HUB_OFFLINE": "1", "TMPDIR": files, "GRADIO_SERVER_PORT": port}
    surroundings |= {"PYTHONPATH": path} if path else {}
    app = subprocess.Popen(list(command) or [sys.executable, "app.py"], cwd=folder, env=surroundings)
    try:
        yield answering(app, f"http://127.0.0.1:{port}"), app.pid
    finally:
        app.terminate()
        app.wait(30)
        shutil.rmtree(files, ignore_errors=True)


def answering(app: subprocess.Popen, address: str) -> str:
    """`address`, as soon as a page comes from there."""
    started = time.monotonic()
    while app.poll() is None and time.monotonic() - started < PATIENCE:
        try:
            urllib.request.urlopen(address, timeout=5).read()
            return address
        except OSError:
            time.sleep(0.1)
    raise SystemExit("The application ended, or a minute was over, before its page was up.")
