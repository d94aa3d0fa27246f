"""Steps that the tests of dataset jobs share."""

from __future__ import annotations

import time

import pytest

from emitdiff.backend.dataset_job import BUSY
from emitdiff.backend.dataset_jobs import DatasetJobs
from emitdiff.ui.interface import AugmentRequest

REQUEST = AugmentRequest(limit=2)


def ended(jobs: DatasetJobs, name: str):
    """The state once nothing runs any more."""
    for _ in range(600):
        if (state := jobs.status(name)).stage not in BUSY:
            return state
        time.sleep(0.05)
    pytest.fail("the job does not end")
