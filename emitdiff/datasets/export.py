"""A dataset folder in the layouts that other software reads: nnU-Net v2, MONAI, COCO, paired folders.

The layouts are those of nnU-Net's documentation/reference/dataset-format.md and manual_data_splits.md, of
`monai.data.load_decathlon_datalist`, and of cocodataset.org/#format-data. Everywhere images are PNG, grey where the
whole dataset is grey and RGB otherwise; the text chunks of synthetic ones go along, and provenance.csv keeps every
column of metadata.csv. Folds are cut by group: validation is on real images only, and what was generated from an image
never trains a model that is validated on it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from emitdiff.cells import write_cells
from emitdiff.datasets.coco import coco_annotations
from emitdiff.datasets.folder import DatasetFolder, is_synthetic, open_dataset, unique_stems
from emitdiff.datasets.splits import folds_by_group
from emitdiff.errors import EmitDiffError
from emitdiff.files import check_new_folder, file_stem, locked, unfinished_folder
from emitdiff.images import PALETTE
from emitdiff.provenance import NOTICE, copy_png_text

Format = Literal["nnunet", "monai", "coco", "paired"]
Split = tuple[list[int], list[int]]  # indices of the rows to train and to validate on


@dataclass(frozen=True)
class Export:
    """Settings of `export`.

    `folds` for cross-validation, cut by group with `seed` (as `folds_by_group`); 0 for none. `dataset_id`, 1 to 999, is
    nnU-Net's number of the dataset; those from 500 on clash with none of its published ones.
    """

    dataset: Path
    out: Path
    format: Format
    folds: int = 5
    seed: int = 0
    dataset_id: int = 501


@dataclass(frozen=True)
class Exported:
    """What was written where, and what its user should know, in sentences."""

    folder: Path
    images: int
    notes: tuple[str, ...]


def export(settings: Export) -> Exported:
    """Writes the dataset in another layout; the folder is there whole or not at all.

    Raises:
        EmitDiffError: an unreadable dataset, settings that cannot be used, or a folder that holds something already.
    """
    write = {"nnunet": _write_nnunet, "monai": _write_monai, "coco": _write_coco, "paired": _write_paired}
    if settings.format not in write:
        raise EmitDiffError(f"The format '{settings.format}' is not known; choose one of {', '.join(write)}.")
    dataset = open_dataset(settings.dataset)
    splits = cut_splits(dataset, settings.folds, settings.seed)
    target = _target(settings, dataset)
    names = unique_stems([row["file_name"] for row in dataset.rows])
    with unfinished_folder(target) as unfinished:
        notes = write[settings.format](dataset, names, splits, unfinished, target)
        with locked(target.parent, wait=True):
            _target(settings, dataset)  # another export may have been quicker
            os.replace(unfinished, target)
    if settings.folds and not splits:
        notes.append("No real images are here to validate on, so there are no folds: test on real images kept apart.")
    return Exported(target, len(dataset), tuple(notes))


def cut_splits(dataset: DatasetFolder, folds: int, seed: int) -> list[Split]:
    """One (train, validate) pair per fold: validation has the real images of the groups held out, training all images,
    real and synthetic, of the others. No folds where there is no real image or `folds` is 0.

    Raises:
        EmitDiffError: fewer groups with real images than folds.
    """
    real = dataset.real()
    if not folds or not len(real):
        return []
    groups = len(set(real.groups))
    if not 2 <= folds <= groups:
        raise EmitDiffError(
            f"{dataset.folder} has {groups} group(s) with real images; they cannot be cut into {folds} folds. "
            "Give fewer folds, at least 2, or 0 for none."
        )
    splits = []
    for _, validation in folds_by_group(real, folds, seed):
        held = set(validation.groups)
        train = [index for index, group in enumerate(dataset.groups) if group not in held]
        rows = enumerate(dataset.rows)
        splits.append((train, [index for index, row in rows if row["group"] in held and not is_synthetic(row)]))
    return splits


def _target(settings: Export, dataset: DatasetFolder) -> Path:
    """The folder to write. Raises EmitDiffError where it, or nnU-Net's number, is taken."""
    out = Path(settings.out)
    if settings.format == "nnunet":
        if not 1 <= settings.dataset_id <= 999:
            raise EmitDiffError(f"nnU-Net numbers its datasets from 1 to 999; the number was {settings.dataset_id}.")
        number = f"Dataset{settings.dataset_id:03d}_"
        if taken := sorted(path.name for path in out.glob(f"{number}*")):
            raise EmitDiffError(f"{out} holds {taken[0]} already. Give another number with --dataset-id.")
        out = out / (number + file_stem(dataset.info.name))
    check_new_folder(out)
    return out


