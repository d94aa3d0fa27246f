"""Training views made by worker processes while the GPU works."""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

WAITING = 64  # made and not yet used, at most
PREFETCHED = 4  # of them in each worker


class Stream:
    """What `make` gives, without end, from `workers` processes, in no order that repeats.

    Args:
        make: called with a random generator of its own in each process; gives tensors and what can be pickled.
        device: where its tensors are to go: they are put where they can be copied there without waiting.
    """

    def __init__(self, make: Callable[[np.random.Generator], Any], workers: int, seed: int, device: torch.device):
        self.made: queue.Queue[Any] = queue.Queue(WAITING)
        self.closed = Event()
        # Forked where that is possible, which takes no time and no copies of the images; from this thread, while no
        # other one imports anything. The processes do not touch the GPU.
        loader = DataLoader(
            Endless(make, seed), batch_size=None, num_workers=workers, prefetch_factor=PREFETCHED,
            worker_init_fn=use_one_thread, pin_memory=device.type == "cuda",
            multiprocessing_context="fork" if sys.platform == "linux" else "spawn",
        )  # fmt: skip
        self.thread = Thread(target=self._collect, args=(iter(loader),), daemon=True)
        self.thread.start()

    def _collect(self, results: Iterator[Any]) -> None:
        try:
            for result in results:
                while not self.closed.is_set():
                    try:
                        self.made.put(result, timeout=0.1)
                        break
                    except queue.Full:
                        continue
                if self.closed.is_set():
                    return
        except Exception as error:
            self.made.put(error)

    def next(self) -> Any:
        """The next result, waited for. Raises what a worker raised."""
        result = self.made.get()
        if isinstance(result, Exception):
            raise result
        return result

    def waiting(self) -> int:
        """How many results are there."""
        return self.made.qsize()

    def close(self) -> None:
        self.closed.set()
        self.thread.join(30)


class Endless(IterableDataset):
    """Calls `make` for ever, with other random numbers in every worker."""

    def __init__(self, make: Callable[[np.random.Generator], Any], seed: int):
        self.make, self.seed = make, seed

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        while True:
            yield self.make(rng)


def use_one_thread(worker: int) -> None:
    """There are as many processes as cores."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
