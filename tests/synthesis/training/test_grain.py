import numpy as np
import pytest
import torch
import torch.nn.functional as F

from emitdiff.synthesis.training import grain as training
from emitdiff.synthesis.training.autoencoder import new_autoencoder
from emitdiff.synthesis.training.corpus import load_corpus
from emitdiff.training_state import time_spent


def noise(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 1, 128, 128, generator=generator).expand(-1, 3, -1, -1) * 0.3


def test_the_spectrum_loss_tells_blur_and_strength_but_not_which_noise():
    grain, blurred = noise(0), F.avg_pool2d(noise(0), 3, 1, 1)
    spectrum = training.log_spectrum(grain)
    assert training.spectrum_loss(grain, spectrum) == 0
    assert training.spectrum_loss(noise(1), spectrum) < 0.3 < 1 < training.spectrum_loss(blurred, spectrum)
    assert training.spectrum_loss(2 * grain, spectrum) == pytest.approx(np.log(4), abs=0.05)


def test_the_spectrum_loss_tells_direction():
    across, alike = (F.avg_pool2d(noise(seed), (1, 5), 1, (0, 2)) for seed in (0, 1))
    spectrum = training.log_spectrum(across)
    assert training.spectrum_loss(across.mT, spectrum) > 2 * training.spectrum_loss(alike, spectrum)


def test_the_local_loss_tells_where_grain_is_and_leaves_edges_out():
    target = noise(0) * 0.2
    target[..., :64] *= 0.1
    moved = target.flip(-1)
    assert training.local_loss(noise(1) * 0.2 * (target.abs().amax((0, 1, 2)) > 0.1), target) < training.local_loss(
        moved, target
    )
    edge = torch.zeros(1, 3, 64, 64)
    edge[..., 32:] = 1.0
    flat = training.flatness(edge)
    assert flat[..., 32, 4] == 1 and flat[..., 32, 32] < 0.2


def test_blurring_keeps_the_mean():
    image = torch.rand(2, 3, 32, 32)
    smooth = training.blurred(image, 1.0)
    assert smooth.shape == image.shape and smooth.std() < 0.7 * image.std()
    assert smooth.mean() == pytest.approx(float(image.mean()), abs=0.01)


def test_training_leaves_a_network_and_goes_on_where_it_was(dataset_folder, tmp_path):
    corpus = load_corpus((dataset_folder,), 0.2, 0)
    torch.manual_seed(0)
    autoencoder = new_autoencoder().eval()
    network = training.train_grain(corpus, autoencoder, tmp_path / "grain.pt", 0.05, seed=0)
    seconds, steps = time_spent(tmp_path / "grain.pt")
    assert steps > 0 and not network.training
    longer = (seconds + 2) / 60  # of what was spent: a step may take its time
    training.train_grain(corpus, autoencoder, tmp_path / "grain.pt", longer, seed=0)
    assert time_spent(tmp_path / "grain.pt")[1] > steps


def test_a_batch_that_is_drawn_again_brings_the_spectrum_of_its_target(dataset_folder):
    torch.manual_seed(0)
    autoencoder, corpus = new_autoencoder().eval(), load_corpus((dataset_folder,), 0.2, 0)
    views = training.DecodedViews(corpus, autoencoder, np.random.default_rng(0))
    first, again = views.draw(0), views.draw(1)
    assert again is first, "one batch, used twice"
    target, decoded, spectrum = again
    assert torch.equal(spectrum, training.log_spectrum(target)) and not torch.equal(target, decoded)
