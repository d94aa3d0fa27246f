"""The steps of a training that must end in a given time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

VALIDATIONS = 8  # at the validation image on the way


class StepSchedule:
    """Counts steps and seconds: `steps` is the number wanted, or fewer where the time does not suffice. It begins with
    the step `first`, where others were taken before."""

    def __init__(
        self, wanted: int, started: float, seconds: float, first: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.steps = self.wanted = wanted
        self.started, self.limit = started, 0.93 * seconds
        self.first = self.step = first
        self.clock, self._training_started, self._validations = clock, clock(), 0

    @property
    def seconds(self) -> float:
        return self.clock() - self.started

    @property
    def progress(self) -> float:
        """The part of all steps that was taken, in 0..1."""
        return self.step / self.steps

    @property
    def share(self) -> float:
        """The same of those since `first`."""
        return (self.step - self.first) / max(1, self.steps - self.first)

    def has_next_step(self) -> bool:
        """Whether another step follows; the plan is cut to what the time allows at the pace so far."""
        if self.step > self.first:
            each = (self.clock() - self._training_started) / (self.step - self.first)
            fits = self.step + max(0, math.floor((self.limit - self.seconds) / each))
            self.steps = min(self.wanted, fits)
        return self.step < self.steps

    def validation_due(self) -> bool:
        """Whether it is time to look at the validation image."""
        due = int(self.share * VALIDATIONS)
        self._validations, before = due, self._validations
        return due > before
