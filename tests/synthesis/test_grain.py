import numpy as np
import pytest
import torch

from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.grain import GRAIN_FOLDER, GrainNetwork, add_grain, grain_strength, load_grain
from emitdiff.synthesis.loading import load_synthesizer


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = GrainNetwork(widths=(4, 8, 8, 8)).eval()
    torch.nn.init.constant_(made.amplitudes.bias, 0.0)
    return made


def rough(image: torch.Tensor) -> float:
    return float((image[..., 1:] - image[..., :-1]).abs().mean())


def test_grain_depends_on_seed_and_image_alone(network):
    flat = torch.zeros(3, 40, 56)
    first, again, other = (add_grain(network, flat, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.allclose(first, other)
    assert first.shape == flat.shape and first.abs().max() <= 1
    assert torch.equal(first[0], first[1]) and torch.equal(first[0], first[2]), "grey stays grey"


def test_sides_that_eight_does_not_divide(network):
    assert add_grain(network, torch.zeros(3, 41, 51), 0).shape == (3, 41, 51)


def test_brightness_over_larger_distances_stays(network):
    image = torch.linspace(-0.5, 0.5, 64).expand(3, 64, 64)
    change = add_grain(network, image, 0) - image
    coarse = torch.nn.functional.avg_pool2d(change[None], 16)
    assert change.std() > 0.05 and coarse.abs().max() < 0.25 * change.std()


def test_words_set_the_strength(network):
    flat = torch.zeros(3, 64, 64)
    strengths = [grain_strength(prompt) for prompt in ("CT, abdomen, smooth", "CT, abdomen", "noisy, CT, abdomen")]
    assert strengths[0] < strengths[1] == 1 < strengths[2]
    roughness = [rough(add_grain(network, flat, 0, strength)) for strength in strengths]
    assert roughness == sorted(roughness) and roughness[0] < 0.6 * roughness[1]


def test_a_checkpoint_with_a_grain_network_adds_grain(tiny_synthesis_folder, network, tmp_path):
    import shutil

    folder = tmp_path / "grainy"
    shutil.copytree(tiny_synthesis_folder, folder)
    plain = load_synthesizer(str(folder))
    network.save_pretrained(folder / GRAIN_FOLDER)
    grainy = load_synthesizer(str(folder))
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 1
    settings = {"prompt": "CT, abdomen", "num_images": 1, "num_inference_steps": 2, "seed": 3}
    before, after, again = (pipe(None, mask, **settings)[0].image for pipe in (plain, grainy, grainy))
    np.testing.assert_array_equal(after, again)
    assert np.abs(np.diff(after.astype(int), axis=1)).mean() > np.abs(np.diff(before.astype(int), axis=1)).mean()


def test_a_damaged_network_is_a_sentence(network, tmp_path):
    assert load_grain(tmp_path) is None
    network.save_pretrained(tmp_path / GRAIN_FOLDER)
    assert load_grain(tmp_path) is not None
    (tmp_path / GRAIN_FOLDER / "diffusion_pytorch_model.safetensors").write_bytes(b"broken")
    with pytest.raises(EmitDiffError, match="remove the folder to generate without grain"):
        load_grain(tmp_path)
