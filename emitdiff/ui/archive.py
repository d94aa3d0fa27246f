"""Synthetic images on disk: PNGs that carry their settings, the label they were made for, a manifest, one ZIP."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import weakref
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from emitdiff.files import file_stem, write_atomically
from emitdiff.provenance import manifest_entry, save_synthetic_png, synthetic_manifest
from emitdiff.ui.results import SyntheticImage

ANSWER_SECONDS = 600  # Gradio has copied an answer long before


def save_result(result: SyntheticImage, index: int, stem: str, folder: Path) -> Path:
    """Writes image `index` as `folder`/images/synthetic_STEM_000_seed0.png, its settings inside; returns the path."""
    origin = file_stem(result.settings.get("variation_of", stem))
    settings = {**result.settings, "seed": result.seed, "source": origin}
    return save_synthetic_png(
        result.image, folder / "images" / f"synthetic_{stem}_{index:03d}_seed{result.seed}.png", settings
    )


def build_manifest(
    results: list[SyntheticImage],
    paths: list[Path],
    stem: str,
    scores: list[dict] | None = None,
    warnings: Sequence[str] = (),
) -> dict:
    """What was made and how, with the files as the archive has them; `scores` of each image beside its source, where
    they are known, and what is to be said of that source."""
    entries = [
        manifest_entry(result, f"images/{path.name}", f"masks/{path.name}" if result.mask is not None else None)
        for result, path in zip(results, paths, strict=True)
    ]
    for entry, measured in zip(entries, scores or [], strict=bool(scores)):
        if measured:
            entry["scores"] = {name: round(value, 4) for name, value in measured.items()}
    return {**synthetic_manifest(stem, entries), "warnings": list(warnings)}


def save_archive(
    results: list[SyntheticImage],
    paths: list[Path],
    stem: str,
    folder: Path,
    scores: list[dict] | None = None,
    warnings: Sequence[str] = (),
) -> Path:
    """ZIP of images/, masks/ (PNG, class ids, same file names as the images) and manifest.json; it is there whole or
    not, also while it is written again."""
    archive = folder / f"synthetic_{stem}.zip"

    def write(partial: Path) -> None:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as zipped:
            for result, path in zip(results, paths, strict=True):
                zipped.write(path, f"images/{path.name}")
                if result.mask is not None:
                    png = cv2.imencode(".png", np.ascontiguousarray(result.mask, dtype=np.uint8))[1]
                    zipped.writestr(f"masks/{path.name}", png.tobytes())
            manifest = build_manifest(results, paths, stem, scores, warnings)
            zipped.writestr("manifest.json", json.dumps(manifest, indent=2))

    write_atomically(archive, write)
    return archive


def folder_of(owner: Any) -> Path:
    """A new temporary folder that goes with `owner`, at the latest when nothing holds that any more: where more users
    come than Gradio keeps sessions for, it forgets the oldest and calls nobody."""
    folder = Path(tempfile.mkdtemp(prefix="emitdiff_"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder


def answer_folder() -> Path:
    """A new folder for files handed to Gradio, which copies them; those handed over long ago are removed."""
    remove_old_answers()
    return Path(tempfile.mkdtemp(prefix="emitdiff_answer_"))


def remove_old_answers() -> None:
    """Those that Gradio has copied long ago, `ANSWER_SECONDS` and more."""
    for old in Path(tempfile.gettempdir()).glob("emitdiff_answer_*"):
        with suppress(FileNotFoundError):  # another request was quicker
            if time.time() - old.stat().st_mtime > ANSWER_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
