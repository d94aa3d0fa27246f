"""The head learns to answer sentences with masks, on a frozen backbone or with the backbone learning along.

Learning along ("joint"), one pass through the backbone serves both: it predicts the noise, and its blocks are what the
head reads. A backbone of minutes of training instead of weeks has seen too little to be frozen at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from emitdiff.segmentation.greys import GREY_LEVELS
from emitdiff.segmentation.model.features import (
    MULTIPLE,
    DiffusionFeatures,
    capture_blocks,
    coordinates,
    fold,
    fold_factor,
    load_features,
    pooled,
    sizes_around,
)
from emitdiff.segmentation.model.text import TextEncoder, build_text_encoder, pretrain_text_encoder
from emitdiff.segmentation.model.textdiff import HeadConfig, TextDiff
from emitdiff.segmentation.training.backbone import export_backbone
from emitdiff.segmentation.training.examples import (
    LabelledImage,
    Query,
    image_tensor,
    sample_images,
    sample_query,
    trained_phrases,
)
from emitdiff.segmentation.training.schedule import learning_rate, update_average
from emitdiff.segmentation.training.settings import CELL, TrainSegmentation
from emitdiff.segmentation.vocabulary import OTHER_NAMES, TARGETS, Target, compose_sentence, targets_of
from emitdiff.training_state import StageState

REFINEMENT_CHANNELS = 32  # channels of the network that looks at the pixels again
DECAY = 0.998
TEXT_STEPS = 600  # of the text encoder, before any image is seen
RATES = {"head": 2e-3, "unet": 6e-4}
CONTINUED_RATE = 0.35  # of those, for weights that have learnt already
HALF_SIZE_SHARE = 0.55  # part of the budget on images of half the side: four times as many
READ_STEP_SHARE = 0.6  # part of the images noised as the head will read them; the others at all steps, for the denoiser
MAX_QUERY_TIMESTEP = 300  # above it too little of the image is left to be asked about
# times the resolution: at which the trained head looks at an image; the first tells the scene
SIZE_FACTORS = (1, 0.75)
FAR_FACTORS = (1, 1.25)  # the same, but for the first: at which it looks from farther away
DENOISING_WEIGHT = 0.3  # weight of that loss beside the masks'


class ChannelScaling(nn.Module):
    """Fixed scaling of every channel of every scale to mean 0 and spread 1 over some training images.

    A backbone's finest maps can be ten times fainter than its coarsest; unscaled, the text would drown them. It is
    folded into the projections when the head is saved, so a saved head has no layer for it.
    """

    def __init__(self, maps: Sequence[torch.Tensor]) -> None:
        super().__init__()
        for index, part in enumerate(maps):
            self.register_buffer(f"mean_{index}", part.mean(dim=(0, 2, 3)).float())
            self.register_buffer(f"spread_{index}", part.std(dim=(0, 2, 3)).float() + 1e-4)

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Maps (B, C_k, H_k, W_k), scaled, float32."""
        numbered = enumerate(maps)
        return [(part.float() - self._column("mean", k)) / self._column("spread", k) for k, part in numbered]

    @torch.no_grad()
    def unfolded(self, head: TextDiff) -> TextDiff:
        """A copy of `head`, which reads unscaled maps, that does the same to scaled ones: the inverse of `folded`."""
        head = deepcopy(head)
        projections: Any = head.projections
        for index, projection in enumerate(projections):
            projection.bias += projection.weight[:, :, 0, 0] @ getattr(self, f"mean_{index}")
            projection.weight *= self._column("spread", index)
        return head

    def _column(self, name: str, index: int) -> torch.Tensor:
        return getattr(self, f"{name}_{index}")[:, None, None]

    @torch.no_grad()
    def folded(self, head: TextDiff) -> TextDiff:
        """A copy of `head` that does to unscaled maps what `head` does to scaled ones."""
        head = deepcopy(head)
        projections: Any = head.projections
        for index, projection in enumerate(projections):
            projection.weight /= self._column("spread", index)
            projection.bias -= projection.weight[:, :, 0, 0] @ getattr(self, f"mean_{index}")
        return head


