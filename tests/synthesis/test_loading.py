from __future__ import annotations

import pytest
from diffusers import DDIMScheduler

from emitdiff.checkpoints import Checkpoint
from emitdiff.progress import Progress
from emitdiff.synthesis import loading


@pytest.fixture
def load(tiny_synthesis_folder, monkeypatch):
    """Loads the tiny weights as if they were those of a `Checkpoint`; says what was fetched before."""
    fetched = []
    monkeypatch.setattr(loading, "fetch_weights", lambda found, half, progress: fetched.append(progress))
    monkeypatch.setattr(loading, "local_folder", lambda found: tiny_synthesis_folder)
    monkeypatch.setattr(loading, "controlnet_folder", lambda found: tiny_synthesis_folder / "controlnet")
    monkeypatch.setattr(loading, "weights_fingerprint", lambda found, half: "0" * 64)
    monkeypatch.setattr(loading, "fetch_hed", lambda progress: fetched.append("hed"))

    def load(progress=None, **facts):
        checkpoint = Checkpoint("some", "synthesis", "", "", base="some/repo", **facts)
        monkeypatch.setattr(loading, "find_checkpoint", lambda name, kind: checkpoint)
        return loading.load_synthesizer("some", "cpu", progress), fetched

    return load


def test_it_is_loaded_to_sample_with_ddim_and_what_suits_it(load):
    loaded, _ = load(detector="canny", defaults={"guidance_scale": 9.0})
    assert isinstance(loaded.pipe.scheduler, DDIMScheduler) and loaded.pipe.safety_checker is None
    assert loaded.checkpoint_card.detector == "canny" and loaded.checkpoint_card.defaults == {"guidance_scale": 9.0}
    assert loaded.pipe.device.type == "cpu" and loaded.pipe._progress_bar_config == {"disable": True}


@pytest.mark.parametrize(
    ("facts", "comes"),
    [
        ({"revision": "a", "detector": "hed"}, ["hed"]),
        ({"revision": "a", "detector": "soft"}, []),
        ({"detector": "hed"}, []),
    ],
)
def test_hed_comes_along_with_what_is_fetched_and_needs_it(load, facts, comes):
    progress = Progress()
    assert load(progress, **facts)[1] == [progress, *comes]
