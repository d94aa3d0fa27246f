"""Trains a complete synthesis checkpoint from dataset folders: autoencoder; text encoder and U-Net; ControlNet.

Every stage has its share of the minutes, saves its state once a minute and goes on from there when it is started
again. What comes out is a diffusers folder that `load_synthesizer` reads like any repository on the Hub.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, StableDiffusionControlNetPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from emitdiff.errors import EmitDiffError
from emitdiff.images import fitted_size, resize_image, resize_mask
from emitdiff.synthesis.autoencoder_training import train_autoencoder
from emitdiff.synthesis.captions import AppearanceScale, caption, facts_of
from emitdiff.synthesis.corpus import Corpus, Item, load_corpus
from emitdiff.synthesis.denoiser_training import (
    Denoiser,
    ViewPool,
    new_text_encoder,
    new_tokenizer,
    new_unet,
    sampling_scheduler,
    train_denoiser,
)
from emitdiff.synthesis.pipeline import CARD_FILE, CheckpointCard, SynthesisPipeline
from emitdiff.synthesis.prompts import prompt_of

STAGES = ("autoencoder", "unet", "controlnet")
SHARES = {"autoencoder": 0.4, "unet": 0.12, "controlnet": 0.48}
HALF_SIZE_SHARE = 0.5  # part of the ControlNet's time at half the resolution
DEFAULTS = {"num_inference_steps": 20, "guidance_scale": 2.0, "controlnet_conditioning_scale": 1.0}


@dataclass(frozen=True)
class TrainSynthesis:
    """Settings of `train_synthesis`, saved with the checkpoint.

    `minutes` are shared among the stages (`SHARES`), or go to the one `stage` named. `held_out` is the part of each
    dataset's groups that is never trained on. `resolution` is the side of the square crops in pixels.
    """

    datasets: tuple[Path, ...]
    out: Path
    resolution: int = 256
    minutes: float = 60.0
    stage: str = "all"
    seed: int = 0
    threads: int | None = None
    held_out: float = 0.2


def train_synthesis(settings: TrainSynthesis) -> Path:
    """Trains and writes the checkpoint folder `settings.out`; returns it.

    Raises:
        EmitDiffError: unknown stage, resolution not a multiple of 64, unreadable dataset, or an earlier stage missing.
    """
    if settings.stage not in ("all", *STAGES):
        raise EmitDiffError(f"The stage '{settings.stage}' is not known; choose all or one of {', '.join(STAGES)}.")
    if settings.resolution % 64 or settings.resolution < 64:
        raise EmitDiffError(f"The resolution was {settings.resolution}; give a multiple of 64, for example 256.")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    corpus = load_corpus(settings.datasets, settings.held_out, settings.seed)
    run = TrainingRun(settings, corpus)
    for stage in STAGES if settings.stage == "all" else (settings.stage,):
        share = SHARES[stage] if settings.stage == "all" else 1.0
        getattr(run, stage)(settings.minutes * share)
    return settings.out


class TrainingRun:
    """One method per stage; each leaves its networks in the checkpoint folder, where the next one finds them."""

    def __init__(self, settings: TrainSynthesis, corpus: Corpus):
        self.settings, self.corpus, self.out = settings, corpus, Path(settings.out)
        self.state = self.out / "state"
        self.scale = AppearanceScale.from_items(corpus.items)

    def autoencoder(self, minutes: float) -> None:
        model = train_autoencoder(self.corpus, self.state, minutes, self.settings.seed)
        model.half().save_pretrained(self.out / "vae")
        self._record()

    def unet(self, minutes: float) -> None:
        pool = self._pool(self.settings.resolution // 2)
        rng = np.random.default_rng(self.settings.seed)
        captions = [
            caption(facts_of(item, item.image, item.mask, self.scale), rng)
            for item in self.corpus.items for _ in range(4)
        ]  # fmt: skip
        tokenizer = new_tokenizer(captions)
        torch.manual_seed(self.settings.seed)
        denoiser = Denoiser(tokenizer, new_text_encoder(tokenizer), new_unet(pool.autoencoder.config.latent_channels))
        train_denoiser(denoiser, pool, self.state / "unet.pt", minutes, 24, self.settings.seed)
        self._save(denoiser)

    def controlnet(self, minutes: float) -> None:
        """Half the resolution first, where a step costs a quarter; then the full one."""
        denoiser = self._load()
        torch.manual_seed(self.settings.seed)
        denoiser.add_controlnet()
        full = self.settings.resolution
        phases = ((full // 2, HALF_SIZE_SHARE, 24, 4e-4), (full, 1 - HALF_SIZE_SHARE, 6, 2e-4))
        for resolution, share, batch, learning_rate in phases:
            pool = self._pool(resolution)
            train_denoiser(
                denoiser, pool, self.state / f"controlnet-{resolution}.pt", minutes * share, batch, self.settings.seed,
                learning_rate=learning_rate, on_look=partial(self._sheet, denoiser, pool.autoencoder),
            )  # fmt: skip
            self._save(denoiser)
            self._sheet(denoiser, pool.autoencoder)

    def _pool(self, resolution: int) -> ViewPool:
        if not (self.out / "vae").is_dir():
            raise EmitDiffError(
                f"{self.out} has no autoencoder yet; run train-synthesis with --stage autoencoder first."
            )
        autoencoder = AutoencoderTiny.from_pretrained(self.out / "vae", dtype=torch.float32).eval()
        return ViewPool(self.corpus, autoencoder, self.scale, resolution)

    def _load(self) -> Denoiser:
        if not (self.out / "unet").is_dir():
            raise EmitDiffError(f"{self.out} has no U-Net yet; run train-synthesis with --stage unet first.")
        return Denoiser(
            CLIPTokenizer.from_pretrained(self.out / "tokenizer"),
            CLIPTextModel.from_pretrained(self.out / "text_encoder", dtype=torch.float32),
            UNet2DConditionModel.from_pretrained(self.out / "unet", dtype=torch.float32),
        )

    def _save(self, denoiser: Denoiser) -> None:
        """Writes every network there is as fp16 safetensors, the networks in memory stay as they are."""
        autoencoder = AutoencoderTiny.from_pretrained(self.out / "vae", dtype=torch.float16)
        if denoiser.controlnet is None:
            save_half(denoiser.unet, self.out / "unet")
            save_half(denoiser.text_encoder, self.out / "text_encoder")
            denoiser.tokenizer.save_pretrained(self.out / "tokenizer")
        else:
            self._pipeline(denoiser, autoencoder).save_pretrained(self.out)
            for name in ("unet", "text_encoder", "controlnet"):
                save_half(getattr(denoiser, name), self.out / name)
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
        spent = {}
        for path in sorted(self.state.glob("*.pt")):
            stored = torch.load(path, weights_only=True, mmap=True)
            spent[path.stem] = {"minutes": round(stored["seconds"] / 60, 1), "steps": stored["steps"]}
        training = {
            "date": date.today().isoformat(),
            "datasets": [
                {"name": name, "images": sum(item.info.name == name for item in items), "licence": info.licence,
                 "citation": info.citation}
                for name, info in infos.items()
            ],
            "held_out": self.settings.held_out, "seed": self.settings.seed,
            "resolution": self.settings.resolution, "stages": spent, "appearance": self.scale.quartiles,
        }  # fmt: skip
        card = CheckpointCard("layered", self.settings.resolution**2, 32, "soft", DEFAULTS, training)
        (self.out / CARD_FILE).write_text(json.dumps(asdict(card), indent=1), encoding="utf-8")

    def _sheet(self, denoiser: Denoiser, autoencoder: AutoencoderTiny) -> None:
        """samples/NUMBER.png: real held-out images beside what is painted from their edges and from their mask."""
        items = load_corpus(self.settings.datasets, self.settings.held_out, self.settings.seed, "held-out").items
        names = list(dict.fromkeys(item.info.name for item in items))
        chosen = [next(item for item in items if item.info.name == name and item.mask.any()) for name in names]
        card = CheckpointCard("layered", self.settings.resolution**2, 32, "soft", DEFAULTS)
        modules = denoiser.modules().eval()
        pipeline = SynthesisPipeline(self._pipeline(denoiser, autoencoder), card, "training")
        folder = self.out / "samples"
        folder.mkdir(exist_ok=True)
        sheet = contact_sheet(pipeline, chosen)
        Image.fromarray(sheet).save(folder / f"{len(list(folder.glob('*.png'))):03d}.png")
        modules.train()


def save_half(model: torch.nn.Module, folder: Path) -> None:
    """Saves fp16 safetensors without touching the weights in memory."""
    half = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=half) if hasattr(model, "can_generate") else _save_diffusers(
        model, folder, half
    )


def _save_diffusers(model, folder: Path, half: dict) -> None:
    from safetensors.torch import save_file

    model.save_config(folder)
    save_file(
        {name: value.contiguous() for name, value in half.items()},
        folder / "diffusion_pytorch_model.safetensors",
        metadata={"format": "pt"},
    )


def contact_sheet(pipeline: SynthesisPipeline, items: Sequence[Item], tile: int = 192) -> np.ndarray:
    """One row per item: real, control image, painted from edges and mask, painted from the mask alone; uint8 RGB."""
    rows = []
    for item in items:
        size = fitted_size(item.mask.shape, pipeline.checkpoint_card.area, pipeline.checkpoint_card.multiple)
        image, mask = resize_image(item.image, size), resize_mask(item.mask, size)
        settings = {"prompt": prompt_of(item.info, mask, item.finding), "num_images": 1, "num_inference_steps": 12}
        full = pipeline(image, mask, **settings)[0].image
        free = pipeline(None, mask, **settings)[0].image
        tiles = [image, pipeline.control_image(image, mask), full, free]
        rows.append(np.concatenate([resize_image(picture, (tile, tile)) for picture in tiles], axis=1))
    half = (len(rows) + 1) // 2
    while len(rows) < 2 * half:
        rows.append(np.zeros_like(rows[0]))
    return np.concatenate([np.concatenate(rows[:half]), np.concatenate(rows[half:])], axis=1)
