"""Images generated on the page as a dataset in the layouts other software reads, in one ZIP."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from emitdiff.datasets.archive import pack_folder
from emitdiff.datasets.export import Export, export
from emitdiff.datasets.folder import DatasetFolder, DatasetInfo, class_ids
from emitdiff.datasets.writing import write_tables
from emitdiff.errors import EmitDiffError
from emitdiff.synthesis.augmentation import COLUMNS, PROVENANCE

if TYPE_CHECKING:
    from emitdiff.ui.interface import PackRequest


def pack_results(
    results: list[Any], paths: list[Path], packing: PackRequest, folder: Path
) -> tuple[Path, tuple[str, ...]]:
    """Writes synthetic images as `folder`/synthetic_NAME_LAYOUT.zip and returns that with what its user should know.

    `results` have `image`, `mask` and `settings`, `paths` are their PNGs.

    Raises:
        EmitDiffError: an image without a label, class names that are not different, an unknown layout.
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        dataset = write_generated(results, paths, packing, Path(place) / "dataset")
        exported = export(Export(dataset.folder, Path(place) / "export", packing.layout, folds=0))  # type: ignore[arg-type]  # others are refused
        layout_folder = exported.folder.name if packing.layout == "nnunet" else f"synthetic_{packing.name}"
        archive = pack_folder(exported.folder, folder / f"synthetic_{packing.name}_{packing.layout}.zip", layout_folder)
    return archive, exported.notes


def write_generated(results: list[Any], paths: list[Path], packing: PackRequest, folder: Path) -> DatasetFolder:
    """A dataset folder of synthetic images: one group, for all of them come from one source. Raises EmitDiffError."""
    if not all(result.mask is not None and result.mask.any() for result in results):
        raise EmitDiffError("An image without a label cannot be exported: add a mask to the source, or drop that one.")
    labels = name_classes(packing.classes, {label for result in results for label in class_ids(result.mask) if label})
    info = DatasetInfo(packing.name, packing.modality, packing.organ, labels)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    rows = []
    for result, path in zip(results, paths, strict=True):
        row = {"file_name": f"images/{path.name}", "mask": f"masks/{path.name}", "group": packing.name}
        shutil.copy(path, folder / row["file_name"])
        Image.fromarray(result.mask.astype(np.uint8)).save(folder / row["mask"])
        rows.append({**dict.fromkeys(COLUMNS, ""), **row, **_origin(result, packing.name)})
    return write_tables(folder, info, rows)


def name_classes(names: tuple[str, ...], ids: set[int]) -> dict[str, int]:
    """Class names with their ids: the first is 1, and ids without a name are called after their number.

    Raises EmitDiffError for a name given twice.
    """
    if len({name.lower() for name in ("background", *names)}) <= len(names):
        raise EmitDiffError(f"The classes {', '.join(names)} need different names, none of them background.")
    labels = {"background": 0, **{name: label for label, name in enumerate(names, start=1)}}
    return labels | {f"class {label}": label for label in sorted(ids - set(labels.values()))}


def _origin(result: Any, source: str) -> dict[str, str]:
    settings = result.settings
    return {
        "source": str(settings.get("variation_of", source)),
        "seed": str(result.seed),
        "prompt": str(settings.get("prompt", "")),
        "appearance": str(settings.get("appearance", "")),
        "checkpoint": str(settings.get("checkpoint", "")),
        "structure": f"{settings.get('structure', 1):g}",
        "edit": json.dumps(settings["edit"]) if settings.get("edit") else "",
        "steps": str(settings.get("num_inference_steps", "")),
        "guidance": f"{settings['guidance_scale']:g}" if "guidance_scale" in settings else "",
        "preset": str(settings.get("preset", "")),
        "provenance": PROVENANCE,
    }
