"""OpenAI's ADM 256 x 256 without classes, TextDiff's backbone: from the file as published to a diffusers folder.

Guided-diffusion files number their blocks; diffusers names them. Both compute the same, so every weight moves as it
is, but for the queries, keys and values of the attentions: ADM keeps them in one matrix, head by head.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from tqdm import tqdm

from emitdiff.errors import EmitDiffError, first_line

if TYPE_CHECKING:
    from diffusers import UNet2DModel

NAME = "256x256_diffusion_uncond.pt"
ADM_256 = {
    "sample_size": 256,
    "in_channels": 3,
    "out_channels": 6,
    "layers_per_block": 2,
    "block_out_channels": [256, 256, 512, 512, 1024, 1024],
    "attention_head_dim": 64,
    "down_block_types": ["ResnetDownsampleBlock2D"] * 3 + ["AttnDownBlock2D"] * 3,
    "up_block_types": ["AttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"] * 3,
    "resnet_time_scale_shift": "scale_shift",
    "attn_norm_num_groups": 32,
    "upsample_type": "resnet",
    "downsample_type": "resnet",
    "flip_sin_to_cos": True,
    "freq_shift": 0,
}
RECORD = "conversion.json"

# diffusers' name to guided diffusion's, for what is there once; {0} is "weight" or "bias".
ONCE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
INSIDE = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
    "group_norm": "norm",
    "to_q": "qkv",
    "to_k": "qkv",
    "to_v": "qkv",
    "to_out.0": "proj_out",
}
QKV = {"to_q": 0, "to_k": 1, "to_v": 2}


@dataclass(frozen=True)
class ConvertAdm:
    """`source` is 256x256_diffusion_uncond.pt as OpenAI published it, `out` the folder to make."""

    source: Path
    out: Path


def convert_adm(settings: ConvertAdm, config: dict = ADM_256) -> Path:
    """Write `settings.out`: a stock UNet2DModel (safetensors, float32), its scheduler and conversion.json.

    The file is read without running anything in it. Every weight must be there, none may be left over, and all shapes
    must fit `config`. The folder appears whole or not at all. Returns it; raises EmitDiffError.
    """
    source, out = Path(settings.source), Path(settings.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise EmitDiffError(f"{out} already exists: give a new folder, or remove it first.")
    weights = read_adm(source)
    unet = to_diffusers(weights, config, source.name)
    record = {
        "source": source.name,
        "sha256": sha256_of(source),
        "bytes": source.stat().st_size,
        "parameters": sum(parameter.numel() for parameter in unet.parameters()),
    }
    part = out.parent / f".{out.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        unet.save_pretrained(part, max_shard_size="100GB")
        adm_scheduler().save_pretrained(part)
        (part / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if out.exists():
            out.rmdir()
        part.replace(out)
    except (OSError, SafetensorError) as error:  # a full disk may be either
        reason = getattr(error, "strerror", None) or error
        raise EmitDiffError(f"{out} cannot be written ({reason}): about 2.3 GB are needed.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def adm_scheduler():
    """ADM's noise: 1000 linear steps, beta 1e-4 to 0.02, epsilon and a learned range of variances."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, variance_type="learned_range")


