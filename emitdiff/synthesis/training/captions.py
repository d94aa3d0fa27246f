"""Training captions made of facts: what the dataset says, what the mask shows, what is measured on the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from emitdiff.synthesis.prompts import FINDING_NAMES
from emitdiff.synthesis.training.corpus import Item

WORDINGS = {
    "Ultrasound": ("ultrasound", "sonography", "US", "ultrasound image"),
    "MRI": ("MRI", "MR", "magnetic resonance", "MRI scan"),
    "CT": ("CT", "computed tomography", "CT scan", "CT slice"),
    "X-ray": ("X-ray", "radiograph", "X-ray image"),
    "Microscopy": ("microscopy", "micrograph", "microscope image"),
    "heart": ("heart", "cardiac"),
    "chest": ("chest", "thorax"),
    "abdomen": ("abdomen", "abdominal"),
    "nuclei": ("nuclei", "cells", "cell nuclei"),
    "lesion": ("lesion", "tumour", "mass"),
    "stained tissue": ("stained tissue", "histology", "purple stain"),
    "fluorescence": ("fluorescence", "fluorescent"),
}
POSITIONS = (("top", "middle", "bottom"), ("left", "centre", "right"))
# (word below the lower quartile, word above the upper one) for each measure, quartiles taken within a modality.
APPEARANCE_WORDS = {
    "brightness": ("dark", "bright"),
    "contrast": ("low contrast", "high contrast"),
    "grain": ("smooth", "noisy"),
    "sharpness": ("blurred", "sharp"),
}


def measure_appearance(image: np.ndarray) -> dict[str, float]:
    """Brightness and contrast (mean and deviation of grey, 0..255), grain (deviation of the finest detail, robust:
    median absolute high-pass of a 3 x 3 median filter, relative to contrast) and sharpness (99th percentile of the
    gradient relative to contrast) of uint8 (H, W, 3)."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    values = grey.astype(np.float32)
    contrast = float(values.std())
    fine = np.abs(values - cv2.medianBlur(grey, 3)).mean()
    across, down = cv2.Sobel(values, cv2.CV_32F, 1, 0), cv2.Sobel(values, cv2.CV_32F, 0, 1)
    steepest = float(np.percentile(cv2.magnitude(across, down), 99))
    scale = contrast + 4.0
    return {
        "brightness": float(values.mean()), "contrast": contrast,
        "grain": float(fine) / scale, "sharpness": steepest / scale,
    }  # fmt: skip


@dataclass(frozen=True)
class AppearanceScale:
    """Lower and upper quartile of each measure, per modality: what "dark" means differs between CT and X-ray."""

    quartiles: dict[str, dict[str, tuple[float, float]]]

    @classmethod
    def from_items(cls, items: Sequence[Item]) -> AppearanceScale:
        measured: dict[str, list[dict[str, float]]] = {}
        for item in items:
            measured.setdefault(item.info.modality, []).append(measure_appearance(item.image))
        quartiles = {
            modality: {
                name: (float(low), float(high))
                for name in APPEARANCE_WORDS
                for low, high in [np.percentile([row[name] for row in rows], (25, 75))]
            }
            for modality, rows in measured.items()
        }
        return cls(quartiles)

    def words(self, image: np.ndarray, modality: str) -> list[str]:
        """The appearance words that hold for the image among others of its modality."""
        measured, found = measure_appearance(image), []
        for name, (low, high) in self.quartiles[modality].items():
            if measured[name] < low:
                found.append(APPEARANCE_WORDS[name][0])
            elif measured[name] > high:
                found.append(APPEARANCE_WORDS[name][1])
        return found


def mask_words(mask: np.ndarray, labels: dict[str, int]) -> list[tuple[str, str, str]]:
    """Each label present, its count (if several pieces) and size, and its place: ("liver", "small", "top left")."""
    found = []
    for name, label in labels.items():
        region = mask == label
        if label == 0 or not region.any():
            continue
        share = region.mean()
        size = "small" if share < 0.04 else "large" if share > 0.2 else ""
        rows, columns = np.nonzero(region)
        vertical = POSITIONS[0][min(2, int(3 * rows.mean() / mask.shape[0]))]
        horizontal = POSITIONS[1][min(2, int(3 * columns.mean() / mask.shape[1]))]
        pieces = cv2.connectedComponents(region.astype(np.uint8))[0] - 1
        count = "many" if pieces > 20 else "several" if pieces > 4 else ""
        found.append((name, " ".join(word for word in (count, size) if word), f"{vertical} {horizontal}"))
    return found


@dataclass(frozen=True)
class ViewDescription:
    """What a caption may say of one view."""

    modality: str
    organ: str
    finding: str
    targets: tuple[tuple[str, str, str], ...]
    appearance: tuple[str, ...]


def describe_view(item: Item, image: np.ndarray, mask: np.ndarray, scale: AppearanceScale) -> ViewDescription:
    """Facts of one view (`image`, `mask`) of an item."""
    info = item.info
    targets = tuple(mask_words(mask, info.labels))
    return ViewDescription(info.modality, info.organ, item.finding, targets, tuple(scale.words(image, info.modality)))


def caption(description: ViewDescription, rng: np.random.Generator) -> str:
    """One wording: parts in varied order, each but modality or organ dropped now and then, synonyms drawn."""

    def word(name: str) -> str:
        choices = WORDINGS.get(name, (name,))
        return choices[0] if rng.random() < 0.6 else choices[rng.integers(len(choices))]

    parts = []
    if rng.random() < 0.92:
        parts.append(word(description.modality))
    if rng.random() < 0.9 or not parts:
        parts.append(word(description.organ))
    if rng.random() < 0.3:
        parts = parts[::-1]
    if description.finding and rng.random() < 0.8:
        parts.append(word(FINDING_NAMES.get(description.finding, description.finding)))
    for name, amount, place in description.targets:
        if rng.random() < 0.7:
            size = amount if rng.random() < 0.5 else ""
            where = place if rng.random() < 0.3 else ""
            parts.append(" ".join(piece for piece in (size, word(name), where) if piece))
    parts += [phrase for phrase in description.appearance if rng.random() < 0.6]
    return ", ".join(parts)
