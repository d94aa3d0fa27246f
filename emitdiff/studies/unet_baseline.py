"""A plain segmenter trained on real images, synthetic ones, or both, at matched steps; the last step is what counts.

Everything that is compared differs in the images alone: network, steps, batch, learning rate and seed are shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from monai.losses import DiceCELoss
from torch.nn import functional

from emitdiff.datasets.folder import DatasetFolder
from emitdiff.devices import choose_device, choose_mixed_precision
from emitdiff.errors import EmitDiffError
from emitdiff.images import resize_image, resize_mask
from emitdiff.segmentation.evaluation import image_measures
from emitdiff.studies.networks import DIVISOR, build_network, check_network
from emitdiff.synthesis.merging import merging_mask

MEASURES = ("dice", "dice_pooled", "dice_all", "precision", "recall", "hd95", "assd", "false_mask_rate", "n", "n_empty")

# Images uint8 (B, 3, R, R), or real and synthetic ones with their merging mask; and the classes (B, R, R).
Batch = tuple[tuple[torch.Tensor, ...], torch.Tensor]


@dataclass(frozen=True)
class TrainSegmenter:
    """Settings of `train_segmenter`.

    `resolution` is the side in pixels that images are resized to, a multiple of 32. `mix` says how a real image and a
    synthetic one generated from it join: "inputs", loss(C(m x + (1 - m) x'), y) as in the EMIT-Diff paper; "logits",
    m C(x) + (1 - m) C(x') as in its released code, at two forward passes a step; "pool", one set of both. `patch` is
    the side of the mask's squares in pixels, None a sixth of the resolution (the paper's 64 at 384). `classical`
    mirrors, rotates, scales and changes contrast at random, in the paper's ranges.
    """

    network: str = "unet"
    steps: int = 300
    batch: int = 8
    learning_rate: float = 1e-3
    resolution: int = 128
    seed: int = 0
    classical: bool = False
    mix: Literal["inputs", "logits", "pool"] = "inputs"
    alpha: float = 0.6
    patch: int | None = None


@dataclass(frozen=True)
class ImageSet:
    """Images of one dataset in memory: `images` uint8 (N, 3, R, R), `classes` uint8 (N, R, R) from 0 without gaps,
    `names` the file_name of the real image each one is or was generated from."""

    images: torch.Tensor
    classes: torch.Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def class_labels(labels: dict[str, int]) -> dict[str, int]:
    """The names of the labels that are not background, with the channel of each: 1, 2, ... in the order of their ids.
    Channel 0 is everything else."""
    named = sorted((value, name) for name, value in labels.items() if value)
    return {name: channel for channel, (_, name) in enumerate(named, start=1)}


def read_pictures(rows: DatasetFolder, resolution: int) -> ImageSet:
    """All rows at `resolution` x `resolution`; a row's `source`, where it has one, else its own name."""
    table = np.zeros(256, np.uint8)
    for name, channel in class_labels(rows.info.labels).items():
        table[rows.info.labels[name]] = channel
    size, images, classes = (resolution, resolution), [], []
    for sample in rows:
        images.append(torch.from_numpy(resize_image(sample.image, size)).permute(2, 0, 1))
        classes.append(torch.from_numpy(table[resize_mask(sample.mask, size)]))
    names = tuple(row.get("source") or row["file_name"] for row in rows.rows)
    return ImageSet(torch.stack(images), torch.stack(classes), names)


def concatenate(first: ImageSet, second: ImageSet) -> ImageSet:
    """Both sets as one."""
    images, classes = torch.cat([first.images, second.images]), torch.cat([first.classes, second.classes])
    return ImageSet(images, classes, first.names + second.names)


def standardised(images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) of any range to float with mean 0 and deviation 1 over each image."""
    images = images.float()
    deviation, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)
    return (images - mean) / (deviation + 1e-3)


def augment_batch(
    images: torch.Tensor, classes: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Classical augmentation of a float batch (B, 3, H, W) and its classes (B, H, W), each image by itself.

    Ranges of EMIT-Diff's comparison: mirror with probability 0.75, here left to right; rotation +-5 degrees, scale
    0.95-1.05, contrast 0.75-1.25 about the mean.
    """
    count, device = len(images), images.device
    angle, scale = np.deg2rad(rng.uniform(-5, 5, count)), rng.uniform(0.95, 1.05, count)
    mirror = np.where(rng.random(count) < 0.75, -1.0, 1.0)
    rows = [[mirror * np.cos(angle), -np.sin(angle), 0 * angle], [mirror * np.sin(angle), np.cos(angle), 0 * angle]]
    turn = torch.tensor(np.array(rows).transpose(2, 0, 1) / scale[:, None, None], dtype=torch.float32, device=device)
    grid = functional.affine_grid(turn, list(images.shape), align_corners=False)
    images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    masks = functional.grid_sample(
        classes[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False
    )[:, 0]
    contrast = torch.tensor(rng.uniform(0.75, 1.25, count), dtype=torch.float32, device=device)[:, None, None, None]
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * contrast + mean, masks.to(classes.dtype)


def shuffled_batches(count: int, batch: int, steps: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """`steps` index arrays of `batch`: one random order of 0..count-1 after another, cut without regard to its end."""
    orders = [rng.permutation(count) for _ in range(-(-batch * steps // count))]
    yield from np.concatenate(orders)[: batch * steps].reshape(steps, batch)


class Mixture:
    """Real images beside the synthetic ones generated from each, and the masks that merge a batch of them."""

    def __init__(self, real: ImageSet, synthetic: ImageSet, settings: TrainSegmenter):
        self.real, self.synthetic, self.settings = real, synthetic, settings
        self.variants: dict[str, list[int]] = {}
        for index, name in enumerate(synthetic.names):
            self.variants.setdefault(name, []).append(index)
        if missing := sorted(set(real.names) - set(self.variants)):
            raise EmitDiffError(
                f"{len(missing)} real images have no synthetic one to be merged with ({missing[0]} among them): "
                "generate from all of them, or mix as a pool."
            )

    def batch(self, chosen: np.ndarray, rng: np.random.Generator) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Real and synthetic images uint8 (B, 3, R, R) with the merging mask, boolean (B, 1, R, R), True where real;
        and the classes (B, R, R) of what is merged, for a synthetic image's mask may have been edited."""
        partners = [rng.choice(self.variants[self.real.names[index]]) for index in chosen]
        masks = torch.from_numpy(np.stack([draw_merging_mask(self.settings, rng) for _ in chosen]))
        classes = torch.where(masks, self.real.classes[chosen], self.synthetic.classes[partners])
        return (self.real.images[chosen], self.synthetic.images[partners], masks[:, None]), classes


def draw_merging_mask(settings: TrainSegmenter, rng: np.random.Generator) -> np.ndarray:
    """Boolean (R, R), True where the real image stays."""
    side = settings.resolution
    return merging_mask(side, side, settings.patch or max(1, round(side / 6)), settings.alpha, rng)


def check_training(settings: TrainSegmenter, both: bool) -> None:
    """Raises EmitDiffError for settings that `train_segmenter` cannot use with one set of images, or with `both`."""
    check_network(settings.network)
    if settings.resolution % DIVISOR or settings.resolution < 2 * DIVISOR:
        raise EmitDiffError(f"The resolution was {settings.resolution}; give a multiple of {DIVISOR} from 64 on.")
    if both and settings.mix != "pool":
        draw_merging_mask(settings, np.random.default_rng(0))
        if settings.mix == "logits" and settings.classical:
            raise EmitDiffError("Mixed logits and classical augmentation do not go together: mix inputs or a pool.")


def train_segmenter(
    settings: TrainSegmenter, channels: int, real: ImageSet | None, synthetic: ImageSet | None = None
) -> torch.nn.Module:
    """A network trained for `settings.steps` steps on one set, or on both mixed; in evaluation mode, on its device.

    AdamW, Dice and cross entropy; the learning rate falls to zero along a cosine, since the last step is kept. With
    "inputs" and "logits" the patches of a real image are replaced by those of one generated from it (the same name).

    Raises:
        EmitDiffError: settings that cannot be used, no images, or a real image without a synthetic one.
    """
    check_training(settings, real is not None and synthetic is not None)
    merged, pictures = None, synthetic if real is None else real
    if real is not None and synthetic is not None:
        merged = Mixture(real, synthetic, settings) if settings.mix != "pool" else None
        pictures = real if merged else concatenate(real, synthetic)
    if not pictures:
        raise EmitDiffError("There is no image to train on.")
    rng = np.random.default_rng(settings.seed)

    def batches() -> Iterator[Batch]:
        for chosen in shuffled_batches(len(pictures), settings.batch, settings.steps, rng):
            if merged:
                yield merged.batch(chosen, rng)
            else:
                yield (pictures.images[chosen],), pictures.classes[chosen]

    return fit(settings, channels, batches(), rng)


def fit(settings: TrainSegmenter, channels: int, batches: Iterable[Batch], rng: np.random.Generator) -> torch.nn.Module:
    """A network of `channels` classes trained on `settings.steps` batches as they come: see `train_segmenter`."""
    device = choose_device()
    model = build_network(settings.network, channels, settings.seed).to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    for parts, classes in batches:
        logits, classes = forward(model, [part.to(device) for part in parts], classes.to(device), settings, rng)
        optimiser.zero_grad(set_to_none=True)
        loss(logits.float(), classes[:, None].long()).backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def forward(
    model, parts: list[torch.Tensor], classes: torch.Tensor, settings: TrainSegmenter, rng: np.random.Generator
):
    """Logits (B, K, H, W) of images, or of (real, synthetic, mask) mixed, and their classes (B, H, W)."""
    if len(parts) == 1:
        images = parts[0].float()
    elif settings.mix == "inputs":
        images = torch.where(parts[2], parts[0], parts[1]).float()
    else:
        images = torch.cat([parts[0], parts[1]], dim=1).float()  # as channels, so that both are turned alike
    if settings.classical:
        images, classes = augment_batch(images, classes, rng)
    with mixed_precision(images.device):
        if images.shape[1] == 3:
            return model(standardised(images)), classes
        real, synthetic = model(standardised(images[:, :3])), model(standardised(images[:, 3:]))
        return torch.where(parts[2], real, synthetic), classes


def mixed_precision(device: torch.device) -> torch.autocast:
    """bfloat16 where the hardware computes it, else plain float32 (fp16 would ask for scaled gradients)."""
    return torch.autocast(device.type, torch.bfloat16, enabled=choose_mixed_precision(device) == "bf16")


@torch.inference_mode()
def predict(model: torch.nn.Module, images: torch.Tensor, batch: int = 16) -> torch.Tensor:
    """Logits, float (N, K, R, R) on the CPU, of uint8 (N, 3, R, R)."""
    device = next(model.parameters()).device
    found = []
    for part in images.split(batch):
        with mixed_precision(device):
            found.append(model(standardised(part.to(device))).float().cpu())
    return torch.cat(found)


def measure_segmenter(
    model: torch.nn.Module, rows: DatasetFolder, pictures: ImageSet
) -> tuple[dict[str, float | None], list[dict]]:
    """`MEASURES` of a model on all rows (`pictures` are the same rows at its resolution), and a row of each image.

    Masks are compared at the size of the source, every label by itself, distances in pixels. Images without the label
    are left out of dice, precision, recall, hd95 and assd, and counted in `false_mask_rate`: the share of them in
    which a mask was drawn nevertheless. `dice_all` counts them too: 1 where no mask was drawn, else 0.
    `dice_pooled` counts all pixels of all images together.
    """
    labels = class_labels(rows.info.labels)
    logits, found = predict(model, pictures.images), []
    for index, sample in enumerate(rows):
        upsampled = functional.interpolate(logits[index : index + 1], sample.mask.shape, mode="bilinear")
        predicted = upsampled[0].argmax(0).numpy()
        for name, channel in labels.items():
            truth, answer = sample.mask == rows.info.labels[name], predicted == channel
            pixels = {"overlap": int((truth & answer).sum()), "total": int(truth.sum()) + int(answer.sum())}
            row = {"file_name": sample.name, "group": sample.group, "label": name, "empty": not truth.any(), **pixels}
            found.append(row | (image_measures(answer, truth) if truth.any() else {"drawn": bool(answer.any())}))
    return summary(found), found


def summary(found: list[dict]) -> dict[str, float | None]:
    """`MEASURES` over rows of `measure_segmenter`; None where there is nothing to measure."""
    present, empty = [row for row in found if not row["empty"]], [row for row in found if row["empty"]]
    every = [row["dice"] for row in present] + [float(not row["drawn"]) for row in empty]
    total = sum(row["total"] for row in found)
    names = ("dice", "precision", "recall", "hd95", "assd")
    means = {name: float(np.mean([row[name] for row in present])) if present else None for name in names}
    return {
        **means, "n": len(present), "n_empty": len(empty), "dice_all": float(np.mean(every)),
        "dice_pooled": 2 * sum(row["overlap"] for row in found) / total if total else None,
        "false_mask_rate": float(np.mean([row["drawn"] for row in empty])) if empty else None,
    }  # fmt: skip
