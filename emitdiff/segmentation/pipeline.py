"""An image and a sentence in, a mask out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch

from emitdiff.errors import EmitDiffError
from emitdiff.image_kinds import contradiction, kind_of_image, names_a_kind, with_article
from emitdiff.images import image_to_tensor, resize_image
from emitdiff.segmentation.greys import GreyLevels, scale_greys
from emitdiff.segmentation.model.classifier import PixelClassifier
from emitdiff.segmentation.model.features import ASPECT_LIMIT, DiffusionFeatures, pooled, working_size
from emitdiff.segmentation.model.presence import ImageKindClassifier, PresenceCalibration, peak_logit, signature
from emitdiff.segmentation.model.text import TextEncoder
from emitdiff.segmentation.model.textdiff import TextDiff
from emitdiff.segmentation.output import (
    SegmentationOutput,
    check_query,
    entropy,
    upsample,
)
from emitdiff.segmentation.segmenter import EncodedImage, ImageFeatures, Segmenter
from emitdiff.segmentation.vocabulary import IMAGE_KINDS, Target, target_named
from emitdiff.segmentation.wording.reader import Request

DROPOUT_SAMPLES = 8
# probability of the image kinds that may show a target, below which its presence is doubted
DOUBTFUL_KIND_PROBABILITY = 0.25
PRESENCE_THRESHOLD = 0.5  # of `present`, below which a target is held to be absent, where none was calibrated
LEAST_PIECE = 0.1  # of the largest piece of an organ: what is smaller is a stray; chosen on training groups
MARGIN = 4  # a look from farther away has a mirrored margin of 1 / MARGIN of each side


class RawPrediction(NamedTuple):
    """The prediction at one size: the attended maps, the logits (1, classes, h, w), the part of them due to the
    refinement, and the presence logit, None for a head without presence.
    """

    attended: list[torch.Tensor]
    logits: torch.Tensor
    correction: torch.Tensor | float
    presence: float | None


class SegmentationPipeline(Segmenter):
    """Segments what a sentence names, with a head on frozen features."""

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
        far_sizes: tuple[int, ...] = (),
        greys: Mapping[str, GreyLevels] | None = None,
        prepare: Callable[[np.ndarray], np.ndarray] | None = None,
        weights: str = "",
    ) -> None:
        """An image is looked at with its short side at `resolution` pixels, or at each of `sizes`, and from farther
        away at each of `far_sizes`, with a mirrored margin; the answers are averaged, and the uncertainty is that at
        the first. Without a `calibration` the presence layer is believed. `greys` is the scale of each image kind
        (`scale_greys`), brought about before; `prepare` does that instead for a head on another pipeline's backbone.
        """
        super().__init__(targets, card)
        self.weights = weights  # sha256 of what all of it was loaded from
        self.features, self.text, self.head = features, text, head
        self.resolution, self.cell, self.image_kinds = resolution, cell, image_kinds
        self.sizes, self.calibration = tuple(sizes) or (resolution,), calibration
        self.far_sizes, self.greys, self._prepare = tuple(far_sizes), dict(greys or {}), prepare
        self.device = next(head.parameters()).device

    @torch.inference_mode()
    def _encode(self, image: np.ndarray) -> EncodedImage:
        if self._prepare is not None:
            image = self._prepare(image)
        with self.turns:
            first = self._encode_image(image, self.sizes[0])
            kind_signature = signature(first[1], self.features.with_coordinates)
            scaled = self._scaled(image, kind_signature)
            looks = [first[0] if scaled is image else self._encode_image(scaled, self.sizes[0])[0]]
            looks += [self._encode_image(scaled, side)[0] for side in self.sizes[1:]]
            looks += [self._encode_far(scaled, side) for side in self.far_sizes]
        return EncodedImage(tuple(looks), kind_signature, image.shape[:2], self._encoder)

    def image_kind(self, image: np.ndarray | EncodedImage) -> tuple[str, str, str] | None:
        """(name, modality, organ) of the kind that an image, uint8 (H, W, 3) or encoded, is taken for, as ("prostate
        MRI", "MRI", "prostate"); None for one unlike those that are known, and where the weights tell no kinds."""
        found = image if isinstance(image, EncodedImage) else self.encode(image)
        if self.image_kinds is None or found.signature is None:
            return None
        name = self.image_kinds.likely_kind(found.signature)
        return (name, *IMAGE_KINDS[name]) if name in IMAGE_KINDS else None

    def prompt_warning(self, prompt: str, image: np.ndarray | EncodedImage, modality: str | None = None) -> str:
        """A sentence where `prompt`, for synthesis, says another kind of image than `image` is taken for, or than
        `modality`, what its file says; "" where it does not."""
        if not names_a_kind(prompt):
            return ""
        return contradiction(prompt, kind_of_image(modality, self.image_kind(image)))

    @torch.inference_mode()
    def scaled(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) on the scale of greys of its kind, as the networks are shown it; as it is where there is none
        or the kind is not recognised."""
        if not self.greys or self.image_kinds is None:
            return image
        with self.turns:
            maps = self._encode_image(image, self.sizes[0])[1]
            return self._scaled(image, signature(maps, self.features.with_coordinates))

    def _scaled(self, image: np.ndarray, kind_signature: torch.Tensor) -> np.ndarray:
        if not self.greys or self.image_kinds is None:
            return image
        return scale_greys(image, self.greys.get(self.image_kinds.recognised_kind(kind_signature) or ""))

    @torch.inference_mode()
    def _answer(self, encoded: EncodedImage, request: Request) -> SegmentationOutput:
        target = request.target
        with self.turns:
            predictions = self._predictions(encoded, request.spoken)
            pairs = zip(predictions, encoded.features, strict=True)
            found = [_grown(one.logits, encoded.size, look.margin).softmax(dim=1)[0, 1] for one, look in pairs]
            probability = encoded.within((sum(found[1:], found[0]) / len(predictions)).cpu().numpy())
            uncertainty_map = self._uncertainty(encoded.features[0], predictions[0])
            uncertainty = encoded.within(upsample(uncertainty_map[None, None], encoded.size)[0, 0].cpu().numpy())
        presence, other_kind = self._presence(predictions, target, encoded.signature)
        untaught_kind = self._untaught_kind(target, encoded.signature)
        present = 0.0 if other_kind else float(probability.max()) if presence is None else presence
        phrase = None if target is None else target.phrase
        absent_below, sure_from = self._presence_thresholds
        return SegmentationOutput(
            mask=np.zeros(probability.shape, np.uint8),
            probability=np.zeros_like(probability) if other_kind else probability,
            found=False,
            target=phrase,
            present=present,
            uncertainty=uncertainty,
            seconds=0.0,
            warnings=tuple(self._warnings(request.spoken, target, encoded.size, other_kind, untaught_kind)),
            absent=bool(other_kind) or (presence is not None and presence < absent_below),
            unsure=bool(untaught_kind) or (presence is not None and presence < sure_from),
            least_piece=0.0 if target is None or target.scattered else LEAST_PIECE,
        )

    @property
    def _presence_thresholds(self) -> tuple[float, float]:
        """(below the first the target is absent, from the second on it is found)."""
        known = self.calibration
        return (PRESENCE_THRESHOLD, PRESENCE_THRESHOLD) if known is None else (known.absent, known.sure)

    def _nearest(self, encoded: EncodedImage, phrase: str | None) -> str | None:
        """As `Segmenter._nearest`: a target that this kind of image shows."""
        if self.image_kinds is None or encoded.signature is None:
            return phrase
        kinds, signature = self.image_kinds, encoded.signature
        if phrase is not None and not kinds.conflicting_kind(target_named(phrase), signature):
            return phrase
        kind = kinds.likely_kind(signature)
        return next((one for one in self.targets if target_named(one).image_kind == kind), phrase)

    def _predictions(self, encoded: EncodedImage, text: str) -> list[RawPrediction]:
        """At every size; within a turn."""
        tokens = self.text([text])
        return [self._predict(features, tokens) for features in encoded.features]

    def _predict(self, features: ImageFeatures, tokens: tuple[torch.Tensor, torch.Tensor]) -> RawPrediction:
        attended = self.head.attend(features.maps, *tokens)
        logits, correction = self.head.predict(attended, features.grid, features.pixels)
        presence = None if self.head.presence is None else self.head.presence(attended).item()
        return RawPrediction(attended, logits, correction, presence)

    @torch.inference_mode()
    def presence_logits(self, image: np.ndarray | EncodedImage, text: str) -> tuple[float, float]:
        """(what the presence layer says, how sure the mask is where it is surest): logits, means over the looks; of an
        image as `encode` takes it or one it returned.

        Raises EmitDiffError for an image or text that cannot be used, and for a head without such a layer.
        """
        if self.head.presence is None:
            raise EmitDiffError("This head has no presence classifier: it was trained without that layer.")
        check_query(text, 0.5)
        encoded = image if isinstance(image, EncodedImage) else self.encode(image)
        self._check_encoded(encoded)
        with self.turns:
            return _presence_logits(self._predictions(encoded, text))

    def _presence(
        self, predictions: list[RawPrediction], target: Target | None, kind_signature: torch.Tensor | None
    ) -> tuple[float | None, str]:
        """(how surely `target` is there, None for a head that does not say; the image kind without it that this is
        taken for, "" for none)."""
        presence, kinds = self._presence_probability(predictions), self.image_kinds
        if not kinds or not target or kind_signature is None:
            return presence, ""
        if presence is not None:
            presence *= min(1.0, kinds.probability_of(target, kind_signature) / DOUBTFUL_KIND_PROBABILITY)
        return presence, kinds.conflicting_kind(target, kind_signature)

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

    def _encode_image(self, image: np.ndarray, side: int) -> tuple[ImageFeatures, list[torch.Tensor]]:
        """(what a sentence is asked of, the features) with the image's short side at `side`."""
        small = resize_image(image, working_size(image.shape[:2], side))
        pixels = image_to_tensor(small).to(self.device)
        maps = self.features(pixels)
        grid = tuple(length // self.cell for length in small.shape[:2])
        return ImageFeatures(self.head.project(pooled(maps, grid)), grid, self.head.encode_pixels(pixels)), maps

    def _encode_far(self, image: np.ndarray, side: int) -> ImageFeatures:
        """The same from farther away: with the mirrored margin about the image, all of it at `side`."""
        rows, columns = (length // MARGIN for length in image.shape[:2])
        wide = np.pad(image, ((rows, rows), (columns, columns), (0, 0)), mode="reflect")
        return self._encode_image(wide, side)[0]._replace(margin=(rows, columns))

    def _untaught_kind(self, target: Target | None, kind_signature: torch.Tensor | None) -> str:
        if self.image_kinds is None or target is None or kind_signature is None:
            return ""
        return self.image_kinds.untaught_kind(target, kind_signature)

    def _warnings(
        self, text: str, target: Target | None, size: tuple[int, int], other_kind: str, untaught_kind: str
    ) -> Iterator[str]:
        if not text.strip():
            yield "No text was given: the mask shows what is usually labelled in this image kind."
        if other_kind:
            shown = "target" if target is None else target.phrase
            yield f"This looks like {with_article(other_kind)}, which does not show the {shown}."
        elif untaught_kind and target is not None:
            yield (
                f"This looks like {with_article(untaught_kind)}, where these weights were not taught the "
                f"{target.phrase}: check whatever is marked."
            )
        if self.text.is_truncated(text):
            yield f"The text is longer than {self.text.max_tokens} tokens and was truncated."
        if max(size) > ASPECT_LIMIT * min(size):
            yield f"The image is longer than {ASPECT_LIMIT} times its short side and was squeezed."


def _grown(logits: torch.Tensor, size: tuple[int, int], margin: tuple[int, int]) -> torch.Tensor:
    """Logits (1, classes, h, w) at `size`, without the margin about it."""
    rows, columns = margin
    whole = upsample(logits.float(), (size[0] + 2 * rows, size[1] + 2 * columns))
    return whole[..., rows : rows + size[0], columns : columns + size[1]]


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
