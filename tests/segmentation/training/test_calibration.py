"""Where "not there" ends and "found" begins, learnt from questions with known answers."""

import json

import numpy as np

from emitdiff.segmentation.training.calibration import Question, fit_calibration


def questions(there: float, absent: float, spread: float, count: int = 200) -> list[Question]:
    """Of one set: logits about `there` for targets that are there, about `absent` for others."""
    rng = np.random.default_rng(0)
    pairs = ((True, there), (False, absent))
    return [Question("drawn", shown, tuple(rng.normal(middle, spread, 2))) for shown, middle in pairs
            for _ in range(count)]  # fmt: skip


def shares(asked: list[Question], found) -> tuple[float, float, float]:
    """(refused though there, found though not there, unsure)."""
    told = [(found.probability(*one.logits), one.there) for one in asked]
    refused = np.mean([p < found.absent for p, there in told if there])
    false = np.mean([p >= found.sure for p, there in told if not there])
    return float(refused), float(false), float(np.mean([found.absent <= p < found.sure for p, _ in told]))


def test_where_the_two_part_nothing_is_unsure():
    asked = questions(6, -6, 1)
    assert shares(asked, fit_calibration(asked)) == (0, 0, 0)


def test_what_lies_between_is_left_open():
    asked = questions(1.3, -1.3, 1.2)
    refused, false, unsure = shares(asked, fit_calibration(asked))
    assert refused <= 0.025 and false <= 0.05 and 0 < unsure <= 0.11


def test_little_is_left_open_even_where_nothing_can_be_told_apart():
    asked = questions(0.1, -0.1, 1)
    refused, false, unsure = shares(asked, fit_calibration(asked))
    assert unsure <= 0.11 and refused <= 0.03 < false


def test_nothing_is_learnt_from_one_answer_alone():
    assert fit_calibration([one for one in questions(2, -2, 1) if one.there]) is None


def test_numbers_are_plain_for_json():
    from dataclasses import asdict

    asked = questions(2, -2, 1)
    assert json.loads(json.dumps(asdict(fit_calibration(asked)))).keys() == {"said", "drawn", "bias", "absent", "sure"}
