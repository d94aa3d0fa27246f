"""Trained networks as files."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch


def save_half(model: torch.nn.Module, folder: Path) -> None:
    """Saves a copy of a diffusers or transformers model as fp16 safetensors; a kill leaves the old one or the new."""
    partial_folder = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    half: Any = deepcopy(model).half()
    half.save_pretrained(partial_folder)
    config = json.loads((partial_folder / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)  # a folder of the machine it was trained on
    (partial_folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial_folder.rename(folder)
