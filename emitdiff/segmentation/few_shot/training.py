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
from torch.nn import functional

from emitdiff.datasets.folder import DatasetFolder, DatasetInfo, Sample
from emitdiff.errors import EmitDiffError
from emitdiff.images import normalize, overlay
from emitdiff.mask_metrics import dice
from emitdiff.segmentation.few_shot.fineness import MULTISCALE_BELOW, MULTISCALE_SIZES, dice_on_cells
from emitdiff.segmentation.few_shot.floor import shortfall
from emitdiff.segmentation.few_shot.head import FewShotHead, PcaReduction, PixelFeatures, config_record, fingerprints
from emitdiff.segmentation.few_shot.learner import Learner, half_precision
from emitdiff.segmentation.few_shot.queries import Example, QuerySampler, View, read_examples, validation_index_of
from emitdiff.segmentation.few_shot.recipe import Recipe, build_few_shot_head
from emitdiff.segmentation.few_shot.schedule import StepSchedule
from emitdiff.segmentation.few_shot.threshold import decision_threshold, shift_threshold
from emitdiff.segmentation.few_shot.turns import TrainingTurns
from emitdiff.segmentation.laterality import rewrite_directions
from emitdiff.segmentation.model.features import pooled, sizes_around
from emitdiff.segmentation.model.refinement import Refinement
from emitdiff.segmentation.model.textdiff import TextDiff
from emitdiff.segmentation.pipeline import SegmentationPipeline
from emitdiff.segmentation.training.examples import LabelledImage, augmented_image, image_tensor, trained_phrases
from emitdiff.segmentation.training.head import segmentation_loss
from emitdiff.segmentation.wording.reader import record_texts

NOTICE = "research use only, not a medical device"
FEATURE_SHARE = 0.35  # part of the time that the features may take
MIN_EMPTY_FOR_PRESENCE = 2  # images without a target, from which a head also learns to say that it is not there
MAX_VIEWS = 480  # altered images of one training, however often it goes on: what four minutes are worth
# of the steps, after which it is learnt from nevertheless: a few images are too few to leave one out
HELD_OUT_SHARE = 2 / 3
TRUTH_COLOUR = 2  # class id in whose colour the true mask is outlined


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
    """Progress of a few-shot training: `seconds` that it took so far, `loss` of the last steps. After a validation,
    `dice` is that of the validation mask and `preview` uint8 (H, W, 3) shows it filled, with the outline of the true
    one. The last one has the `head`, both of the last validation, and the `trainer`, for `keep_training`.
    """

    step: int
    steps: int
    seconds: float
    loss: float
    dice: float | None = None
    preview: np.ndarray | None = None
    head: FewShotHead | None = None
    trainer: FewShotTrainer | None = None

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
    the first one at least, and what was learnt by then is the head. While others have a turn its time does not run.

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
    rng = np.random.default_rng(settings.seed)
    index = None if validation is not None else validation_index_of(examples, rng)
    trainer = FewShotTrainer(pipeline, info, examples, recipe, rng, settings)
    trainer.validation_index, trainer.validation = index, None if index is None else examples[index]
    if validation is not None:
        trainer.validation = read_examples([validation], info, settings.label, pipeline.resolution)[1][0]
    yield from trainer.sit(started, settings.seconds, cancelled)


def keep_training(
    trainer: FewShotTrainer, seconds: float, cancelled: Callable[[], bool] = lambda: False
) -> Iterator[TrainingProgress]:
    """Goes on with a training for `seconds` more, from what was learnt: `trainer` is that of its last progress.

    Where an example was kept aside, it goes on from the time before that one was learnt from, so that a look at it
    still tells something. Steps and seconds count on.

    Raises EmitDiffError for a time in which nothing can be trained.
    """
    if not seconds > 0:
        raise EmitDiffError(f"{seconds:g} seconds were given: give a time above 0, like 60.")
    trainer.go_on(seconds)
    yield from trainer.sit(trainer.turns.clock(), seconds, cancelled)


