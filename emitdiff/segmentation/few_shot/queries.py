"""Training data of a few-shot head: labelled images, and text queries about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from emitdiff.datasets.folder import DatasetFolder, DatasetInfo, Sample
from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.training.examples import LabelledImage, labelled_at
from emitdiff.segmentation.vocabulary import (
    Target,
    absent_targets,
    compose_sentence,
    own_sentence,
    target_of,
    targets_of,
)

MIN_FOR_VALIDATION = 4  # images; one of them is then looked at and not learnt from


def labels_to_train(info: DatasetInfo, label: str | None) -> dict[str, int]:
    """Every label but background, or `label` alone. Raises EmitDiffError where there is none called so."""
    labels = {name: value for name, value in info.labels.items() if value}
    if label is not None and label not in labels:
        raise EmitDiffError(f"'{info.name}' has no label '{label}': it has {', '.join(labels) or 'none'}.")
    return labels if label is None else {label: labels[label]}


@dataclass(frozen=True)
class Example:
    """A labelled image at the resolution of the backbone, and the sentence its row brings, if any."""

    labelled: LabelledImage
    text: str
    group: str


def read_examples(samples: Sequence[Sample] | DatasetFolder, info: DatasetInfo, label: str | None,
                  resolution: int) -> tuple[DatasetInfo, list[Example]]:  # fmt: skip
    """(`info` with the labels to teach, the samples as examples of `resolution` on their short side).

    Raises EmitDiffError for masks of another size than their image, and where no image shows a label.
    """
    chosen = labels_to_train(info, label)
    info = replace(info, labels=chosen)
    examples = [_example(sample, info, resolution) for sample in samples]
    if not any(mask.any() for one in examples for mask in one.labelled.masks.values()):
        raise EmitDiffError(
            f"None of the {len(examples)} image(s) shows {' or '.join(chosen) or 'a label'}: training needs at least "
            "one mask that is not empty."
        )
    return info, examples


def _example(sample: Sample, info: DatasetInfo, resolution: int) -> Example:
    if sample.mask.shape != sample.image.shape[:2]:
        raise EmitDiffError(
            f"The mask of '{sample.name}' is {sample.mask.shape[1]} x {sample.mask.shape[0]} pixels and the image "
            f"{sample.image.shape[1]} x {sample.image.shape[0]}: they must be of one size."
        )
    text = sample.text if len(info.labels) == 1 else ""  # it speaks of all labels at once
    return Example(labelled_at(resolution, sample, info), text, sample.group)


def validation_index_of(examples: Sequence[Example], rng: np.random.Generator) -> int | None:
    """Which example is the validation image at first; it shows a target, and others do too."""
    full = [k for k, one in enumerate(examples) if any(mask.any() for mask in one.labelled.masks.values())]
    return int(rng.choice(full)) if len(examples) >= MIN_FOR_VALIDATION and len(full) > 1 else None


@dataclass
class View:
    """One altered image: its masks by phrase, bool (R, R), and of which example it is."""

    masks: dict[str, np.ndarray]
    example_index: int


class QuerySampler:
    """Samples text queries about views: sentences of the rows, free wordings of the targets, and absent targets."""

    def __init__(self, info: DatasetInfo, examples: Sequence[Example]) -> None:
        self.info, self.examples = info, examples
        self.targets = targets_of(info)
        self.labelled = {target_of(info, label).phrase for label in info.labels}
        self.absent = absent_targets(info)

    def sample(self, view: View, own: bool, rng: np.random.Generator) -> tuple[str, np.ndarray]:
        """(sentence, bool mask): about a target of the dataset, or if not `own` about another one where one is sure
        not to be there."""
        if not own and self.absent:
            target = self.absent[rng.integers(len(self.absent))]
            return compose_sentence(target, rng), np.zeros_like(next(iter(view.masks.values())))
        phrase = self._phrase(view, rng)
        return self._sentence(self.targets[phrase], phrase, self.examples[view.example_index].text, rng), view.masks[
            phrase
        ]

    def _phrase(self, view: View, rng: np.random.Generator) -> str:
        """A labelled target more often than one that is only derived from it."""
        phrases = list(view.masks)
        labelled = [phrase for phrase in phrases if phrase in self.labelled]
        drawn = labelled if labelled and rng.random() < 0.6 else phrases
        return drawn[rng.integers(len(drawn))]

    def _sentence(self, target: Target, phrase: str, text: str, rng: np.random.Generator) -> str:
        draw = rng.random()
        if text and draw < 0.5:
            return text
        if draw < 0.6 and phrase == next(iter(self.examples[0].labelled.masks)):
            return ""
        if draw < 0.75:
            return own_sentence(self.info, target.labels[0])
        return compose_sentence(target, rng)
