"""What `study labels` compares, at a step each; what they learn is tested in test_labels.py."""

from __future__ import annotations

import numpy as np
import pytest

from emitdiff.datasets.folder import open_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.studies import arms
from emitdiff.studies.arms import ARMS, TrainArm, check_arms, train_arm

QUESTIONS = [("lesion", "a lesion in the breast")]


@pytest.fixture(scope="module")
def taught(dataset_folder):
    """Two images, and what trains a unet on them for a step."""
    dataset = open_dataset(dataset_folder)
    samples = [dataset[0], dataset[1]]

    def train(seed: int):
        settings = TrainArm("unet", resolution=32, steps=2, batch=2, seed=seed)
        return train_arm(settings, None, samples, dataset.info)

    return samples, train


def test_only_known_arms_are_compared():
    check_arms(ARMS)
    check_arms(())
    with pytest.raises(EmitDiffError, match="no arm called 'sam': choose among ours, unet"):
        check_arms(["ours", "sam"])


def test_a_network_answers_as_its_seed_says_and_tells_its_time(taught):
    samples, train = taught
    image = samples[0].image
    answers = []
    for seed in (0, 0, 1):
        segment, seconds = train(seed)
        (mask,) = segment(image, QUESTIONS)
        assert mask.shape == image.shape[:2] and mask.dtype == bool and seconds > 0
        answers.append(mask)
    assert np.array_equal(answers[0], answers[1]) and not np.array_equal(answers[0], answers[2])


def test_one_look_answers_for_all_labels_of_an_image(taught, monkeypatch):
    samples, train = taught
    segment, _ = train(0)
    looks, predict = [], arms.predict
    monkeypatch.setattr(arms, "predict", lambda *given: looks.append(1) or predict(*given))
    first = segment(samples[0].image, QUESTIONS * 2)
    assert len(first) == 2 and len(looks) == 1
    assert np.array_equal(first[0], segment(samples[0].image, QUESTIONS)[0])
    assert not np.array_equal(first[0], segment(samples[1].image, QUESTIONS)[0])
