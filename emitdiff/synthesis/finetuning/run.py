"""EMIT-Diff's second stage: a ControlNet learns a user's own images, everything beside it stays as it is.

As in the paper (arXiv 2310.12868): AdamW at a constant rate, images turned and scaled, text encoder, autoencoder and
U-Net locked. HF accelerate spreads the work: `accelerate launch -m emitdiff train-synthesis ...` for several processes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import date
from math import isfinite
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from emitdiff.checkpoints import weights_fingerprint
from emitdiff.datasets.fingerprint import HASHES, check_hashes
from emitdiff.datasets.splits import choose_rows
from emitdiff.devices import choose_device, choose_mixed_precision
from emitdiff.errors import EmitDiffError
from emitdiff.files import begin_record, check_record, make_folder
from emitdiff.synthesis.finetuning.base import BaseCheckpoint, open_base_checkpoint
from emitdiff.synthesis.finetuning.checkpoint import LossLog, check_finetuning_folder, write_finetuned
from emitdiff.synthesis.finetuning.views import (
    ROTATION,
    SCALE,
    FineTuningViews,
    appearance_scale,
    read_item,
    split_datasets,
)
from emitdiff.synthesis.grain import load_grain
from emitdiff.synthesis.hed.weights import edge_weights
from emitdiff.synthesis.pipeline import SynthesisPipeline
from emitdiff.synthesis.training.contact_sheet import contact_sheet
from emitdiff.synthesis.training.corpus import Item
from emitdiff.synthesis.training.denoiser import FIRST_SAMPLES
from emitdiff.synthesis.training.run import SPLIT_SEED
from emitdiff.training_state import SAVE_EVERY_SECONDS, StageState

# Constant, as in the paper. The first is the paper's, for Stable Diffusion; networks of a few million weights that
# were themselves trained at 3e-4 would hardly move at it.
RATE_FULL_SIZE, RATE_SMALL = 1e-6, 5e-5
MINUTES = 60.0  # where neither minutes nor steps are given
SAVING_SHARE = 0.05  # of the time at most, for a state of gigabytes
SHEET_IMAGES = 4  # images on a sample sheet
ENDLESS = 2**40
HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
FIXED = ("held_out", "seed", "batch", "gradient_accumulation", "learning_rate", "ema")  # once a folder is begun


@dataclass(frozen=True)
class FinetuneControlnet:
    """Settings of `finetune_controlnet`, saved with the checkpoint.

    `start` is the checkpoint's name as for `load_synthesizer`. `minutes` or `steps` (of the optimizer) end it. A step
    sees `batch` x `gradient_accumulation` x processes images. None leaves `resolution` (side of the square views,
    pixels), `learning_rate` and `held_out` (part of each dataset's groups) to the checkpoint, `mixed_precision`
    ("no", "fp16", "bf16") to the device. `ema` keeps averaged weights, `gradient_checkpointing` saves memory for time.
    """

    datasets: tuple[Path, ...]
    out: Path
    start: str = "emitdiff-mini"
    minutes: float | None = None
    steps: int | None = None
    resolution: int | None = None
    batch: int = 4
    gradient_accumulation: int = 1
    learning_rate: float | None = None
    mixed_precision: str | None = None
    gradient_checkpointing: bool = False
    ema: bool = True
    held_out: float | None = None
    seed: int = 0
    threads: int | None = None


def finetune_controlnet(settings: FinetuneControlnet) -> Path:
    """Fine-tunes and writes the checkpoint folder `settings.out`; returns it. A rerun resumes where it stopped.

    `settings.out`/state holds what is needed to go on, loss.csv and, as samples/NUMBER.png, sheets of real images
    beside generated ones: it is not for publishing.

    Raises:
        EmitDiffError: settings out of range or that contradict one another, unreadable datasets or weights, an `out`
            that holds something else, a folder started with other settings, or a loss that is no number any more.
    """
    _check_settings(settings)
    check_finetuning_folder(settings.out, settings.start, settings.datasets)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    accelerator = _new_accelerator(settings)
    start = open_base_checkpoint(settings.start, settings.resolution)
    held_out, rate = settings.held_out, settings.learning_rate
    if held_out is None:
        held_out = start.card.training.get("held_out", 0.2)
    if rate is None:
        rate = RATE_FULL_SIZE if start.full_size else RATE_SMALL
    FineTuning(replace(settings, held_out=held_out, learning_rate=rate), accelerator, start).run()
    if accelerator.num_processes > 1:
        accelerator.end_training()
    return settings.out


def _check_settings(settings: FinetuneControlnet) -> None:
    if settings.minutes is not None and settings.steps is not None:
        raise EmitDiffError("Both minutes and steps were given; give the one that is to end the training.")
    for name in ("minutes", "steps", "batch", "gradient_accumulation", "learning_rate", "resolution", "threads"):
        value = getattr(settings, name)
        if value is not None and not 0 < value < float("inf"):
            raise EmitDiffError(f"The setting {name.replace('_', ' ')} was {value:g}; give a number above 0.")
    if settings.mixed_precision not in (None, "no", *HALVES):
        raise EmitDiffError(
            f"The mixed precision '{settings.mixed_precision}' is not known; choose one of no, {', '.join(HALVES)}."
        )


def _new_accelerator(settings: FinetuneControlnet) -> Accelerator:
    # accelerate keeps one state for the whole Python session, and would refuse a second precision.
    AcceleratorState._reset_state()
    device, world = choose_device(), int(os.environ.get("WORLD_SIZE") or 1)
    precision = settings.mixed_precision or choose_mixed_precision(device)
    # Left to itself, accelerate sees one process on CPUs, however many torchrun has started.
    on_cpu = {"cpu": True} if world > 1 and device.type == "cpu" else {}
    try:
        accelerator = Accelerator(
            mixed_precision=precision, gradient_accumulation_steps=settings.gradient_accumulation, **on_cpu
        )
    except ValueError as error:
        raise EmitDiffError(
            f"The mixed precision {precision} does not run on this machine ({error}); choose another, or name none."
        ) from error
    if accelerator.num_processes != world:  # each would train a copy of its own, into the same folder
        raise EmitDiffError(
            f"{world} processes were started and {accelerator.num_processes} work together: start them with "
            "`torchrun --nproc_per_node N -m emitdiff ...`, or with `accelerate launch` on CUDA cards."
        )
    return accelerator


def _log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


class FineTuning:
    """One run: the networks, the images and the state on disk."""

    def __init__(self, settings: FinetuneControlnet, accelerator: Accelerator, start: BaseCheckpoint):
        self.settings, self.accelerator, self.start = settings, accelerator, start
        self.device, self.folder = accelerator.device, Path(settings.out) / "state"
        self.train, kept, self.without_validation = split_datasets(
            settings.datasets, settings.held_out or 0.0, SPLIT_SEED
        )
        self.shown = kept or self.train
        self.draws_samples = self.device.type != "cpu" or not start.full_size  # a sheet would take hours
        self._begin_folder()
        self._log_notices()
        self.scale = appearance_scale(self.train, start.card.training.get("appearance", {}))
        self.per_step = settings.batch * settings.gradient_accumulation * accelerator.num_processes
        self._prepare_networks()

    def _begin_folder(self) -> None:
        """A folder started on other images or from other weights would mix two models."""
        path = self.folder / "settings.json"
        wanted = {
            "from": self.settings.start, "resolution": self.start.side,
            "datasets": sorted(dataset.info.name for dataset in self.train),
            **{name: getattr(self.settings, name) for name in FIXED},
        }  # fmt: skip
        check_record(path, wanted, self.settings.out)
        self.accelerator.wait_for_everyone()  # all have looked, before one writes
        if self.accelerator.is_main_process:
            make_folder(self.folder / "samples", named=self.settings.out)
            begin_record(path, wanted, self.settings.out)
            weights = {self.settings.start: weights_fingerprint(self.start.found)}
            check_hashes(self.folder / HASHES, self.settings.out, weights, self.train)

    def _log_notices(self) -> None:
        if not self.accelerator.is_main_process:
            return
        for name in self.without_validation if self.settings.held_out else ():
            _log(f"'{name}' has only one group: nothing is held out, all images are used for training.")
        if not self.draws_samples:
            seconds = self.start.seconds_a_step(self.settings.batch * self.settings.gradient_accumulation)
            _log(
                f"There is no GPU here, and these weights are of Stable Diffusion's size: a step may take about "
                f"{seconds:.0f} s, and no sample sheets are generated. emitdiff-mini is made for CPUs."
            )

    def _prepare_networks(self) -> None:
        """Frozen networks in half precision on a GPU, where memory counts; the ControlNet's own weights in float32."""
        on_gpu, pipe = self.device.type == "cuda", self.start.pipe
        self.dtype = HALVES.get(self.accelerator.mixed_precision, torch.float32) if on_gpu else torch.float32
        self.start.freeze(self.device, self.dtype)
        self.network = pipe.controlnet.to(self.device, torch.float32, memory_format=torch.channels_last).train()
        if self.settings.gradient_checkpointing:
            pipe.unet.enable_gradient_checkpointing()
            self.network.enable_gradient_checkpointing()
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.settings.learning_rate or RATE_SMALL, weight_decay=1e-2
        )
        self.controlnet, self.optimizer = self.accelerator.prepare(self.network, optimizer)
        parts = {"controlnet": self.network, "optimizer": self.optimizer}
        if self.settings.ema:
            parameters = self.network.parameters()
            self.average = parts["average"] = EMAModel(parameters, decay=0.999, use_ema_warmup=True, power=0.8)
        if self.accelerator.scaler is not None:
            parts["scaler"] = self.accelerator.scaler
        self.state = StageState(self.folder / "finetuning.pt", MINUTES, parts)
        if self.settings.ema:
            self.average.to(self.device)

    def run(self) -> None:
        """Trains until minutes or steps are used up, then writes the checkpoint."""
        main = self.accelerator.is_main_process
        log = LossLog(self.folder / "loss.csv", self.state.steps) if main else None
        spent, started = self.state.seconds, time.monotonic()
        saved, pause, next_sheet = started, SAVE_EVERY_SECONDS, max(FIRST_SAMPLES, 2 * spent)
        for loss in self._steps():
            now = time.monotonic()
            self.state.steps, self.state.seconds = self.state.steps + 1, spent + now - started
            if log is None:
                continue
            log.add(self.state.steps, self.state.steps * self.per_step, loss, self.state.seconds)
            if now - saved > pause:
                log.write()
                self.state.save()
                saved = time.monotonic()
                pause = max(SAVE_EVERY_SECONDS, (saved - now) / SAVING_SHARE)
            if self.state.seconds > next_sheet and self.draws_samples:
                next_sheet = 2 * self.state.seconds
                self._save_contact_sheet(self._result())
        if log is not None:
            log.write()
            self.state.save()
            controlnet = self._result()
            write_finetuned(self.start, controlnet, Path(self.settings.out), self._record())
            if self.draws_samples:
                self._save_contact_sheet(controlnet)
        self.accelerator.wait_for_everyone()

    def _steps(self) -> Iterator[float]:
        """Takes optimizer steps and yields the loss of each, averaged over its images, until it is time to stop."""
        settings, main = self.settings, self.accelerator.is_main_process
        views = FineTuningViews(self.train, self.start.side, self.start.card, self.scale, settings.seed)
        workers = min(4, (os.cpu_count() or 1) // 2) if self.device.type == "cuda" else 0
        numbers = range(self.state.steps * self.per_step, ENDLESS)
        loader = DataLoader(views, settings.batch, sampler=numbers, num_workers=workers)
        batches = iter(self.accelerator.prepare(loader))
        with tqdm(
            desc="fine-tuning", unit="step", initial=self.state.steps, total=settings.steps, disable=not main
        ) as bar:
            while not self._is_over():
                losses = [self._train_batch(next(batches)) for _ in range(settings.gradient_accumulation)]
                if settings.ema:
                    self.average.step(self.network.parameters())
                loss = self.accelerator.reduce(torch.stack(losses).mean(), "mean").item()
                if not isfinite(loss):
                    raise EmitDiffError(
                        f"The loss is not finite after {self.state.steps + 1} steps; start with another --out and "
                        "a smaller --learning-rate, or with --mixed-precision no."
                    )
                bar.update()
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                yield loss

    def _is_over(self) -> bool:
        if self.settings.steps is not None:
            return self.state.steps >= self.settings.steps
        over = self.state.seconds >= 60 * (self.settings.minutes or MINUTES)
        # One clock for all: some would wait for ever for others that have stopped.
        return bool(broadcast(torch.tensor([float(over)], device=self.device)).item())

    def _train_batch(self, batch: dict) -> Tensor:
        """Loss of one batch; every `gradient_accumulation`-th one moves the weights."""
        with self.accelerator.accumulate(self.controlnet):
            # Locked networks in half precision need no autocast; the ControlNet has its own, from `prepare`.
            with self.accelerator.autocast() if self.dtype == torch.float32 else nullcontext():
                loss = self.start.loss(self.controlnet, batch)
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.controlnet.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss.detach()

    def _result(self) -> ControlNetModel:
        """A copy of the ControlNet as it would be saved now: float32, averaged where averages are kept."""
        controlnet = ControlNetModel.from_config(self.network.config).to(self.device)
        controlnet.load_state_dict(self.network.state_dict())
        if self.settings.ema:
            self.average.copy_to(controlnet.parameters())
        return controlnet.eval().requires_grad_(False)

    def _save_contact_sheet(self, controlnet: ControlNetModel) -> None:
        """state/samples/NUMBER.png: held-out images (or trained ones, if none are) beside generated ones."""
        parts = {**self.start.pipe.components, "controlnet": controlnet.to(self.dtype)}
        pipe = StableDiffusionControlNetPipeline(**parts, requires_safety_checker=False)
        pipe.set_progress_bar_config(disable=True)
        pipeline = SynthesisPipeline(pipe, self.start.card, "fine-tuning", load_grain(self.start.folder))
        sheet = contact_sheet(pipeline, self._items_shown())
        folder = self.folder / "samples"
        Image.fromarray(sheet).save(folder / f"{len(list(folder.glob('*.png'))):03d}.png")

    def _items_shown(self) -> list[Item]:
        chosen = [choose_rows(dataset, limit=-(-SHEET_IMAGES // len(self.shown))) for dataset in self.shown]
        return [read_item(dataset, index) for dataset in chosen for index in range(len(dataset))][:SHEET_IMAGES]

    def _record(self) -> dict:
        """What emitdiff.json says of the training: images and licences, the parent's too, split, recipe, length."""
        settings, parent = self.settings, self.start.card.training
        own = [
            {"name": dataset.info.name, "images": len(dataset), "licence": dataset.info.licence,
             "citation": dataset.info.citation, "kept_out": dataset.info.name not in self.without_validation}
            for dataset in self.train
        ]  # fmt: skip
        names = {row["name"] for row in own}
        inherited = [{**row, "by": "parent"} for row in parent.get("datasets", ()) if row["name"] not in names]
        return {
            "date": date.today().isoformat(),
            "method": "fine-tuning of the ControlNet",
            "parent": {
                "name": Path(settings.start).name if Path(settings.start).is_dir() else settings.start,
                "licence": self.start.found.licence, "training": parent,
            },
            "datasets": own + inherited, "held_out": settings.held_out, "split_seed": SPLIT_SEED,
            "seed": settings.seed, "resolution": self.start.side, "appearance": self.scale.quartiles,
            "stages": {
                "controlnet": {"minutes": round(self.state.seconds / 60, 1), "steps": self.state.steps}
            },
            "recipe": {
                "optimizer": "AdamW", "learning_rate": settings.learning_rate, "schedule": "constant",
                "batch": settings.batch, "gradient_accumulation": settings.gradient_accumulation,
                "processes": self.accelerator.num_processes, "mixed_precision": self.accelerator.mixed_precision,
                "ema": settings.ema, "rotation": ROTATION, "scale": SCALE,
                "edge_weights": edge_weights(self.start.card.detector),
                "prediction_type": self.start.schedule.config.prediction_type,
            },
        }  # fmt: skip
