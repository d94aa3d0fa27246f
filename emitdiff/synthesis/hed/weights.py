"""Where the weights of HED lie: the original that `convert-hed` or the Hub brings, and the embedded small one."""

from __future__ import annotations

import json
import os
from pathlib import Path

from emitdiff.checkpoints import checkpoints_folder
from emitdiff.downloads import DownloadStopped, fetch
from emitdiff.errors import EmitDiffError
from emitdiff.hub import HubPart
from emitdiff.progress import NO_PROGRESS, Progress

ANNOTATORS = ("lllyasviel/Annotators", "982e7edaec38759d914a963c48c4726685de7d96")
HED_FILE = "ControlNetHED.pth"
HED_MINI = "hed-mini"


def hed_folder() -> Path:
    """Where `convert-hed` writes the original HED and where it is looked for: $EMITDIFF_HED, else a cache folder."""
    if chosen := os.environ.get("EMITDIFF_HED"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emitdiff" / "hed"


def hed_mini_folder() -> Path:
    """The folder of the embedded edge detector, HED made small."""
    return checkpoints_folder() / HED_MINI


def hed_weights() -> Path | None:
    """The original HED on this machine: what `convert-hed` wrote, else ControlNetHED.pth in the Hub's cache (a pickle:
    read it with `torch.load(weights_only=True)`), else None. Fetches nothing."""
    from huggingface_hub import try_to_load_from_cache

    if (converted := hed_folder() / "model.safetensors").is_file():
        return converted
    repository, revision = ANNOTATORS
    cached = try_to_load_from_cache(repository, HED_FILE, revision=revision)
    return Path(cached) if isinstance(cached, str) else None


def hed_network_name() -> str:
    """Which network the detector `hed` stands for on this machine: "original", or "hed-mini" in its stead."""
    return "original" if hed_weights() else HED_MINI


def edge_weights(detector: str) -> str | None:
    """The weights that draw the edges of `detector` here, for records: "hed-mini", or "original, " and the file that
    they were made from; None for detectors that need none."""
    if not detector.startswith("hed"):
        return None
    path = hed_weights() if detector == "hed" else None
    if path is None:
        return HED_MINI
    try:
        name = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))["source"]
    except (OSError, ValueError, KeyError, TypeError):
        name = path.name
    return f"original, {name}"


def fetch_hed(progress: Progress = NO_PROGRESS) -> None:
    """Fetches ControlNetHED.pth where the original HED is not here and the Hub can be reached; else hed-mini serves.

    `progress` is told of bytes; raises DownloadStopped where it is cancelled.
    """
    if hed_weights():
        return
    try:
        fetch([HubPart(*ANNOTATORS, (HED_FILE,))], progress=progress)
    except DownloadStopped:
        raise
    except EmitDiffError:  # whatever the Hub answers, there is an embedded network to draw the edges
        return
