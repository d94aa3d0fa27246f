"""One step of the optimizer."""

import torch
from diffusers.training_utils import EMAModel

from emitdiff.synthesis.training.optimization import MAX_GRADIENT_NORM, optimizer_step


def test_a_step_goes_down_the_clipped_gradient_and_the_average_follows():
    torch.manual_seed(0)
    network, image = torch.nn.Linear(4, 1), torch.randn(8, 4)
    before = network.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    average = EMAModel(network.parameters(), decay=0.5)
    for _ in range(2):  # what an earlier step left in the gradients must not count
        (100 * network(image).square().mean()).backward()
    optimizer_step(100 * network(image).square().mean(), network, optimizer, average, learning_rate=0.1)
    moved = network.weight.detach() - before
    assert torch.cat([part.grad.flatten() for part in network.parameters()]).norm() <= MAX_GRADIENT_NORM + 1e-5
    assert torch.allclose(moved, -0.1 * network.weight.grad, atol=1e-6), "with this rate, not the optimizer's first"
    assert not torch.equal(average.shadow_params[0], before)
