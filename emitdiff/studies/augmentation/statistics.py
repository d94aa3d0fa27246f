"""How sure a difference between two methods is: intervals over groups, and tests corrected for their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emitdiff.segmentation.evaluation import paired_difference

# (seed, group, file_name, label) of a tested case that shows the label, to a measure of it
Cases = Mapping[tuple[str, str, str, str], float]
GROUP = 1


@dataclass(frozen=True)
class Difference:
    """A mean difference with its bootstrap interval (95 %) over `groups`, and `p` of Wilcoxon's signed-rank test on the
    groups' mean differences."""

    mean: float
    low: float
    high: float
    groups: int
    p: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves out zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def compare(own: Cases, other: Cases) -> Difference | None:
    """How much higher `own` is, over the cases that both have; None where there are none.

    Groups are drawn with replacement, for the cases of one are not independent; a group has as much weight as cases.
    """
    shared = sorted(set(own) & set(other))
    if not shared:
        return None
    rows = [[{"group": key[GROUP], "dice": cases[key], "truth": 1} for key in shared] for cases in (own, other)]
    found = paired_difference(*rows)
    groups, of_case = np.unique([key[GROUP] for key in shared], return_inverse=True)
    gains = np.bincount(of_case, [own[key] - other[key] for key in shared]) / np.bincount(of_case)
    mean, low, high = (float(found[name] or 0) for name in ("dice", "low", "high"))
    return Difference(mean, low, high, len(groups), signed_rank(gains))


def mean_interval(cases: Cases) -> tuple[float, float]:
    """The bootstrap interval (95 %) over groups of a mean."""
    found = compare(cases, dict.fromkeys(cases, 0.0))
    return (found.low, found.high) if found else (float("nan"), float("nan"))


def signed_rank(gains: Sequence[float] | np.ndarray) -> float:
    """p of Wilcoxon's signed-rank test, two-sided; 1 where nothing differs."""
    from scipy.stats import wilcoxon

    return float(wilcoxon(gains).pvalue) if np.any(gains) else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """The p of several tests corrected for their number by Holm's step-down procedure, in the same order."""
    order = np.argsort(p, kind="stable")
    corrected = np.maximum.accumulate([float(p[index]) * (len(p) - rank) for rank, index in enumerate(order)])
    return [min(1.0, float(corrected[rank])) for rank in np.argsort(order)]
