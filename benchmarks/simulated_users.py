"""Many users at once, through gradio_client: errors, answers that are another's, and memory over time.

    python -m benchmarks.simulated_users --users 20 --minutes 5

Starts the application as a process of its own, asks for every answer once, alone, and then lets the users ask for the
same in random order, one request after the other each. An answer must be pixel for pixel, and figure for figure, the
one given alone; one that was expected by another request is counted as mixed up. The memory of the application's
process (Linux) is read every second: the median of the last fifth of the time is set beside that of the fifth after
the warm-up, which is the first fifth. Ends with status 1 where anything failed, or memory rose by more than 5 % or
could not be read.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from gradio_client import Client, handle_file
from PIL import Image

from benchmarks.application import application
from emitdiff.ui.examples import read_examples

RISE = 0.05  # of memory, that is not called level any more
PATIENCE = 300  # seconds for an answer of the server, before it is an error
TIMES = ("seconds",)  # what differs from one answer to the next


@dataclass(frozen=True)
class Request:
    """One question: `share` says how often it is asked beside the others."""

    endpoint: str
    arguments: dict[str, Any]
    share: int


@dataclass
class Report:
    """What the users met: `answers` by endpoint, `waits` in seconds, `memory` as (seconds, MiB)."""

    answers: Counter = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    mixed_up: int = 0
    different: int = 0
    waits: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)

    @property
    def levels(self) -> tuple[float, float] | None:
        """Median MiB of the fifth after the warm-up and of the last fifth; None where memory was not read, or not for
        long enough."""
        if len(self.memory) < 10:
            return None
        end = self.memory[-1][0]
        parts = ([used for second, used in self.memory if low * end <= second <= high * end]
                 for low, high in ((0.2, 0.4), (0.8, 1.0)))  # fmt: skip
        return tuple(median(part) for part in parts)

    @property
    def answered(self) -> bool:
        """Everybody got an own answer, and the right one."""
        return not self.errors and not self.mixed_up and not self.different

    @property
    def good(self) -> bool:
        """Answered, and memory is known to be level."""
        return self.answered and self.levels is not None and self.levels[1] <= (1 + RISE) * self.levels[0]

    def lines(self) -> Iterator[str]:
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.answers.items()))
        yield f"answers     {sum(self.answers.values())} ({kinds})"
        if self.waits:
            yield f"wait        median {median(self.waits):.1f} s, longest {max(self.waits):.1f} s"
        yield "\n            ".join([f"errors      {len(self.errors)}", *sorted(set(self.errors))])
        yield f"mixed up    {self.mixed_up}"
        yield f"different   {self.different}"
        if self.levels is None:
            yield "memory      not known: the system does not tell it, or the time was too short"
        else:
            before, after = self.levels
            yield f"memory      {before:.0f} MiB after warm-up, {after:.0f} MiB at the end ({after / before - 1:+.1%})"


def list_requests() -> list[Request]:
    """Questions about the page's examples whose answers all differ."""
    requests = []
    for number, card in enumerate(read_examples()):
        image, mask = handle_file(str(card.image)), handle_file(str(card.mask))
        for detector, structure in (("soft", 1.0), ("canny", 1.0), ("soft", 0.7)):
            arguments = {"image": image, "mask": mask, "detector": detector, "structure": structure}
            requests.append(Request("/edges", arguments, 3))
        for threshold in (0.5, 0.3):
            requests.append(Request("/segment", {"image": image, "text": card.text, "threshold": threshold}, 3))
        settings = {"seed": 10 * number, "num_inference_steps": 2}
        words = {"image": image, "mask": mask, "prompt": f"{card.modality}, {card.organ}"}
        requests.append(Request("/synthesize", {**words, **settings}, 1))
    return requests


def connect(address: str, folder: str) -> Client:
    """A client that waits long, as users do where many ask; its files go into `folder`, which must be its own: there
    they are called by their content, and are removed once they are read."""
    return Client(address, verbose=False, download_files=folder, httpx_kwargs={"timeout": PATIENCE})


def ask(client: Client, request: Request) -> str:
    """A fingerprint of the answer: pixels of its files and its figures, without times."""
    answer = client.predict(**request.arguments, api_name=request.endpoint)
    return hashlib.sha256(json.dumps(_facts(answer), sort_keys=True).encode()).hexdigest()


def _facts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _facts(part) for key, part in value.items() if key not in TIMES}
    if isinstance(value, list | tuple):
        return [_facts(part) for part in value]
    if isinstance(value, str) and value.endswith(".png") and Path(value).is_file():
        with Image.open(value) as picture:
            pixels = np.asarray(picture)
        os.remove(value)
        return [list(pixels.shape), hashlib.sha256(pixels.tobytes()).hexdigest()]
    return value


def simulate(address: str, users: int, seconds: float, requests: list[Request], pid: int | None = None) -> Report:
    """Lets `users` ask at `address` for `seconds`; `pid` is the process whose memory is read, where it is known."""
    report, books = Report(), threading.Lock()
    with tempfile.TemporaryDirectory(prefix="emitdiff_users_") as folder:
        alone = connect(address, folder)
        expected = [ask(alone, request) for request in requests]
        started = time.monotonic()
        threads = [
            threading.Thread(target=_use, args=(address, folder, number, started + seconds, requests, expected, report,
                                                books), daemon=True)
            for number in range(users)
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if pid and (used := memory_of(pid)):
                report.memory.append((time.monotonic() - started, used))
            time.sleep(1)
    return report


def _use(address: str, folder: str, number: int, until: float, requests: list[Request], expected: list[str],
         report: Report, books: threading.Lock) -> None:  # fmt: skip
    """One user, until the time is over; asks once at least."""
    choice, client = random.Random(number), None
    shares = [request.share for request in requests]
    while True:
        (index,) = choice.choices(range(len(requests)), shares)
        started, found, error = time.monotonic(), None, None
        try:
            client = client or connect(address, f"{folder}/{number}")
            found = ask(client, requests[index])
        except Exception as failure:
            error = f"{requests[index].endpoint}: {type(failure).__name__}: {failure}"
        with books:
            report.waits.append(time.monotonic() - started)
            report.answers[requests[index].endpoint] += 1
            if error:
                report.errors.append(error)
            elif found != expected[index]:
                report.mixed_up += found in expected
                report.different += found not in expected
        if time.monotonic() > until:
            return


def memory_of(pid: int) -> float | None:
    """Resident MiB of a process; None where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5)
    arguments = parser.parse_args()
    with application() as (address, pid):
        report = simulate(address, arguments.users, 60 * arguments.minutes, list_requests(), pid)
    print(f"{arguments.users} users, {arguments.minutes:g} minutes")
    print("\n".join(report.lines()))
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
