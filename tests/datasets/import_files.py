"""Small data sets in the layouts of others, drawn by program."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

AFFINE = np.diag([-1.0, -1.5, 3.0, 1.0])  # as many scanners store it: neither axis as it is shown


def draw(seed: int, label: int = 1, size: tuple[int, int] = (24, 32)) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 (H, W) and class ids (H, W): a square of its own place."""
    random = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    row, column = random.integers(2, size[0] - 10), random.integers(2, size[1] - 10)
    mask[row : row + 8, column : column + 7] = label
    return np.clip(random.normal(70, 12, size) + 100 * (mask > 0), 0, 255).astype(np.uint8), mask


def save(path: Path, array: np.ndarray, **how) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **how)
    return path


def volume(seed: int, slices: int = 6, labels: tuple[int, ...] = (1,)) -> tuple[np.ndarray, np.ndarray]:
    """Values int16 and class ids uint8, (12, 10, slices), in file order; the first and last slices show no class."""
    random = np.random.default_rng(seed)
    mask = np.zeros((12, 10, slices), np.uint8)
    for place, label in enumerate(labels):
        mask[2 + 3 * place : 5 + 3 * place, 3:8, 1 : slices - 1] = label
    return (random.normal(100, 10, mask.shape) + 200 * mask).astype(np.int16), mask


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def write_json(path: Path, content: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_nnunet(folder: Path, version: int = 2, channels: int = 1, cases: int = 2) -> dict[str, np.ndarray]:
    """A task of nnU-Net; returns the class ids of each case in file order. Channel k is brighter by 1000 k."""
    masks = {}
    for number in range(cases):
        values, masks[f"case_{number:03d}"] = volume(number, labels=(1, 2))
        for channel in range(channels):
            save_nifti(folder / f"imagesTr/case_{number:03d}_{channel:04d}.nii.gz", (values + 1000 * channel))
        save_nifti(folder / f"labelsTr/case_{number:03d}.nii.gz", masks[f"case_{number:03d}"])
    names = ["T2", "ADC", "DWI"][:channels]
    if version == 2:
        content = {"channel_names": dict(enumerate(names)), "labels": {"background": 0, "zone": 1, "lesion": 2},
                   "numTraining": cases, "file_ending": ".nii.gz"}  # fmt: skip
    else:
        listed = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in masks]
        content = {"name": "PROSTATE", "modality": {str(k): name for k, name in enumerate(names)},
                   "labels": {"0": "background", "1": "zone", "2": "lesion"}, "training": listed, "test": [],
                   "reference": "drawn", "licence": "CC0"}  # fmt: skip
    write_json(folder / "dataset.json", content)
    return masks


def write_decathlon(folder: Path, channels: int = 2, cases: int = 2) -> dict[str, np.ndarray]:
    """A task of the Decathlon, whose images hold all channels."""
    masks = {}
    for number in range(cases):
        name = f"prostate_{number:02d}"
        values, masks[name] = volume(number)
        many = np.stack([values + 1000 * channel for channel in range(channels)], -1) if channels > 1 else values
        save_nifti(folder / f"imagesTr/{name}.nii.gz", many)
        save_nifti(folder / f"labelsTr/{name}.nii.gz", masks[name])
    save_nifti(folder / "imagesTs/prostate_90.nii.gz", volume(90)[0])
    listed = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in masks]
    write_json(folder / "dataset.json", {
        "name": "PROSTATE", "modality": {str(k): ("T2", "ADC", "DWI")[k] for k in range(channels)},
        "labels": {"0": "background", "1": "zone"}, "training": listed, "test": ["./imagesTs/prostate_90.nii.gz"],
        "tensorImageSize": "4D", "licence": "CC-BY-SA 4.0", "reference": "drawn by a program",
    })  # fmt: skip
    return masks


def shown(mask: np.ndarray) -> np.ndarray:
    """(S, H, W) as the reader shows an axial volume stored with `AFFINE`: rows from the front, columns from the
    patient's right."""
    image = nibabel.Nifti1Image(mask, AFFINE)
    closest = np.asarray(
        nibabel.as_closest_canonical(image).dataobj
    )  # right to left grows, back to front, foot to head
    return closest.transpose(2, 1, 0)[:, ::-1, ::-1]
