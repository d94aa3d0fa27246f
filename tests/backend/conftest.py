from __future__ import annotations

import pytest

from emitdiff.backend import services
from emitdiff.synthesis_settings import SynthesisSettings
from emitdiff.ui.interface import SynthesisRequest


@pytest.fixture(scope="module")
def calls(tiny_synthesis_folder):
    return services.build_callables(str(tiny_synthesis_folder), "textdiff-mini")


@pytest.fixture
def request_of(tiny_synthesis_folder):
    settings = {"num_images": 2, "seed": 4, "num_inference_steps": 2, "guidance_scale": 2.0}
    return SynthesisRequest(SynthesisSettings("CT, abdomen", **settings), str(tiny_synthesis_folder))
