"""An image and a sentence in, a mask out."""

from __future__ import annotations

import time
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch

from emitdiff.errors import EmitDiffError
from emitdiff.images import image_to_tensor, resize_image
from emitdiff.segmentation.model.classifier import PixelClassifier
from emitdiff.segmentation.model.features import ASPECT_LIMIT, DiffusionFeatures, pooled, working_size
from emitdiff.segmentation.model.presence import ImageKindClassifier, PresenceCalibration, peak_logit, signature
from emitdiff.segmentation.model.text import TextEncoder
from emitdiff.segmentation.model.textdiff import TextDiff
from emitdiff.segmentation.output import SegmentationOutput, checked_image, entropy, trained_phrase, upsample
from emitdiff.segmentation.vocabulary import match_target

DROPOUT_SAMPLES = 8
# probability of the image kinds that may show a target, below which its presence is doubted
DOUBTFUL_KIND_PROBABILITY = 0.25
PRESENCE_THRESHOLD = 0.5  # of `present`, below which a target is held to be absent


class ImageFeatures(NamedTuple):
    """Text-independent features of an image at one size: the projected maps, the output grid (rows, columns), and
        the
    pixel features of the refinement, None for a head without.
    """

    projected: list[torch.Tensor]
    grid: tuple[int, int]
    pixels: torch.Tensor | None


class RawPrediction(NamedTuple):
    """The prediction at one size: the attended maps, the logits (1, classes, h, w), the part of them due to the
    refinement, and the presence logit, None for a head without presence.
    """

    attended: list[torch.Tensor]
    logits: torch.Tensor
    correction: torch.Tensor | float
    presence: float | None


class SegmentationPipeline:
    """Segments what a sentence names. The frozen features of the last image are cached, so that further sentences
    about it are fast. Thread-safe.
    """

    def __init__(
        self,
        features: DiffusionFeatures,
        text: TextEncoder,
        head: TextDiff,
        targets: tuple[str, ...],
        resolution: int = 256,
        cell: int = 4,
        card: dict | None = None,
        image_kinds: ImageKindClassifier | None = None,
        sizes: tuple[int, ...] = (),
        calibration: PresenceCalibration | None = None,
    ) -> None:
        """An image is looked at with its short side at `resolution` pixels, or at each of `sizes`, whose answers are
        averaged; the uncertainty is that at the first. Without a `calibration` the presence layer is believed.
        """
        self.features, self.text, self.head = features, text, head
        self.targets, self.resolution, self.card = tuple(targets), resolution, card or {}
        self.cell, self.image_kinds = cell, image_kinds
        self.sizes, self.calibration = tuple(sizes) or (resolution,), calibration
        self.device = next(head.parameters()).device
        self._lock = Lock()
        self._last: tuple | None = None

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, text: str, threshold: float = 0.5) -> SegmentationOutput:
        """`image` uint8 (H, W), (H, W, 3) or (H, W, 4); `text` what to find; pixels above `threshold` are the mask.

        Raises EmitDiffError for an image, text or threshold that cannot be used.
        """
        started = time.perf_counter()
        image = checked_image(image, text, threshold)
        with self._lock:
            tokens = self.text([text])
            features, kind_signature = self._image_features(image)
            predictions = [self._predict(item, tokens) for item in features]
            found = [upsample(one.logits.float(), image.shape[:2]).softmax(dim=1)[0, 1] for one in predictions]
            probability = (sum(found[1:], found[0]) / len(predictions)).cpu().numpy()
            uncertainty_map = self._uncertainty(features[0], predictions[0])
            uncertainty = upsample(uncertainty_map[None, None], image.shape[:2])[0, 0].cpu().numpy()
        presence = self._presence_probability(predictions)
        target = match_target(text, self.targets)
        other_kind = self.image_kinds.conflicting_kind(target, kind_signature) if self.image_kinds and target else ""
        if presence is not None and self.image_kinds and target:
            presence *= min(1.0, self.image_kinds.probability_of(target, kind_signature) / DOUBTFUL_KIND_PROBABILITY)
        present = 0.0 if other_kind else float(probability.max()) if presence is None else presence
        phrase = trained_phrase(target, self.targets)
        output = SegmentationOutput(
            mask=np.zeros(probability.shape, np.uint8),
            probability=np.zeros_like(probability) if other_kind else probability,
            found=False,
            target=phrase,
            present=present,
            uncertainty=uncertainty,
            seconds=time.perf_counter() - started,
            warnings=tuple(self._warnings(text, phrase, image.shape[:2], other_kind)),
            absent=bool(other_kind) or (presence is not None and presence < PRESENCE_THRESHOLD),
            untaught=phrase is None and bool(text.strip()),
        )
        return output.at(threshold)

    def _predict(self, features: ImageFeatures, tokens: tuple[torch.Tensor, torch.Tensor]) -> RawPrediction:
        attended = self.head.attend(features.projected, *tokens)
        logits, correction = self.head.predict(attended, features.grid, features.pixels)
        presence = None if self.head.presence is None else self.head.presence(attended).item()
        return RawPrediction(attended, logits, correction, presence)

    @torch.inference_mode()
    def presence_logits(self, image: np.ndarray, text: str) -> tuple[float, float]:
        """(what the presence layer says, how sure the mask is where it is surest): logits, means over the looks.

        Raises EmitDiffError for an image or text that cannot be used, and for a head without such a layer.
        """
        if self.head.presence is None:
            raise EmitDiffError("This head has no presence classifier: it was trained without that layer.")
        image = checked_image(image, text, 0.5)
        with self._lock:
            tokens = self.text([text])
            return _presence_logits([self._predict(features, tokens) for features in self._image_features(image)[0]])

    def _presence_probability(self, predictions: list[RawPrediction]) -> float | None:
        """How surely the target is there, in 0..1, None for a head that does not say."""
        if self.head.presence is None:
            return None
        if self.calibration is not None:
            return self.calibration.probability(*_presence_logits(predictions))
        return torch.tensor([one.presence for one in predictions]).sigmoid().mean().item()

    def _uncertainty(self, features: ImageFeatures, prediction: RawPrediction) -> torch.Tensor:
        """(h, w) in bits, at the one look: votes cost more than all else."""
        return _logit_uncertainty(
            self.head.classifier, prediction.attended, features.grid, prediction.logits, prediction.correction
        )

    def _image_features(self, image: np.ndarray) -> tuple[list[ImageFeatures], torch.Tensor]:
        """(the looks at an image, its signature); the last one's are kept."""
        if self._last is None or not np.array_equal(self._last[0], image):
            encoded = [self._encode_image(image, size) for size in self.sizes]
            kind_signature = signature(encoded[0][1], self.features.with_coordinates)
            self._last = (image.copy(), [features for features, _ in encoded], kind_signature)
        return self._last[1:]

    def _encode_image(self, image: np.ndarray, side: int) -> tuple[ImageFeatures, list[torch.Tensor]]:
        """(what a sentence is asked of, the features) with the image's short side at `side`."""
        small = resize_image(image, working_size(image.shape[:2], side))
        pixels = image_to_tensor(small).to(self.device)
        maps = self.features(pixels)
        grid = tuple(length // self.cell for length in small.shape[:2])
        return ImageFeatures(self.head.project(pooled(maps, grid)), grid, self.head.encode_pixels(pixels)), maps

    def _warnings(self, text: str, phrase: str | None, size: tuple[int, int], other_kind: str):
        if not text.strip():
            yield "No text was given: the mask shows what is usually labelled in this image kind."
        elif phrase is None:
            yield f"These weights were trained on: {', '.join(self.targets)}. The text names none of them."
        if other_kind:
            yield f"This looks like {_with_article(other_kind)}, which does not show the {phrase or 'target'}."
        if self.text.is_truncated(text):
            yield f"The text is longer than {self.text.max_tokens} tokens and was truncated."
        if max(size) > ASPECT_LIMIT * min(size):
            yield f"The image is longer than {ASPECT_LIMIT} times its short side and was squeezed."


def _presence_logits(predictions: list[RawPrediction]) -> tuple[float, float]:
    peaks = [peak_logit(one.logits.softmax(dim=1)[0, 1]) for one in predictions]
    return float(np.mean([one.presence for one in predictions])), float(np.mean(peaks))


def _logit_uncertainty(classifier: PixelClassifier, attended: list[torch.Tensor], grid: tuple[int, int],
                  logits: torch.Tensor, correction: torch.Tensor | float) -> torch.Tensor:  # fmt: skip
    """(H, W) in bits: how far the classifier's votes, all with the same `correction`, are from their mean, or without
    votes the answer's entropy.
    """
    samples = (
        classifier.dropout_samples(attended, grid, DROPOUT_SAMPLES) + correction
        if classifier.has_dropout
        else logits[None]
    )
    each = samples[:, 0].float().softmax(dim=1)
    total = entropy(each.mean(0))
    return (total - entropy(each).mean(0)).clamp_min(0) if classifier.has_dropout else total


def _with_article(kind: str) -> str:
    return kind if kind == "microscopy" else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
