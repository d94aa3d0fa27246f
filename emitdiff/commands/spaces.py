"""The command that puts the application on Hugging Face Spaces: deploy-space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from emitdiff.commands.deployment import Hardware

SPACE_HELP = "The Space, as USER/NAME; it is made where there is none."


@dataclass(frozen=True)
class DeploySpace:
    """Put the application on Hugging Face Spaces, from a checkout of this repository. Needs `hf auth login`."""

    name: Positional[Annotated[str, arg(metavar="USER/NAME", help=SPACE_HELP)]]
    hardware: Hardware = "cpu-basic"  # zero-a10g lends a card for the time of a run.
    private: bool = False  # Only you see a Space that is made anew.
    dry_run: bool = False  # List what would go up, and send nothing.

    def run(self) -> int:
        from emitdiff.commands.deployment import check_space_name, deploy_space, space_files

        check_space_name(self.name)
        files = space_files(Path(__file__).resolve().parents[2], self.hardware)
        sizes = {name: len(it) if isinstance(it, bytes) else it.stat().st_size for name, it in files.items()}
        total = f"{len(files)} files, {sum(sizes.values()) / 1e6:.1f} MB"
        if self.dry_run:
            print("\n".join(f"{size:>10}  {name}" for name, size in sorted(sizes.items())))
            print(f"{total} for {self.name} on {self.hardware}; nothing was sent")
            return 0
        print(f"{deploy_space(self.name, self.hardware, files, self.private)}: {total}, on {self.hardware}")
        return 0
