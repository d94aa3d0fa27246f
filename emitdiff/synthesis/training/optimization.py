"""One step of the optimizer, as all networks of the synthesis are trained."""

from __future__ import annotations

from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.optim import Optimizer

MAX_GRADIENT_NORM = 1.0


def optimizer_step(
    loss: Tensor, network: nn.Module, optimizer: Optimizer, average: EMAModel, learning_rate: float
) -> None:
    """Moves the weights of `network` down the clipped gradient of `loss`; their `average` follows."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
    optimizer.step()
    average.step(network.parameters())