def read_adm(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .pt file by name; nothing in it is run. Raises EmitDiffError for anything else."""
    if not path.is_file():
        raise EmitDiffError(f"There is no file {path}: download {NAME} from OpenAI's guided-diffusion page first.")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise EmitDiffError(
            f"{path.name} holds more than plain tensors, or is no file that torch wrote, and was not opened: "
            f"give {NAME} as OpenAI published it."
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise EmitDiffError(f"{path.name} is damaged ({first_line(error)}): download it again.") from error
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise EmitDiffError(f"{path.name} is no plain table of weights: give {NAME} as OpenAI published it.")
    return weights


def to_diffusers(weights: dict[str, torch.Tensor], config: dict, name: str = NAME) -> UNet2DModel:
    """A frozen UNet2DModel of `config` with the `weights` of a guided-diffusion file called `name`, float32.

    Raises EmitDiffError where a weight lacks, is left over or has another shape.
    """
    from diffusers import UNet2DModel

    with torch.device("meta"):
        unet = UNet2DModel(**config)
    wanted = {key: source_key(key, config) for key in unet.state_dict()}
    _check_names(weights, set(wanted.values()), name)
    moved = {}
    for key, value in tqdm(unet.state_dict().items(), desc="converting", unit="weight", delay=2):
        found = _taken(weights[wanted[key]], key, config["attention_head_dim"])
        if found is None or found.shape != value.shape:
            shape = tuple(weights[wanted[key]].shape)
            raise EmitDiffError(f"In {name}, {wanted[key]} has the shape {shape}, not that of {NAME}: {_OTHER}")
        moved[key] = found.float().contiguous()
    unet.load_state_dict(moved, strict=True, assign=True)
    return unet.eval().requires_grad_(False)


_OTHER = "it is a different model. Only the unconditional 256 x 256 model can be converted."


def source_key(key: str, config: dict) -> str:
    """The name in a guided-diffusion file of a weight that diffusers calls `key`."""
    module, _, kind = key.rpartition(".")
    if module in ONCE:
        return f"{ONCE[module]}.{kind}"
    if found := re.fullmatch(r"(mid_block\.\w+\.\d)\.(.+)", module):
        return f"{ONCE[found[1]]}.{INSIDE[found[2]]}.{kind}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", module)
    if found is None:
        raise EmitDiffError(f"guided-diffusion has no weight that diffusers calls {key}.")
    side, level, part, index, inside = found.groups()
    place = _block(side, int(level), part, int(index), config)
    return f"{place}.{INSIDE[inside]}.{kind}"


def _block(side: str, level: int, part: str, index: int, config: dict) -> str:
    """Where a residual layer, an attention or a change of size lies among the numbered blocks."""
    layers = config["layers_per_block"] + 1  # with the change of size in the encoder, with one more in the decoder
    if side == "down":
        number = 1 + layers * level + (layers - 1 if part == "downsamplers" else index)
        return f"input_blocks.{number}.{int(part == 'attentions')}"
    number = layers * level + (layers - 1 if part == "upsamplers" else index)
    attends = config["up_block_types"][level].startswith("Attn")
    return f"output_blocks.{number}.{ {'resnets': 0, 'attentions': 1, 'upsamplers': 1 + attends}[part] }"


def _taken(value: torch.Tensor, key: str, head_dim: int) -> torch.Tensor | None:
    """`value` as diffusers wants it under `key`; None where a matrix of queries, keys and values cannot be cut."""
    inside = key.split(".")[-2]
    if inside in QKV:  # rows are (heads, 3, head_dim): a plain cut into thirds would mix them up
        if len(value) % (3 * head_dim):
            return None
        value = value.reshape(-1, 3, head_dim, *value.shape[1:])[:, QKV[inside]].flatten(0, 1)
    attention = inside in QKV or ".to_out.0." in key
    return value.squeeze(-1) if attention and value.ndim == 3 else value  # 1 x 1 convolutions there, linear maps here


def _check_names(weights: dict, wanted: set[str], name: str) -> None:
    missing, surplus = sorted(wanted - set(weights)), sorted(set(weights) - wanted)
    if "label_emb.weight" in surplus:
        raise EmitDiffError(f"{name} was trained with class labels: give {NAME}, which was not.")
    if missing or surplus:
        listed = [f"{len(keys)} {word} (such as {keys[0]})" for keys, word in
                  ((missing, "weights missing"), (surplus, "left over")) if keys]  # fmt: skip
        raise EmitDiffError(f"{name} is not {NAME}: {' and '.join(listed)}; {_OTHER}")


def sha256_of(path: Path) -> str:
    """The sha256 of a file in hexadecimal, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
