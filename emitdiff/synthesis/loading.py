"""Synthesis pipelines from where they lie: the embedded weights, a Hub repository or a local folder."""

from __future__ import annotations

from typing import Any

import torch

from emitdiff.checkpoints import (
    Checkpoint,
    controlnet_folder,
    fetch_weights,
    find_checkpoint,
    local_folder,
    weights_fingerprint,
)
from emitdiff.devices import choose_device, choose_dtype, paints_in_half, prepare_pipeline, quiet_libraries
from emitdiff.errors import EmitDiffError, first_line
from emitdiff.hub import weights_variant
from emitdiff.progress import NO_PROGRESS, Progress
from emitdiff.synthesis.card import read_card
from emitdiff.synthesis.grain import load_grain
from emitdiff.synthesis.hed.weights import fetch_hed
from emitdiff.synthesis.pipeline import SynthesisPipeline


def load_synthesizer(
    checkpoint: str = "emitdiff-mini", device: str | None = None, progress: Progress | None = None
) -> SynthesisPipeline:
    """Loads a checkpoint by name, Hub id or folder onto the best device (or `device`).

    What is not on this machine is fetched first, see `fetch_synthesizer`.

    Raises:
        EmitDiffError: no such weights, or a folder that does not hold a complete pipeline.
    """
    fetch_synthesizer(checkpoint, device, progress)
    return build_synthesizer(checkpoint, device)


def fetch_synthesizer(checkpoint: str, device: str | None = None, progress: Progress | None = None) -> None:
    """Brings a checkpoint to this machine: in half precision where the device computes in it and the Hub has it. With
    weights that were trained with HED edges, the original HED comes along where it can be had.

    `progress` is told of bytes; None shows them on stderr. Raises EmitDiffError, and DownloadStopped where it is
    cancelled.
    """
    found = find_checkpoint(checkpoint, "synthesis")
    fetch_weights(found, paints_in_half(choose_device(device)), progress)
    if found.revision is not None and read_card(found, local_folder(found)).detector == "hed":
        fetch_hed(progress or NO_PROGRESS)


def build_synthesizer(checkpoint: str, device: str | None = None) -> SynthesisPipeline:
    """As `load_synthesizer`, of weights that are on this machine."""
    return place_synthesizer(read_synthesizer(checkpoint, device), device)


def read_synthesizer(checkpoint: str, device: str | None = None) -> SynthesisPipeline:
    """As `build_synthesizer`, in the precision of `device` but not on it yet: before it is called, it wants
    `place_synthesizer`."""
    found, chosen = find_checkpoint(checkpoint, "synthesis"), choose_device(device)
    pipe = read_pipeline(found, choose_dtype(chosen), paints_in_half(chosen))
    folder = local_folder(found)
    card = read_card(found, folder)
    weights = weights_fingerprint(found, paints_in_half(chosen))
    return SynthesisPipeline(pipe, card, found.name, load_grain(folder), weights)


def place_synthesizer(read: SynthesisPipeline, device: str | None = None) -> SynthesisPipeline:
    """What `read_synthesizer` gave, on `device` and ready to be called; what was given is used up."""
    pipe = prepare_pipeline(read.pipe, choose_device(device))
    return SynthesisPipeline(pipe, read.checkpoint_card, read.name, read.grain, read.weights)


def read_pipeline(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32, half: bool = False) -> Any:
    """The diffusers pipeline of `checkpoint` as it is stored, its networks on the CPU as `dtype`; from half-precision
    files where `half` wishes so and they are there.

    Raises EmitDiffError as `load_synthesizer`.
    """
    quiet_libraries()
    from diffusers import ControlNetModel, DDIMScheduler, StableDiffusionControlNetPipeline

    folder, control = local_folder(checkpoint), controlnet_folder(checkpoint)
    try:
        controlnet = ControlNetModel.from_pretrained(
            control, variant=weights_variant(control, half), dtype=dtype, use_safetensors=True
        )
        pipe = StableDiffusionControlNetPipeline.from_pretrained(
            folder, controlnet=controlnet, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
            variant=weights_variant(folder, half), dtype=dtype, use_safetensors=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise EmitDiffError(
            f"{folder} does not hold a complete Stable Diffusion + ControlNet pipeline ({first_line(error)}); "
            "give a folder or repository in diffusers layout."
        ) from error
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe
