"""Training the embedded segmenter: a diffusion backbone without labels, then words and masks on its frozen features."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from emitdiff.datasets import open_dataset, split_by_group
from emitdiff.errors import EmitDiffError
from emitdiff.images import image_to_tensor, resize_image
from emitdiff.segmentation.backbone import learning_rate, save_state, train_backbone, update_average
from emitdiff.segmentation.examples import LabelledImage, ask, draw_images, image_tensor, read_labelled, taught
from emitdiff.segmentation.features import DiffusionFeatures, pooled, stage_ends, working_size
from emitdiff.segmentation.presence import Scenes, signature
from emitdiff.segmentation.targets import TARGETS, compose_sentence, home_of, targets_of
from emitdiff.segmentation.text import TextEncoder, build_text_encoder
from emitdiff.segmentation.textdiff import HeadConfig, TextDiff

SAVE_EVERY_SECONDS = 120
SCENE_IMAGES = 36  # of each dataset, to learn what its kind of image looks like
CELL = 4  # the head answers once per CELL x CELL pixels
KEPT = 500  # images whose features are asked about again
HEAD_DECAY = 0.99


@dataclass(frozen=True)
class TrainSegmentation:
    """`minutes` are shared between the stages: 0.58 for the backbone where both are trained. `stage` "head" takes
    the backbone in `out`/checkpoint/backbone. Training again into the same `out` goes on where it stopped.
    """

    datasets: tuple[Path, ...]
    out: Path
    minutes: float = 65.0
    stage: Literal["all", "backbone", "head"] = "all"
    resolution: int = 256
    held_out: float = 0.2
    seed: int = 0
    threads: int | None = None
    batch: int = 4
    timesteps: tuple[int, ...] = (20,)


def train_segmentation(settings: TrainSegmentation) -> Path:
    """Train on the groups of `settings.datasets` that are not held out; returns the checkpoint folder.

    Raises EmitDiffError when a dataset cannot be read or labels nothing the head can be taught, and for a
    resolution that cannot be used.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if settings.resolution < 64 or settings.resolution % 64:
        raise EmitDiffError(f"A resolution of {settings.resolution} was given: it must be a multiple of 64.")
    from emitdiff.devices import choose_device

    device, out = choose_device(), Path(settings.out)
    train = [split_by_group(open_dataset(folder), settings.held_out, settings.seed)[0] for folder in settings.datasets]
    for dataset in train:
        if settings.stage != "backbone" and not any(dataset.info.labels.values()):
            raise EmitDiffError(
                f"'{dataset.info.name}' labels nothing but background: name what its masks show under \"labels\" in "
                "dataset.json, leave it out, or use --stage backbone."
            )
    sets = read_labelled(train, settings.resolution)
    share = {"all": 0.58, "backbone": 1.0, "head": 0.0}[settings.stage]
    checkpoint = out / "checkpoint"
    if share:
        images = [labelled.image for images in sets for labelled in images]
        train_backbone(images, out / "backbone", settings.minutes * share, settings.resolution, settings.seed,
                       device=device)  # fmt: skip
        export_backbone(out / "backbone", checkpoint / "backbone")
    if share < 1:
        train_head(sets, settings, checkpoint, settings.minutes * (1 - share), device)
        learn_scenes(sets, settings, checkpoint, device)
    record = {"settings": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()
                           if k not in ("datasets", "out")},
              "datasets": [{**asdict(d.info), "images": len(d), "groups": len(set(d.groups))} for d in train],
              "split": {"rule": "split_by_group", "held_out": settings.held_out, "seed": settings.seed},
              "targets": taught(sets)}  # fmt: skip
    (checkpoint / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    return checkpoint


def export_backbone(source: Path, folder: Path) -> None:
    """The averaged backbone in half precision, with its scheduler."""
    from diffusers import DDPMScheduler, UNet2DModel

    unet = UNet2DModel.from_pretrained(source).half()
    unet.register_to_config(_name_or_path="")  # not where it lay on the machine that trained it
    unet.save_pretrained(folder)
    DDPMScheduler.from_pretrained(source).save_pretrained(folder)


def load_features(folder: Path, blocks: Sequence[str | int] | None, timesteps: Sequence[int], seed: int = 0,
                  place: bool = True) -> DiffusionFeatures:  # fmt: skip
    """The frozen backbone of a checkpoint folder, float32, by default read at the end of every decoder stage.

    Raises EmitDiffError where there is none.
    """
    from diffusers import DDPMScheduler, UNet2DModel

    if not (folder / "config.json").exists():
        raise EmitDiffError(f"{folder} holds no backbone: train one first with --stage backbone into the same folder.")
    unet = UNet2DModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).float()
    scheduler = DDPMScheduler.from_pretrained(folder, local_files_only=True)
    unet = unet.to(memory_format=torch.channels_last)
    return DiffusionFeatures(unet, scheduler, blocks or stage_ends(unet), timesteps, seed, place)


class ChannelScaling(nn.Module):
    """Fixed scaling of every channel of every scale to mean 0 and spread 1 over some training images.

    A backbone's finest maps can be ten times fainter than its coarsest; unscaled, the text would drown them. It is
    folded into the projections when the head is saved, so a saved head has the paper's layers only.
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

    def _column(self, name: str, index: int) -> torch.Tensor:
        return getattr(self, f"{name}_{index}")[:, None, None]

    @torch.no_grad()
    def folded(self, head: TextDiff) -> TextDiff:
        """A copy of `head` that does to unscaled maps what `head` does to scaled ones."""
        head = deepcopy(head)
        for index, projection in enumerate(head.projections):
            projection.weight /= self._column("spread", index)
            projection.bias -= projection.weight[:, :, 0, 0] @ getattr(self, f"mean_{index}")
        return head


def build_head(features: DiffusionFeatures, text: TextEncoder) -> TextDiff:
    """A small head for the channels that `features` gives."""
    side = 32 * max(1, features.unet.config.sample_size // 32)
    parts = features(torch.zeros(1, 3, side, side))
    channels = tuple(part.shape[1] for part in parts)
    head = TextDiff(HeadConfig(channels, tuple(range(len(channels))), 64, text.dim, 4, 32, (48, 32), 2))
    for layer in head.classifier.layers:
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    for norm in head.attention.after:  # at first the words whisper: learning starts much faster than at full weight
        nn.init.constant_(norm.weight, 0.1)
    return head


def segmentation_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Cross-entropy + 1.5 soft Dice (of probabilities), the Dice over the rows whose mask is not empty.

    `logits` (B, 2, H, W), `masks` (B, H, W) in 0..1.
    """
    probability = logits.float().softmax(dim=1)[:, 1]
    entropy = functional.binary_cross_entropy(probability.clamp(1e-6, 1 - 1e-6), masks)
    present = masks.flatten(1).sum(1) > 0
    overlap = 2 * (probability * masks).flatten(1).sum(1) + 1
    dice = overlap / (probability.flatten(1).sum(1) + masks.flatten(1).sum(1) + 1)
    return entropy + 1.5 * ((1 - dice) * present).sum() / max(1, len(masks))


@dataclass(frozen=True)
class Seen:
    """An altered image and its scaled features (C_k, H_k, W_k), half precision, not finer than the head's cells."""

    labelled: LabelledImage
    maps: list[torch.Tensor]


@torch.no_grad()
def look_at(images: Sequence[LabelledImage], features: DiffusionFeatures, scaling: ChannelScaling | None) -> list:
    """The frozen features of images of one size, once each: `Seen`, or plain maps (B, C_k, H_k, W_k) unscaled."""
    batch = image_tensor(images).to(next(features.parameters()).device)
    with torch.autocast(batch.device.type, torch.bfloat16):
        maps = features(batch)
    maps = pooled([part.float() for part in maps], tuple(side // CELL for side in batch.shape[-2:]))
    if scaling is None:
        return maps
    maps = [part.half() for part in scaling(maps)]
    return [Seen(labelled, [part[index] for part in maps]) for index, labelled in enumerate(images)]


def training_step(model: nn.ModuleDict, examples: Sequence[Seen], cells: int, rng: np.random.Generator) -> torch.Tensor:
    """The loss of two questions about every example, answered on a grid of `cells` x `cells`.

    Whole images on a coarse grid teach where things are, which small windows of a fine one do not.
    """
    questions = [(seen, *ask(seen.labelled, own, rng)) for seen in examples for own in (True, False)]
    maps = [torch.stack(parts).float() for parts in zip(*(seen.maps for seen, _, _ in questions), strict=True)]
    masks = torch.from_numpy(np.stack([mask for _, _, mask in questions])).to(maps[0].device).float()
    with torch.autocast(maps[0].device.type, torch.bfloat16):
        tokens, visible = model["text"]([text for _, text, _ in questions])
        logits = model["head"](pooled(maps, (cells, cells)), tokens, visible, (cells, cells))
    return segmentation_loss(logits, functional.adaptive_avg_pool2d(masks, cells))


def train_head(sets: list[list[LabelledImage]], settings: TrainSegmentation, checkpoint: Path, minutes: float,
               device: torch.device) -> None:  # fmt: skip
    """Text encoder and head on frozen features for `minutes`; writes head/ and text/ of `checkpoint` as it goes."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    features = load_features(checkpoint / "backbone", None, settings.timesteps, settings.seed).to(device)
    state_path = Path(settings.out) / "head" / "state.pt"
    if state_path.exists():  # word pieces learnt anew would differ
        text = TextEncoder.load(checkpoint / "text").requires_grad_(True)
    else:
        spoken = [*TARGETS, *(target for images in sets for target in targets_of(images[0].info).values())]
        text = build_text_encoder(compose_sentence(target, rng) for target in dict.fromkeys(spoken) for _ in range(400))
        text.save(checkpoint / "text")
    first = look_at(draw_images(sets, 32, settings.resolution, rng), features, None)
    parts = {"text": text, "head": build_head(features, text), "scaling": ChannelScaling(first)}
    model = nn.ModuleDict(parts).to(device).train()
    model["head"].to(memory_format=torch.channels_last)
    average = deepcopy(model).eval()
    rates = [{"params": model[name].parameters(), "peak": peak} for name, peak in (("text", 1e-3), ("head", 2e-3))]
    optimizer = torch.optim.AdamW(rates, weight_decay=0.01)
    step, spent, losses, kept = 0, 0.0, [], []
    if state_path.exists():
        state = torch.load(state_path, weights_only=True, map_location=device)
        model.load_state_dict(state["model"]), average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent, losses = state["step"], state["seconds"], state["losses"]
        rng, _ = np.random.default_rng((settings.seed, step)), torch.manual_seed(settings.seed + step)
    started, saved = time.monotonic() - spent, time.monotonic()
    with tqdm(total=round(minutes * 60), initial=round(spent), unit="s", desc="head") as bar:
        while spent < minutes * 60:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(group["peak"], step, spent / (minutes * 60), warm_up=50)
            fresh = look_at(draw_images(sets, settings.batch, settings.resolution, rng), features, model["scaling"])
            again = [kept[index] for index in rng.integers(len(kept), size=2 * settings.batch)] if kept else []
            kept = [*kept, *fresh][-KEPT:]
            cells = settings.resolution // (2 * CELL if spent < minutes * 30 else CELL)  # coarse half, fine half
            loss = training_step(model, [*fresh, *again], cells, rng)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            update_average(average, model, step, HEAD_DECAY)
            losses.append(loss.item())
            step, spent = step + 1, time.monotonic() - started
            bar.n = round(spent)
            bar.set_postfix(step=step, loss=f"{np.mean(losses[-50:]):.4f}")
            if time.monotonic() - saved > SAVE_EVERY_SECONDS or spent >= minutes * 60:
                state = {"model": model.state_dict(), "average": average.state_dict(), "losses": losses,
                         "optimizer": optimizer.state_dict(), "step": step, "seconds": spent}  # fmt: skip
                save_state(state_path, state)
                save_segmenter(average, features, checkpoint, settings, taught(sets))
                saved = time.monotonic()


def learn_scenes(sets: list[list[LabelledImage]], settings: TrainSegmentation, checkpoint: Path,
                 device: torch.device) -> None:  # fmt: skip
    """scenes.safetensors: what kinds of image the head was taught on look like; none where it is a single kind."""
    features = load_features(checkpoint / "backbone", None, settings.timesteps, settings.seed).to(device)
    rng = np.random.default_rng(settings.seed)
    signatures: dict[str, list[torch.Tensor]] = {}
    for images in tqdm(sets, desc="scenes", unit="set"):
        scene = home_of(images[0].info)
        for index in rng.permutation(len(images))[:SCENE_IMAGES]:
            image = images[index].image
            small = resize_image(image, working_size(image.shape[:2], settings.resolution))
            seen = signature(features(image_to_tensor(small).to(device)), features.place)
            signatures.setdefault(scene, []).append(seen)
    if len(signatures) > 1:
        Scenes.learnt_from(signatures).save(checkpoint / "scenes.safetensors")


def save_segmenter(model: nn.ModuleDict, features: DiffusionFeatures, folder: Path, settings: TrainSegmentation,
                   targets: Sequence[str]) -> None:  # fmt: skip
    """head/ and text/ of a checkpoint, and segmenter.json: which blocks, steps, noise, size and targets it knows."""
    model["scaling"].folded(model["head"]).save(folder / "head")
    model["text"].save(folder / "text")
    facts = {
        "blocks": features.blocks,
        "timesteps": features.timesteps,
        "noise_seed": features.seed,
        "place": features.place,
        "cell": CELL,
        "resolution": settings.resolution,
        "targets": targets,
    }
    (folder / "segmenter.json").write_text(json.dumps(facts, indent=1) + "\n")
