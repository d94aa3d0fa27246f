"""The synthesis pipeline: an image's edges, its mask and a prompt in, labelled synthetic images out.

A thin door around diffusers' `StableDiffusionControlNetPipeline`; the same code loads the embedded weights, a Hub
repository and a local folder. What a checkpoint wants to be given is in its `emitdiff.json` (see card.py).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import torch

from emitdiff.images import control_to_tensor, fitted_size, resize_image, tensor_to_image
from emitdiff.synthesis.card import CheckpointCard
from emitdiff.synthesis.control import Control, build_control
from emitdiff.synthesis.grain import GrainNetwork, add_grain
from emitdiff.synthesis.mask_edits import MaskEdit
from emitdiff.synthesis.presets import find_preset
from emitdiff.synthesis.prompts import truncation_warning
from emitdiff.synthesis.sampling import NUMBERS, Sampling, resolve_edit, text_arguments

PREVIEW_EVERY = 2
NEARLY_GREY = 0.05  # mean deviation among the channels, of values in [-1, 1], that is no colour on purpose


@dataclass(frozen=True)
class SamplingStep:
    """One denoising step of image `image_index` is done; `preview` is uint8 (H, W, 3) now and then, else None."""

    image_index: int
    step: int
    steps: int
    preview: np.ndarray | None = None


@dataclass(frozen=True)
class SyntheticImage:
    """`image` uint8 (H, W, 3) and its label, the (edited) `mask` (H, W) or None, both at the source's size;
    `settings` make it again."""

    image: np.ndarray
    mask: np.ndarray | None
    seed: int
    settings: dict
    seconds: float


class SynthesisPipeline:
    """Generates new images; `load_synthesizer` makes one. Calls from several threads wait for one another."""

    def __init__(self, pipe, card: CheckpointCard, name: str, grain: GrainNetwork | None = None):
        self.pipe, self.name, self.grain = pipe, name, grain
        self.checkpoint_card = card
        self.defaults = {
            "num_inference_steps": 20, "guidance_scale": 7.5, "controlnet_conditioning_scale": 1.0, **card.defaults
        }  # fmt: skip
        self.card = asdict(card)
        self._lock = threading.Lock()

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) generated at for a source of that size: same aspect ratio, the checkpoint's area."""
        return fitted_size((height, width), self.checkpoint_card.area, self.checkpoint_card.multiple)

    def control_image(
        self,
        image: np.ndarray | None,
        mask: np.ndarray | None = None,
        detector: str | None = None,
        boundary: bool | None = None,
        low_threshold: float = 50,
        high_threshold: float = 120,
        structure: float = 1.0,
        edit: MaskEdit | dict | None = None,
        preset: str = "default",
        size: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """Exactly what the ControlNet is given: uint8 (H, W, 3) at the working size.

        Args:
            image: uint8 (H, W, 3), or None to generate from the mask alone.
            mask: class ids (H, W) of the same size, or None.
            boundary: whether the mask's outline (and, for "layered" checkpoints, its inside) is joined in.
            structure, edit, preset, size: as in `stream`.

        Raises:
            EmitDiffError: neither image nor mask (and not free), or they differ in size.
        """
        sampling = self._settings(
            detector=detector, boundary=boundary, low_threshold=low_threshold, high_threshold=high_threshold,
            structure=structure, edit=edit, preset=preset, size=size,
        )  # fmt: skip
        return build_control(image, mask, sampling, self.checkpoint_card).picture

    def _strength(self, sampling: Sampling) -> float:
        """Weights of our own layout learnt with their ControlNet always beside them, so for them the mask's ink fades;
        a U-Net that was locked can do without, so for others the ControlNet's strength does."""
        fades = self.checkpoint_card.control_layout != "layered"
        return sampling.controlnet_conditioning_scale * (sampling.mask_share if fades else 1.0)

    def _settings(self, **given) -> Sampling:
        """Explicit arguments first, then the preset, then the checkpoint's card. Raises EmitDiffError."""
        preset = find_preset(given["preset"])
        card = {"detector": self.checkpoint_card.detector, "boundary": True, **self.defaults}
        chosen = {"prompt": "", "negative_prompt": "", "num_images": 1, "seed": 0, **given}
        for name in ("detector", "boundary", *NUMBERS):
            if chosen.get(name) is None:
                of_preset = getattr(preset, name)
                chosen[name] = card[name] if of_preset is None else of_preset
        size = tuple(chosen["size"]) if chosen.get("size") else None
        return Sampling(**{**chosen, "edit": resolve_edit(chosen.get("edit")), "size": size}).check()

    def prompt_warning(self, prompt: str) -> str:
        """What the tokenizer would cut, as a sentence; "" when the whole prompt is read."""
        return truncation_warning(prompt, self.pipe.tokenizer)

    def __call__(self, image: np.ndarray | None, mask: np.ndarray | None = None, **settings) -> list[SyntheticImage]:
        """Generates `num_images` images; arguments as in `stream`."""
        return [event for event in self.stream(image, mask, **settings) if isinstance(event, SyntheticImage)]

    def stream(
        self,
        image: np.ndarray | None,
        mask: np.ndarray | None = None,
        prompt: str = "",
        negative_prompt: str = "",
        num_images: int = 4,
        seed: int = 0,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        controlnet_conditioning_scale: float | None = None,
        detector: str | None = None,
        boundary: bool | None = None,
        low_threshold: float = 50,
        high_threshold: float = 120,
        cancelled: Callable[[], bool] | None = None,
        structure: float = 1.0,
        edit: MaskEdit | dict | None = None,
        preset: str = "default",
        appearance: str = "",
        size: tuple[int, int] | None = None,
    ) -> Iterator[SamplingStep | SyntheticImage]:
        """Yields a `SamplingStep` after every denoising step and a `SyntheticImage` as each is finished.

        Image i is made with a generator of its own, seeded `seed + i`, so it does not depend on `num_images`.
        `cancelled` is asked after every step; once it answers True nothing more is yielded.

        Args:
            structure: in [0, 1]. 1 follows every edge; towards 0.5 the weaker edges go (see `weaken_edges`); 0.5 leaves
                the mask alone; below, the mask fades with structure / 0.5; 0 is free: text alone, for
                which neither image nor mask is needed, and which has no label.
            edit: what is done to the mask before; the edges of the target go along, and the label is the edited mask.
            preset: a name in PRESETS; arguments given here win over what it sets.
            appearance: a phrase on the look, joined to the prompt or mixed in as the preset says; presets that mix one
                in draw one for each image where none is given.
            size: (height, width) where there is neither image nor mask; None: the checkpoint's square.

        Raises:
            EmitDiffError: settings out of range, or an image and mask that do not fit (before the first step).
        """
        sampling = self._settings(
            prompt=prompt, negative_prompt=negative_prompt, num_images=num_images, seed=seed,
            num_inference_steps=num_inference_steps, guidance_scale=guidance_scale,
            controlnet_conditioning_scale=controlnet_conditioning_scale, detector=detector, boundary=boundary,
            low_threshold=low_threshold, high_threshold=high_threshold, structure=structure, edit=edit, preset=preset,
            appearance=appearance, size=size,
        )  # fmt: skip
        control = build_control(image, mask, sampling, self.checkpoint_card)
        grey = sampling.preset_settings.grey or (None if image is None else bool((image == image[..., :1]).all()))
        return self._generate(control, grey, sampling, cancelled or (lambda: False))

    def _generate(
        self, control: Control, grey, sampling: Sampling, cancelled
    ) -> Iterator[SamplingStep | SyntheticImage]:
        for index in range(sampling.num_images):
            started = time.perf_counter()
            picture = None
            for event in self._generate_one(control.picture, sampling, index, cancelled):
                if isinstance(event, SamplingStep):
                    yield event
                else:
                    picture = event
            if picture is None or cancelled():
                return
            if grey or (grey is None and picture.std(0).mean() < NEARLY_GREY):
                picture = picture.mean(0, keepdim=True).expand(3, -1, -1)
            generated = tensor_to_image(picture)
            settings = {
                **sampling.record(sampling.seed + index),
                "checkpoint": self.name, "working_size": list(control.picture.shape[:2]),
            }  # fmt: skip
            if control.edge_weights:
                settings["edge_weights"] = control.edge_weights
            seconds = time.perf_counter() - started
            copy = None if control.mask is None else np.array(control.mask)
            yield SyntheticImage(resize_image(generated, control.size), copy, sampling.seed + index, settings, seconds)

    def _generate_one(
        self, control, sampling: Sampling, index: int, cancelled
    ) -> Iterator[SamplingStep | torch.Tensor]:
        """diffusers calls back, a page wants to be fed: the sampler runs in a thread that fills a queue."""
        events: queue.Queue = queue.Queue()
        stop = threading.Event()

        def after_step(pipe, step, timestep, tensors):
            if stop.is_set() or cancelled():
                pipe._interrupt = True
            show = (step + 1) % PREVIEW_EVERY == 0
            preview = self._preview(tensors["latents"]) if show and not stop.is_set() else None
            events.put(SamplingStep(index, step + 1, sampling.num_inference_steps, preview))
            return tensors

        def work():
            try:
                with self._lock, torch.inference_mode():
                    if not (stop.is_set() or cancelled()):
                        events.put(self._sample(control, sampling, sampling.seed + index, after_step))
            except BaseException as error:  # handed to the reader of the queue
                events.put(error)
            events.put(None)

        sampler = threading.Thread(target=work, daemon=True)
        sampler.start()
        try:
            while (event := events.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                yield event
        except KeyboardInterrupt:  # a program that ends in the middle of a step is aborted, not ended
            stop.set()
            sampler.join()
            raise
        finally:
            stop.set()

    def _sample(self, control, sampling: Sampling, seed: int, after_step) -> torch.Tensor:
        """One image, float (3, H, W) in [-1, 1] on the CPU."""
        with self._sampler(sampling):
            pictures = self.pipe(
                **text_arguments(self.pipe, sampling, seed),
                image=control_to_tensor(control),
                height=control.shape[0],
                width=control.shape[1],
                num_inference_steps=sampling.num_inference_steps,
                guidance_scale=sampling.guidance_scale,
                controlnet_conditioning_scale=float(self._strength(sampling)),
                generator=torch.Generator().manual_seed(seed),
                output_type="pt",
                callback_on_step_end=after_step,
            ).images
        return self.with_grain(pictures[0].float().cpu() * 2 - 1, seed)

    def with_grain(self, image: torch.Tensor, seed: int) -> torch.Tensor:
        """`image`, float (3, H, W) in [-1, 1], with the grain that the autoencoder has no room for; as it is where the
        checkpoint has no network for it."""
        return image if self.grain is None else add_grain(self.grain, image, seed)

    @contextmanager
    def _sampler(self, sampling: Sampling) -> Iterator[None]:
        """The checkpoint's own scheduler, or for presets that name it DDIM."""
        from diffusers import DDIMScheduler

        own = self.pipe.scheduler
        if sampling.preset_settings.ddim and not isinstance(own, DDIMScheduler):
            self.pipe.scheduler = DDIMScheduler.from_config(own.config)
        try:
            yield
        finally:
            self.pipe.scheduler = own

    @torch.inference_mode()
    def _preview(self, latents: torch.Tensor) -> np.ndarray:
        """The latents as they stand, decoded at half size: enough to see where the image is going."""
        small = torch.nn.functional.interpolate(latents, scale_factor=0.5, mode="area")
        decoded = self.pipe.vae.decode(small / self.pipe.vae.config.scaling_factor, return_dict=False)[0]
        return tensor_to_image(decoded[0].clamp(-1, 1))