def _write_nnunet(
    dataset: DatasetFolder, names: list[str], splits: list[Split], folder: Path, target: Path
) -> list[str]:
    """imagesTr/CASE_0000.png, labelsTr/CASE.png, dataset.json, splits_final.json."""
    ids = dict(sorted(dataset.info.labels.items(), key=lambda label: label[1]))
    foreground = {name: place for place, name in enumerate((name for name in ids if ids[name]), start=1)}
    lut = np.zeros(256, np.uint8)
    for name, place in foreground.items():
        lut[ids[name]] = place
    grey = _write_pictures(dataset, folder, [f"imagesTr/{name}_0000.png" for name in names])
    _write_masks(dataset, folder, [f"labelsTr/{name}.png" for name in names], lambda mask: lut[mask])
    content = {
        # nnU-Net scales by the channel's name: "CT" would mean Hounsfield units; any other name is standardized.
        "channel_names": {"0": f"{dataset.info.modality} 8 bit"} if grey else {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, **foreground},
        "numTraining": len(dataset),
        "file_ending": ".png",
        **_described(dataset),
    }
    _write_json(folder / "dataset.json", content)
    _write_provenance(dataset, folder, names, "imagesTr/{}_0000.png", "labelsTr/{}.png")
    notes = []
    if splits:
        _write_json(folder / "splits_final.json", _named(splits, names))
        notes.append(
            f"After nnUNetv2_plan_and_preprocess, copy {target.name}/splits_final.json into "
            f"nnUNet_preprocessed/{target.name}: without it nnU-Net would cut folds of its own, through the groups."
        )
    if foreground != {name: label for name, label in ids.items() if label}:
        notes.append(f"nnU-Net wants class ids without gaps; they are now {json.dumps(foreground)}.")
    return notes


def _write_monai(
    dataset: DatasetFolder, names: list[str], splits: list[Split], folder: Path, target: Path
) -> list[str]:
    """images/, labels/, and one datalist per fold with the lists "training" and "validation"."""
    grey = _write_pictures(dataset, folder, [f"images/{name}.png" for name in names])
    _write_masks(dataset, folder, [f"labels/{name}.png" for name in names])
    _write_provenance(dataset, folder, names, "images/{}.png", "labels/{}.png")
    folds, items = _fold_of(splits), []
    for index, (name, row) in enumerate(zip(names, dataset.rows, strict=True)):
        fold = {"fold": folds[index]} if index in folds else {}
        items.append({**_origin(row), "image": f"images/{name}.png", "label": f"labels/{name}.png", **fold})
    labels = {"background": 0, **{name: label for name, label in dataset.info.labels.items() if label}}
    for number, (train, validation) in enumerate(splits or [(range(len(dataset)), [])]):
        content = {
            **_described(dataset),
            "tensorImageSize": "2D",
            "modality": {"0": dataset.info.modality} if grey else {"0": "R", "1": "G", "2": "B"},
            "labels": {str(label): name for name, label in labels.items()},
            "numTraining": len(train),
            "numValidation": len(validation),
            "training": [items[index] for index in train],
            "validation": [items[index] for index in validation],
        }
        _write_json(folder / (f"datalist_{number}.json" if splits else "datalist.json"), content)
    return []


def _write_coco(dataset: DatasetFolder, names: list[str], splits: list[Split], folder: Path, target: Path) -> list[str]:
    """images/ and annotations/*.json: of all images, and of either side of each fold."""
    _write_pictures(dataset, folder, [f"images/{name}.png" for name in names])
    _write_provenance(dataset, folder, names, "images/{}.png", "")
    folds = _fold_of(splits)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, (name, row) in enumerate(zip(names, dataset.rows, strict=True)):
        mask = dataset[index].mask
        fold = {"fold": folds[index]} if index in folds else {}
        size = {"file_name": f"{name}.png", "width": mask.shape[1], "height": mask.shape[0], "license": 1}
        images.append({**_origin(row), "id": index + 1, **size, **fold})
        for annotation in coco_annotations(mask):
            annotations.append({"id": len(annotations) + 1, "image_id": index + 1, **annotation})
    info = dataset.info
    head = {
        "info": {"version": "1.0", "contributor": "emitdiff", **_described(dataset)},
        "licenses": [{"id": 1, "name": info.licence, "url": ""}],
        "categories": [
            {"id": label, "name": name, "supercategory": info.organ} for name, label in info.labels.items() if label
        ],
    }
    parts: dict[str, Sequence[int]] = {"instances": range(len(dataset))}
    for number, (train, validation) in enumerate(splits):
        parts |= {f"instances_train_{number}": train, f"instances_val_{number}": validation}
    for name, indices in parts.items():
        ids = {index + 1 for index in indices}
        chosen = [annotation for annotation in annotations if annotation["image_id"] in ids]
        _write_json(
            folder / "annotations" / f"{name}.json",
            {**head, "images": [images[index] for index in indices], "annotations": chosen},
        )
    return ["Each piece of a label that hangs together, corners included, is one annotation; touching pieces are one."]


