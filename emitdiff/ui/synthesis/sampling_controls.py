"""How many images, from which seed on, and what "Expert" sets; the weights and the presets bring their own values."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import gradio as gr

from emitdiff.ui.form import find_preset, sampling_defaults
from emitdiff.ui.interface import Callables, ModelInfo
from emitdiff.ui.messages import note

NUMBERS = ("num_inference_steps", "guidance_scale", "controlnet_conditioning_scale")


@dataclass(frozen=True)
class SamplingControls:
    """The components; those of `fields` are named as in a request."""

    calls: Callables
    models: dict[str, ModelInfo]
    num_images: gr.Slider
    seed: gr.Number
    random_seed: gr.Button
    preset: gr.Dropdown
    num_inference_steps: gr.Slider
    guidance_scale: gr.Slider
    controlnet_conditioning_scale: gr.Slider
    negative_prompt: gr.Textbox
    checkpoint: gr.Dropdown
    note: gr.HTML

    @property
    def fields(self) -> dict[str, Any]:
        names = ("num_images", "seed", "preset", *NUMBERS, "negative_prompt", "checkpoint")
        return {name: getattr(self, name) for name in names}

    def connect(self, quiet: dict[str, Any]) -> None:
        """What happens among the controls themselves."""
        self.random_seed.click(lambda: random.randrange(2**31), outputs=self.seed, queue=False, **quiet)

    def take_defaults(self, name: str, preset: str = "default") -> dict[Any, Any]:
        """Other weights or another preset: the settings they ask for, and whether the weights are on this machine."""
        model, chosen = self.models[name], find_preset(self.calls.vocabulary.presets, preset)
        defaults = sampling_defaults(model, chosen)
        words = note(f"Preset {preset}: {chosen.summary}.") + note(f"{name}: {model.status}. {model.summary}")
        return {**{getattr(self, key): defaults[key] for key in NUMBERS}, self.note: words}


def build_sampling_controls(calls: Callables, models: dict[str, ModelInfo]) -> SamplingControls:
    """Lays the controls out inside the current Blocks context."""
    defaults = sampling_defaults(models[calls.synthesis_checkpoint])
    presets = [preset.name for preset in calls.vocabulary.presets]
    with gr.Row(elem_classes="pair"):
        num_images = gr.Slider(1, 8, value=4, step=1, label="Images", buttons=[])
        random_seed = gr.Button("Random", size="sm", render=False)
        seed = gr.Number(0, label="First seed", buttons=[random_seed])
    with gr.Accordion("Expert", open=False):
        preset = gr.Dropdown(presets, value=presets[0], label="Preset for the fields below")
        steps = gr.Slider(1, 100, value=defaults["num_inference_steps"], step=1, label="Steps", buttons=[])
        guidance = gr.Slider(0, 20, value=defaults["guidance_scale"], step=0.1, label="Guidance scale", buttons=[])
        strength = gr.Slider(
            0, 2, value=defaults["controlnet_conditioning_scale"], step=0.05,
            label="ControlNet conditioning scale", buttons=[],
        )  # fmt: skip
        negative_prompt = gr.Textbox(label="Negative prompt: what to avoid", max_lines=2)
        checkpoint = gr.Dropdown(list(models), value=calls.synthesis_checkpoint, label="Weights")
        words = gr.HTML(elem_classes="beside")
    return SamplingControls(
        calls, models, num_images, seed, random_seed, preset, steps, guidance, strength, negative_prompt, checkpoint,
        words,
    )  # fmt: skip
