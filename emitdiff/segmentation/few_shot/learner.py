"""A head that learns, and can go on learning later from where it was."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from torch import nn

from emitdiff.devices import choose_mixed_precision
from emitdiff.segmentation.few_shot.recipe import Recipe
from emitdiff.segmentation.model.textdiff import TextDiff
from emitdiff.segmentation.training.schedule import learning_rate, update_average

WARM_UP = 20  # steps


class Learner:
    """A head with its running average and its optimizer. `step` counts the steps taken so far; `dice` and `preview` are
    what the average made of the image kept aside when it was looked at last, None before."""

    def __init__(self, head: TextDiff, recipe: Recipe) -> None:
        self.head, self.recipe = head.train(), recipe
        self.average = deepcopy(head).eval()
        self.optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
        self.step, self.losses = 0, list[float]()
        self.dice: float | None = None
        self.preview: np.ndarray | None = None

    @property
    def loss(self) -> float:
        """The mean of the last steps."""
        return float(np.mean(self.losses))

    def learn(self, loss: torch.Tensor, progress: float) -> None:
        """One step down the gradient of `loss`; `progress` in 0..1 of all steps sets how far."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe.rate, self.step, progress, WARM_UP)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        self.optimizer.step()
        update_average(self.average, self.head, self.step, self.recipe.average)
        self.losses = [*self.losses[-19:], loss.item()]
        self.step += 1

    def copy(self) -> Learner:
        """As it is now, whatever this one learns afterwards."""
        return deepcopy(self)


def half_precision(device: torch.device) -> torch.autocast:
    """Where the hardware computes it; elsewhere it would be slower."""
    return torch.autocast(device.type, torch.bfloat16, choose_mixed_precision(device) == "bf16")
