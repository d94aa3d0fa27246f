"""Steps within a given time."""

import time

from emitdiff.segmentation.few_shot.schedule import VALIDATIONS, StepSchedule


def test_the_plan_is_cut_to_the_time():
    pace = StepSchedule(1000, started=0.0, seconds=1.0)  # long over
    pace.step = 10
    assert not pace.has_next_step() and pace.steps == 10


def test_with_time_enough_all_steps_are_taken_and_validations_come_at_equal_distances():
    schedule = StepSchedule(16, started=time.monotonic(), seconds=600)
    due = []
    while schedule.has_next_step():
        schedule.step += 1
        due.append(schedule.validation_due())
    assert schedule.steps == len(due) == 16 and sum(due) == VALIDATIONS
    assert due[1::2] == [True] * 8, "after every second step of sixteen"
