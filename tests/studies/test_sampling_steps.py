from dataclasses import replace

import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.studies.results_table import read_table
from emitdiff.studies.sampling_steps import Steps, set_scheduler, study_steps, summarise
from emitdiff.synthesis.evaluation import MEASURES
from emitdiff.synthesis.loading import load_synthesizer


@pytest.fixture
def settings(two_kinds, checkpoint, tmp_path):
    return Steps(two_kinds, tmp_path / "out", checkpoint, (1,), (1.0,), limit=1)


def test_a_row_for_each_setting_and_dataset_and_only_what_is_missing(settings, capsys):
    study_steps(settings)
    path = settings.out / "results.csv"
    first = path.read_text()
    report = study_steps(replace(settings, schedulers=("ddim", "unipc", "dpm++"), steps=(1, 2)))
    assert path.read_text().startswith(first)
    rows = read_table(path)
    keys = [(row["scheduler"], row["steps"], row["guidance"], row["dataset"]) for row in rows]
    assert len(keys) == len(set(keys)) == 12
    assert [(row["scheduler"], row["steps"]) for row in report] == [
        (name, steps) for name in ("ddim", "dpm++", "unipc") for steps in (1, 2)
    ]
    assert all(row["n"] == 2 and row["seconds_per_image"] > 0 for row in report)
    assert "| unipc" in (settings.out / "report.md").read_text() and "| unipc" in capsys.readouterr().out
    with pytest.raises(EmitDiffError, match="started with limit 1, now 2"):
        study_steps(replace(settings, limit=2))


def test_means_are_over_the_datasets_asked_for():
    row = {"scheduler": "ddim", "steps": "4", "guidance": "2", "seconds_per_image": "1", "n": "3"}
    rows = [{**row, "dataset": name, **dict.fromkeys(MEASURES, value)} for name, value in (("a", 0.2), ("b", 0.6))]
    wanted = {("ddim", "4", "2")}
    assert summarise(rows, wanted, {"a", "b"})[0]["ssim"] == pytest.approx(0.4)
    assert summarise(rows, wanted, {"a"})[0]["ssim"] == 0.2
    assert summarise(rows, {("ddim", "6", "2")}, {"a"}) == []


def test_a_scheduler_keeps_what_the_network_was_trained_with(checkpoint):
    pipeline = load_synthesizer(checkpoint)
    before = dict(pipeline.pipe.scheduler.config)
    for name in ("unipc", "dpm++", "ddim"):
        set_scheduler(pipeline, name)
        for key in ("beta_start", "beta_end", "beta_schedule", "prediction_type", "num_train_timesteps"):
            assert pipeline.pipe.scheduler.config[key] == before[key]
    assert dict(pipeline.pipe.scheduler.config)["clip_sample"] == before["clip_sample"]


def test_a_scheduler_that_is_none(settings):
    with pytest.raises(EmitDiffError, match="choose among ddim"):
        study_steps(replace(settings, schedulers=("fast",)))
