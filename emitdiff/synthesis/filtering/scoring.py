"""Five scores a synthetic image, a threshold for each, and the reason in words.

A segmenter comes in as a plain callable, for this half of the project knows none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from emitdiff.datasets.folder import DatasetFolder, Sample, is_synthetic
from emitdiff.errors import EmitDiffError
from emitdiff.images import outline_path
from emitdiff.synthesis.similarity import (
    Gallery,
    LabelPredictor,
    Match,
    comparison_view,
    edge_agreement,
    grey_quantiles,
    histogram_distance,
    mean_dice,
    similarity,
)

MIN_SOURCE_DICE = 0.5  # a segmenter that does worse on the real source says nothing about what was generated from it
SCORES = ("edges", "dice", "histogram", "copy", "duplicate")


@dataclass(frozen=True)
class Filter:
    """Settings of `filter_images`: the folders, and per score what is asked of an image that is kept.

    Measured with emitdiff-mini on 24 images each of four sets: edges of a synthetic image and its source agree with
    F1 .62 to .92, of unrelated ones .27 to .65; grey levels lie 0.7 to 13 levels from the nearest real image (real ones
    0.6 to 8); a source sent through the autoencoder, the nearest thing to a copy that can be generated, comes back with
    similarity .97 to 1.0, real images of two patients reach .88, two variants .94.

    `min_dice` is a share of the Dice that the segmenter reaches on the source itself.
    """

    synthetic: Path
    real: Path
    out: Path
    min_edges: float = 0.6
    min_dice: float = 0.7
    max_histogram: float = 12.0
    max_copy: float = 0.96
    max_duplicate: float = 0.96

    def margin(self, name: str, value: float) -> float:
        """How far a score is from its threshold: 1 is as good as can be, 0 just passes, -1 is as far beyond as a label
        that is missed altogether or a picture that is the same."""
        limit = self.limit(name)
        if name in ("edges", "dice"):
            return min(1.0, (value - limit) / max(1 - limit if value >= limit else limit, 1e-6))
        beyond = 1 - limit if name in ("copy", "duplicate") else limit
        return (limit - value) / max(limit if value <= limit else beyond, 1e-6)

    def limit(self, name: str) -> float:
        """The threshold of one of `SCORES`."""
        return getattr(self, f"{'min' if name in ('edges', 'dice') else 'max'}_{name}")


@dataclass
class ScoredImage:
    """One synthetic image: its scores (None where one does not apply), and why it is dropped ("" while it is kept).

    `view` is what was compared of it, `found` the outline of what a segmenter found, as an SVG path.
    """

    index: int
    row: dict[str, str]
    values: dict[str, float | None]
    source_similarity: float
    nearest: Match
    nearest_name: str
    view: np.ndarray = field(repr=False)
    dice: float | None = None
    dice_source: float | None = None
    found: str = field(default="", repr=False)
    duplicate_of: str = ""
    failed: tuple[str, ...] = ()
    margin: float = 1.0
    reason: str = ""

    @property
    def kept(self) -> bool:
        return not self.failed


class RealSet:
    """What is remembered of the real images: views, grey quantiles, and how well a segmenter does on each."""

    def __init__(
        self, dataset: DatasetFolder, predict_labels: LabelPredictor | None, generated: Sequence[dict[str, str]]
    ):
        """`generated` are the synthetic rows: each must name a source that is here, else EmitDiffError at once."""
        self.dataset, self._predict_labels = dataset, predict_labels
        self.names = [row["file_name"] for row in dataset.rows]
        self._index = {name: index for index, name in enumerate(self.names)}
        for row in generated:
            self.index_of_source(row)
        views, quantiles = [], []
        for sample in tqdm(dataset, desc=f"looking at {dataset.info.name}", unit="image", delay=2):
            views.append(comparison_view(sample.image))
            quantiles.append(grey_quantiles(sample.image))
        self.gallery, self.quantiles = Gallery(np.stack(views)), np.stack(quantiles)
        self._dice: dict[int, float | None] = {}

    def index_of_source(self, row: dict[str, str]) -> int:
        """Where the source of a synthetic row stands. Raises EmitDiffError where the row names none of these."""
        source = row.get("source", "")
        if source not in self._index:
            said = f"'{source}', which is not in {self.dataset.folder}" if source else "no source"
            raise EmitDiffError(
                f"{row['file_name']} names {said}. Each synthetic row needs the file_name of its source in the column "
                "`source`, as `augment` writes it: give the dataset the images were generated from."
            )
        return self._index[source]

    def dice(self, index: int, sample: Sample) -> float | None:
        """The segmenter's Dice on the real image `sample` at `index`, computed once; None without a segmenter."""
        if self._predict_labels is None:
            return None
        if index not in self._dice:
            self._dice[index] = mean_dice(self._predict_labels(sample))
        return self._dice[index]