def _write_paired(
    dataset: DatasetFolder, names: list[str], splits: list[Split], folder: Path, target: Path
) -> list[str]:
    """image/NAME.png, mask/NAME.png (class ids), mask_colour/NAME.png, labels.csv with ids and colours, folds.json."""
    _write_pictures(dataset, folder, [f"image/{name}.png" for name in names])
    _write_masks(dataset, folder, [f"mask/{name}.png" for name in names])
    colours = label_colours()
    _write_masks(dataset, folder, [f"mask_colour/{name}.png" for name in names], lambda mask: colours[mask])
    labels = {"background": 0, **{name: label for name, label in dataset.info.labels.items() if label}}
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        columns = ("id", "name", "red", "green", "blue")
        rows = ([label, name, *colours[label].tolist()] for name, label in labels.items())
        write_cells(file, columns, [dict(zip(columns, row, strict=True)) for row in rows])
    _write_json(folder / "dataset.json", {**asdict(dataset.info), **_described(dataset)})
    _write_provenance(dataset, folder, names, "image/{}.png", "mask/{}.png")
    if splits:
        _write_json(folder / "folds.json", _named(splits, names))
    return ["mask/ holds class ids, almost black to the eye; mask_colour/ shows the same in the colours of labels.csv."]


def label_colours() -> np.ndarray:
    """uint8 (256, 3): a colour for every class id, no two alike; black for background, then those of overlays."""
    ids = np.arange(256)
    hues = np.stack([(ids * 47) % 180, 255 - (ids * 29) % 128, 255 - ids // 2], -1).astype(np.uint8)
    colours: np.ndarray = cv2.cvtColor(hues[None], cv2.COLOR_HSV2RGB)[0]
    colours[0] = 0
    colours[1 : 1 + len(PALETTE)] = PALETTE
    return colours


def _write_pictures(dataset: DatasetFolder, folder: Path, paths: list[str]) -> bool:
    """Writes every image; returns whether they were written as grey."""
    grey = all((image == image[..., :1]).all() for image in (sample.image for sample in dataset))
    (folder / paths[0]).parent.mkdir(parents=True)
    for index, path in enumerate(tqdm(paths, f"writing {dataset.info.name}", unit="image", delay=2)):
        row, image = dataset.rows[index], dataset[index].image
        # A real picture's own text may name the patient and stays behind.
        text = copy_png_text(dataset.path(row["file_name"])) if is_synthetic(row) else None
        Image.fromarray(image[..., 0] if grey else image).save(folder / path, pnginfo=text)
    return grey


def _write_masks(
    dataset: DatasetFolder, folder: Path, paths: list[str], change: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> None:
    (folder / paths[0]).parent.mkdir(parents=True)
    for index, path in enumerate(paths):
        Image.fromarray(change(dataset[index].mask)).save(folder / path)


def _write_provenance(dataset: DatasetFolder, folder: Path, names: list[str], image: str, label: str) -> None:
    """provenance.csv: the files of each case, then its row of metadata.csv."""
    rows = [
        {"case": name, "exported_image": image.format(name), "exported_label": label.format(name), **row}
        for name, row in zip(names, dataset.rows, strict=True)
    ]
    with (folder / "provenance.csv").open("w", encoding="utf-8", newline="") as file:
        write_cells(file, list(dict.fromkeys(key for row in rows for key in row)), rows)


def _described(dataset: DatasetFolder) -> dict[str, Any]:
    """What the formats' own fields say of a dataset: name, description, licence, reference."""
    info, painted = dataset.info, sum(map(is_synthetic, dataset.rows))
    description = f"{info.modality}, {info.organ}; {len(dataset) - painted} real and {painted} synthetic images."
    notice = f" {NOTICE}" if painted else ""
    return {
        "name": info.name, "description": description + notice, "licence": info.licence, "reference": info.citation
    }  # fmt: skip


def _origin(row: dict[str, str]) -> dict[str, str]:
    """The cells of a row that are not empty, but for the files it names."""
    return {key: value for key, value in row.items() if key not in ("file_name", "mask") and value}


def _fold_of(splits: list[Split]) -> dict[int, int]:
    """The fold that validates on a row, for those that any does."""
    return {index: number for number, (_, validation) in enumerate(splits) for index in validation}


def _named(splits: list[Split], names: list[str]) -> list[dict[str, list[str]]]:
    """The form of nnU-Net's splits_final.json."""
    return [
        {"train": [names[index] for index in train], "val": [names[index] for index in validation]}
        for train, validation in splits
    ]


def _write_json(path: Path, content: dict[str, Any] | list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
