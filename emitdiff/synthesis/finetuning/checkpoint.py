"""What fine-tuning leaves on disk: a folder that `load_synthesizer` reads, and a log of the loss."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from diffusers import ControlNetModel

from emitdiff.checkpoints import find_checkpoint
from emitdiff.checksums import CHECKSUMS, write_checksums
from emitdiff.files import check_output_folder, write_atomically, write_text
from emitdiff.synthesis.card import CARD_FILE
from emitdiff.synthesis.finetuning.base import BaseCheckpoint
from emitdiff.synthesis.grain import GRAIN_FOLDER

FROZEN = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
UNWANTED = ("*.bin", "*.ckpt", "*.fp16*", "*non_ema*")  # duplicates in other formats


def check_finetuning_folder(out: Path, start: str, datasets: Sequence[Path]) -> None:
    """Raises EmitDiffError where `out` would write over the checkpoint to start from, a dataset, or something else."""
    found = find_checkpoint(start, "synthesis")
    check_output_folder(out, ("state/settings.json",), (found.base, found.controlnet, found.card, *datasets))


def write_finetuned(start: BaseCheckpoint, controlnet: ControlNetModel, out: Path, training: dict) -> None:
    """Writes `controlnet` and emitdiff.json, and beside them the locked networks as they are.

    Those of a Hub repository are not copied: the card names repository and revision. The ControlNet stays in float32,
    since half precision would round small steps away. A kill leaves each part as it was or as it shall be.
    """
    (out / CHECKSUMS).unlink(missing_ok=True)  # until all is written again
    base = _hub_base(start)
    if not base:
        for name in (*FROZEN, GRAIN_FOLDER):
            if not (out / name).is_dir() and (name in FROZEN or (start.folder / name).is_dir()):
                _copy(start.folder / name, out / name)
        shutil.copyfile(start.folder / "model_index.json", out / "model_index.json")
    partial = out / "controlnet.partial"
    shutil.rmtree(partial, ignore_errors=True)
    controlnet.save_pretrained(partial)
    _forget_origin(partial / "config.json")
    _replace_folder(partial, out / "controlnet")
    card = replace(start.card, training=training, base=base)
    write_text(out / CARD_FILE, json.dumps(asdict(card), indent=1, ensure_ascii=False) + "\n")
    write_checksums(out)


def _hub_base(start: BaseCheckpoint) -> dict[str, str]:
    """Repository and revision, the commit where the cache tells it; {} for a base in a folder of this machine."""
    if start.found.revision is None:
        return {}
    commit = start.folder.name if start.folder.parent.name == "snapshots" else start.found.revision
    return {"repository": start.found.base, "revision": commit}


def _copy(source: Path, target: Path) -> None:
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, ignore=shutil.ignore_patterns(*UNWANTED))
    _replace_folder(partial, target)


def _replace_folder(partial: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def _forget_origin(config: Path) -> None:
    content = json.loads(config.read_text(encoding="utf-8"))
    content.pop("_name_or_path", None)  # a folder of the machine it was trained on
    config.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


class LossLog:
    """loss.csv, a row a step. Rows wait in memory until the state is saved, so that neither is ahead of the other."""

    COLUMNS = ("step", "images", "loss", "seconds")

    def __init__(self, path: Path, steps: int):
        """Goes on with the file at `path` after its first `steps` steps."""
        self.path = path
        self.rows: list[Sequence[object]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = [row for row in csv.reader(file) if row and row[0].isdecimal() and int(row[0]) <= steps]
        write_atomically(path, self._begin)
        self.rows = []

    def _begin(self, path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([self.COLUMNS, *self.rows])

    def add(self, step: int, images: int, loss: float, seconds: float) -> None:
        self.rows.append((step, images, f"{loss:.6f}", f"{seconds:.1f}"))

    def write(self) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(self.rows)
        self.rows = []
