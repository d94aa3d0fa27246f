from __future__ import annotations

import json
import shutil

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for one another on a busy machine cost these small networks more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def checkpoint(tiny_synthesis_folder, tmp_path_factory) -> str:
    """The tiny checkpoint, with a card that has it generate 64 x 64 in 2 steps."""
    folder = shutil.copytree(tiny_synthesis_folder, tmp_path_factory.mktemp("weights") / "small")
    (folder / "emitdiff.json").write_text(json.dumps({"area": 64 * 64, "defaults": {"num_inference_steps": 2}}))
    return str(folder)


@pytest.fixture(scope="session")
def two_kinds(dataset_folder, tmp_path_factory):
    """Two dataset folders that say they are of different modality and organ."""
    other = shutil.copytree(dataset_folder, tmp_path_factory.mktemp("data") / "plates")
    info = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps(info | {"name": "plates", "modality": "CT", "organ": "abdomen"}))
    return dataset_folder, other
