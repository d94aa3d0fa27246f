"""Few-shot training of a head in a minute: the backbone and the text encoder stay frozen.

Every image is augmented several times, the frozen features of these views are computed once and reduced to their
principal components, and a small TextDiff head is trained on them, with the pixels themselves as one more scale.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from emitdiff.datasets.folder import DatasetFolder, DatasetInfo, Sample
from emitdiff.devices import choose_mixed_precision
from emitdiff.errors import EmitDiffError
from emitdiff.images import normalize, overlay, resize_image, resize_mask
from emitdiff.mask_metrics import dice
from emitdiff.segmentation.few_shot.floor import shortfall
from emitdiff.segmentation.few_shot.head import FewShotHead, PcaReduction, PixelFeatures, config_record, fingerprints
from emitdiff.segmentation.few_shot.queries import Example, QuerySampler, View, read_examples
from emitdiff.segmentation.few_shot.recipe import Recipe, build_few_shot_head
from emitdiff.segmentation.few_shot.schedule import StepSchedule
from emitdiff.segmentation.few_shot.threshold import decision_threshold, shift_threshold
from emitdiff.segmentation.laterality import rewrite_directions
from emitdiff.segmentation.model.features import pooled, sizes_around
from emitdiff.segmentation.model.refinement import Refinement
from emitdiff.segmentation.model.textdiff import TextDiff
from emitdiff.segmentation.pipeline import SegmentationPipeline
from emitdiff.segmentation.training.examples import LabelledImage, augmented_image, image_tensor, trained_phrases
from emitdiff.segmentation.training.head import segmentation_loss
from emitdiff.segmentation.training.schedule import learning_rate, update_average
from emitdiff.segmentation.wording.reader import record_texts

NOTICE = "research use only, not a medical device"
FEATURE_SHARE = 0.35  # part of the time that the features may take
MIN_FOR_VALIDATION = 4  # images; one of them is then looked at and not learnt from
MIN_EMPTY_FOR_PRESENCE = 2  # images without a target, from which a head also learns to say that it is not there
REFINE_BELOW = 0.9  # Dice of the masks with themselves drawn on cells: what comes out so coarse needs the pixels again
# the same: so fine that larger looks at an image help (MoNuSeg +.018; at .86 and above they hurt)
MULTISCALE_BELOW = 0.8
MULTISCALE_SIZES = (1, 1.25, 1.5)  # times the resolution, at which a head for such masks looks at an image
# of the steps, after which it is learnt from nevertheless: a few images are too few to leave one out
HELD_OUT_SHARE = 2 / 3


@dataclass(frozen=True)
class TrainFewShot:
    """`seconds` bound everything, features included. `label` restricts training to that label. `checkpoint` is
    the name under which the backbone will be found again.
    """

    seconds: float = 60.0
    label: str | None = None
    checkpoint: str = "textdiff-mini"
    seed: int = 0


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a few-shot training: `seconds` since its start, `loss` of the last steps. After a validation,
    `dice` is that of the validation mask and `preview` uint8 (H, W, 3) shows it. The last one has the `head`.
    """

    step: int
    steps: int
    seconds: float
    loss: float
    dice: float | None = None
    preview: np.ndarray | None = None
    head: FewShotHead | None = None

    @property
    def shortfall(self) -> str:
        """Why the `head` should not be relied on, "" where it may be tried."""
        return "" if self.head is None else shortfall(self.step, self.dice)


