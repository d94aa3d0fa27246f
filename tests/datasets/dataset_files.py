"""A drawn dataset, and its table with cells changed."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np

from emitdiff.datasets.check import check_dataset
from emitdiff.datasets.folder import DatasetInfo, Sample

INFO = DatasetInfo("drawn", "Ultrasound", "breast", {"background": 0, "lesion": 1, "cyst": 2}, "CC0 1.0", "nobody")


def draw_sample(index: int, group: str | None = None, height: int = 24, width: int = 32) -> Sample:
    draw = np.random.default_rng(index)
    mask = np.zeros((height, width), np.uint8)
    mask[4:12, 5:15] = 1 + index % 2
    image = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
    name = f"images/case_{index:03d}.{'webp' if index % 2 else 'png'}"
    group = f"patient {index // 2}" if group is None else group
    return Sample(image, mask, "A lesion, on the left.", group, "benign", name, {"scanner": "drawn by hand, twice"})


def edit_rows(folder, change):
    """The mask's column has its short name here, before and after."""
    path = folder / "metadata.csv"
    with path.open(newline="") as file:
        rows = [{"mask" if key == "mask_file_name" else key: row[key] for key in row} for row in csv.DictReader(file)]
    rows = change(rows) or rows
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def set_cell(folder, number, column, value):
    edit_rows(folder, lambda rows: rows[number].update({column: value}))


def kinds(folder):
    return Counter(defect.kind for defect in check_dataset(folder).defects)
