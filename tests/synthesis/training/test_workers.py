"""Training views made by other processes."""

import multiprocessing
import os

import numpy as np
import pytest
import torch

from emitdiff.synthesis.training.workers import Stream

CPU = torch.device("cpu")


def a_number(rng: np.random.Generator) -> tuple[int, float]:
    return os.getpid(), float(rng.random())


def never(rng: np.random.Generator) -> None:
    raise ValueError("no picture")


def test_each_process_draws_its_own_and_another_seed_other_ones():
    streams = [Stream(a_number, 2, seed, CPU) for seed in (0, 0, 1)]
    drawn = [[stream.next() for _ in range(40)] for stream in streams]
    for stream in streams:
        stream.close()
    assert all(len({process for process, _ in results}) == 2 for results in drawn)
    assert os.getpid() not in {process for results in drawn for process, _ in results}
    values = [{value for _, value in results} for results in drawn]
    assert all(len(one) == 40 for one in values)
    assert len(values[0] & values[1]) > 20 and not values[0] & values[2]
    assert not multiprocessing.active_children()


def test_what_a_process_raises_arrives():
    stream = Stream(never, 1, 0, CPU)
    with pytest.raises(ValueError, match="no picture"):
        stream.next()
    stream.close()
