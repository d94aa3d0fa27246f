"""Synthesis pipelines from where they lie: the embedded weights, a Hub repository or a local folder."""

from __future__ import annotations

from emitdiff.checkpoints import controlnet_folder, find_checkpoint, local_folder
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
    quiet_libraries()
    from diffusers import ControlNetModel, DDIMScheduler, StableDiffusionControlNetPipeline

    found = find_checkpoint(checkpoint, "synthesis")
    folder = local_folder(found)
    chosen = choose_device(device)
    dtype = choose_dtype(chosen)
    try:
        controlnet = ControlNetModel.from_pretrained(controlnet_folder(found), dtype=dtype, use_safetensors=True)
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
    card = read_card(found, folder)
    if found.revision is not None and card.detector == "hed":
        fetch_hed()
    return SynthesisPipeline(prepare_pipeline(pipe, chosen), card, found.name, load_grain(folder))
