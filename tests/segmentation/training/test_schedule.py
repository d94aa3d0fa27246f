import pytest
import torch

from emitdiff.segmentation.training.schedule import learning_rate, update_average


def test_the_rate_climbs_to_its_peak_and_falls_to_a_fiftieth():
    climbing = [learning_rate(2.0, step, 0, warm_up=10) for step in range(12)]
    assert climbing[:3] == pytest.approx([0.2, 0.4, 0.6]) and climbing[9:] == [2, 2, 2]
    falling = [learning_rate(2.0, 1000, progress / 10) for progress in range(11)]
    assert all(later < earlier for earlier, later in zip(falling, falling[1:], strict=False))
    assert falling[0] == 2 and falling[5] == pytest.approx(2 * 0.51) and falling[-1] == pytest.approx(2 / 50)
    assert learning_rate(2.0, 1000, 1.5) == falling[-1], "a last step may end after the time"


def networks():
    """An average that begins at 0 and what it follows, which is 1 everywhere."""
    pair = [torch.nn.BatchNorm2d(3) for _ in range(2)]
    for network, value in zip(pair, (0.0, 1.0), strict=True):
        for tensor in (*network.parameters(), network.running_mean):
            torch.nn.init.constant_(tensor, value)
    return pair


def test_the_average_soon_forgets_where_it_began_and_then_remembers_long():
    average, model = networks()
    update_average(average, model, step=0)
    assert average.weight.min() > 0.85
    average, _ = networks()
    update_average(average, model, step=10**6)
    assert average.weight.max() < 0.0021
    assert torch.equal(average.running_mean, model.running_mean), "counts are not averaged"


def test_the_average_follows_and_leaves_the_model_alone():
    average, model = networks()
    for step in range(60):
        update_average(average, model, step)
    assert torch.allclose(average.weight, model.weight, atol=1e-3) and torch.equal(model.weight, torch.ones(3))
    assert average.weight.grad_fn is None
