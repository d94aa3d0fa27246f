import numpy as np
import pytest

from emitdiff.studies.augmentation.statistics import compare, holm, mean_interval, signed_rank


def cases(values, per_group=2):
    return {
        ("0", str(index // per_group), f"{index}.png", "lesion"): float(value) for index, value in enumerate(values)
    }


def test_a_constant_gain_has_no_width():
    base = np.random.default_rng(0).uniform(0.3, 0.8, 20)
    found = compare(cases(base + 0.05), cases(base))
    assert (found.mean, found.low, found.high) == pytest.approx((0.05, 0.05, 0.05)) and found.groups == 10
    assert found.sign == 1 and compare(cases(base), cases(base + 0.05)).sign == -1
    assert found.p == pytest.approx(2 / 2**10), "all ten groups gain: the exact test"


def test_noise_alone_is_no_gain_as_often_as_the_interval_says():
    rng = np.random.default_rng(1)
    signs = [compare(cases(rng.normal(0.5, 0.1, 60)), cases(rng.normal(0.5, 0.1, 60))).sign for _ in range(60)]
    assert np.count_nonzero(signs) <= 9


def test_cases_of_one_group_are_drawn_together():
    gain = np.repeat(np.random.default_rng(2).normal(0, 0.1, 10), 10)
    together, apart = (compare(cases(0.5 + gain, size), cases(gain * 0 + 0.5, size)) for size in (10, 1))
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_only_what_both_have_is_compared():
    found = compare(cases([0.6, 0.6, 0.9]), cases([0.5, 0.5]))
    assert found.mean == pytest.approx(0.1) and found.groups == 1
    assert compare(cases([0.6]), {}) is None
    low, high = mean_interval(cases([0.2, 0.2, 0.6, 0.6]))
    assert low == pytest.approx(0.2) and high == pytest.approx(0.6)


def test_nothing_that_differs_is_no_evidence():
    assert signed_rank(np.zeros(8)) == 1.0


def test_holm_is_the_textbook_s():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []
