import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.evaluation import MEANS
from emitdiff.studies.label_report import MEAN, RunResults, as_markdown, make_report, spread

T1 = 12.7062  # Student's t at 97.5 % with one degree of freedom


def image(dice, target="nuclei", text="-", truth=100):
    """A row of a run's file as it is read back: as many pixels predicted as are true."""
    overlap = round(dice * truth)
    measures = {name: str(dice) if truth else "" for name in MEANS}
    return {"target": target, "text": text, "predicted": str(truth or 5), "truth": str(truth), "overlap": str(overlap),
            **measures}  # fmt: skip


def run(arm, draw, *rows, seconds=10.0, images=5):
    return RunResults("cells", images, draw, arm, seconds, list(rows))


def of(report, **wanted):
    (row,) = [row for row in report["results"] if all(row[name] == value for name, value in wanted.items())]
    return row


def test_spread_by_hand():
    found = spread([0.5, 0.7])
    assert found["mean"] == pytest.approx(0.6) and found["sd"] == pytest.approx(0.141421, abs=1e-5)
    assert found["low"] == pytest.approx(0.6 - T1 * 0.1, abs=1e-4)
    assert found["high"] == pytest.approx(0.6 + T1 * 0.1, abs=1e-4)
    assert spread([0.5]) == {"mean": 0.5, "sd": None, "low": None, "high": None}


def test_means_over_draws_and_differences_draw_by_draw():
    own, none = "own", "none"
    report = make_report([
        run("unet", 0, image(0.4), image(0.6), seconds=20), run("unet", 1, image(0.5), image(0.3), seconds=40),
        run("ours", 0, image(0.8, text=own), image(0.6, text=own), image(0.7, text=none), image(0.5, text=none)),
        run("ours", 1, image(0.7, text=own), image(0.7, text=own), image(0.7, text=none), image(0.7, text=none)),
    ])  # fmt: skip
    unet, ours = of(report, arm="unet"), of(report, arm="ours", text="own")
    assert unet["dice"]["mean"] == pytest.approx(0.45) and unet["dice"]["sd"] == pytest.approx(0.1 / 2**0.5)
    assert unet["seconds"] == 30 and unet["minus_unet"] is None and unet["draws"] == 2
    assert ours["dice"]["mean"] == pytest.approx(0.7) and ours["dice"]["sd"] == pytest.approx(0)
    gain = ours["minus_unet"]  # 0.7 - 0.5 and 0.7 - 0.4
    assert gain["mean"] == pytest.approx(0.25)
    assert (gain["low"], gain["high"]) == pytest.approx((0.25 - T1 * 0.05, 0.25 + T1 * 0.05), abs=1e-4)
    (text,) = report["texts"]
    assert text["own - none"]["mean"] == pytest.approx(0.05) and text["own - shuffled"] is None


def test_pooled_counts_pixels_and_means_count_images():
    report = make_report([run("unet", 0, image(1.0, truth=10), image(0.5, truth=30), image(0, truth=0))])
    found = of(report, arm="unet")
    assert found["dice"]["mean"] == pytest.approx(0.75) and found["n"] == 2
    assert found["dice_pooled"]["mean"] == pytest.approx((2 * 10 + 2 * 15) / 80)
    assert found["false_mask_rate"] == 1


def test_the_folds_of_a_draw_are_one():
    report = make_report([run("unet", 0, image(0.2)), run("unet", 0, image(0.4), image(0.6), image(0.8))])
    assert of(report, arm="unet")["dice"]["mean"] == pytest.approx(0.5) and of(report, arm="unet")["n"] == 4


def test_several_targets_and_their_mean():
    report = make_report([
        run("unet", 0, image(0.2, "liver"), image(0.4, "liver"), image(0.9, "spleen"), image(0, "aorta", truth=0)),
        run("unet", 1, image(0.3, "liver"), image(0.3, "liver"), image(0.7, "spleen"), image(0, "aorta", truth=0)),
    ])  # fmt: skip
    assert [row["target"] for row in report["results"]] == [MEAN, "liver", "spleen"]
    assert of(report, target=MEAN)["dice"]["mean"] == pytest.approx((0.6 + 0.5) / 2)
    assert of(report, target="spleen")["dice"]["mean"] == pytest.approx(0.8)


def test_a_dataset_that_shows_no_label_cannot_be_reported():
    with pytest.raises(EmitDiffError, match="No test image of 'cells'"):
        make_report([run("unet", 0, image(0, truth=0))])


def test_the_page_says_what_was_done():
    settings = {"resolution": 256, "draws": 2, "steps": 600, "batch": 4, "learning_rate": 0.001, "backbone": None,
                "checkpoint": "textdiff-mini"}  # fmt: skip
    facts = {
        "cells": {
            "train": [24],
            "test": [6],
            "split": "column split",
            "own_text": "sentences of the rows, derived from the masks",
        }
    }
    found = make_report([run(arm, draw, image(0.5 + 0.1 * draw + 0.2 * (arm == "ours"), text=text))
                         for arm, text in (("unet", "-"), ("ours", "own")) for draw in range(2)])  # fmt: skip
    page = as_markdown({"settings": settings, "datasets": facts, **found})
    row = next(line for line in page.splitlines() if line.startswith("| 5      | ours"))
    assert "0.750 +- 0.071" in row and "+0.200 (+0.200 to +0.200)" in row
    assert "Tested on 6 images (column split). Own text: sentences of the rows, derived from the masks." in page
    assert "600 steps of 4 images" in page
