"""What a sentence says of a picture stays true when the picture is mirrored or turned."""

import numpy as np
import pytest

from emitdiff.segmentation.laterality import rewrite_directions, rotate_quarters

CORNERS = {"upper left": (0, 0), "upper right": (0, -1), "lower left": (-1, 0), "lower right": (-1, -1)}


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("corner", CORNERS)
def test_the_sentence_names_the_corner_where_the_spot_now_is(corner, quarters, mirror):
    picture = np.zeros((6, 8), np.uint8)
    picture[CORNERS[corner]] = 1
    seen = rotate_quarters(picture, quarters, mirror)
    now = next(name for name, place in CORNERS.items() if seen[place])
    said = rewrite_directions(f"The nuclei density in the {corner} is high.", quarters, mirror)
    assert said == f"The nuclei density in the {now} is high."


@pytest.mark.parametrize("side, place", [("upper", (0, 4)), ("left", (3, 0)), ("bottom", (-1, 4)), ("right", (3, -1))])
def test_single_words_follow_every_quarter_turn(side, place):
    picture = np.zeros((7, 9), np.uint8)
    picture[place] = 1
    names = {
        "upper": (0, slice(None)),
        "left": (slice(None), 0),
        "lower": (-1, slice(None)),
        "right": (slice(None), -1),
    }
    for quarters in range(4):
        seen = rotate_quarters(picture, quarters, False)
        now = next(name for name, edge in names.items() if seen[edge].any())
        said = rewrite_directions(side, quarters)
        assert {"top": "upper", "bottom": "lower"}.get(said, said) == now


def test_a_mirrored_chest_swaps_its_lungs_and_nothing_else():
    text = "Bilateral pulmonary infection, three infected areas, upper middle lower left lung and all right lung."
    mirrored = rewrite_directions(text, mirror=True)
    assert mirrored.endswith("upper middle lower right lung and all left lung.")
    assert rewrite_directions(mirrored, mirror=True) == text


def test_case_and_other_words_are_kept():
    assert rewrite_directions("LEFT lung, Left-sided", mirror=True) == "RIGHT lung, Right-sided"
    assert (
        rewrite_directions("evenly distributed, bright, uppermost", 1, True) == "evenly distributed, bright, leftmost"
    )
    assert rewrite_directions("The nuclei are evenly distributed.", 3, True) == "The nuclei are evenly distributed."


def test_longer_words_are_left_alone():
    assert rewrite_directions("lowered topography, uppermost right", 2) == "lowered topography, lowermost left"
