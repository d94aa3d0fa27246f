"""The synthesis pipeline: an image's edges, its mask and a prompt in, labelled synthetic images out.

A thin door around diffusers' `StableDiffusionControlNetPipeline`; the same code loads the embedded weights, a Hub
repository and a local folder. What a checkpoint wants to be given is in its `emitdiff.json` (see card.py).
"""

from __future__ import annotations

import logging
import platform
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from emitdiff.devices import is_offloaded, take_less_memory
from emitdiff.errors import EmitDiffError
from emitdiff.images import control_to_tensor, fitted_size, resize_image, tensor_to_image
from emitdiff.provenance import source_hashes
from emitdiff.synthesis.card import CheckpointCard
from emitdiff.synthesis.control import Control, build_control
from emitdiff.synthesis.grain import GrainNetwork, add_grain, grain_strength
from emitdiff.synthesis.presets import find_preset
from emitdiff.synthesis.prompts import truncation_warning
from emitdiff.synthesis.sampling import phrase_of, resolve, text_arguments
from emitdiff.synthesis_settings import SynthesisSettings
from emitdiff.turns import Turns
from emitdiff.version import __version__

if TYPE_CHECKING:
    from emitdiff.synthesis.sampling import ResolvedSettings

log = logging.getLogger(__name__)
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
    """Generates new images; `load_synthesizer` makes one. Calls from several threads wait for one another's image, and
    between two steps others get their turn in `turns`, which several pipelines may be given."""

    def __init__(self, pipe, card: CheckpointCard, name: str, grain: GrainNetwork | None = None, weights: str = ""):
        """`weights` is the sha256 of the files all of it was loaded from (`weights_fingerprint`), "" where of none."""
        self.pipe, self.name, self.grain, self.weights = pipe, name, grain, weights
        self.checkpoint_card = card
        self.card = asdict(card)
        self.turns = Turns()
        self._images = Turns(lambda: self.turns.client())  # the sampler has a state: one image at a time

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) generated at for a source of that size: same aspect ratio, the checkpoint's area."""
        return fitted_size((height, width), self.checkpoint_card.area, self.checkpoint_card.multiple)

    def control_image(
        self,
        image: np.ndarray | None,
        mask: np.ndarray | None = None,
        settings: SynthesisSettings | None = None,
        **changes: Any,
    ) -> np.ndarray:
        """Exactly what the ControlNet is given: uint8 (H, W, 3) at the working size; arguments as in `stream`.

        Raises:
            EmitDiffError: neither image nor mask (and not free), or they differ in size.
        """
        return build_control(image, mask, self._resolve(settings, changes), self.checkpoint_card).picture

    def _resolve(self, settings: SynthesisSettings | None, changes: dict[str, Any]) -> ResolvedSettings:
        if not isinstance(settings, SynthesisSettings | None):
            raise EmitDiffError(
                f"The settings were of type {type(settings).__name__}; give SynthesisSettings, of a record "
                "SynthesisSettings.from_record(record)."
            )
        return resolve((settings or SynthesisSettings()).replace(**changes), self.checkpoint_card)

    def _strength(self, settings: ResolvedSettings) -> float:
        """Weights of our own layout learnt with their ControlNet always beside them, so for them the mask's ink fades;
        a U-Net that was locked can do without, so for others the ControlNet's strength does."""
        fades = self.checkpoint_card.control_layout != "layered"
        return settings.controlnet_conditioning_scale * (settings.mask_share if fades else 1.0)

    def prompt_warning(self, prompt: str) -> str:
        """What the tokenizer would cut, as a sentence; "" when the whole prompt is read."""
        return truncation_warning(prompt, self.pipe.tokenizer)

    def __call__(
        self,
        image: np.ndarray | None,
        mask: np.ndarray | None = None,
        settings: SynthesisSettings | None = None,
        **changes: Any,
    ) -> list[SyntheticImage]:
        """Generates `num_images` images; arguments as in `stream`."""
        return [event for event in self.stream(image, mask, settings, **changes) if isinstance(event, SyntheticImage)]

    def stream(
        self,
        image: np.ndarray | None,
        mask: np.ndarray | None = None,
        settings: SynthesisSettings | None = None,
        *,
        cancelled: Callable[[], bool] | None = None,
        **changes: Any,
    ) -> Iterator[SamplingStep | SyntheticImage]:
        """Yields a `SamplingStep` after every denoising step and a `SyntheticImage` as each is finished.

        Args:
            image: uint8 (H, W, 3), or None to generate from the mask, or from text, alone.
            mask: class ids (H, W) of the same size, or None.
            settings: all that an image depends on besides; the defaults where None.
            cancelled: is asked after every step; once it answers True nothing more is yielded.
            changes: fields of the settings by name, which win over those in `settings`.

        Raises:
            EmitDiffError: unknown settings, settings out of range, or an image and mask that do not fit (before the
                first step).
        """
        resolved = self._resolve(settings, changes)
        control = build_control(image, mask, resolved, self.checkpoint_card)
        grey = find_preset(resolved.preset).grey or (None if image is None else bool((image == image[..., :1]).all()))
        facts = {**self._origin(), **source_hashes(image, mask)}
        return self._generate(control, grey, resolved, facts, cancelled or (lambda: False))

    def _generate(
        self, control: Control, grey, settings: ResolvedSettings, facts: dict[str, Any], cancelled
    ) -> Iterator[SamplingStep | SyntheticImage]:
        for index in range(settings.num_images):
            started = time.perf_counter()
            picture = None
            for event in self._generate_one(control.picture, settings, index, cancelled):
                if isinstance(event, SamplingStep):
                    yield event
                else:
                    picture = event
            if picture is None or cancelled():
                return
            if grey or (grey is None and picture.std(0).mean() < NEARLY_GREY):
                picture = picture.mean(0, keepdim=True).expand(3, -1, -1)
            generated = tensor_to_image(picture)
            seconds = time.perf_counter() - started
            copy = None if control.mask is None else np.array(control.mask)
            record = self._record(settings, settings.seed + index, control) | facts
            yield SyntheticImage(resize_image(generated, control.size), copy, settings.seed + index, record, seconds)

    def _record(self, settings: SynthesisSettings, seed: int, control: Control) -> dict[str, Any]:
        """Everything needed to make the image of `seed` again, JSON-able."""
        one = settings.replace(num_images=1, seed=seed, appearance=phrase_of(settings, seed))
        record = {**one.record(), "checkpoint": self.name, "working_size": list(control.picture.shape[:2])}
        return record | ({"edge_weights": control.edge_weights} if control.edge_weights else {})

    def _origin(self) -> dict[str, Any]:
        """The weights by their content, and what else decides about the last bit of an image."""
        dtype = str(self.pipe.unet.dtype).removeprefix("torch.")
        made_with = {
            "emitdiff": __version__,
            "torch": torch.__version__,
            "device": self.pipe.device.type,
            "dtype": dtype,
        }
        made_with |= {"machine": platform.machine()}
        return ({"weights_sha256": self.weights} if self.weights else {}) | {"made_with": made_with}

    def _generate_one(
        self, control, settings: ResolvedSettings, index: int, cancelled
    ) -> Iterator[SamplingStep | torch.Tensor]:
        """diffusers calls back, a page wants to be fed: the sampler runs in a thread that fills a queue."""
        events: queue.Queue = queue.Queue()
        stop = threading.Event()

        def after_step(pipe, step, timestep, tensors):
            if stop.is_set() or cancelled():
                pipe._interrupt = True
            show = (step + 1) % PREVIEW_EVERY == 0
            preview = self._preview(tensors["latents"]) if show and not stop.is_set() else None
            events.put(SamplingStep(index, step + 1, settings.num_inference_steps, preview))
            self.turns.rest()
            return tensors

        def work():
            try:
                with self._images, self.turns, torch.inference_mode():
                    if not (stop.is_set() or cancelled()):
                        events.put(self._sample(control, settings, settings.seed + index, after_step))
            except BaseException as error:  # handed to the reader of the queue
                events.put(error)
            events.put(None)

        context = copy_context()  # says who asks
        sampler = threading.Thread(target=context.run, args=(work,), daemon=True)
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

    def _sample(self, control, settings: ResolvedSettings, seed: int, after_step) -> torch.Tensor:
        """One image, float (3, H, W) in [-1, 1] on the CPU. Where the card's memory is too small the networks are
        offloaded and it is begun again, which changes nothing in it."""
        while True:
            with suppress(torch.OutOfMemoryError):
                return self._try_to_sample(control, settings, seed, after_step)
            if (placement := take_less_memory(self.pipe, self.pipe._execution_device)) is None:
                height, width = control.shape[:2]
                raise EmitDiffError(
                    f"The card has too little memory for an image of {height} x {width} pixels, even with one layer of "
                    "the networks on it at a time: close other programs that use it, or hide it with "
                    "CUDA_VISIBLE_DEVICES= to generate on the processor."
                )
            log.warning("The card's memory is too small for %s: from now on %s is on it.", self.name, placement)

    def _try_to_sample(self, control, settings: ResolvedSettings, seed: int, after_step) -> torch.Tensor:
        with self._sampler(settings):
            pictures = self.pipe(
                **text_arguments(self.pipe, settings, seed),
                image=control_to_tensor(control),
                height=control.shape[0],
                width=control.shape[1],
                num_inference_steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
                controlnet_conditioning_scale=float(self._strength(settings)),
                generator=torch.Generator().manual_seed(seed),
                output_type="pt",
                callback_on_step_end=after_step,
            ).images
        return self.with_grain(pictures[0].float().cpu() * 2 - 1, seed, f"{settings.prompt} {settings.appearance}")

    def with_grain(self, image: torch.Tensor, seed: int, prompt: str = "") -> torch.Tensor:
        """`image`, float (3, H, W) in [-1, 1], with the grain that the autoencoder has no room for, as strong as the
        prompt asks; as it is where the checkpoint has no network for it."""
        return image if self.grain is None else add_grain(self.grain, image, seed, grain_strength(prompt))

    @contextmanager
    def _sampler(self, settings: SynthesisSettings) -> Iterator[None]:
        """The checkpoint's own scheduler, or for presets that name it DDIM."""
        from diffusers import DDIMScheduler

        own = self.pipe.scheduler
        if find_preset(settings.preset).ddim and not isinstance(own, DDIMScheduler):
            self.pipe.scheduler = DDIMScheduler.from_config(own.config)
        try:
            yield
        finally:
            self.pipe.scheduler = own

    @torch.inference_mode()
    def _preview(self, latents: torch.Tensor) -> np.ndarray | None:
        """The latents as they stand, decoded at half size: enough to see where the image is going. None on a card with
        little memory, where decoding would throw the U-Net out and fetch it back each time."""
        if is_offloaded(self.pipe.vae):
            return None
        small = torch.nn.functional.interpolate(latents, scale_factor=0.5, mode="area")
        decoded = self.pipe.vae.decode(small / self.pipe.vae.config.scaling_factor, return_dict=False)[0]
        return tensor_to_image(decoded[0].clamp(-1, 1))
