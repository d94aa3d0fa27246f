import numpy as np
import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.evaluation import measure_pair, quick_scores, summary
from emitdiff.synthesis.realism import Realism

RNG = np.random.default_rng(0)


def test_scores_fall_as_an_image_strays(disc):
    image, _ = disc
    noise = RNG.normal(0, 1, image.shape)
    near, far = (
        quick_scores(image, np.clip(image + strength * noise, 0, 255).astype(np.uint8)) for strength in (5, 60)
    )
    same = quick_scores(image, image)
    assert same["edge_f1"] == 1 and same["mae"] == 0 and same["ms_ssim"] == pytest.approx(1, abs=1e-4)
    assert near["ms_ssim"] > far["ms_ssim"] and near["edge_f1"] > far["edge_f1"] and near["mae"] < far["mae"]


def test_large_images_are_compared_small_and_small_ones_as_they_are(disc):
    image, _ = disc
    other = np.roll(image, 2, axis=1)
    assert quick_scores(image, other) == measure_pair(image, other)
    large, moved = (np.kron(picture, np.ones((10, 8, 1), np.uint8)) for picture in (image, other))  # 640 x 512
    assert quick_scores(large, moved)["mae"] == pytest.approx(measure_pair(large, moved)["mae"], rel=0.1)


@pytest.mark.parametrize("size", [(64, 32), (8, 64)])
def test_what_cannot_be_compared_is_said(size):
    first = np.zeros((size[0], 64, 3), np.uint8)
    with pytest.raises(EmitDiffError, match="at least 11 x 11"):
        quick_scores(first, np.zeros((*size, 3), np.uint8))


def test_a_measure_that_no_image_has_is_none_and_the_others_have_their_spread():
    rows = [{"ssim": 0.5, "segmenter_dice": np.nan}, {"ssim": 0.7, "segmenter_dice": np.nan}]
    found = summary(rows, Realism())
    assert found["ssim"] == 0.6 and found["sd"]["ssim"] == 0.1
    assert found["segmenter_dice"] is None and found["sd"]["segmenter_dice"] is None
