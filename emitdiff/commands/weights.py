"""The command that compares weights with their checksums: check-weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from emitdiff.commands.io import say
from emitdiff.errors import EmitDiffError

WEIGHTS_HELP = "Names or folders of weights; default: all embedded ones."


@dataclass(frozen=True)
class CheckWeights:
    """Compare weights, byte for byte, with the sha256 in their checksums.json; exit status 1 where one differs.

    The same is done whenever weights are loaded.
    """

    weights: Positional[Annotated[tuple[str, ...], arg(metavar="[NAME ...]", help=WEIGHTS_HELP)]] = ()
    write: bool = False  # Write checksums.json anew, after weights were changed on purpose.

    def run(self) -> int:
        from emitdiff.checkpoints import checkpoints_folder

        embedded = [path.parent for path in sorted(checkpoints_folder().glob("*/*.json")) if path.parent.is_dir()]
        folders = [_folder(name) for name in self.weights] or list(dict.fromkeys(embedded))
        if not folders:
            raise EmitDiffError(f"{checkpoints_folder()} holds no weights: name their folder.")
        return max(self._check(folder) for folder in folders)

    def _check(self, folder: Path) -> int:
        from emitdiff.checksums import CHECKSUMS, check_checksums, files_to_load, fingerprint, write_checksums

        if self.write:
            write_checksums(folder)
        elif not (folder / CHECKSUMS).is_file():
            print(f"{folder.name}: nothing to compare with, sha256 of all files {fingerprint(folder)}")
            return 0
        try:
            check_checksums(folder)
        except EmitDiffError as error:
            say(f"emitdiff: {error}")
            return 1
        count = sum(1 for _ in files_to_load(folder))
        print(f"{folder.name}: {count} files are as listed, sha256 of all {fingerprint(folder)}")
        return 0


def _folder(name: str) -> Path:
    """Of embedded weights, a folder, or weights from the Hub, which are compared with what the Hub gave as they are
    looked up. Raises EmitDiffError where there are none."""
    from emitdiff.checkpoints import checkpoints_folder, find_checkpoint, local_folder

    places = (checkpoints_folder() / name, Path(name))
    return next((place for place in places if place.is_dir()), None) or local_folder(find_checkpoint(name, "synthesis"))
