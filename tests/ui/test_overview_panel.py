"""What is in here: every target at once, each mask in its own colour."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import failing, scan_that_saves, segment
from segmentation_steps import build

from emitdiff.images import PALETTE
from emitdiff.ui.segmentation.overview_panel import OUTDATED
from emitdiff.ui.source import at_view_size


def whole(*asked):
    """Lung in the left half, liver in a corner of it, perhaps a lesion in the right half."""
    image, text, *_ = asked
    answer = segment(image, "perhaps" if text == "breast lesion" else text, *asked[2:])
    mask = np.zeros(image.shape[:2], np.uint8)
    if text in ("lung", "liver"):
        mask[:, : mask.shape[1] // (2 if text == "lung" else 8)] = 1
    elif text == "breast lesion":
        mask[:, -mask.shape[1] // 4 :] = 1
    return answer.at(2.0) if not mask.any() else type(answer)(**{**vars(answer), "mask": mask, "found": True})


TARGETS = ("liver", "spleen", "lung", "breast lesion")


@pytest.fixture
def tab():
    return build(segment=whole, targets=lambda checkpoint: TARGETS)


def looked(tab, example, meanwhile=None, **changes):
    asked = {"scan": scan_that_saves(example.image), "slice_number": 1, "window": None, "threshold": 0.5, **changes}
    *_, told = tab.overview.look_for_all(**asked, checkpoint="textdiff-mini")
    asked.pop("threshold")
    shown = {**asked, **(meanwhile or {})}
    updates = tab.overview.show(told[tab.overview.result], None, **shown, opacity=40, outlined=True)
    return {**told, **updates}


def test_every_target_is_asked_for_and_each_mask_has_its_colour(tab, example):
    updates = looked(tab, example)
    assert "Found: lung, liver. Unsure: breast lesion." in updates[tab.reading.progress]
    legend = updates[tab.words.note]
    assert legend.index("lung <b>50.0 %") < legend.index("breast lesion <b>25.0 %, unsure") < legend.index("liver <b>")
    assert "Not found: spleen." in legend and updates[tab.finding] is None
    picture, base = updates[tab.reading.view], at_view_size(scan_that_saves(example.image).image(0))
    for number, target in enumerate(("lung", "breast lesion", "liver")):
        assert (picture == PALETTE[number]).all(-1).any(), target
        inside = (picture != base).any(-1)[:, {"lung": 200, "breast lesion": 700, "liver": 50}[target]]
        assert inside[100:600].all() == (target != "breast lesion"), "what is not sure hides nothing"
        assert f"rgb({', '.join(map(str, PALETTE[number]))})" in legend


def test_nothing_found_is_said(example):
    tab = build(segment=lambda *asked: segment(*asked).at(2.0), targets=lambda checkpoint: TARGETS)
    assert "None of the targets of these weights was found." in looked(tab, example)[tab.reading.progress]


def test_an_answer_to_another_image_is_dropped(tab, example):
    updates = looked(tab, example, {"scan": scan_that_saves(example.image)})
    assert OUTDATED in updates[tab.reading.progress] and tab.reading.view not in updates


def test_no_image_is_said(tab, example):
    assert "No image yet" in looked(tab, example, scan=None)[tab.reading.progress]


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"targets": lambda checkpoint: ()}, "name no targets"), ({"segment": failing}, "The weights are not here")],
)
def test_what_cannot_be_asked_ends_as_a_sentence(example, changes, said):
    tab = build(**{"targets": lambda checkpoint: TARGETS, **changes})
    updates = looked(tab, example)
    assert said in updates[tab.reading.progress] and updates[tab.overview.result] is None
