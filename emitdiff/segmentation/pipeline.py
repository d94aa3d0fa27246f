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
from emitdiff.segmentation.model.features import LONGEST, DiffusionFeatures, pooled, working_size
from emitdiff.segmentation.model.presence import PresenceCalibration, Scenes, signature, surest
from emitdiff.segmentation.model.text import TextEncoder
from emitdiff.segmentation.model.textdiff import TextDiff
from emitdiff.segmentation.output import SegmentationOutput, checked_image, entropy, grown, taught_phrase
from emitdiff.segmentation.vocabulary import asked_for

VOTES = 8
DOUBTFUL = 0.25  # probability of the kinds of image that may show a target, below which its presence is doubted
ABSENT_BELOW = 0.5  # of `present`, below which a target is held to be absent


class Look(NamedTuple):
    """What does not depend on the words: the projected features of an image at one size, the grid (rows, columns) they
    are asked on, and the detail, None for a head without.
    """

    projected: list[torch.Tensor]
    cells: tuple[int, int]
    detail: torch.Tensor | None


class Answer(NamedTuple):
    """What a sentence is answered at one size: the attended maps, the logits (1, classes, h, w), the part of them that
    is due to the detail, and the logit of whether the target is there, None for a head that does not say.
    """

    attended: list[torch.Tensor]
    logits: torch.Tensor
    correction: torch.Tensor | float
    presence: float | None


class SegmentationPipeline:
    """Segments what a sentence names. The frozen features of the last image are kept: another sentence about it
    answers at once. Safe to call from several threads.
    """

    def __init__(self, features: DiffusionFeatures, text: TextEncoder, head: TextDiff, targets: tuple[str, ...],
                 resolution: int = 256, cell: int = 4, card: dict | None = None, scenes: Scenes | None = None,
                 sizes: tuple[int, ...] = (), calibration: PresenceCalibration | None = None) -> None:  # fmt: skip
        """An image is looked at with its short side at `resolution` pixels, or at each of `sizes`, whose answers are
        averaged; the uncertainty is that at the first. Without a `calibration` the presence layer is believed.
        """
        self.features, self.text, self.head = features, text, head
        self.targets, self.resolution, self.card = tuple(targets), resolution, card or {}
        self.cell, self.scenes = cell, scenes
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
            said = self.text([text])
            looks, shown = self._seen(image)
            answers = [self._answer(look, said) for look in looks]
            found = (grown(one.logits.float(), image.shape[:2]).softmax(dim=1)[0, 1] for one in answers)
            probability = (sum(found) / len(answers)).cpu().numpy()
            doubt = self._doubt(looks[0], answers[0])
            uncertainty = grown(doubt[None, None], image.shape[:2])[0, 0].cpu().numpy()
        known = self._present(answers)
        target = asked_for(text, self.targets)
        instead = self.scenes.absent(target, shown) if self.scenes and target else ""
        if known is not None and self.scenes and target:
            known *= min(1.0, self.scenes.possible(target, shown) / DOUBTFUL)
        present = 0.0 if instead else float(probability.max()) if known is None else known
        phrase = taught_phrase(target, self.targets)
        answer = SegmentationOutput(
            mask=np.zeros(probability.shape, np.uint8),
            probability=np.zeros_like(probability) if instead else probability,
            found=False,
            target=phrase,
            present=present,
            uncertainty=uncertainty,
            seconds=time.perf_counter() - started,
            warnings=tuple(self._warnings(text, phrase, image.shape[:2], instead)),
            absent=bool(instead) or (known is not None and known < ABSENT_BELOW),
            untaught=phrase is None and bool(text.strip()),
        )
        return answer.at(threshold)

    def _answer(self, look: Look, said: tuple[torch.Tensor, torch.Tensor]) -> Answer:
        attended = self.head.attend(look.projected, *said)
        logits, correction = self.head.answer(attended, look.cells, look.detail)
        presence = None if self.head.presence is None else self.head.presence(attended).item()
        return Answer(attended, logits, correction, presence)

    @torch.inference_mode()
    def presence_logits(self, image: np.ndarray, text: str) -> tuple[float, float]:
        """(what the presence layer says, how sure the mask is where it is surest): logits, means over the looks.

        Raises EmitDiffError for an image or text that cannot be used, and for a head without such a layer.
        """
        if self.head.presence is None:
            raise EmitDiffError("This head does not say whether a target is there: it was trained without that layer.")
        image = checked_image(image, text, 0.5)
        with self._lock:
            said = self.text([text])
            return _presence_logits([self._answer(look, said) for look in self._seen(image)[0]])

    def _present(self, answers: list[Answer]) -> float | None:
        """How surely the target is there, in 0..1, None for a head that does not say."""
        if self.head.presence is None:
            return None
        if self.calibration is not None:
            return self.calibration.probability(*_presence_logits(answers))
        return torch.tensor([one.presence for one in answers]).sigmoid().mean().item()

    def _doubt(self, look: Look, answer: Answer) -> torch.Tensor:
        """(h, w) in bits, at the one look: votes cost more than all else."""
        return _disagreement(self.head.classifier, answer.attended, look.cells, answer.logits, answer.correction)

    def _seen(self, image: np.ndarray) -> tuple[list[Look], torch.Tensor]:
        """(the looks at an image, its signature); the last one's are kept."""
        if self._last is None or not np.array_equal(self._last[0], image):
            seen = [self._look(image, size) for size in self.sizes]
            shown = signature(seen[0][1], self.features.place)
            self._last = (image.copy(), [look for look, _ in seen], shown)
        return self._last[1:]

    def _look(self, image: np.ndarray, side: int) -> tuple[Look, list[torch.Tensor]]:
        """(what a sentence is asked of, the features) with the image's short side at `side`."""
        small = resize_image(image, working_size(image.shape[:2], side))
        pixels = image_to_tensor(small).to(self.device)
        parts = self.features(pixels)
        cells = tuple(length // self.cell for length in small.shape[:2])
        return Look(self.head.project(pooled(parts, cells)), cells, self.head.look(pixels)), parts

    def _warnings(self, text: str, phrase: str | None, size: tuple[int, int], instead: str):
        if not text.strip():
            yield "No text was given: the mask shows what is usually labelled in such an image."
        elif phrase is None:
            yield f"These weights were taught: {', '.join(self.targets)}. The text names none of them literally."
        if instead:
            yield f"This looks like {_with_article(instead)}, which does not show the {phrase or 'target'}."
        if self.text.is_cut(text):
            yield f"The text is longer than {self.text.max_tokens} tokens: its end was not read."
        if max(size) > LONGEST * min(size):
            yield f"The image is longer than {LONGEST} times its short side and was squeezed for the analysis."


def _presence_logits(answers: list[Answer]) -> tuple[float, float]:
    drawn = [surest(one.logits.softmax(dim=1)[0, 1]) for one in answers]
    return float(np.mean([one.presence for one in answers])), float(np.mean(drawn))


def _disagreement(classifier: PixelClassifier, attended: list[torch.Tensor], cells: tuple[int, int],
                  logits: torch.Tensor, correction: torch.Tensor | float) -> torch.Tensor:  # fmt: skip
    """(H, W) in bits: how far the classifier's votes, all with the same `correction`, are from their mean, or without
    votes the answer's entropy.
    """
    votes = classifier.votes(attended, cells, VOTES) + correction if classifier.drops else logits[None]
    each = votes[:, 0].float().softmax(dim=1)
    doubt = entropy(each.mean(0))
    return (doubt - entropy(each).mean(0)).clamp_min(0) if classifier.drops else doubt


def _with_article(scene: str) -> str:
    return scene if scene == "microscopy" else f"{'an' if scene[0] in 'aeiou' else 'a'} {scene}"
