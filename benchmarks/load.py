"""How long clients wait while others ask for long work, and the memory of the server.

    python -m benchmarks.load --clients 10 --seconds 120
    python -m benchmarks.load http://127.0.0.1:7860 --pid 4711

Without an address the application is started as a process of its own. Every fifth client asks for long work again and
again, by turns an evaluation of 30 images and 8 painted images; the others ask for the mask of one image each, with a
second of rest in between. Ends with status 1 where anything failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np
from gradio_client import Client, handle_file
from PIL import Image

from benchmarks.application import application
from benchmarks.simulated_users import connect, memory_of
from emitdiff.datasets.archive import pack_folder
from emitdiff.ui.examples import read_examples

LONG_EACH = 5  # the first of so many clients asks for long work
IMAGES = 30  # of the dataset that is evaluated


@dataclass
class Waits:
    """Seconds until the answer, by what was asked for; what failed; and the server's MiB, second by second."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        for asked, waits in sorted(self.seconds.items()):
            p50, p95 = percentiles(waits)
            yield f"{asked:<24}{len(waits):>5} answers, p50 {p50:.2f} s, p95 {p95:.2f} s, longest {max(waits):.2f} s"
        if self.memory:
            yield f"memory{'':<18}{self.memory[0]:.0f} MiB at first, {max(self.memory):.0f} MiB at most"
        yield "\n".join([f"errors{'':<18}{len(self.errors)}", *sorted(set(self.errors))])


def percentiles(waits: list[float]) -> tuple[float, float]:
    """The 50th and the 95th."""
    cuts = quantiles(waits, n=20, method="inclusive") if len(waits) > 1 else waits * 19
    return cuts[9], cuts[18]


def draw_dataset(folder: Path, count: int = IMAGES) -> Path:
    """A ZIP with `count` liver CTs that are all different, drawn from the page's example."""
    card = next(card for card in read_examples() if "CT" in card.modality)
    image, mask = (np.asarray(Image.open(file)) for file in (card.image, card.mask))
    data, rng = folder / "drawn", np.random.default_rng(0)
    for name in ("images", "masks"):
        (data / name).mkdir(parents=True)
    rows = ["file_name,mask,group"]
    for number in range(count):
        noisy = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(data / "images" / f"{number}.png")
        Image.fromarray((mask > 0).astype(np.uint8)).save(data / "masks" / f"{number}.png")
        rows.append(f"images/{number}.png,masks/{number}.png,{number}")
    info = {"name": "drawn", "modality": "CT", "organ": "abdomen", "labels": {"background": 0, "liver": 1}}
    (data / "dataset.json").write_text(json.dumps(info))
    (data / "metadata.csv").write_text("\n".join(rows))
    return pack_folder(data, folder / "drawn.zip", "drawn")


def long_work(archive: Path) -> list[tuple[str, dict[str, Any]]]:
    """Endpoint and arguments of each."""
    card = read_examples()[0]
    words = {"image": handle_file(str(card.image)), "prompt": f"{card.modality}, {card.organ}", "num_images": 8}
    return [("/evaluate", {"dataset": handle_file(str(archive)), "limit": IMAGES}), ("/synthesize", words)]


def measure(address: str, clients: int, seconds: float, pid: int | None = None) -> Waits:
    """Lets `clients` ask for `seconds`, each until its last answer; memory is that of the process `pid`."""
    waits = Waits()
    with tempfile.TemporaryDirectory(prefix="emitdiff_load_") as folder:
        work = long_work(draw_dataset(Path(folder)))
        _load_weights(connect(address, folder))
        until = time.monotonic() + seconds
        threads = [
            threading.Thread(target=_ask, args=(address, f"{folder}/{number}", number, until, work, waits), daemon=True)
            for number in range(clients)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if pid and (used := memory_of(pid)):
                waits.memory.append(used)
            time.sleep(1)
    return waits


def _load_weights(client: Client) -> None:
    card = read_examples()[0]
    client.predict(handle_file(str(card.image)), card.text, api_name="/segment")
    client.predict(prompt=f"{card.modality}, {card.organ}", structure=0, num_inference_steps=1, api_name="/synthesize")


def _ask(address: str, folder: str, number: int, until: float, work: list, waits: Waits) -> None:
    """One client, until the time is over; asks once at least."""
    cards, turn, is_long = read_examples(), number // LONG_EACH, number % LONG_EACH == 0
    client = connect(address, folder)
    while True:
        card = cards[(number + turn) % len(cards)]
        endpoint, given = "/segment", {"image": handle_file(str(card.image)), "text": card.text}
        if is_long:
            endpoint, given = work[turn % len(work)]
        started = time.monotonic()
        try:
            client.predict(**given, api_name=endpoint)
            waits.seconds[endpoint].append(time.monotonic() - started)
        except Exception as error:
            waits.errors.append(f"{endpoint}: {type(error).__name__}: {error}")
        turn += 1
        time.sleep(0 if is_long else 1)
        if time.monotonic() > until:
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", nargs="?")
    parser.add_argument("--pid", type=int, help="process of the server at the address, for its memory")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=120)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        address, pid = arguments.address, arguments.pid
        if not address:
            address, pid = stack.enter_context(application())
        waits = measure(address, arguments.clients, arguments.seconds, pid)
    print(f"{arguments.clients} clients, {arguments.seconds:g} seconds")
    print("\n".join(waits.lines()))
    return 1 if waits.errors else 0


if __name__ == "__main__":
    sys.exit(main())
