import numpy as np
import torch
from diffusers import AutoencoderTiny

from emitdiff.images import image_to_tensor
from emitdiff.synthesis.training import autoencoder as training
from emitdiff.synthesis.training.drawn_views import coloured, drawn_picture, stained


@torch.no_grad()
def round_trip(model: AutoencoderTiny, picture: np.ndarray) -> np.ndarray:
    """What comes back, in 0..255 but not clipped: an untrained network does not meet the brightness."""
    return (model.decoder(model.encoder(image_to_tensor(picture)))[0].permute(1, 2, 0).numpy() + 1) * 127.5


def chroma(picture: np.ndarray) -> np.ndarray:
    return picture.astype(float) - picture.mean(-1, keepdims=True)


def test_transformed_latents_and_images_stay_together():
    rng = np.random.default_rng(0)
    cells = torch.rand(2, 1, 16, 16)
    image = cells.repeat_interleave(8, 2).repeat_interleave(8, 3)  # each cell is what its latent says
    sizes = set()
    for _ in range(20):
        latents, target = training.transformed(cells, image, rng)
        means = torch.nn.functional.avg_pool2d(target, 8)
        assert target.shape[-1] == 8 * latents.shape[-1]
        assert torch.corrcoef(torch.stack([latents.flatten(), means.flatten()]))[0, 1] > 0.9
        sizes.add(latents.shape[-1])
    assert len(sizes) > 3


def test_colour_passes_an_untrained_autoencoder():
    torch.manual_seed(0)
    model = training.new_autoencoder().eval()
    training.open_colour_path(model)
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:32, :, 0], picture[32:, :32, 1], picture[32:, 32:, 2] = 200, 150, 180
    wanted, found = (chroma(image)[12:20, 12:20].mean((0, 1)) for image in (picture, round_trip(model, picture)))
    assert np.abs(found - wanted).max() < 0.2 * np.abs(wanted).max()
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (64, 64, 1), np.uint8), 3, axis=2)
    with torch.no_grad():
        assert model.encoder(image_to_tensor(grey))[:, -2:].abs().max() < 1e-5


def test_views_with_colour_keep_the_structure():
    rng = np.random.default_rng(1)
    view = np.zeros((64, 64, 3), np.uint8)
    view[20:44, 20:44] = 200
    for _ in range(10):
        for picture in (coloured(view, rng), stained(view, view[:, ::-1], rng)):
            assert picture.shape == view.shape and picture.dtype == np.uint8
            inside, outside = picture[22:42, 22:42].reshape(-1, 3), picture[:18].reshape(-1, 3)
            assert np.ptp(inside, axis=0).max() == 0 and (inside[0] != outside[0]).any()
    drawn = [drawn_picture(64, rng) for _ in range(10)]
    assert all(picture.shape == (64, 64, 3) and picture.std() > 1 for picture in drawn)
    assert any((chroma(picture) != 0).any() for picture in drawn)
