import numpy as np
import torch
import torch.nn.functional as F

from emitdiff.synthesis import hed


def published_keys() -> dict[str, tuple[int, ...]]:
    """Names and shapes in ControlNetHED.pth."""
    keys = {"norm": (1, 3, 1, 1)}
    widths, depths = (3, 64, 128, 256, 512, 512), (2, 2, 3, 3, 3)
    for number, depth in enumerate(depths, start=1):
        for index in range(depth):
            before = widths[number] if index else widths[number - 1]
            keys[f"block{number}.convs.{index}.weight"] = (widths[number], before, 3, 3)
            keys[f"block{number}.convs.{index}.bias"] = (widths[number],)
        keys[f"block{number}.projection.weight"] = (1, widths[number], 1, 1)
        keys[f"block{number}.projection.bias"] = (1,)
    return keys


def test_published_file_loads_strictly_and_gives_the_published_map(tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) * 0.03 for name, shape in published_keys().items()}
    torch.save(weights, tmp_path / "ControlNetHED.pth")
    monkeypatch.setattr(hed, "hed_weights", lambda: tmp_path / "ControlNetHED.pth")
    hed._network.cache_clear()
    image = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    edges = hed.hed_edges(image)
    hed._network.cache_clear()

    features = torch.from_numpy(image).permute(2, 0, 1)[None].float() - weights["norm"]
    sides = []
    for number, depth in enumerate((2, 2, 3, 3, 3), start=1):
        features = features if number == 1 else F.max_pool2d(features, 2)
        for index in range(depth):
            name = f"block{number}.convs.{index}"
            features = F.conv2d(features, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1).relu()
        name = f"block{number}.projection"
        side = F.conv2d(features, weights[f"{name}.weight"], weights[f"{name}.bias"])
        sides.append(F.interpolate(side, (48, 40), mode="bilinear"))
    expected = (torch.cat(sides, 1).mean(1).sigmoid()[0] * 255).byte().numpy()
    assert edges.shape == (48, 40) and np.abs(edges.astype(int) - expected).max() <= 1
