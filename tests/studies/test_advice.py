import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emitdiff.datasets.folder import open_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.studies import advice
from emitdiff.studies.advice import Advise, Costs, Plan, advise, interval, judge, make_plan, measure_costs
from emitdiff.studies.augmentation.runs import CASES, Run, folds_of
from emitdiff.studies.results_table import read_table, write_table

COSTS = Costs(painted=1.5, step=0.12, test=2.0)


@pytest.fixture
def settings(dataset_folder, checkpoint, tmp_path):
    return Advise(dataset_folder, tmp_path / "out", checkpoint=checkpoint, ratio=1, resolution=64)


@pytest.fixture
def short(monkeypatch):
    """Two steps a training, whatever the time."""
    monkeypatch.setattr(advice, "LEAST_STEPS", 2)
    monkeypatch.setattr(advice, "MOST_STEPS", 2)
    monkeypatch.setattr(advice, "MOST_SEEDS", 1)
    monkeypatch.setattr(advice, "MOST_FOLDS", 2)
    monkeypatch.setattr(advice, "TRIAL_STEPS", 1)


def test_it_ends_in_one_sentence_and_goes_on_where_it_was(settings, short, capsys):
    found = advise(replace(settings, minutes=60))
    printed = capsys.readouterr().out
    assert printed.rstrip().endswith(found["sentence"]) and found["answer"] in ("yes", "no gain", "harm")
    assert f"{found['dice']:+.3f}, 95 % interval {found['low']:+.3f} to {found['high']:+.3f}" in found["sentence"]
    assert found["plan"] == {"folds": 2, "seeds": 1, "steps": 2, "ratio": 1, "painted_limit": 6}
    rows = read_table(settings.out / "results.csv")
    assert [(row["method"], row["fold"]) for row in rows] == [
        ("classical", "0"), ("classical+painted", "0"), ("classical", "1"), ("classical+painted", "1")
    ]  # fmt: skip
    assert json.loads((settings.out / "advice.json").read_text()) == found and (settings.out / "report.html").is_file()
    write_table(settings.out / "results.csv", rows[:3])  # killed before the last run
    again = advise(replace(settings, minutes=60))
    assert read_table(settings.out / "results.csv")[:3] == rows[:3] and again == found
    with pytest.raises(EmitDiffError, match="was started with other settings"):
        advise(replace(settings, minutes=30))


def test_costs_are_of_this_machine(settings, short):
    study = advice._study(settings, Plan(2, 1, 2, 1, 10))
    costs = measure_costs(open_dataset(settings.dataset), study)
    assert 0 < costs.step < 60 and 0 < costs.painted < 60 and 0 < costs.test < 60


def seconds_of(plan, costs, sources):
    painted = min(sources * plan.ratio, plan.painted_limit) * costs.painted
    return painted + 2 * plan.folds * plan.seeds * (plan.steps * costs.step + costs.test)


@pytest.mark.parametrize("minutes", [6, 10, 20, 60, 300])
@pytest.mark.parametrize("sources", [8, 20, 400])
def test_a_plan_fits_into_its_time_and_more_time_goes_further(settings, minutes, sources):
    settings = replace(settings, ratio=4, minutes=minutes)
    plan = make_plan(settings, sources, COSTS, 5, 60 * minutes)
    assert seconds_of(plan, COSTS, sources) <= 60 * minutes
    assert 100 <= plan.steps <= 600 and 1 <= plan.ratio <= 4 and 2 <= plan.folds <= 5
    more = make_plan(settings, sources, COSTS, 5, 120 * minutes)
    assert seconds_of(more, COSTS, sources) >= seconds_of(plan, COSTS, sources)


def test_twenty_minutes_are_five_folds_of_some_hundred_steps(settings):
    plan = make_plan(replace(settings, ratio=4), 20, COSTS, 5, 1080)
    assert plan.folds == 5 and plan.steps >= 300 and plan.ratio == 4 and plan.painted_limit == 80


