"""What a checkpoint wants to be given: its `emitdiff.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from emitdiff.checkpoints import Checkpoint
from emitdiff.errors import EmitDiffError

CARD_FILE = "emitdiff.json"


@dataclass(frozen=True)
class CheckpointCard:
    """What a checkpoint was trained with: the control layout (see edges.py), the area in pixels to generate at, the
    number both sides must be divisible by, the detector and the sampling defaults. These defaults here suit SD 1.5.
    `base` names the Hub repository and revision of the other networks, where only a ControlNet is stored beside the
    card."""

    control_layout: str = "joined"
    area: int = 512 * 512
    multiple: int = 64
    detector: str = "soft"
    defaults: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    base: dict = field(default_factory=dict)


def read_card(checkpoint: Checkpoint, folder: Path) -> CheckpointCard:
    """The emitdiff.json of the base's `folder`, or of the fine-tuned ControlNet where it has one of its own; for
    weights without one, what suits Stable Diffusion 1.5."""
    path = Path(checkpoint.card or folder) / CARD_FILE
    if not path.exists():
        return CheckpointCard(detector=checkpoint.detector or "soft", defaults=checkpoint.defaults)
    try:
        return CheckpointCard(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise EmitDiffError(
            f"{path} cannot be read ({error}); train the checkpoint again or restore the file."
        ) from None