def train_few_shot(
    pipeline: SegmentationPipeline,
    samples: Sequence[Sample] | DatasetFolder,
    info: DatasetInfo,
    settings: TrainFewShot | None = None,
    validation: Sample | None = None,
    recipe: Recipe | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[TrainingProgress]:
    """A head for the labels of `info`, from `samples`, on the backbone of `pipeline`; what it yields last holds it.

    Without a `recipe`, the default one with as many views and steps as the time is worth. Images whose mask is empty
    teach what it looks like where the target is not. Without a `validation` image, one of four or more samples is held
    back for it until the last third of the steps. Once `cancelled()` is true the training ends with the step it is at,
    the first one at least, and what was learnt by then is the head.

    Raises EmitDiffError for samples, labels or a time nothing can be trained on, and for the published model.
    """
    if not isinstance(pipeline, SegmentationPipeline):
        raise EmitDiffError(
            "The published model cannot be used for few-shot training: run train-published, or choose other weights."
        )
    settings = settings or TrainFewShot()
    recipe = recipe or Recipe().with_time(settings.seconds)
    if not settings.seconds > 0:
        raise EmitDiffError(f"{settings.seconds:g} seconds were given: give a time above 0, like 60.")
    info, examples = read_examples(samples, info, settings.label, pipeline.resolution)
    started = time.monotonic()
    rng, _ = np.random.default_rng(settings.seed), torch.manual_seed(settings.seed)
    validation_index = None if validation is not None else _validation_index(examples, rng)
    validation_example = examples[validation_index] if validation_index is not None else None
    if validation is not None:
        validation_example = read_examples([validation], info, settings.label, pipeline.resolution)[1][0]
    trainer = FewShotTrainer(pipeline, info, examples, recipe, rng)
    trainer.extract_features(started + FEATURE_SHARE * settings.seconds, cancelled)
    yield from trainer.train(started, settings, validation_index, validation_example, cancelled)


def _validation_index(examples: Sequence[Example], rng: np.random.Generator) -> int | None:
    """Which example is the validation image at first; it shows a target, and others do too."""
    full = [k for k, one in enumerate(examples) if any(mask.any() for mask in one.labelled.masks.values())]
    return int(rng.choice(full)) if len(examples) >= MIN_FOR_VALIDATION and len(full) > 1 else None


def _on_scale(example: Example, pipeline: SegmentationPipeline) -> Example:
    """With the greys that the pipeline of the finished head will show it."""
    return replace(example, labelled=replace(example.labelled, image=pipeline.scaled(example.labelled.image)))


class FewShotTrainer:
    """The training data (augmented views and their reduced features) and the training loop of a few-shot head."""

    def __init__(self, pipeline: SegmentationPipeline, info: DatasetInfo, examples: Sequence[Example], recipe: Recipe,
                 rng: np.random.Generator) -> None:  # fmt: skip
        self.pipeline, self.info = pipeline, info
        self.examples = [_on_scale(example, pipeline) for example in examples]
        self.recipe, self.rng = recipe, rng
        self.features = PixelFeatures(pipeline.features, pipeline.cell)
        self.query_sampler = QuerySampler(info, examples)
        self.views: list[View] = []
        self.images: list[np.ndarray] = []
        self.sizes: list[int] = []  # at which the head will look at an image, where not at the resolution

    def extract_features(self, deadline: float, cancelled: Callable[[], bool] = lambda: False) -> None:
        """The features of altered images, once: as many as the recipe asks for and the time (`deadline`) allows before
        `cancelled()`."""
        count = max(1, min(self.recipe.views_per_image, self.recipe.views // len(self.examples)))
        maps: list[list[torch.Tensor]] = []
        queue = np.concatenate([self.rng.permutation(len(self.examples)) for _ in range(count)])
        for start in range(0, len(queue), 4):
            owners = queue[start : start + 4].tolist()
            augmented = [self._augmented(self.examples[owner]) for owner in owners]
            maps.append([part.half() for part in self._maps(image_tensor(augmented))])
            self.views += [View(one.masks, owner) for one, owner in zip(augmented, owners, strict=True)]
            self.images += [one.image for one in augmented]
            if time.monotonic() > deadline or cancelled():
                break
        features = [torch.cat(parts) for parts in zip(*maps, strict=True)]
        self.reduction = PcaReduction(features, self.recipe.components, self.recipe.whitening)
        self.maps = [part.half() for part in self.reduction(features)]

    def _augmented(self, example: Example) -> LabelledImage:
        upright = rewrite_directions(example.text, mirror=True) != example.text
        return augmented_image(example.labelled, self.pipeline.resolution, self.rng, upright=upright)

    @staticmethod
    def _autocast(device: torch.device) -> torch.autocast:
        """Half precision where the hardware computes it; elsewhere it would be slower."""
        return torch.autocast(device.type, torch.bfloat16, choose_mixed_precision(device) == "bf16")

    @torch.no_grad()
    def _maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        images = images.to(self.pipeline.device)
        rows, columns = (side // self.pipeline.cell for side in images.shape[-2:])
        with self._autocast(images.device):
            maps = self.features(images)
        return pooled([part.float() for part in maps], (rows, columns))

    def train(
        self, started: float, settings: TrainFewShot, validation_index: int | None, validation: Example | None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[TrainingProgress]:  # fmt: skip
        """The head learns; the example `validation_index` joins in for the last third, and `validation` is looked at on
        the way."""
        recipe, schedule = self.recipe, StepSchedule(self.recipe.steps, started, settings.seconds)
        torch.manual_seed(settings.seed)
        empty = sum(not any(mask.any() for mask in one.labelled.masks.values()) for one in self.examples)
        coarse_dice = dice_on_cells(self.examples, self.pipeline.cell)
        if coarse_dice < MULTISCALE_BELOW:
            self.sizes = sizes_around(self.pipeline.resolution, MULTISCALE_SIZES)
        if coarse_dice >= REFINE_BELOW:
            recipe = replace(recipe, refinement_channels=0)
        head = build_few_shot_head(
            self.maps, self.pipeline.text, recipe, self.pipeline.cell, empty >= MIN_EMPTY_FOR_PRESENCE
        )
        if head.detail is not None and self.pipeline.head.detail is not None:
            head.detail.copy_image_branch(self.pipeline.head.detail)
        head = head.to(self.pipeline.device)
        average = deepcopy(head).eval()
        optimizer = torch.optim.AdamW(head.train().parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
        losses: list[float] = []
        validation_dice = None  # Dice of the validation image before it joins the training set
        while schedule.has_next_step() and not (schedule.step and cancelled()):
            held_out = validation_index is None or schedule.progress < HELD_OUT_SHARE
            rows = [k for k, view in enumerate(self.views) if view.example_index != validation_index or not held_out]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe.rate, schedule.step, schedule.progress, warm_up=20)
            loss = self._loss(head, rows or range(len(self.views)))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            update_average(average, head, schedule.step, recipe.average)
            losses, dice, preview = [*losses[-19:], loss.item()], None, None
            schedule.step += 1
            if validation is not None and held_out and schedule.validation_due():  # what is learnt from tells nothing
                dice, preview = self._validate(validation, average)
                validation_dice = dice
            yield TrainingProgress(
                schedule.step, schedule.steps, schedule.seconds, float(np.mean(losses)), dice, preview
            )
        last_loss = float(np.mean(losses))
        summary = {"steps": schedule.step, "seconds": round(schedule.seconds, 1), "loss": round(last_loss, 4),
                 "validation_dice": None if validation_dice is None else round(validation_dice, 4)}  # fmt: skip
        final = self._final_head(average, settings, summary)
        yield TrainingProgress(schedule.step, schedule.steps, schedule.seconds, last_loss, validation_dice, head=final)

    def _loss(self, head: TextDiff, rows: Sequence[int]) -> torch.Tensor:
        """One question about every view of a batch, and one about something else for a quarter of them."""
        batch = self.rng.choice(rows, self.recipe.batch, replace=len(rows) < self.recipe.batch)
        indices = [*range(len(batch)), *range(0, len(batch), 4)]
        queries = [
            self.query_sampler.sample(self.views[batch[row]], k < len(batch), self.rng) for k, row in enumerate(indices)
        ]
        masks = torch.from_numpy(np.stack([mask for _, mask in queries])).to(self.pipeline.device).float()
        maps = [part[batch].to(self.pipeline.device).float() for part in self.maps]
        with torch.no_grad():
            tokens, visible = self.pipeline.text([text for text, _ in queries])
        tokens, cells = tokens.clone(), maps[-1].shape[-2:]
        with self._autocast(masks.device):
            projected = [part[indices] for part in head.project(maps)]
            attended = head.attend(projected, tokens, visible)
            hidden = head.classifier.hidden(attended, cells)
            logits = head.classifier.last_convolution(hidden)
        loss = segmentation_loss(logits, masks)
        if head.detail is not None:
            loss = loss + self._refinement_loss(head.detail, hidden, logits, masks, batch, indices)
        if head.presence is None:
            return loss
        presence = head.presence([part.detach().float() for part in attended])  # the masks learn as they would without
        return loss + functional.binary_cross_entropy_with_logits(presence, masks.flatten(1).any(1).float())

    def _refinement_loss(self, detail: Refinement, hidden: torch.Tensor, logits: torch.Tensor, masks: torch.Tensor,
                         batch: np.ndarray, indices: list[int]) -> torch.Tensor:  # fmt: skip
        """The loss of the corrected logits, in one window at random for all views."""
        cell = self.pipeline.cell
        side = min(self.recipe.window // cell, *hidden.shape[-2:])
        top, left = (int(self.rng.integers(whole - side + 1)) for whole in hidden.shape[-2:])

        def window(part: torch.Tensor, unit: int) -> torch.Tensor:
            return part[..., unit * top : unit * (top + side), unit * left : unit * (left + side)]

        images = torch.from_numpy(np.stack([self.images[row] for row in batch])).permute(0, 3, 1, 2)
        pixels = normalize(window(images, cell).to(masks))
        with self._autocast(masks.device):
            seen = detail.encode_image(pixels)[indices]
            corrected = window(logits, cell) + detail(seen, window(hidden, 1))
        return segmentation_loss(corrected, window(masks, cell))

    @torch.no_grad()
    def _validate(self, validation: Example, head: TextDiff) -> tuple[float, np.ndarray]:
        """(mean Dice over the targets that the image shows, the image with the mask of the first)."""
        image, masks = validation.labelled.image, validation.labelled.masks
        phrases = [phrase for phrase, mask in masks.items() if mask.any()] or list(masks)[:1]
        pipeline = self._few_shot_head(head, {}).pipeline()
        encoded = pipeline.encode(image)
        found = [pipeline.segment(encoded, phrase).mask > 0 for phrase in phrases]
        scores = [dice(mask, masks[phrase]) for mask, phrase in zip(found, phrases, strict=True)]
        return float(np.mean(scores)), overlay(image, found[0].astype(np.uint8))

    def _few_shot_head(self, head: TextDiff, card: dict) -> FewShotHead:
        phrases = trained_phrases([[one.labelled for one in self.examples]])
        whole = self.reduction.folded(head)
        base = {"targets": phrases, "resolution": self.pipeline.resolution, "cell": self.pipeline.cell}
        if self.sizes:
            base["sizes"] = self.sizes
        return FewShotHead(whole, self.pipeline, {**base, **card})

    def _final_head(self, head: TextDiff, settings: TrainFewShot, summary: dict) -> FewShotHead:
        info, used = self.info, [self.examples[owner] for owner in sorted({view.example_index for view in self.views})]
        card = {
            "checkpoint": settings.checkpoint,
            **fingerprints(self.pipeline),
            "dataset": info.name,
            "modality": info.modality,
            "organ": info.organ,
            "licence": info.licence,
            "citation": info.citation,
            "images": len(used),
            "groups": len({one.group for one in used}),
            "views": len(self.views),
            "texts": record_texts(one.text for one in used),
            "seed": settings.seed,
            **summary,
            "date": date.today().isoformat(),
            "use": NOTICE,
        }
        shift_threshold(head, decision_threshold(summary["validation_dice"]))
        done = self._few_shot_head(head, card)
        return replace(done, card={**done.card, "config": config_record(done.head)})


def dice_on_cells(examples: Sequence[Example], cell: int) -> float:
    """Mean Dice in 0..1 of the masks with what is left of them when every `cell` x `cell` pixels are all in or out."""
    masks = [mask for one in examples for mask in one.labelled.masks.values() if mask.any()]
    return float(np.mean([dice(_coarsened(mask, cell), mask) for mask in masks])) if masks else 1.0


def _coarsened(mask: np.ndarray, cell: int) -> np.ndarray:
    height, width = mask.shape
    share = resize_image(mask.astype(np.float32), (max(1, height // cell), max(1, width // cell)))
    return resize_mask(share >= 0.5, (height, width))
