import json
import re

import numpy as np
import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.files import write_text
from emitdiff.studies.augmentation.report import Report, report_study
from emitdiff.studies.augmentation.runs import CASES, Run
from emitdiff.studies.results_table import read_table, write_table

FACTS = {
    "study": "augmentation", "steps": 600, "batch": 8, "resolution": 128, "learning_rate": 1e-3, "validations": 10,
    "checkpoint": "emitdiff-mini", "ratio": 4, "painted_limit": 400, "edit": 0.5, "real_share": 0.5, "folds": 2,
}  # fmt: skip
METHODS = {"classical": 0.1, "painted": -0.1, "none": 0.0, "classical+painted": 0.105}


def cases(method, fold, seed):
    """Twenty images of ten groups a fold; the last of each group has no label, and something is drawn in it."""
    rng = np.random.default_rng((fold, seed))
    for index in range(20):
        row = {"file_name": f"{fold}-{index}.png", "group": f"{fold}-{index // 2}", "label": "lesion"}
        noise = np.random.default_rng((fold, seed, len(method), index)).normal(0, 0.02)
        dice = round(float(rng.uniform(0.4, 0.6) + METHODS[method] + noise), 6)
        if index % 2:
            yield row | {"predicted": 5, "truth": 0, "overlap": 0}
        else:
            yield row | {"predicted": 10, "truth": 10, "overlap": 5, "dice": dice, "iou": dice / 2, "precision": 0.5,
                         "recall": 0.5, "hd95": 12.0, "assd": 3.0}  # fmt: skip


@pytest.fixture
def study(tmp_path):
    """The folder of a study that has ended, its rows in no order."""
    (tmp_path / CASES).mkdir()
    write_text(tmp_path / "study.json", json.dumps(FACTS))
    rows = []
    for images in ("all", "20"):
        for method in METHODS:
            for fold, seed in ((0, 0), (1, 0), (0, 1), (1, 1)):
                run = Run("discs", "unet", method, images, fold, seed)
                write_table(tmp_path / CASES / run.file, list(cases(method, fold, seed)))
                counts = {"n_train": 16, "n_painted": 64, "seconds": 10.0, "groups": 30, "seen_groups": 10}
                rows.append(vars(run) | counts)
    write_table(tmp_path / "results.csv", rows)
    return tmp_path


def test_tables_with_differences_intervals_and_corrected_tests(study, capsys):
    report = report_study(Report(study))
    assert [(cell["images"], cell["groups"], cell["seeds"]) for cell in report["cells"]] == [
        ("20", 20, 2),
        ("all", 20, 2),
    ]
    rows = {row["method"]: row for row in report["cells"][0]["rows"]}
    assert list(rows) == ["none", "classical", "painted", "classical+painted"]
    assert rows["none"]["dice"] == pytest.approx(0.5, abs=0.05) and rows["none"]["false_mask_rate"] == 1
    assert rows["none"]["minus_none"] is None and rows["classical"]["minus_classical"] is None
    gain, loss = rows["classical"]["minus_none"], rows["painted"]["minus_none"]
    assert gain["mean"] == pytest.approx(0.1, abs=0.02) and gain["low"] > 0.08 and gain["holm"] < 0.01
    assert gain["holm"] >= gain["p"] and loss["high"] < -0.08
    beside = rows["classical+painted"]["minus_classical"]
    assert beside["low"] < 0.005 < beside["high"] and beside["groups"] == 20
    assert rows["painted"]["dice_sd"] > 0
    page = (study / "report.md").read_text()
    assert page.strip() in capsys.readouterr().out and "## discs, 20 labelled images, unet" in page
    assert re.search(r"painted against none: a loss in Dice, -0\.\d+ \(-0\.\d+ to -0\.\d+\) over 20 groups", page)
    assert json.loads((study / "report.json").read_text()) == report


def test_the_page_needs_nothing_else(study):
    report_study(Report(study))
    page = (study / "report.html").read_text()
    assert 'src="data:image/png;base64,' in page and not re.search(r'(?:src|href)="(?!data:)', page)
    assert page.count("<table>") == 2 and 'class="good"' in page and 'class="bad"' in page
    assert "discs, all images, unet" in page


def test_a_painter_that_knows_the_dataset_is_named(study):
    assert any(
        "trained on images and masks of 10 of the 30 groups" in note for note in report_study(Report(study))["notes"]
    )
    rows = read_table(study / "results.csv")
    write_table(study / "results.csv", [row | {"seen_groups": "0"} for row in rows])
    assert any("was not trained on discs" in note for note in report_study(Report(study))["notes"])


def test_a_study_that_goes_on_is_reported_as_far_as_it_is(study):
    rows = read_table(study / "results.csv")
    write_table(study / "results.csv", rows[:9] + rows[16:])
    report = report_study(Report(study))
    assert any("Not finished" in note for note in report["notes"])
    painted = next(row for row in report["cells"][1]["rows"] if row["method"] == "none")
    assert painted["runs"] == 1 and len(report["cells"][1]["rows"]) == 3


@pytest.mark.parametrize(("damage", "answer"), [("study.json", "no folder of"), ("results.csv", "has ended yet")])
def test_a_folder_that_is_none(study, damage, answer):
    (study / damage).unlink()
    with pytest.raises(EmitDiffError, match=answer):
        report_study(Report(study))


def test_a_run_without_its_cases(study):
    next((study / CASES).iterdir()).unlink()
    with pytest.raises(EmitDiffError, match="is not there, though"):
        report_study(Report(study))