def build_head(features: DiffusionFeatures, text: TextEncoder) -> TextDiff:
    """A small, light head for the channels that `features` gives, with subpixels, presence and votes."""
    side = 32 * max(1, features.unet.config.sample_size // 32)
    empty = torch.zeros(1, 3, side, side, device=next(features.parameters()).device)
    channels = tuple(part.shape[1] for part in features(empty))
    return init_head(
        HeadConfig(
            channels,
            tuple(range(len(channels))),
            64,
            text.dim,
            4,
            32,
            (48, 32),
            2,
            CELL,
            0.1,
            True,
            True,
            REFINEMENT_CHANNELS,
        )
    )


def init_head(config: HeadConfig) -> TextDiff:
    """A head with values that a small one learns from sooner than from the paper's."""
    head = TextDiff(config)
    for layer in head.classifier.layers:
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    norms: Any = head.attention.after
    for norm in norms:  # at first the words whisper: learning starts much faster than at full weight
        nn.init.constant_(norm.weight, 0.1)
    return head


def segmentation_loss(logits: torch.Tensor, masks: torch.Tensor, known: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy + 1.5 soft Dice (of probabilities), the Dice over the rows whose mask is not empty.

    `logits` (B, 2, H, W), `masks` (B, H, W) in 0..1; what is 0 in `known` (B, H, W) in 0..1 counts for neither.
    """
    probability = logits.float().softmax(dim=1)[:, 1]
    if known is None:
        entropy = functional.binary_cross_entropy(probability.clamp(1e-6, 1 - 1e-6), masks)
    else:
        each = functional.binary_cross_entropy(probability.clamp(1e-6, 1 - 1e-6), masks, reduction="none")
        entropy = ((each * known).flatten(1).sum(1) / known.flatten(1).sum(1).clamp_min(1)).mean()
        probability, masks = probability * known, masks * known
    present = masks.flatten(1).sum(1) > 0
    overlap = 2 * (probability * masks).flatten(1).sum(1) + 1
    dice = overlap / (probability.flatten(1).sum(1) + masks.flatten(1).sum(1) + 1)
    return entropy + 1.5 * ((1 - dice) * present).sum() / max(1, len(masks))


def sample_timesteps(count: int, read: int, total: int, rng: np.random.Generator) -> torch.Tensor:
    """Timesteps (count,) in 0..total - 1: the first and most others the one that the head reads, the rest early rather
    than late.
    """
    anywhere = (rng.random(count) ** 1.5 * total).astype(int)
    steps = np.where(rng.random(count) < READ_STEP_SHARE, read, anywhere)
    steps[0] = read  # never a batch without an image that can be asked about
    return torch.from_numpy(steps)


def joint_forward(unet: nn.Module, features: DiffusionFeatures, images: torch.Tensor,
                  rng: np.random.Generator) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:  # fmt: skip
    """One pass with gradients through `unet` over images (B, 3, R, R), noised at steps drawn here.

    (the denoising loss, the maps (B, C_k, H_k, W_k) as `features` gives them, bool (B,): those not too noisy to ask
    about).
    """
    scheduler = features.scheduler
    clean = fold(images, fold_factor(unet)).contiguous(memory_format=torch.channels_last)
    total = scheduler.config.num_train_timesteps
    steps = sample_timesteps(len(images), features.timesteps[0], total, rng).to(images.device)
    noise = torch.randn_like(clean)
    with torch.autocast(images.device.type, torch.bfloat16), capture_blocks(unet, features.blocks) as read:
        predicted = unet(scheduler.add_noise(clean, noise, steps), steps).sample
    loss = functional.mse_loss(predicted.float(), scheduler.get_velocity(clean, noise, steps))
    maps = [read[name].float() for name in features.blocks]
    placed = [torch.cat([part, coordinates(part)], dim=1) for part in maps] if features.with_coordinates else maps
    return loss, placed, steps <= MAX_QUERY_TIMESTEP


def training_step(model: nn.ModuleDict, features: DiffusionFeatures, images: Sequence[LabelledImage],
                  rng: np.random.Generator) -> torch.Tensor:  # fmt: skip
    """The loss of two questions about every image, asked of the same features; "unet" in `model` learns along. The
    refinement, which costs more than all else in the head, looks at half of the images; of the others the logits are
    judged without it.
    """
    batch = image_tensor(images).to(next(model.parameters()).device)
    cells = (batch.shape[-2] // CELL, batch.shape[-1] // CELL)
    extra: torch.Tensor | float = 0.0
    legible = torch.ones(len(images), dtype=torch.bool, device=batch.device)
    if "unet" in model:
        denoising, maps, legible = joint_forward(model["unet"], features, batch, rng)
        extra = DENOISING_WEIGHT * denoising
    else:
        with torch.autocast(batch.device.type, torch.bfloat16):
            maps = [part.float() for part in features(batch)]
    rows = [*range(len(images)), *range(len(images))]
    queries = [sample_query(images[row], index < len(images), rng) for index, row in enumerate(rows)]
    masks = torch.from_numpy(np.stack([query.mask for query in queries])).to(batch)
    known = torch.from_numpy(np.stack([_known(query) for query in queries])).to(batch)
    head: Any = model["head"]
    with torch.autocast(batch.device.type, torch.bfloat16):
        tokens, visible = model["text"]([query.text for query in queries])
        projected = head.project(model["scaling"](pooled(maps, cells)))
        attended = head.attend([part[rows] for part in projected], tokens, visible)
        logits = _partly_refined(head, batch, attended, cells, rows)
    selected = legible[rows]
    return segmentation_loss(logits[selected], masks[selected], known[selected]) + extra


def _partly_refined(head: TextDiff, batch: torch.Tensor, attended: list[torch.Tensor], cells: tuple[int, int],
                    rows: list[int]) -> torch.Tensor:  # fmt: skip
    """The logits of every question, those about the first half of the images in `batch` with their refinement; `rows`
    says which image each question is about."""
    hidden = head.classifier.hidden(attended, cells)
    logits = head.classifier.last_convolution(hidden)
    if head.detail is None:
        return logits
    looked_at = math.ceil(len(batch) / 2)
    asked = [index for index, row in enumerate(rows) if row < looked_at]
    pixels = head.detail.encode_image(batch[:looked_at])
    correction = head.detail(pixels[[rows[index] for index in asked]], hidden[asked])
    return logits.index_add(0, torch.tensor(asked, device=batch.device), correction.to(logits.dtype))


def _known(query: Query) -> np.ndarray:
    return np.ones_like(query.mask) if query.known is None else query.known


def batch_plan(progress: float, step: int, settings: TrainSegmentation) -> tuple[int, int]:
    """(side, count): images of half the side first, but not where training goes on from other weights, then of half,
    three quarters and all of it by turns, so that the head meets its targets at several sizes; fewer of the larger ones
    at once.
    """
    full = settings.resolution
    if (settings.start is None and progress < HALF_SIZE_SHARE) or step % 5 == 0:
        return full // 2, 4 * settings.batch
    if step % 5 < 3:
        return MULTIPLE * round(0.75 * full / MULTIPLE), round(settings.batch * 16 / 9)
    return full, settings.batch


def train_head(sets: list[list[LabelledImage]], settings: TrainSegmentation, checkpoint: Path, minutes: float,
               device: torch.device, joint: bool) -> None:  # fmt: skip
    """The head for `minutes`, on a text encoder trained before, the backbone along with it if `joint`; from the head in
    `checkpoint`, where `settings` name weights to start from.

    Writes `checkpoint` as it goes.
    """
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    features = load_features(checkpoint / "backbone", None, settings.timesteps, settings.seed).to(device)
    state_path = Path(settings.out) / "head" / "state.pt"
    continued = settings.start is not None
    text = _text_encoder(sets, checkpoint, continued or state_path.exists(), rng)
    start = TextDiff.load(checkpoint / "head") if continued else None
    examples = sample_images(sets, 32, settings.resolution, rng, GREY_LEVELS)
    model = _model(features, text, examples, joint, start).to(device)
    average = deepcopy(model).eval()
    factor = CONTINUED_RATE if continued else 1.0
    rates: list[dict[str, Any]] = [
        {"params": model[name].parameters(), "peak": factor * RATES[name]} for name in RATES if name in model
    ]
    optimizer = torch.optim.AdamW(rates, weight_decay=0.01)
    parts = {"model": model, "average": average, "optimizer": optimizer}
    state = StageState(state_path, minutes, parts, device)
    state.after_save = lambda: save_segmenter(average, features, checkpoint, settings, trained_phrases(sets))
    rng, _ = np.random.default_rng((settings.seed, state.steps)), torch.manual_seed(settings.seed + state.steps)
    losses: list[float] = []
    for step in state.run("head and backbone" if joint else "head"):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(group["peak"], step, state.progress)
        side, count = batch_plan(state.progress, step, settings)
        images = sample_images(sets, count, side, rng, GREY_LEVELS)
        loss = training_step(model, features, images, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for part in rates:  # each alone: a jolt in one must not hush the others
            nn.utils.clip_grad_norm_(part["params"], 1.0)
        optimizer.step()
        update_average(average, model, step, DECAY)
        losses = [*losses[-99:], loss.item()]
        state.bar.set_postfix(step=step, loss=f"{np.mean(losses):.4f}", refresh=False)


def _text_encoder(sets: list[list[LabelledImage]], checkpoint: Path, resumed: bool,
                  rng: np.random.Generator) -> TextEncoder:  # fmt: skip
    if resumed:  # word pieces learnt again would differ
        return TextEncoder.load(checkpoint / "text")
    own = (target for images in sets for target in targets_of(images[0].info).values())
    targets = list(dict.fromkeys([*TARGETS, *own, *(Target(name, "", (name,), (name,), ()) for name in OTHER_NAMES)]))
    text = build_text_encoder(compose_sentence(target, rng) for target in targets for _ in range(60))
    pretrain_text_encoder(text, lambda count: [compose_sentence(targets[k % len(targets)], rng) for k in range(count)],
                          len(targets),
                steps=TEXT_STEPS)  # fmt: skip
    text.save(checkpoint / "text")
    return text


def _model(features: DiffusionFeatures, text: TextEncoder, images: Sequence[LabelledImage], joint: bool,
           start: TextDiff | None = None) -> nn.ModuleDict:  # fmt: skip
    batch = image_tensor(images).to(next(features.parameters()).device)
    maps = pooled(features(batch), (batch.shape[-2] // CELL, batch.shape[-1] // CELL))
    scaling = ChannelScaling(maps)
    head = build_head(features, text) if start is None else scaling.unfolded(start)
    parts: dict[str, nn.Module] = {"text": text, "head": head, "scaling": scaling}
    if joint:
        parts["unet"] = deepcopy(features.unet).requires_grad_(True)
    model = nn.ModuleDict(parts).train()
    model["head"].requires_grad_(True)
    model["text"].eval()  # frozen, as in the paper
    return model


def save_segmenter(model: nn.ModuleDict, features: DiffusionFeatures, folder: Path, settings: TrainSegmentation,
                   targets: Sequence[str]) -> None:  # fmt: skip
    """head/, text/ and, where it learnt along, backbone/ of a checkpoint, and segmenter.json: how to read them."""
    parts: Any = model
    parts["scaling"].folded(parts["head"]).save(folder / "head")
    parts["text"].save(folder / "text")
    if "unet" in model:
        export_backbone(model["unet"], features.scheduler, folder / "backbone")
    config = {
        "blocks": features.blocks,
        "timesteps": features.timesteps,
        "noise_seed": features.seed,
        "place": features.with_coordinates,
        "cell": CELL,
        "resolution": settings.resolution,
        "sizes": sizes_around(settings.resolution, SIZE_FACTORS),
        "far_sizes": sizes_around(settings.resolution, FAR_FACTORS)[1:],
        "greys": GREY_LEVELS,
        "targets": targets,
    }
    (folder / "segmenter.json").write_text(json.dumps(config, indent=1) + "\n")
