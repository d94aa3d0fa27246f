"""Training the paper's head on a few labelled images, from features on disk.

Images are seen in up to eight ways, quarter turns and their mirrors, and at a few small angles that are drawn once;
each way passes the frozen backbone once, and all later epochs read it from disk. Angles drawn again every time, as
published, would be new images every time.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from emitdiff.datasets.folder import Sample
from emitdiff.errors import EmitDiffError, first_line
from emitdiff.files import make_folder, write_atomically
from emitdiff.mask_metrics import dice
from emitdiff.segmentation.model.text import TextEncoder
from emitdiff.segmentation.model.textdiff import TextDiff
from emitdiff.segmentation.published.efficient import efficient_logits
from emitdiff.segmentation.published.feature_cache import FeatureCache
from emitdiff.segmentation.published.model import (
    CORRECTED,
    PublishedSettings,
    prepare_image,
    prepare_mask,
    published_loss,
    read_sentences,
    sample_transform,
    transform_example,
)

STATE = "state"  # the folder, inside that of a run, of what is needed to go on


@dataclass(frozen=True)
class Epoch:
    """The mean `loss` of an epoch's batches, and then the mean `dice` of the validation images, None without any."""

    loss: float
    dice: float | None = None


def train_published_head(head: TextDiff, cache: FeatureCache, encoder: TextEncoder, samples: Sequence[Sample],
                         out: Path, settings: PublishedSettings = CORRECTED,
                         validation: Sequence[Sample] = ()) -> list[Epoch]:  # fmt: skip
    """Teach `head` in place for `settings.epochs`; it ends with the weights of the epoch whose Dice on `validation`
    was best, or without any of the last, and `out`/head holds them.

    State is kept in `out`/state after each epoch: run again, training goes on and ends at the same weights.
    Raises EmitDiffError without images, for class ids the head has no answer for, and for a damaged state.
    """
    _check_samples(head, samples, validation)
    optimizer = torch.optim.Adam(head.parameters(), lr=settings.learning_rate)
    path = Path(out) / STATE / "training.pt"
    epochs, best = _resume(path, head, optimizer)
    with tqdm(range(len(epochs), settings.epochs), desc="head", unit="epoch") as bar:
        for number in bar:
            loss = _epoch(head.train(), optimizer, cache, encoder, samples, settings, number)
            dice = validation_dice(head, cache, encoder, validation, settings) if validation else None
            if dice is None or dice > max((epoch.dice for epoch in epochs if epoch.dice is not None), default=-1):
                best = {name: value.clone() for name, value in head.state_dict().items()}
            epochs.append(Epoch(loss, dice))
            bar.set_postfix(loss=f"{loss:.4f}", **({} if dice is None else {"dice": f"{dice:.4f}"}))
            _save(path, {"head": head.state_dict(), "optimizer": optimizer.state_dict(), "best": best,
                         "epochs": [(epoch.loss, epoch.dice) for epoch in epochs]})  # fmt: skip
    if best is not None:
        head.load_state_dict(best)
    head.eval().save(Path(out) / "head")
    return epochs


def best_epoch(epochs: Sequence[Epoch]) -> int:
    """Counted from 1, the first with the highest Dice; without validation the last."""
    if epochs[-1].dice is None:
        return len(epochs)
    return 1 + max(range(len(epochs)), key=lambda index: (epochs[index].dice, -index))


@torch.no_grad()
def validation_dice(head: TextDiff, cache: FeatureCache, encoder: TextEncoder, samples: Sequence[Sample],
                    settings: PublishedSettings) -> float:  # fmt: skip
    """Mean over the images of the foreground's Dice at `settings.size`; an image without foreground does not count."""
    device, found = next(head.parameters()).device, []
    head.eval()
    for sample in samples:
        truth = prepare_mask(sample.mask, settings)[0] > 0
        if truth.any():
            tokens, visible = read_sentences(encoder, [sample.text], settings)
            maps = cache(prepare_image(sample.image, settings).to(device))
            predicted = efficient_logits(head, maps, tokens, visible, settings.size).argmax(dim=1)[0].cpu() > 0
            found.append(dice(predicted.numpy(), truth.numpy()))
    return float(np.mean(found))


def _check_samples(head: TextDiff, samples: Sequence[Sample], validation: Sequence[Sample]) -> None:
    if not samples:
        raise EmitDiffError("No labelled images were given: training needs at least one, better five.")
    if (largest := max(int(sample.mask.max()) for sample in (*samples, *validation))) >= head.config.num_classes:
        raise EmitDiffError(f"A mask holds class {largest}, the head answers 0 to {head.config.num_classes - 1} only.")
    if validation and not any(sample.mask.any() for sample in validation):
        raise EmitDiffError(
            "No validation image shows the target, so no best epoch can be selected: choose other validation images."
        )


def _epoch(head: TextDiff, optimizer: torch.optim.Optimizer, cache: FeatureCache, encoder: TextEncoder,
           samples: Sequence[Sample], settings: PublishedSettings, number: int) -> float:  # fmt: skip
    """One pass over the images in an order, and in ways, that follow from the seed and the epoch's number."""
    rng, found = np.random.default_rng((settings.seed, number)), []
    order = rng.permutation(len(samples))
    for start in range(0, len(order), settings.batch):
        chosen = [samples[index] for index in order[start : start + settings.batch]]
        loss = _loss(head, cache, encoder, chosen, rng, settings)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return float(np.mean(found))


def _loss(head: TextDiff, cache: FeatureCache, encoder: TextEncoder, samples: Sequence[Sample],
          rng: np.random.Generator, settings: PublishedSettings) -> torch.Tensor:  # fmt: skip
    """The loss of one batch, each image seen in a way of its own."""
    device = next(head.parameters()).device
    examples = [
        transform_example(one.image, one.mask, one.text, sample_transform(one.name, settings, rng), settings)
        for one in samples
    ]
    images = torch.cat([prepare_image(image, settings) for image, _, _ in examples]).to(device)
    masks = torch.cat([prepare_mask(mask, settings) for _, mask, _ in examples]).to(device)
    with torch.no_grad():
        tokens, visible = read_sentences(encoder, [text for _, _, text in examples], settings)
    logits = efficient_logits(head, cache(images), tokens, visible, settings.size)
    return published_loss(logits, masks, settings)


def _resume(path: Path, head: TextDiff, optimizer: torch.optim.Optimizer) -> tuple[list[Epoch], dict | None]:
    """(the epochs that a stopped run has done, its best weights); `head` and `optimizer` as it left them."""
    if not path.exists():
        return [], None
    try:
        state = torch.load(path, weights_only=True, map_location=next(head.parameters()).device)
        head.load_state_dict(state["head"])
        optimizer.load_state_dict(state["optimizer"])
        return [Epoch(*pair) for pair in state["epochs"]], state["best"]
    except (OSError, EOFError, pickle.UnpicklingError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise EmitDiffError(
            f"{path} is damaged ({first_line(error)}): remove {path.parent} and start again."
        ) from error


def _save(path: Path, state: dict) -> None:
    make_folder(path.parent)
    try:
        write_atomically(path, lambda partial: torch.save(state, partial))
    except (OSError, RuntimeError) as error:  # a full disk may be either
        raise EmitDiffError(
            f"{path} cannot be written ({error}): free space; the same command then goes on."
        ) from error
