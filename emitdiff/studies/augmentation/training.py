"""One training of a segmenter: as many steps whatever the method, the best of a few validations kept."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from monai.losses import DiceCELoss
from torch.nn import functional

from emitdiff.datasets.folder import DatasetFolder
from emitdiff.devices import choose_device
from emitdiff.segmentation.evaluation import measure
from emitdiff.studies.networks import build_network
from emitdiff.studies.unet_baseline import ImageSet, class_labels, mixed_precision, predict


@dataclass(frozen=True)
class Train:
    """Settings of `train`. Of `steps`, the weights are kept that had the highest Dice on the validation part at one of
    `validations` evenly spaced steps, the last one among them."""

    network: str
    steps: int
    learning_rate: float
    validations: int
    seed: int


@dataclass(frozen=True)
class Trained:
    """`model` in evaluation mode as it was after `step` steps, with that `dice` on the validation part."""

    model: torch.nn.Module
    step: int
    dice: float


def train(
    settings: Train, channels: int, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], validation: ImageSet
) -> Trained:
    """A network of `channels` classes trained on `settings.steps` batches, float (B, 3, R, R) and classes (B, R, R).

    AdamW, Dice and cross entropy, the learning rate falling to zero along a cosine.
    """
    device = choose_device()
    model = build_network(settings.network, channels, settings.seed).to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    every = max(1, settings.steps // settings.validations)
    best, best_step, weights = -1.0, 0, {}
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)  # for networks that drop units
        for step, (images, classes) in enumerate(batches, start=1):
            with mixed_precision(device):
                logits = model(images.to(device))
            optimiser.zero_grad(set_to_none=True)
            loss(logits.float(), classes.to(device)[:, None].long()).backward()
            optimiser.step()
            schedule.step()
            if step % every and step != settings.steps:
                continue
            found = validation_dice(model.eval(), validation, channels)
            model.train()
            if found >= best:  # of equals the later one, which has seen more
                best, best_step, weights = found, step, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return Trained(model.eval(), best_step, best)


def validation_dice(model: torch.nn.Module, pictures: ImageSet, channels: int) -> float:
    """Mean Dice over images and those classes but the background that they show; 0 where they show none."""
    predicted = functional.one_hot(predict(model, pictures.images).argmax(1), channels)[..., 1:].bool()
    truth = functional.one_hot(pictures.classes.long(), channels)[..., 1:].bool()
    overlap, total = ((predicted & truth).sum((1, 2)), predicted.sum((1, 2)) + truth.sum((1, 2)))
    shown = truth.any(1).any(1)
    return float((2 * overlap / total.clamp(min=1))[shown].mean()) if shown.any() else 0.0


def measure_cases(model: torch.nn.Module, rows: DatasetFolder, pictures: ImageSet) -> list[dict]:
    """A row of `segmentation.evaluation.measure` for every image and label of `rows`, at the size of the source;
    `pictures` are the same at the network's resolution."""
    labels, logits, found = class_labels(rows.info.labels), predict(model, pictures.images), []
    for index, sample in enumerate(rows):
        upsampled = functional.interpolate(logits[index : index + 1], sample.mask.shape, mode="bilinear")
        predicted = upsampled[0].argmax(0).numpy()
        for name, channel in labels.items():
            names = {"file_name": sample.name, "group": sample.group, "label": name}
            found.append(names | measure(predicted == channel, sample.mask == rows.info.labels[name]))
    return found