class FewShotTrainer:
    """The training data (augmented views and their reduced features) and the training loop of a few-shot head."""

    def __init__(self, pipeline: SegmentationPipeline, info: DatasetInfo, examples: Sequence[Example], recipe: Recipe,
                 rng: np.random.Generator, settings: TrainFewShot) -> None:  # fmt: skip
        self.pipeline, self.info, self.settings = pipeline, info, settings
        self.turns = TrainingTurns(pipeline.turns, settings.seed, pipeline.device)
        self.examples = [  # with the greys that the pipeline of the finished head will show it
            replace(one, labelled=replace(one.labelled, image=pipeline.scaled(one.labelled.image))) for one in examples
        ]
        self.recipe, self.rng = recipe, rng
        self.features = PixelFeatures(pipeline.features, pipeline.cell)
        self.query_sampler = QuerySampler(info, examples)
        self.views: list[View] = []
        self.images: list[np.ndarray] = []
        self.sizes: list[int] = []  # at which the head will look at an image, where not at the resolution
        self.maps: list[torch.Tensor] = []
        self.reduction: PcaReduction | None = None
        self.learner: Learner | None = None
        self.unseen: Learner | None = None  # before the example kept aside was learnt from
        self.seconds = 0.0  # of all that came before
        self.validation: Example | None = None  # looked at on the way
        self.validation_index: int | None = None  # which example that is, until the last third; None for none of them

    def go_on(self, seconds: float) -> None:
        """The next `sit` goes on from what was learnt, and from before the example kept aside joined in."""
        self.learner, self.unseen = self.unseen or self.learner, None
        self.recipe = Recipe().with_time(seconds)

    def sit(self, started: float, seconds: float, cancelled: Callable[[], bool]) -> Iterator[TrainingProgress]:
        """Trains for `seconds` from `started` on, by the clock of `turns`."""
        self.extract_features(started + FEATURE_SHARE * seconds, cancelled)
        yield from self.train(started, seconds, cancelled)

    def extract_features(self, deadline: float, cancelled: Callable[[], bool] = lambda: False) -> None:
        """The features of altered images, once: as many as the recipe asks for and the time (`deadline`) allows before
        `cancelled()`. They join those that are there."""
        room = min(self.recipe.views, MAX_VIEWS - len(self.views)) if self.views else self.recipe.views
        count = max(0 if self.views else 1, min(self.recipe.views_per_image, room // len(self.examples)))
        if not count:
            return
        maps: list[list[torch.Tensor]] = []
        queue = np.concatenate([self.rng.permutation(len(self.examples)) for _ in range(count)])
        for start in range(0, len(queue), 4):
            owners = queue[start : start + 4].tolist()
            augmented = [self._augmented(self.examples[owner]) for owner in owners]
            with self.turns.turn():
                maps.append([part.half() for part in self._maps(image_tensor(augmented))])
            self.views += [View(one.masks, owner) for one, owner in zip(augmented, owners, strict=True)]
            self.images += [one.image for one in augmented]
            if self.turns.clock() > deadline or cancelled():
                break
        features = [torch.cat(parts) for parts in zip(*maps, strict=True)]
        with self.turns.turn():
            if self.reduction is None:
                self.reduction = PcaReduction(features, self.recipe.components, self.recipe.whitening)
            new = [part.half() for part in self.reduction(features)]
        self.maps = [torch.cat(parts) for parts in zip(self.maps, new, strict=True)] if self.maps else new

    def _augmented(self, example: Example) -> LabelledImage:
        upright = rewrite_directions(example.text, mirror=True) != example.text
        return augmented_image(example.labelled, self.pipeline.resolution, self.rng, upright=upright)

    @torch.no_grad()
    def _maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        images = images.to(self.pipeline.device)
        rows, columns = (side // self.pipeline.cell for side in images.shape[-2:])
        with half_precision(images.device):
            maps = self.features(images)
        return pooled([part.float() for part in maps], (rows, columns))

    def train(
        self, started: float, seconds: float, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[TrainingProgress]:
        """The head learns, until `seconds` after `started`."""
        learner = self.learner = self.learner or self._new_learner()
        self.turns.seed(self.settings.seed + learner.step)
        schedule = StepSchedule(learner.step + self.recipe.steps, started, seconds, learner.step, self.turns.clock)
        before, validation = self.seconds, self.validation
        looked = learner.step  # at the validation image, after so many steps
        while schedule.has_next_step() and not (schedule.step > schedule.first and cancelled()):
            held_out = self.validation_index is None or schedule.share < HELD_OUT_SHARE
            if not held_out and self.unseen is None:
                self.unseen = learner.copy()
            aside = self.validation_index if held_out else None
            rows = [k for k, view in enumerate(self.views) if view.example_index != aside]
            with self.turns.turn():
                learner.learn(self._loss(learner.head, rows or range(len(self.views))), schedule.progress)
            schedule.step = learner.step
            self.seconds, dice, preview = before + schedule.seconds, None, None
            if validation is not None and held_out and schedule.validation_due():  # what is learnt from tells nothing
                dice, preview = self._look(learner, validation)
                looked = learner.step
            yield TrainingProgress(learner.step, schedule.steps, self.seconds, learner.loss, dice, preview)
        if validation is not None and self.unseen is None and looked < learner.step:
            self._look(learner, validation)
        yield self._last(learner)

    def _last(self, learner: Learner) -> TrainingProgress:
        """With the head of what was learnt."""
        dice, loss = learner.dice, learner.loss
        summary = {"steps": learner.step, "seconds": round(self.seconds, 1), "loss": round(loss, 4),
                   "validation_dice": None if dice is None else round(dice, 4)}  # fmt: skip
        head = self._final_head(deepcopy(learner.average), summary)
        return TrainingProgress(learner.step, learner.step, self.seconds, loss, dice, learner.preview, head, self)

    def _new_learner(self) -> Learner:
        self.turns.seed(self.settings.seed)
        empty = sum(not any(mask.any() for mask in one.labelled.masks.values()) for one in self.examples)
        coarse_dice = dice_on_cells(self.examples, self.pipeline.cell)
        if coarse_dice < MULTISCALE_BELOW:
            self.sizes = sizes_around(self.pipeline.resolution, MULTISCALE_SIZES)
        recipe = self.recipe.for_masks(coarse_dice)
        with self.turns.turn():
            head = build_few_shot_head(
                self.maps, self.pipeline.text, recipe, self.pipeline.cell, empty >= MIN_EMPTY_FOR_PRESENCE
            )
        if head.detail is not None and self.pipeline.head.detail is not None:
            head.detail.copy_image_branch(self.pipeline.head.detail)
        return Learner(head.to(self.pipeline.device), recipe)

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
        tokens, cells = tokens.clone(), (maps[-1].shape[-2], maps[-1].shape[-1])
        with half_precision(masks.device):
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
        with half_precision(masks.device):
            seen = detail.encode_image(pixels)[indices]
            corrected = window(logits, cell) + detail(seen, window(hidden, 1))
        return segmentation_loss(corrected, window(masks, cell))

    @torch.no_grad()
    def _look(self, learner: Learner, validation: Example) -> tuple[float, np.ndarray]:
        """(mean Dice over the targets that the image shows, the image with the mask of the first and the outline of
        what it should be); `learner` keeps both."""
        image, masks = validation.labelled.image, validation.labelled.masks
        phrases = [phrase for phrase, mask in masks.items() if mask.any()] or list(masks)[:1]
        pipeline = self._few_shot_head(learner.average, {}).pipeline()
        encoded = pipeline.encode(image)
        found = [pipeline.segment(encoded, phrase).mask > 0 for phrase in phrases]
        scores = [dice(mask, masks[phrase]) for mask, phrase in zip(found, phrases, strict=True)]
        picture = overlay(image, found[0].astype(np.uint8))
        learner.dice = float(np.mean(scores))
        learner.preview = overlay(picture, TRUTH_COLOUR * masks[phrases[0]].astype(np.uint8), 0.0)
        return learner.dice, learner.preview

    def _few_shot_head(self, head: TextDiff, card: dict) -> FewShotHead:
        phrases = trained_phrases([[one.labelled for one in self.examples]])
        assert self.reduction is not None
        whole = self.reduction.folded(head)
        base = {"targets": phrases, "resolution": self.pipeline.resolution, "cell": self.pipeline.cell}
        if self.sizes:
            base["sizes"] = self.sizes
        return FewShotHead(whole, self.pipeline, {**base, **card})

    def _final_head(self, head: TextDiff, summary: dict) -> FewShotHead:
        info, settings, used = (
            self.info,
            self.settings,
            [self.examples[owner] for owner in sorted({view.example_index for view in self.views})],
        )
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
