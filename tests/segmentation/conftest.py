"""Tiny real models and a small drawn dataset for the segmentation half."""

import numpy as np
import pytest
import torch

from emitdiff.datasets.folder import DatasetInfo, Sample
from emitdiff.datasets.writing import write_dataset
from emitdiff.segmentation.model.features import DiffusionFeatures, stage_ends
from emitdiff.segmentation.model.text import build_text_encoder
from emitdiff.segmentation.training.backbone import build_backbone, build_scheduler
from emitdiff.segmentation.training.head import build_head
from emitdiff.segmentation.vocabulary import TARGETS

CHANNELS = (8, 16, 16, 32)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def features():
    torch.manual_seed(0)
    unet = build_backbone(CHANNELS, sample_size=64)
    return DiffusionFeatures(unet, build_scheduler(), stage_ends(unet), (20,))


@pytest.fixture
def text_encoder():
    torch.manual_seed(0)
    names = [name for target in TARGETS for name in target.names]
    return build_text_encoder(names * 3, dim=32, layers=1).eval()


@pytest.fixture
def head(features, text_encoder):
    torch.manual_seed(0)
    head = build_head(features, text_encoder).eval()
    torch.nn.init.constant_(head.presence.layers[-1].bias, 5.0)  # everything is there
    return head


def disc(size, centre, radius):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2


@pytest.fixture
def lesions(tmp_path):
    """Six drawn breast ultrasounds, the last one without a lesion."""
    rng = np.random.default_rng(0)

    def samples():
        for index in range(6):
            mask = disc((64, 72), (30, 20 + 5 * index), 12 if index < 5 else 0).astype(np.uint8)
            image = (rng.uniform(80, 120, (64, 72, 1)) - 60 * mask[..., None]).repeat(3, 2).astype(np.uint8)
            yield Sample(image, mask, "", str(index), "", f"images/{index}.png", {})

    info = DatasetInfo("drawn", "Ultrasound", "breast", {"background": 0, "lesion": 1}, "CC0", "drawn by a program")
    return write_dataset(tmp_path / "drawn", info, samples())
