"""Time budget and checkpointed state of a training stage; a kill costs at most a minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from emitdiff.files import write_atomically

if TYPE_CHECKING:
    import torch

SAVE_EVERY_SECONDS = 60.0


class StageState:
    """One stage's modules and optimizers, the seconds spent and the steps done, in one file.

    `parts` maps names to anything with state_dict/load_state_dict. An existing file is loaded at once,
    its tensors onto `device`. What is set as `after_save` is called after every saving.
    """

    def __init__(self, path: Path, minutes: float, parts: dict[str, Any], device: str | torch.device = "cpu") -> None:
        import torch

        self.path, self.budget, self.parts = path, minutes * 60, parts
        self.after_save: Callable[[], None] | None = None
        self.seconds, self.steps = 0.0, 0
        if path.exists():
            stored = torch.load(path, weights_only=True, map_location=device)
            self.seconds, self.steps = stored.pop("seconds"), stored.pop("steps")
            for name, part in parts.items():
                part.load_state_dict(stored[name])

    @property
    def progress(self) -> float:
        """Part of the time budget that is spent, in [0, 1]."""
        return min(1.0, self.seconds / self.budget) if self.budget > 0 else 1.0

    def save(self) -> None:
        import torch

        self.path.parent.mkdir(parents=True, exist_ok=True)
        stored = {name: part.state_dict() for name, part in self.parts.items()}
        stored |= {"seconds": self.seconds, "steps": self.steps}
        write_atomically(self.path, lambda partial: torch.save(stored, partial))
        if self.after_save:
            self.after_save()

    def run(self, title: str) -> Iterator[int]:
        """Yields step numbers until the budget is spent, keeping the clock and saving once a minute."""
        saved = started = time.monotonic()
        spent_before = self.seconds
        with tqdm(total=round(self.budget), initial=round(self.seconds), unit="s", desc=title) as bar:
            self.bar = bar
            while self.seconds < self.budget:
                yield self.steps
                self.steps += 1
                now = time.monotonic()
                self.seconds = spent_before + now - started
                bar.update(round(self.seconds) - bar.n)
                if now - saved > SAVE_EVERY_SECONDS:
                    self.save()
                    saved = now
        self.save()


def time_spent(path: Path) -> tuple[float, int]:
    """(seconds, steps) of a state file; (0, 0) where there is none."""
    if not path.exists():
        return 0.0, 0
    import torch

    stored = torch.load(path, weights_only=True, mmap=True)
    return stored["seconds"], stored["steps"]