def test_too_little_time_says_how_much_it_takes(settings):
    with pytest.raises(EmitDiffError, match=r"1 minutes are too few on this machine: give --minutes (\d+)") as refused:
        make_plan(replace(settings, minutes=1), 20, COSTS, 5, 54)
    minutes = int(str(refused.value).split("--minutes ")[1].split(",")[0])
    assert make_plan(replace(settings, minutes=minutes), 20, COSTS, 5, 54 * minutes).steps >= 100


def simulated(rng, gain, groups=20, folds=5):
    """Dice of two arms on one image a group: each training has its luck, each image its own, and a gain is added."""
    of_group = {str(group): group % folds for group in range(groups)}
    luck = rng.normal(0, 0.02, (2, folds))
    base = rng.uniform(0.3, 0.8, groups)
    arms = [
        {("0", str(group), f"{group}.png", "lesion"): base[group] + luck[arm, group % folds] + rng.normal(0, 0.04)
         + gain * arm for group in range(groups)} for arm in (0, 1)
    ]  # fmt: skip
    return arms[1], arms[0], of_group


def test_ten_simulated_datasets_get_at_most_one_wrong_verdict():
    rng = np.random.default_rng(0)
    helpful = [interval(*simulated(rng, 0.08))[1] > 0 for _ in range(5)]
    useless = [interval(*simulated(rng, 0.0))[1] > 0 for _ in range(5)]
    assert helpful.count(False) + useless.count(True) <= 1


def test_folds_that_share_their_luck_widen_the_interval():
    own, other, folds = simulated(np.random.default_rng(3), 0.0)
    lucky = {key: value + (0.1 if folds[key[1]] % 2 else -0.1) for key, value in own.items()}
    _, low, high = interval(lucky, other, folds)
    _, apart_low, apart_high = interval(lucky, other, {group: int(group) for group in folds})
    assert high - low > 1.3 * (apart_high - apart_low) or high - low > 0.1


def test_nothing_tested_is_no_answer():
    with pytest.raises(EmitDiffError, match="shows a label"):
        interval({}, {}, {})


@pytest.mark.parametrize(
    ("gain", "answer", "words"), [(0.2, "yes", "Yes: .* use 1 of each, from `python -m emitdiff augment"),
                                  (0.0, "no gain", "No gain found: .* do not use them"),
                                  (-0.2, "harm", "No: painted images lower Dice .* do not use them")]
)  # fmt: skip
def test_it_says_no_when_it_is_no(settings, gain, answer, words):
    plan, rows = Plan(2, 1, 2, 1, 10), []
    (settings.out / CASES).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for fold in folds_of(open_dataset(settings.dataset), advice._study(settings, plan)):
        for method in settings.arms:
            run = Run("discs", "unet", method, "all", fold.number, 0)
            cases = [
                {"file_name": row["file_name"], "group": row["group"], "label": "lesion", "predicted": 9, "truth": 9,
                 "overlap": 5, "dice": 0.5 + gain * ("painted" in method) + rng.normal(0, 0.01),
                 **dict.fromkeys(("iou", "precision", "recall", "hd95", "assd"), 0.5)} for row in fold.test.rows
            ]  # fmt: skip
            write_table(settings.out / CASES / run.file, cases)
            rows.append(vars(run))
    write_table(settings.out / "results.csv", rows)
    found = judge(settings, open_dataset(settings.dataset), plan)
    assert found["answer"] == answer and found["dice"] == pytest.approx(gain, abs=0.02)
    assert re.search(words, found["sentence"])


@pytest.mark.parametrize(
    ("change", "answer"),
    [({"dataset": Path("nowhere")}, "nowhere"), ({"checkpoint": "nobody"}, "nobody"), ({"images": 99}, "99 were asked"),
     ({"edit": 3.0}, "mask edits was 3"), ({"resolution": 100}, "multiple of 32")],
)  # fmt: skip
def test_what_cannot_be_advised_on_leaves_nothing(settings, change, answer):
    with pytest.raises(EmitDiffError, match=answer):
        advise(replace(settings, **change))
    assert not settings.out.exists()
