"""Dataset folders written: samples as they come, or the tables of pictures that are already there."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

import numpy as np
from PIL import Image, PngImagePlugin
from tqdm import tqdm

from emitdiff.cells import write_cells
from emitdiff.datasets.folder import DatasetFolder, DatasetInfo, Sample, mask_defects, open_dataset
from emitdiff.datasets.rows import FIRST_COLUMNS, MASK_COLUMN, row_problems
from emitdiff.errors import EmitDiffError
from emitdiff.files import check_no_foreign_files, write_atomically, write_text
from emitdiff.images import to_rgb


def write_dataset(folder: str | Path, info: DatasetInfo, samples: Iterable[Sample]) -> DatasetFolder:
    """Write samples as they come: images lossless (WebP where the name ends so, else PNG), masks as PNG of class ids.

    Every column of a sample's row is kept. metadata.csv is written last, so a folder with one is complete; a folder
    that holds files already is refused.
    """
    writer = DatasetWriter(folder, info)
    for sample in tqdm(samples, desc=f"writing {info.name}", unit="image", delay=2):
        writer.add(sample)
    return writer.finish()


class DatasetWriter:
    """`write_dataset` for samples that come one by one. Raises EmitDiffError where `folder` holds files already."""

    def __init__(self, folder: str | Path, info: DatasetInfo) -> None:
        self.folder, self.info = Path(folder), info
        self.rows: dict[str, dict[str, str]] = {}
        check_no_foreign_files(self.folder)
        for part in ("images", "masks"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)

    def add(self, sample: Sample, text: PngImagePlugin.PngInfo | None = None) -> None:
        """`text` are the chunks of a PNG that its copy keeps, such as those of a synthetic image. Raises EmitDiffError
        for a name that another sample has, and for a sample that the dataset cannot have."""
        stem = normalize("NFC", PurePosixPath(sample.name).stem)
        if stem.casefold() in self.rows:  # other systems take capitals for small letters
            raise EmitDiffError(f"Two samples are called '{stem}'. Give every sample its own name.")
        self.rows[stem.casefold()] = _write_sample(self.folder, self.info, sample, stem, text)

    def finish(self) -> DatasetFolder:
        """Writes the tables: the folder is complete."""
        return write_tables(self.folder, self.info, list(self.rows.values()))


def write_tables(folder: str | Path, info: DatasetInfo, rows: list[dict[str, str]]) -> DatasetFolder:
    """dataset.json and metadata.csv of pictures that are already there; each appears whole or not at all."""
    folder = Path(folder)
    content = {**asdict(info), "count": len(rows), "groups": len({row["group"] for row in rows})}
    table = io.StringIO(newline="")
    columns = dict.fromkeys((*FIRST_COLUMNS, *(key for row in rows for key in row)))
    spelt = {MASK_COLUMN if column == "mask" else column: column for column in columns}
    write_cells(table, list(spelt), [{name: row.get(column) for name, column in spelt.items()} for row in rows])
    write_text(folder / "dataset.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    write_atomically(folder / "metadata.csv", lambda partial: partial.write_bytes(table.getvalue().encode()))
    return open_dataset(folder)


def _write_sample(
    folder: Path, info: DatasetInfo, sample: Sample, stem: str, text: PngImagePlugin.PngInfo | None
) -> dict[str, str]:
    suffix = ".webp" if sample.name.lower().endswith(".webp") else ".png"
    row = {"file_name": f"images/{stem}{suffix}", "mask": f"masks/{stem}.png", "group": sample.group}
    row |= {"finding": sample.finding, "text": sample.text}
    defects = mask_defects(row["mask"], sample.mask, sample.image.shape[:2], info)
    for problem in row_problems(row) + [defect.what for defect in defects]:
        raise EmitDiffError(f"The sample '{sample.name}' cannot be written: {problem}.")
    how: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {"pnginfo": text}
    Image.fromarray(to_rgb(sample.image)).save(folder / row["file_name"], **how)
    Image.fromarray(sample.mask.astype(np.uint8)).save(folder / row["mask"], optimize=True)
    return {**{key: str(value) for key, value in sample.row.items()}, **row}
