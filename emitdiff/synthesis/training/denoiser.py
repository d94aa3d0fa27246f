"""Second and third stage: text encoder and U-Net on text alone, then the ControlNet beside them.

v-prediction on a schedule with zero terminal SNR (arXiv 2305.08891): scans are mostly black or mostly bright, and
a network that never sees pure noise cannot generate either. Where EMIT-Diff locks a U-Net that has seen billions of
images, ours has seen thousands, so it goes on learning beside the ControlNet.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from tokenizers import pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from emitdiff.synthesis.training.captions import caption
from emitdiff.synthesis.training.optimization import optimizer_step
from emitdiff.synthesis.training.views import View, ViewPool, drop_conditions
from emitdiff.training_state import StageState

TEXT_WIDTH, TEXT_TOKENS = 192, 40
BLOCKS = (96, 160, 224)
LEARNING_RATE = 4e-4
FIRST_SAMPLES = 240.0  # seconds
DROP_TEXT = 0.1


def new_tokenizer(captions: list[str]) -> CLIPTokenizer:
    """A CLIP tokenizer whose byte pairs are merged on the captions; any other word is spelled in smaller pieces."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    backend = CLIPTokenizer(vocab={start: 0, end: 1}, merges=[]).backend_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1400, special_tokens=[start, end], initial_alphabet=alphabet, end_of_word_suffix="</w>",
        show_progress=False,
    )  # fmt: skip
    backend.train_from_iterator(captions, trainer)
    model = json.loads(backend.to_str())["model"]
    vocab, merges = model["vocab"], [tuple(pair) for pair in model["merges"]]
    for symbol in sorted(alphabet):
        vocab.setdefault(symbol + "</w>", len(vocab))
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TEXT_TOKENS)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A small CLIP text transformer, tokens (B, 40, 192)."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH, num_hidden_layers=3,
        num_attention_heads=6, max_position_embeddings=TEXT_TOKENS, projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return CLIPTextModel(config)


def new_unet(latent_channels: int) -> UNet2DConditionModel:
    """A U-Net of Stable Diffusion's kind for 32 x 32 latents; attention at 8 x 8 only, the rest is paid for in time.

    The pooled text goes into the time embedding too, so that every layer knows what is painted (as in DeepFloyd IF).
    """
    return UNet2DConditionModel(
        sample_size=32, in_channels=latent_channels, out_channels=latent_channels, block_out_channels=BLOCKS,
        layers_per_block=1, down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"), cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=tuple(width // 32 for width in BLOCKS), addition_embed_type="text",
        addition_embed_type_num_heads=TEXT_WIDTH // 32,
    )  # fmt: skip


def new_scheduler() -> DDPMScheduler:
    """Stable Diffusion's betas rescaled to zero terminal SNR, v-prediction."""
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        rescale_betas_zero_snr=True, clip_sample=False, timestep_spacing="trailing",
    )  # fmt: skip


def sampling_scheduler() -> DDIMScheduler:
    """The scheduler that goes into the checkpoint: DDIM over the same betas."""
    return DDIMScheduler.from_config(new_scheduler().config, set_alpha_to_one=True, clip_sample=False)


@dataclass
class Denoiser:
    """The networks that learn together. `controlnet` is None in the second stage."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    controlnet: ControlNetModel | None = None

    def modules(self) -> nn.ModuleList:
        """Everything that is trained."""
        parts = [self.text_encoder, self.unet, self.controlnet]
        return nn.ModuleList([part for part in parts if part is not None])

    def add_controlnet(self) -> ControlNetModel:
        """A ControlNet that starts as a copy of the U-Net's encoder, its gates already open (see `init_gates`)."""
        self.controlnet = ControlNetModel.from_unet(self.unet, conditioning_embedding_out_channels=(16, 32, 64, 96))
        init_gates(self.controlnet)
        return self.controlnet

    def predict(self, noisy: Tensor, timesteps: Tensor, captions: list[str], control: Tensor | None) -> Tensor:
        """v (B, C, h, w) for noisy latents, with `control` (B, 3, 8h, 8w) in [0, 1]."""
        ids = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        ids = ids.to(noisy.device, non_blocking=True)
        tokens = self.text_encoder(ids)[0]
        down = middle = None
        if control is not None and self.controlnet is not None:
            down, middle = self.controlnet(noisy, timesteps, tokens, controlnet_cond=control, return_dict=False)
        return self.unet(
            noisy, timesteps, tokens, down_block_additional_residuals=down, mid_block_additional_residual=middle
        ).sample


