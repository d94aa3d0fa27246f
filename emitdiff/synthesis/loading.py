"""Synthesis pipelines from where they lie: the embedded weights, a Hub repository or a local folder."""

from __future__ import annotations

from typing import Any

import torch

from emitdiff.checkpoints import Checkpoint, controlnet_folder, find_checkpoint, local_folder
from emitdiff.devices import choose_device, choose_dtype, prepare_pipeline, quiet_libraries
from emitdiff.errors import EmitDiffError, first_line
from emitdiff.synthesis.card import read_card
from emitdiff.synthesis.grain import load_grain
from emitdiff.synthesis.hed.weights import fetch_hed
from emitdiff.synthesis.pipeline import SynthesisPipeline


def load_synthesizer(checkpoint: str = "emitdiff-mini", device: str | None = None) -> SynthesisPipeline:
    """Loads a checkpoint by name, Hub id or folder onto the best device (or `device`).

    With weights from the Hub that were trained with HED edges, the original HED comes along where it can be had.

    Raises:
        EmitDiffError: no such weights, or a folder that does not hold a complete pipeline.
    """
    found, chosen = find_checkpoint(checkpoint, "synthesis"), choose_device(device)
    pipe = read_pipeline(found, choose_dtype(chosen))
    folder = local_folder(found)
    card = read_card(found, folder)
    if found.revision is not None and card.detector == "hed":
        fetch_hed()
    return SynthesisPipeline(prepare_pipeline(pipe, chosen), card, found.name, load_grain(folder))


def read_pipeline(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> Any:
    """The diffusers pipeline of `checkpoint` as it is stored, its networks on the CPU as `dtype`.

    Raises EmitDiffError as `load_synthesizer`.
    """
    quiet_libraries()
    from diffusers import ControlNetModel, DDIMScheduler, StableDiffusionControlNetPipeline

    folder = local_folder(checkpoint)
    try:
        controlnet = ControlNetModel.from_pretrained(controlnet_folder(checkpoint), dtype=dtype, use_safetensors=True)
        pipe = StableDiffusionControlNetPipeline.from_pretrained(
            folder, controlnet=controlnet, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
            dtype=dtype, use_safetensors=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        raise EmitDiffError(
            f"{folder} does not hold a complete Stable Diffusion + ControlNet pipeline ({first_line(error)}); "
            "give a folder or repository in diffusers layout."
        ) from error
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe
