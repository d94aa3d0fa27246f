"""Presence of the target in the image: "not found" instead of a false mask.

A head marks something in almost any image. But which image kind it is (its scene: chest x-ray, abdominal CT, ...)
can be read off the frozen features with a logistic regression on their means and deviations over the image:
`ImageKindClassifier` knows which kinds cannot show it. In those that can, `PresenceCalibration` weighs what the head's
layer for it says against the mask itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from emitdiff.files import write_atomically
from emitdiff.segmentation.vocabulary import Target

PEAK_SHARE = 0.01  # share of the positions that a mask is scored by: a small target has no more
MIN_KIND_PROBABILITY = 0.04  # probability of all scenes that could show the target, below which it is held to be absent
LIKELY_KIND_PROBABILITY = 0.75  # of a scene, from which an image is taken for one of it
# root mean square of the standardized signature above which an image is unlike the training images
MAX_SIGNATURE_DEVIATION = 1.6
L2 = 0.01
CALIBRATION_L2 = 1e-4
COORDINATES = 5
MIN_KIND_SHARE = 0.5  # probability from which an image kind counts as recognised
FALSE_REFUSALS, FALSE_MASKS, MAX_UNSURE = 0.02, 0.04, 0.1  # shares of questions that thresholds aim at


def signature(parts: Sequence[torch.Tensor], with_coordinates: bool) -> torch.Tensor:
    """Mean and deviation over the image of every channel of (1, C_k, H_k, W_k): (D,). Maps of `coordinates`, there
    with `with_coordinates`, are left out."""
    channels = [part[0, :-COORDINATES] if with_coordinates else part[0] for part in parts]
    flat = [part.float().flatten(1) for part in channels]
    return torch.cat([torch.cat([part.mean(1), part.std(1)]) for part in flat]).cpu()


def peak_logit(probability: torch.Tensor) -> float:
    """The logit of the mean of the highest `PEAK_SHARE` of probabilities (H, W)."""
    values = probability.float().flatten()
    highest = values.topk(max(1, round(PEAK_SHARE * len(values)))).values.mean()
    return torch.logit(highest, eps=1e-4).item()


@dataclass(frozen=True)
class PresenceCalibration:
    """Logistic regression from two logits, what the presence layer says and how sure the mask is where it is
    `peak_logit`, to whether the target is there.

    The layer is learnt on images whose masks the head has seen; three numbers from images it has not seen suffice to
    say how far to believe it. Below `absent` the target is held to be absent, from `sure` on it is found, and between
    them nobody knows.
    """

    said: float
    drawn: float
    bias: float
    absent: float = 0.5
    sure: float = 0.5

    def probability(self, presence_logit: float, peak: float) -> float:
        """In 0..1, from the two logits."""
        return torch.sigmoid(torch.tensor(self.said * presence_logit + self.drawn * peak + self.bias)).item()

    @classmethod
    def fit(cls, logits: torch.Tensor, present: torch.Tensor, weights: torch.Tensor) -> PresenceCalibration:
        """From `logits` (N, 2), `present` (N,) bool, and how much each of them counts, `weights` (N,)."""
        values = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        rows = torch.cat([logits.double(), torch.ones(len(logits), 1, dtype=torch.float64)], dim=1)
        optimizer = torch.optim.LBFGS([values], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = functional.binary_cross_entropy_with_logits(rows @ values, present.double(), weights.double())
            loss = loss + CALIBRATION_L2 * values.pow(2).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        said, drawn, bias = (round(value, 4) for value in values.tolist())
        return cls(said, drawn, bias)

    def with_thresholds(self, present: Sequence[float], absent: Sequence[float]) -> PresenceCalibration:
        """The same with `absent` and `sure` so that of the probabilities of targets that are there `FALSE_REFUSALS` lie
        below the one, and of those that are not `FALSE_MASKS` above the other, but at most `MAX_UNSURE` of all between
        them: rather is a mask drawn then than something refused that is there.
        """
        low, high = float(np.quantile(present, FALSE_REFUSALS)), float(np.quantile(absent, 1 - FALSE_MASKS))
        if high <= low:  # they part: nothing is left to be unsure about, and the middle is as good as any
            low = high = (low + high) / 2
        everything = np.sort([*present, *absent])
        first = int(np.searchsorted(everything, low))
        last = min(int(np.searchsorted(everything, high)), first + round(MAX_UNSURE * len(everything)))
        high = min(high, float(everything[min(last, len(everything) - 1)]))
        return replace(self, absent=round(low, 4), sure=round(max(low, high), 4))


@dataclass(frozen=True)
class ImageKindClassifier:
    """Logistic regression from a signature (D,), standardized by `mean` and `spread` (D,), to K scenes."""

    names: tuple[str, ...]
    mean: torch.Tensor
    spread: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def fit(cls, signatures: Mapping[str, Sequence[torch.Tensor]]) -> ImageKindClassifier:
        """From some signatures (D,) of each scene; scenes count alike however many images they have."""
        names = tuple(signatures)
        rows = torch.stack([one for group in signatures.values() for one in group])
        labels = torch.cat([torch.full((len(group),), k) for k, group in enumerate(signatures.values())])
        mean, spread = rows.mean(0), rows.std(0) + 1e-4
        weight = torch.zeros(len(names), rows.shape[1], requires_grad=True)
        bias = torch.zeros(len(names), requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")
        standard = _standardized(rows, mean, spread)
        balance = 1 / torch.bincount(labels).float()

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = functional.cross_entropy(standard @ weight.T + bias, labels, weight=balance)
            loss = loss + L2 * weight.pow(2).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return cls(names, mean, spread, weight.detach(), bias.detach())

    def probabilities(self, signature: torch.Tensor) -> dict[str, float]:
        """Scene to its probability, for one signature (D,)."""
        logits = self.weight @ _standardized(signature, self.mean, self.spread) + self.bias
        return dict(zip(self.names, logits.softmax(0).tolist(), strict=True))

    def recognised_kind(self, signature: torch.Tensor) -> str | None:
        """The scene that a signature shows with a probability of at least a half, None where there is none."""
        probabilities = self.probabilities(signature)
        name = max(probabilities, key=lambda name: probabilities[name])
        return name if probabilities[name] >= MIN_KIND_SHARE else None

    def conflicting_kind(self, target: Target, signature: torch.Tensor) -> str:
        """The scene that a signature shows instead, where `target` is surely not in it; "" where it may be.

        Nothing is held to be absent from an image unlike the training images: there a guess is better than a refusal.
        """
        probabilities = self.probabilities(signature)
        return (
            max(probabilities, key=lambda name: probabilities[name])
            if self.probability_of(target, signature) < MIN_KIND_PROBABILITY
            else ""
        )

    def untaught_kind(self, target: Target, signature: torch.Tensor) -> str:
        """The scene that a signature surely shows, where `target` may be in it but was never labelled there (lung in
        abdominal CT); "" for any other."""
        kind = self.likely_kind(signature)
        return "" if not target.image_kind or kind in (target.image_kind, *target.absent_kinds) else kind

    def likely_kind(self, signature: torch.Tensor) -> str:
        """The scene that a signature shows, "" for an image unlike the training images or between two scenes."""
        probabilities = self.probabilities(signature)
        best = max(probabilities, key=lambda name: probabilities[name])
        return best if not self.is_unlike(signature) and probabilities[best] >= LIKELY_KIND_PROBABILITY else ""

    def is_unlike(self, signature: torch.Tensor) -> bool:
        """Whether an image is unlike all training images, so that nothing can be said of its scene."""
        return bool(((signature - self.mean) / self.spread).pow(2).mean().sqrt() > MAX_SIGNATURE_DEVIATION)

    def probability_of(self, target: Target, signature: torch.Tensor) -> float:
        """The probability in 0..1 of all scenes that may show `target`; 1 for an image unlike the training images."""
        if self.is_unlike(signature):
            return 1.0
        probabilities = self.probabilities(signature)
        return sum(value for kind, value in probabilities.items() if kind not in target.absent_kinds)

    def save(self, path: Path) -> None:
        """One safetensors file in half precision; the names are in its metadata."""
        from safetensors.torch import save_file

        tensors = {"mean": self.mean, "spread": self.spread, "weight": self.weight, "bias": self.bias}
        halves = {name: value.half().contiguous() for name, value in tensors.items()}
        write_atomically(path, lambda partial: save_file(halves, partial, {"names": "|".join(self.names)}))

    @classmethod
    def load(cls, path: Path) -> ImageKindClassifier | None:
        """None where there is no file: nothing is then held to be absent."""
        if not path.exists():
            return None
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name).float() for name in ("mean", "spread", "weight", "bias")}
            return cls(tuple(file.metadata()["names"].split("|")), **tensors)


def _standardized(rows: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    return ((rows - mean) / spread).clamp(-5, 5)
