"""The turns of a training: others use the device between them, and neither its time nor its random numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from emitdiff.turns import Turns


class TrainingTurns:
    """Takes `turns` for each step of a training with `seed` on `device`; `clock` stands still while others have one."""

    def __init__(self, turns: Turns, seed: int, device: torch.device) -> None:
        self._turns, self._waited = turns, 0.0
        self._cards = [device] if device.type == "cuda" else []
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """The random numbers of the turns to come begin anew."""
        with torch.random.fork_rng(self._cards, device_type="cuda"):
            torch.manual_seed(seed)
            self._keep_random_state()

    def clock(self) -> float:
        """Seconds, as `time.monotonic` counts them, but for those in that the training had to wait."""
        return time.monotonic() - self._waited

    @contextmanager
    def turn(self) -> Iterator[None]:
        asked = time.monotonic()
        with self._turns, torch.random.fork_rng(self._cards, device_type="cuda"):
            self._waited += time.monotonic() - asked
            torch.set_rng_state(self._state)
            for card, state in zip(self._cards, self._card_states, strict=True):
                torch.cuda.set_rng_state(state, card)
            try:
                yield
            finally:
                self._keep_random_state()

    def _keep_random_state(self) -> None:
        self._state = torch.get_rng_state()
        self._card_states = [torch.cuda.get_rng_state(card) for card in self._cards]
