"""The segmenters that `study labels` compares, each trained on exactly the same few images, altered in the same
ways."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from emitdiff.datasets.folder import DatasetInfo, Sample
from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.few_shot.training import TrainFewShot, train_few_shot
from emitdiff.segmentation.loading import load_segmenter
from emitdiff.segmentation.model.features import load_features
from emitdiff.segmentation.pipeline import SegmentationPipeline
from emitdiff.segmentation.training.examples import LabelledImage, augmented_image
from emitdiff.studies.unet_baseline import Batch, TrainSegmenter, class_labels, fit, predict, shuffled_batches

OURS = "ours"
ARMS = (OURS, "unet", "attention-unet")
NO_TEXT = "-"  # the text of an arm that reads none

# What an arm does with an image, uint8 (R, R, 3), and questions (label, sentence): a boolean mask (R, R) for each.
Segment = Callable[[np.ndarray, Sequence[tuple[str, str]]], list[np.ndarray]]


@dataclass(frozen=True)
class TrainArm:
    """Settings of `train_arm`.

    `seconds` bound the training of "ours", which else goes as far as its own recipe says. `steps`, `batch` and
    `learning_rate` are the networks': what suited unet best among 300 to 1000 steps at 1e-3 and 3e-3, with five images
    of nuclei, breast ultrasound or heart; from 600 steps on it gained at most .01 of Dice.
    """

    arm: str
    resolution: int = 256
    steps: int = 1000
    batch: int = 4
    learning_rate: float = 3e-3
    seconds: float = 300.0
    seed: int = 0


def check_arms(arms: Sequence[str]) -> None:
    """Raises EmitDiffError for an arm that is none of `ARMS`."""
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise EmitDiffError(f"There is no arm called '{unknown[0]}': choose among {', '.join(ARMS)}.")


def load_base(checkpoint: str, backbone: Path | None) -> SegmentationPipeline:
    """The pipeline that "ours" is trained on: a checkpoint's, or one that reads the folder `backbone` in the same way.

    Raises EmitDiffError where either is not there.
    """
    base = load_segmenter(checkpoint)
    if backbone is None:
        return base
    features = load_features(Path(backbone), None, base.features.timesteps, base.features.seed)
    features = features.to(base.device)
    return SegmentationPipeline(features, base.text, base.head, base.targets, base.resolution, base.cell)


def train_arm(settings: TrainArm, base: SegmentationPipeline | None, samples: Sequence[Sample],
              info: DatasetInfo) -> tuple[Segment, float]:  # fmt: skip
    """(a segmenter trained on `samples`, the seconds it took); `base` is what "ours" stands on.

    Raises EmitDiffError for samples that nothing can be trained on.
    """
    started = time.perf_counter()
    if settings.arm == OURS:
        if base is None:
            raise EmitDiffError(f"The arm {OURS} stands on a trained segmenter: name its checkpoint.")
        segment = _text_segmenter(_train_few_shot(settings, base, samples, info))
    else:
        segment = _network_segmenter(_train_network(settings, samples, info), info)
    return segment, time.perf_counter() - started


def _train_few_shot(settings: TrainArm, base: SegmentationPipeline, samples: Sequence[Sample],
            info: DatasetInfo) -> SegmentationPipeline:  # fmt: skip
    training = train_few_shot(base, samples, info, TrainFewShot(settings.seconds, seed=settings.seed))
    *_, head = (update.head for update in training if update.head is not None)
    return head.pipeline()


def _text_segmenter(pipeline: SegmentationPipeline) -> Segment:
    def segment(image: np.ndarray, questions: Sequence[tuple[str, str]]) -> list[np.ndarray]:
        encoded = pipeline.encode(image)
        return [pipeline.segment(encoded, sentence, untaught="try").mask > 0 for _, sentence in questions]

    return segment


def _train_network(settings: TrainArm, samples: Sequence[Sample], info: DatasetInfo) -> torch.nn.Module:
    training = TrainSegmenter(
        settings.arm, settings.steps, settings.batch, settings.learning_rate, settings.resolution, settings.seed
    )
    rng = np.random.default_rng(settings.seed)
    channels = 1 + len(class_labels(info.labels))
    return fit(training, channels, altered_batches(training, samples, info, rng), rng)


def altered_batches(settings: TrainSegmenter, samples: Sequence[Sample], info: DatasetInfo,
                    rng: np.random.Generator) -> Iterator[Batch]:  # fmt: skip
    """Batches of `samples`, varied as `train_few_shot` varies them (`examples.augmented_image`), and their classes.

    A network reads no sentence, so it may mirror and turn where a sentence would forbid it.
    """
    labels = class_labels(info.labels)
    whole = [
        LabelledImage(sample.image, {name: sample.mask == info.labels[name] for name in labels}, info)
        for sample in samples
    ]
    for chosen in shuffled_batches(len(whole), settings.batch, settings.steps, rng):
        drawn = [augmented_image(whole[index], settings.resolution, rng) for index in chosen]
        images = torch.from_numpy(np.stack([one.image for one in drawn])).permute(0, 3, 1, 2)
        classes = np.zeros((len(drawn), *images.shape[-2:]), np.uint8)
        for index, one in enumerate(drawn):
            for name, mask in one.masks.items():
                classes[index][mask] = labels[name]
        yield (images,), torch.from_numpy(classes)


def _network_segmenter(model: torch.nn.Module, info: DatasetInfo) -> Segment:
    labels = class_labels(info.labels)

    def segment(image: np.ndarray, questions: Sequence[tuple[str, str]]) -> list[np.ndarray]:
        logits = predict(model, torch.from_numpy(image).permute(2, 0, 1)[None])
        classes = logits[0].argmax(0).numpy()
        return [classes == labels[label] for label, _ in questions]

    return segment