@torch.no_grad()
def init_gates(controlnet: ControlNetModel) -> None:
    """Replaces the zero convolutions by small random ones and lets the control in at the scale of the features.

    Zeros protect a finished U-Net (arXiv 2302.05543) at the price of thousands of steps in which nothing of the
    control arrives. Ours learns along and has only thousands of steps.
    """
    embedding = controlnet.controlnet_cond_embedding
    signal = (torch.rand(4, 3, 128, 128) > 0.85).float()
    for layer in (embedding.conv_in, *embedding.blocks, embedding.conv_out):
        layer.reset_parameters()
        layer.weight /= layer(signal).std() + 1e-6
        signal = F.silu(layer(signal))
    for gate in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
        nn.init.xavier_uniform_(gate.weight, gain=0.3)


def train_denoiser(
    denoiser: Denoiser,
    pool: ViewPool,
    state_file: Path,
    minutes: float,
    batch: int,
    seed: int,
    learning_rate: float = LEARNING_RATE,
    decay: bool = True,
    on_samples: Callable[[], None] | None = None,
) -> None:
    """Trains in place for `minutes`, resuming from `state_file`; the averaged (EMA) weights are what remains.

    Args:
        pool: gives views at the resolution to train at.
        decay: lower the learning rate over the second half, for the last of several phases.
        on_samples: called after four minutes and then whenever the time spent has doubled, with the averaged weights
            in place, to draw samples.
    """
    torch.manual_seed(seed)
    modules = denoiser.modules().train()
    device = pool.autoencoder.device
    modules.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # memory_format has no type there
    optimizer = torch.optim.AdamW(
        modules.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=1e-2, fused=True
    )
    average = EMAModel(modules.parameters(), decay=0.9985, use_ema_warmup=True, power=0.8, foreach=True)
    state = StageState(state_file, minutes, {"modules": modules, "optimizer": optimizer, "average": average}, device)
    schedule = new_scheduler()
    schedule.alphas_cumprod = schedule.alphas_cumprod.to(device)
    rng = np.random.default_rng(seed + state.steps)
    next_samples, smooth = max(FIRST_SAMPLES, 2 * state.seconds), None

    for step in state.run(state_file.stem):
        decayed = max(0.04, min(1.0, 2 * (1 - state.progress))) if decay else 1.0
        rate = learning_rate * min(1.0, (step + 1) / 200) * decayed
        loss = _loss(denoiser, pool.draw(batch, rng), schedule, rng)
        optimizer_step(loss, modules, optimizer, average, rate)
        smooth = loss.detach() if smooth is None else 0.98 * smooth + 0.02 * loss.detach()
        if step % 20 == 0:
            state.bar.set_postfix(step=step, loss=f"{smooth:.4f}", refresh=False)
        if on_samples and state.seconds > next_samples:
            next_samples = 2 * state.seconds
            average.store(modules.parameters())
            average.copy_to(modules.parameters())
            on_samples()
            average.restore(modules.parameters())
    average.copy_to(modules.parameters())
    modules.eval()


def _loss(denoiser: Denoiser, views: list[View], schedule: DDPMScheduler, rng: np.random.Generator) -> Tensor:
    latents = torch.stack([view.latents for view in views]).float()
    captions = ["" if rng.random() < DROP_TEXT else caption(view.description, rng) for view in views]
    control = None
    if denoiser.controlnet is not None:
        control = drop_conditions(torch.stack([view.control for view in views]).float() / 255, rng)
        control = control.to(memory_format=torch.channels_last)
    noise = torch.randn_like(latents)
    # Stratified timesteps: every batch covers the whole schedule, which steadies the loss at small batches.
    offsets = (torch.arange(len(views)) + torch.rand(len(views))) / len(views)
    timesteps = (offsets * schedule.config.num_train_timesteps).long().to(latents.device, non_blocking=True)
    noisy = schedule.add_noise(latents, noise, timesteps).to(memory_format=torch.channels_last)
    with torch.autocast(latents.device.type, torch.bfloat16):
        predicted = denoiser.predict(noisy, timesteps, captions, control)
    return F.mse_loss(predicted.float(), schedule.get_velocity(latents, noise, timesteps))
