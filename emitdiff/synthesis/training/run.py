"""Trains a complete synthesis checkpoint from dataset folders: autoencoder; grain; text encoder and U-Net; ControlNet.

Every stage has its share of the minutes, saves its state once a minute and resumes from there when it is started
again. What comes out is a diffusers folder that `load_synthesizer` reads like any repository on the Hub.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from datetime import date
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, ControlNetModel, StableDiffusionControlNetPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from emitdiff.checksums import CHECKSUMS, fingerprint, write_checksums
from emitdiff.datasets.fingerprint import HASHES, check_hashes
from emitdiff.datasets.folder import open_dataset
from emitdiff.devices import choose_device
from emitdiff.errors import EmitDiffError
from emitdiff.files import begin_record, check_output_folder
from emitdiff.synthesis.card import CARD_FILE, CheckpointCard
from emitdiff.synthesis.grain import GRAIN_FOLDER, load_grain
from emitdiff.synthesis.pipeline import SynthesisPipeline
from emitdiff.synthesis.training.autoencoder import train_autoencoder
from emitdiff.synthesis.training.captions import AppearanceScale, caption, describe_view
from emitdiff.synthesis.training.contact_sheet import contact_sheet
from emitdiff.synthesis.training.corpus import Corpus, Item, load_corpus
from emitdiff.synthesis.training.denoiser import (
    Denoiser,
    new_text_encoder,
    new_tokenizer,
    new_unet,
    sampling_scheduler,
    train_denoiser,
)
from emitdiff.synthesis.training.grain import train_grain
from emitdiff.synthesis.training.saving import save_half
from emitdiff.synthesis.training.views import ViewPool
from emitdiff.synthesis.training.warm_start import copy_weights
from emitdiff.training_state import time_spent

RUN_MARKERS = ("state/settings.json", "state/autoencoder.pt")  # by which a run knows its folder
STAGES = ("autoencoder", "grain", "unet", "controlnet")
NETWORKS = "networks"  # those of the last stage, on the autoencoder and the grain of the checkpoint to start from
SHARES = {"autoencoder": 0.35, "grain": 0.08, "unet": 0.12, "controlnet": 0.45}
SPLIT_SEED = 0  # which groups are held out does not depend on the seed of the training
HALF_SIZE_SHARE = 0.66  # part of the ControlNet's time at half the resolution
HALF_SIZE_SHARE_AGAIN = 0.25  # the same where the networks are inherited and know the structure already
# Chosen on training images of four sets: 6 steps are no worse than 50, and at this strength the most edges are met.
DEFAULTS = {"num_inference_steps": 6, "guidance_scale": 1.5, "controlnet_conditioning_scale": 1.4}


@dataclass(frozen=True)
class TrainSynthesis:
    """Settings of `train_synthesis`, saved with the checkpoint.

    `minutes` are shared among the stages (`SHARES`), or go to the one `stage` named. `held_out` is the part of each
    dataset's groups that is never trained on. `resolution` is the side of the square crops in pixels. `start` names
    a checkpoint folder of the same architecture whose weights every stage begins with. A step has `batch` images, at
    half the resolution three times as many. `workers` are processes that make views while a GPU trains.
    """

    datasets: tuple[Path, ...]
    out: Path
    resolution: int = 256
    minutes: float = 60.0
    stage: str = "all"
    seed: int = 0
    threads: int | None = None
    held_out: float = 0.2
    start: Path | None = None
    batch: int = 4
    workers: int = 0


def train_synthesis(settings: TrainSynthesis) -> Path:
    """Trains and writes the checkpoint folder `settings.out`; returns it.

    `settings.out`/state holds what is needed to go on, and sample sheets with real images: it is not for publishing.

    Raises:
        EmitDiffError: unknown stage, a setting out of range, unreadable dataset, an earlier stage missing, or an `out`
            that holds something else, lies where it reads, or was started with other settings.
    """
    if settings.stage not in ("all", *STAGES, NETWORKS):
        raise EmitDiffError(
            f"The stage '{settings.stage}' is not known; choose all or one of {', '.join((*STAGES, NETWORKS))}."
        )
    if settings.stage == NETWORKS and settings.start is None:
        raise EmitDiffError(
            "To train the networks alone, name the checkpoint whose autoencoder they keep, with --from."
        )
    if settings.resolution % 64 or settings.resolution < 64:
        raise EmitDiffError(f"The resolution was {settings.resolution}; give a multiple of 64, for example 256.")
    if settings.minutes <= 0:
        raise EmitDiffError(f"The time to train was {settings.minutes:g} minutes; give a positive number.")
    if settings.batch < 1 or settings.workers < 0:
        raise EmitDiffError(
            f"Batch and workers were {settings.batch} and {settings.workers}; give at least 1 image and 0 processes."
        )
    check_output_folder(settings.out, RUN_MARKERS, (*settings.datasets, settings.start))
    if settings.threads:
        torch.set_num_threads(settings.threads)
    corpus = load_corpus(settings.datasets, settings.held_out, SPLIT_SEED)
    run = TrainingRun(settings, corpus)
    (Path(settings.out) / CHECKSUMS).unlink(missing_ok=True)  # until all is written again
    for stage in STAGES if settings.stage == "all" else (settings.stage,):
        share = SHARES[stage] if settings.stage == "all" else 1.0
        getattr(run, stage)(settings.minutes * share)
    write_checksums(Path(settings.out))
    return settings.out


class TrainingRun:
    """One method per stage; each leaves its networks in the checkpoint folder, where the next one finds them."""

    def __init__(self, settings: TrainSynthesis, corpus: Corpus):
        self.settings, self.corpus, self.out = settings, corpus, Path(settings.out)
        self.state = self.out / "state"
        self.device = choose_device()
        self.scale = AppearanceScale.from_items(corpus.items)
        self._check_settings()

    def _check_settings(self) -> None:
        """A folder started on other data or at another size would mix two models, and held-out images with training."""
        wanted = {
            "datasets": sorted({item.info.name for item in self.corpus.items}), "seed": self.settings.seed,
            "held_out": self.settings.held_out, "resolution": self.settings.resolution,
            "from": self.settings.start and Path(self.settings.start).name,
        }  # fmt: skip
        begin_record(self.state / "settings.json", wanted, self.out, optional=("from",))
        start = (
            {}
            if self.settings.start is None
            else {Path(self.settings.start).name: fingerprint(Path(self.settings.start))}
        )
        opened = [open_dataset(folder) for folder in self.settings.datasets]
        self.hashes = check_hashes(self.state / HASHES, self.out, start, opened)

    def _is_done(self, stage: str, minutes: float, later: str) -> bool:
        """Whether the stage has had its time, or, when all are trained, has later ones that rest on it.

        Raises EmitDiffError for a stage that was named and has such later ones.
        """
        done = time_spent(self.state / f"{stage}.pt")[0] >= minutes * 60
        if not done and list(self.state.glob(later)):
            if self.settings.stage == "all":
                return True
            raise EmitDiffError(
                f"{self.out} holds later stages that rest on its {stage}, which cannot be trained further beneath "
                f"them; give no more than the time it had, or another --out."
            )
        return done and (self.out / ("vae" if stage == "autoencoder" else stage)).is_dir()

    def autoencoder(self, minutes: float) -> None:
        if self._is_done("autoencoder", minutes, "unet.pt"):
            return
        start = None
        if self.settings.start is not None:
            start = AutoencoderTiny.from_pretrained(self.settings.start / "vae", dtype=torch.float32)
        model = train_autoencoder(
            self.corpus, self.state, minutes, self.settings.seed, self.device, start,
            batch=2 * self.settings.batch, workers=self.settings.workers,
        )  # fmt: skip
        model.half().save_pretrained(self.out / "vae")
        self._record()

    def grain(self, minutes: float) -> None:
        """For this folder's autoencoder, or, where it has none, that of the checkpoint to start from."""
        if time_spent(self.state / "grain.pt")[0] >= minutes * 60 and (self.out / GRAIN_FOLDER).is_dir():
            return
        parent = self.settings.start if not (self.out / "vae").is_dir() else None
        autoencoder = self._autoencoder(parent or self.out)
        network = train_grain(self.corpus, autoencoder, self.state / "grain.pt", minutes, self.settings.seed)
        save_half(network, self.out / GRAIN_FOLDER)
        self._record()

    def unet(self, minutes: float) -> None:
        if self.settings.start is not None or self._is_done("unet", minutes, "controlnet-*.pt"):
            return  # a checkpoint to start from brings a U-Net that has learnt beside its ControlNet
        pool = self._pool(self.settings.resolution // 2)
        tokenizer = self._tokenizer()
        torch.manual_seed(self.settings.seed)
        denoiser = Denoiser(tokenizer, new_text_encoder(tokenizer), new_unet(pool.autoencoder.config.latent_channels))
        train_denoiser(denoiser, pool, self.state / "unet.pt", minutes, 6 * self.settings.batch, self.settings.seed)
        pool.close()
        self._save(denoiser)

    def _tokenizer(self) -> CLIPTokenizer:
        """Learnt once: a vocabulary learnt again would give other numbers to the words of trained embeddings."""
        folder = self.out / "tokenizer"
        if not folder.is_dir():
            rng = np.random.default_rng(self.settings.seed)
            captions = [
                caption(describe_view(item, item.image, item.mask, self.scale), rng)
                for item in self.corpus.items for _ in range(4)
            ]  # fmt: skip
            new_tokenizer(captions).save_pretrained(folder)
        return CLIPTokenizer.from_pretrained(folder)

    def controlnet(self, minutes: float) -> None:
        """Half the resolution first, where a step costs a quarter; then the full one."""
        torch.manual_seed(self.settings.seed)
        if self.settings.start is None:
            denoiser, half = self._load(), HALF_SIZE_SHARE
            denoiser.add_controlnet()
        else:
            denoiser, half = self._inherited(self.settings.start), HALF_SIZE_SHARE_AGAIN
        full = self.settings.resolution
        batch = self.settings.batch
        phases = ((full // 2, half, 3 * batch, 5e-4), (full, 1 - half, batch, 3e-4))
        for resolution, share, batch, learning_rate in phases:
            if resolution != full and (self.state / f"controlnet-{full}.pt").exists():
                continue  # more of it would be lost: the full resolution goes on from its own weights
            pool = self._pool(resolution)
            train_denoiser(
                denoiser, pool, self.state / f"controlnet-{resolution}.pt", minutes * share, batch, self.settings.seed,
                learning_rate=learning_rate, decay=resolution == full,
                on_samples=partial(self._sheet, denoiser, pool.autoencoder),
            )  # fmt: skip
            pool.close()
            self._save(denoiser)
            self._sheet(denoiser, pool.autoencoder)

    def networks(self, minutes: float) -> None:
        """Text encoder, U-Net and ControlNet of the checkpoint to start from; autoencoder and grain are kept."""
        if (self.state / "autoencoder.pt").exists():
            raise EmitDiffError(
                f"{self.out} has an autoencoder of its own, which that of {self.settings.start} would replace: give "
                "another --out, or --train controlnet to go on with this one."
            )
        for name in ("vae", GRAIN_FOLDER):
            if self.settings.start is not None and (self.settings.start / name).is_dir():
                shutil.copytree(self.settings.start / name, self.out / name, dirs_exist_ok=True)
        self.controlnet(minutes)

    def _pool(self, resolution: int) -> ViewPool:
        own = {"workers": self.settings.workers, "seed": self.settings.seed}
        return ViewPool(self.corpus, self._autoencoder(self.out), self.scale, resolution, **own)

    def _autoencoder(self, folder: Path) -> AutoencoderTiny:
        if not (folder / "vae").is_dir():
            raise EmitDiffError(f"{folder} has no autoencoder yet; run train-synthesis with --stage autoencoder first.")
        return AutoencoderTiny.from_pretrained(folder / "vae", dtype=torch.float32).eval().to(self.device)

    def _load(self) -> Denoiser:
        if not (self.out / "unet").is_dir():
            raise EmitDiffError(f"{self.out} has no U-Net yet; run train-synthesis with --stage unet first.")
        return Denoiser(
            CLIPTokenizer.from_pretrained(self.out / "tokenizer"),
            CLIPTextModel.from_pretrained(self.out / "text_encoder", dtype=torch.float32),
            UNet2DConditionModel.from_pretrained(self.out / "unet", dtype=torch.float32),
        )

    def _inherited(self, start: Path) -> Denoiser:
        """The networks of another checkpoint, widened to this autoencoder's latents; its words keep their numbers."""
        shutil.copytree(start / "tokenizer", self.out / "tokenizer", dirs_exist_ok=True)
        unet = new_unet(AutoencoderTiny.load_config(self.out / "vae")["latent_channels"])
        copy_weights(unet, UNet2DConditionModel.from_pretrained(start / "unet", dtype=torch.float32))
        denoiser = Denoiser(
            CLIPTokenizer.from_pretrained(start / "tokenizer"),
            CLIPTextModel.from_pretrained(start / "text_encoder", dtype=torch.float32),
            unet,
        )
        controlnet = denoiser.add_controlnet()
        copy_weights(controlnet, ControlNetModel.from_pretrained(start / "controlnet", dtype=torch.float32))
        return denoiser

    def _save(self, denoiser: Denoiser) -> None:
        """Writes the networks as fp16 safetensors; those in memory stay as they are."""
        if denoiser.controlnet is not None:
            pipe = self._pipeline(denoiser, AutoencoderTiny.from_pretrained(self.out / "vae"))
            pipe.scheduler.save_pretrained(self.out / "scheduler")
            save_half(denoiser.controlnet, self.out / "controlnet")
            pipe.save_config(self.out)
        save_half(denoiser.unet, self.out / "unet")
        save_half(denoiser.text_encoder, self.out / "text_encoder")
        self._record()

    def _pipeline(self, denoiser: Denoiser, autoencoder: AutoencoderTiny) -> StableDiffusionControlNetPipeline:
        pipe = StableDiffusionControlNetPipeline(
            autoencoder, denoiser.text_encoder, denoiser.tokenizer, denoiser.unet, denoiser.controlnet,
            sampling_scheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def _record(self) -> None:
        """emitdiff.json: what the checkpoint wants to be given, and what it was trained on."""
        items = self.corpus.items
        infos = {item.info.name: item.info for item in items}
        stages = {path.stem: time_spent(path) for path in sorted(self.state.glob("*.pt"))}
        training: dict[str, Any] = {
            "date": date.today().isoformat(),
            "datasets": [
                {"name": name, "sha256": self.hashes["datasets"].get(name),
                 "images": sum(item.info.name == name for item in items), "licence": info.licence,
                 "citation": info.citation}
                for name, info in infos.items()
            ],
            "held_out": self.settings.held_out, "split_seed": SPLIT_SEED, "seed": self.settings.seed,
            "resolution": self.settings.resolution, "appearance": self.scale.quartiles,
            "stages": {
                name: {"minutes": round(seconds / 60, 1), "steps": steps} for name, (seconds, steps) in stages.items()
            },
        }  # fmt: skip
        if self.settings.start is not None:
            parent = json.loads((self.settings.start / CARD_FILE).read_text(encoding="utf-8"))["training"]
            given = [{**row, "by": "parent"} for row in parent.get("datasets", ()) if row["name"] not in infos]
            training["datasets"] += given
            training["start"] = {name: parent[name] for name in ("date", "stages", "start") if name in parent}
        (self.out / CARD_FILE).write_text(json.dumps(asdict(self._card(training)), indent=1), encoding="utf-8")

    def _card(self, training: dict | None = None) -> CheckpointCard:
        return CheckpointCard("layered", self.settings.resolution**2, 32, "hed-mini", DEFAULTS, training or {})

    def _sheet(self, denoiser: Denoiser, autoencoder: AutoencoderTiny) -> None:
        """state/samples/NUMBER.png: held-out images beside what is generated from their edges and from their masks."""
        modules = denoiser.modules().eval()
        diffusion = self._pipeline(denoiser, autoencoder)
        pipeline = SynthesisPipeline(diffusion, self._card(), "training", load_grain(self.out))
        folder = self.state / "samples"
        folder.mkdir(exist_ok=True)
        sheet = contact_sheet(pipeline, self._shown)
        Image.fromarray(sheet).save(folder / f"{len(list(folder.glob('*.png'))):03d}.png")
        modules.train()

    @cached_property
    def _shown(self) -> list[Item]:
        """One held-out item of each dataset, with a target where there is one."""
        kept = load_corpus(self.settings.datasets, self.settings.held_out, SPLIT_SEED, "held-out").items
        chosen: dict[str, Item] = {}
        for item in sorted(kept, key=lambda item: not item.mask.any()):
            chosen.setdefault(item.info.name, item)
        return list(chosen.values())
