import numpy as np
import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.merging import merging_mask


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.6, 1.0])
def test_alpha_is_the_share_of_what_is_real(alpha):
    mask = merging_mask(512, 384, 4, alpha, np.random.default_rng(0))
    assert mask.shape == (512, 384) and mask.dtype == bool
    assert mask.mean() == pytest.approx(alpha, abs=0.02)


def test_squares_are_whole_and_the_last_ones_cut():
    mask = merging_mask(100, 150, 64, 0.5, np.random.default_rng(3))
    for top in range(0, 100, 64):
        for left in range(0, 150, 64):
            assert len(np.unique(mask[top : top + 64, left : left + 64])) == 1
    assert len(np.unique(mask)) == 2


def test_the_same_generator_gives_the_same_mask_and_the_next_one_another():
    rng = np.random.default_rng(0)
    first, second = merging_mask(64, 64, 8, 0.5, rng), merging_mask(64, 64, 8, 0.5, rng)
    assert (first == merging_mask(64, 64, 8, 0.5, np.random.default_rng(0))).all() and (first != second).any()


def test_a_patch_as_large_as_the_image_decides_for_all_of_it():
    means = [merging_mask(48, 32, 48, 0.5, np.random.default_rng(seed)).mean() for seed in range(40)]
    assert set(means) == {0.0, 1.0}


@pytest.mark.parametrize("patch, alpha", [(0, 0.5), (-3, 0.5), (8, 1.2), (8, -0.1), (8, float("nan"))])
def test_numbers_that_cannot_be_used(patch, alpha):
    with pytest.raises(EmitDiffError, match="give a"):
        merging_mask(64, 64, patch, alpha, np.random.default_rng(0))