def is_generated(row: dict[str, str]) -> bool:
    """Whether a row says that a model made its picture, or what it was made from."""
    return is_synthetic(row) or bool(row.get("source", "").strip())


def score(sample: Sample, index: int, reals: RealSet, predict_labels: LabelPredictor | None) -> ScoredImage:
    """Everything about one synthetic image that does not depend on its variants."""
    place, view = reals.index_of_source(sample.row), comparison_view(sample.image)
    source = reals.dataset[place]
    to_source = similarity(view, reals.gallery.views[place])
    nearest = max(reals.gallery.nearest(view), Match(to_source, place), key=lambda match: match.similarity)
    values: dict[str, float | None] = dict.fromkeys(SCORES)
    values["histogram"] = float(histogram_distance(grey_quantiles(sample.image), reals.quantiles).min())
    values["copy"] = nearest.similarity
    if follows_all_edges(sample.row):
        values["edges"] = edge_agreement(source.image, sample.image)
    one = ScoredImage(index, sample.row, values, to_source, nearest, reals.names[nearest.index], view)
    if predict_labels is not None:
        found = predict_labels(sample)
        one.dice, one.dice_source = mean_dice(found), reals.dice(place, source)
        one.found = outline_path(np.logical_or.reduce([mask for mask, _ in found])) if len(found) else ""
        if one.dice is not None and one.dice_source is not None and one.dice_source >= MIN_SOURCE_DICE:
            values["dice"] = one.dice / one.dice_source
    return one


def follows_all_edges(row: dict[str, str]) -> bool:
    """Whether the image was asked to keep every edge of its source: full structure and a mask as it was."""
    try:
        edit = json.loads(row.get("edit") or "null") or {}
        structure = float(row.get("structure") or 1)
    except ValueError:
        return False
    changed = {name: value for name, value in edit.items() if name != "seed"} if isinstance(edit, dict) else edit
    as_it_was = {"move_x": 0, "move_y": 0, "scale": 1, "rotate": 0, "deform": 0}
    return structure >= 1 and (not changed or changed == {name: as_it_was.get(name) for name in changed})


def apply_thresholds(scored: Sequence[ScoredImage], settings: Filter) -> None:
    """Compares each image with those variants of its source that come before it and are kept, and fills in what
    fails, the margin (the smallest of its scores) and the reason."""
    kept: dict[str, list[ScoredImage]] = {}
    for one in scored:
        earlier = kept.setdefault(one.row["source"], [])
        if earlier:
            match = Gallery(np.stack([other.view for other in earlier])).nearest(one.view)
            one.values["duplicate"], one.duplicate_of = match.similarity, earlier[match.index].row["file_name"]
        margins = {name: settings.margin(name, value) for name, value in one.values.items() if value is not None}
        one.failed = tuple(name for name, margin in margins.items() if margin < 0)
        one.margin = min(margins.values())
        one.reason = " ".join(_reason(name, one, settings.limit(name)) for name in one.failed)
        if one.kept:
            earlier.append(one)


def _reason(name: str, one: ScoredImage, limit: float) -> str:
    value = one.values[name]
    if name == "edges":
        return f"Edge F1 with the control image is {value:.2f}; the minimum is {limit:.2f}."
    if name == "dice":
        return (
            f"The segmenter's Dice with the mask is {one.dice:.2f}, with that of the source {one.dice_source:.2f}: a "
            f"ratio of {value:.2f}; the minimum is {limit:.2f}."
        )
    if name == "histogram":
        return (
            f"Its histogram differs by {value:.1f} grey levels from the nearest real image; the maximum is {limit:.1f}."
        )
    if name == "duplicate":
        return f"It duplicates {one.duplicate_of} with similarity {value:.3f}; the maximum is {limit:.3f}."
    mirrored = ", mirrored" if one.nearest.mirrored else ""
    return f"It copies {one.nearest_name}{mirrored} with similarity {value:.3f}; the maximum is {limit:.3f}."
