from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from emitdiff.backend import encoded_images, services
from emitdiff.backend.dataset_jobs import DatasetJobs
from emitdiff.datasets.archive import pack_folder
from emitdiff.synthesis_settings import SynthesisSettings
from emitdiff.ui.interface import SynthesisRequest


@pytest.fixture(scope="module")
def calls(tiny_synthesis_folder):
    return services.build_callables(str(tiny_synthesis_folder), "textdiff-mini")


@pytest.fixture
def request_of(tiny_synthesis_folder):
    settings = {"num_images": 2, "seed": 4, "num_inference_steps": 2, "guidance_scale": 2.0}
    return SynthesisRequest(SynthesisSettings("CT, abdomen", **settings), str(tiny_synthesis_folder))


@pytest.fixture
def tiny_segmenter():
    """A whole segmenter of the real classes with random weights."""
    import torch

    from emitdiff.segmentation.model.features import DiffusionFeatures, stage_ends
    from emitdiff.segmentation.model.text import build_text_encoder
    from emitdiff.segmentation.pipeline import SegmentationPipeline
    from emitdiff.segmentation.training.backbone import build_backbone, build_scheduler
    from emitdiff.segmentation.training.head import build_head

    torch.manual_seed(0)
    unet = build_backbone((8, 16, 16, 32), sample_size=64)
    features = DiffusionFeatures(unet, build_scheduler(), stage_ends(unet), (20,))
    text = build_text_encoder(["liver", "left lung"] * 3, dim=32, layers=1).eval()
    return SegmentationPipeline(features, text, build_head(features, text).eval(), ("liver",), resolution=64)


@pytest.fixture
def no_images():
    """An empty cache of encoded images, before and after."""
    encoded_images.encode.cache_clear()
    yield
    encoded_images.encode.cache_clear()


@pytest.fixture(scope="module")
def painter(tiny_synthesis_folder, tmp_path_factory):
    """The tiny weights, told to generate 64 x 64 pixels in two steps."""
    from emitdiff.synthesis.loading import load_synthesizer

    folder = tmp_path_factory.mktemp("weights") / "tiny"
    shutil.copytree(tiny_synthesis_folder, folder)
    card = {"area": 64 * 64, "multiple": 8, "defaults": {"num_inference_steps": 2}}
    (folder / "emitdiff.json").write_text(json.dumps(card))
    return load_synthesizer(str(folder))


@pytest.fixture
def jobs(painter, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "server"))
    (tmp_path / "server").mkdir()
    return DatasetJobs(lambda name: painter, lambda name: pytest.fail("nobody asked for a segmenter"))


@pytest.fixture
def packed(dataset_folder, tmp_path) -> Path:
    return pack_folder(dataset_folder, tmp_path / "discs.zip", "discs")
