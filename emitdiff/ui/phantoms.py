"""Draws the example images: schematic scans made of ellipses, blur and noise. No patient, no photograph, no model.

`python -m emitdiff.ui.phantoms` writes them, their masks and `examples.jsonl` into `emitdiff/ui/examples/`.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np

SIDE = 256
EXAMPLES = Path(__file__).parent / "examples"


def ellipse(centre, axes, angle: float = 0.0) -> np.ndarray:
    """Boolean (SIDE, SIDE): a filled ellipse; `centre` and `axes` as (x, y) in fractions of the side."""
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    middle = tuple(round(value * SIDE) for value in centre)
    radii = tuple(round(value * SIDE) for value in axes)
    cv2.ellipse(canvas, middle, radii, angle, 0, 360, 1, -1)
    return canvas.astype(bool)


def texture(random: np.random.Generator, scale: float) -> np.ndarray:
    """float32 (SIDE, SIDE): smooth noise of zero mean and unit deviation; `scale` is its grain in pixels."""
    field = cv2.GaussianBlur(random.standard_normal((SIDE, SIDE)).astype(np.float32), (0, 0), scale)
    return (field - field.mean()) / field.std()


def finish(field: np.ndarray, random: np.random.Generator, blur: float, noise: float) -> np.ndarray:
    """Grey levels as float to uint8 (SIDE, SIDE), softened and with grain."""
    field = cv2.GaussianBlur(field.astype(np.float32), (0, 0), blur) + noise * random.standard_normal((SIDE, SIDE))
    return np.clip(np.rint(field), 0, 255).astype(np.uint8)


def chest_xray(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A chest radiograph: bright mediastinum and ribs, dark lungs; the mask is both lungs."""
    shoulders = ellipse((0.5, 0.62), (0.47, 0.6))
    field = np.where(shoulders, 150.0, 12.0) + 12 * texture(random, 18)
    right, left = ellipse((0.315, 0.5), (0.145, 0.33), 8), ellipse((0.685, 0.5), (0.14, 0.33), -8)
    heart = ellipse((0.56, 0.66), (0.17, 0.15), 25)
    diaphragm = ellipse((0.31, 0.9), (0.2, 0.16)) | ellipse((0.69, 0.92), (0.2, 0.16))
    lungs = (right | left) & ~heart & ~diaphragm
    field[lungs] -= 92
    field[ellipse((0.5, 0.5), (0.055, 0.6))] += 34
    field[heart | diaphragm] += 22
    field[ellipse((0.5, 0.2), (0.022, 0.19))] -= 40
    ribs = np.zeros((SIDE, SIDE), np.uint8)
    for row in np.linspace(0.2, 0.78, 8):
        for side, tilt in ((0.3, -16), (0.7, 16)):
            middle = (round(side * SIDE), round((row + 0.05) * SIDE))
            cv2.ellipse(ribs, middle, (round(0.2 * SIDE), round(0.075 * SIDE)), tilt, 185, 355, 1, 5)
    field += 21 * cv2.GaussianBlur(ribs.astype(np.float32), (0, 0), 1.4) * shoulders
    vessels = np.maximum(texture(random, 3), 0)
    field[lungs] += 7 * vessels[lungs]
    collar = np.zeros((SIDE, SIDE), np.uint8)
    for x, tilt in ((0.28, -9), (0.72, 9)):
        cv2.ellipse(collar, (round(x * SIDE), round(0.17 * SIDE)), (round(0.2 * SIDE), 9), tilt, 0, 180, 1, 6)
    field += 30 * cv2.GaussianBlur(collar.astype(np.float32), (0, 0), 1.5)
    return finish(field, random, 1.3, 3.0), lungs.astype(np.uint8)


def abdominal_ct(random: np.random.Generator, level: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """An abdominal CT slice in a soft-tissue window; the mask is the liver. `level` in 0..1 moves through the body."""
    size = 1 - 0.5 * abs(level - 0.45)
    body, wall, inside = (ellipse((0.5, 0.52), axes) for axes in ((0.46, 0.36), (0.425, 0.32), (0.395, 0.29)))
    field = np.where(body, 14.0, 0.0)
    field[wall] = 96
    field[inside] = 18 + 6 * np.maximum(texture(random, 5), 0)[inside]
    liver = ellipse((0.31, 0.45), (0.2 * size, 0.2 * size), 18) | ellipse((0.45, 0.36), (0.15 * size, 0.1 * size), -8)
    liver &= inside
    spleen = ellipse((0.79, 0.57), (0.06 * size, 0.125 * size), 14) & inside
    stomach = ellipse((0.66, 0.4), (0.115, 0.1), -20) & inside & ~liver
    kidneys = ellipse((0.33, 0.69), (0.055, 0.07), 20) | ellipse((0.67, 0.69), (0.055, 0.07), -20)
    kidneys &= inside & ~liver
    for organ, grey in ((stomach, 70.0), (spleen, 122.0), (kidneys, 150.0), (liver, 122.0)):
        field[organ] = grey
    field[ellipse((0.66, 0.35), (0.06, 0.025)) & stomach] = 0
    for x, y in ((0.3, 0.43), (0.37, 0.52), (0.24, 0.5), (0.4, 0.38)):
        field[ellipse((x, y), (0.022, 0.009), 35) & liver] = 146
    muscles = ellipse((0.42, 0.76), (0.06, 0.07)) | ellipse((0.58, 0.76), (0.06, 0.07))
    field[muscles & wall] = 98
    spine = ellipse((0.5, 0.7), (0.06, 0.055))
    field[spine | ellipse((0.5, 0.79), (0.02, 0.045))] = 240
    field[ellipse((0.5, 0.695), (0.045, 0.038))] = 190
    field[ellipse((0.5, 0.757), (0.02, 0.014))] = 110
    field[ellipse((0.54, 0.61), (0.03, 0.03))] = 138
    field[ellipse((0.45, 0.61), (0.033, 0.024))] = 124
    for angle in np.linspace(0.15, 2 * np.pi - 0.15, 15):
        x, y = 0.5 + 0.41 * np.sin(angle), 0.52 - 0.305 * np.cos(angle)
        if abs(x - 0.5) > 0.12:
            field[ellipse((x, y), (0.02, 0.009), np.degrees(angle))] = 235
    table = ellipse((0.5, 0.55), (0.52, 0.42)) & ~ellipse((0.5, 0.548), (0.51, 0.41))
    table[: round(0.8 * SIDE)] = False
    field[table] = 150
    return finish(field, random, 0.7, 9.0), (liver & ~kidneys).astype(np.uint8)


def cardiac_mri(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A short-axis cardiac MRI slice: a bright left ventricle in its dark wall; the mask is the ventricle."""
    chest = ellipse((0.52, 0.66), (0.47, 0.58), -24)
    field = np.where(chest, 30 + 6 * texture(random, 9), 4.0)
    fat = chest & ~ellipse((0.54, 0.69), (0.46, 0.57), -24)
    field[fat & ellipse((0.42, 0.2), (0.5, 0.36))] = 190
    field[fat & ellipse((0.02, 0.55), (0.2, 0.12))] = 150
    field[ellipse((0.72, 0.42), (0.16, 0.25), -24)] = 10
    below = ellipse((0.42, 0.86), (0.42, 0.23), -12) & chest
    field[below] = 48 + 12 * texture(random, 5)[below]
    for x, y, radius in ((0.3, 0.78, 0.08), (0.52, 0.74, 0.06), (0.66, 0.82, 0.07)):
        field[ellipse((x, y), (radius, 0.8 * radius), 20)] = 78
    outer, ventricle = ellipse((0.54, 0.47), (0.135, 0.13)), ellipse((0.54, 0.47), (0.088, 0.085))
    right = ellipse((0.39, 0.44), (0.1, 0.13), 30) & ~outer
    field[ellipse((0.49, 0.46), (0.23, 0.175), 10)] = 62
    field[right] = 104
    field[outer] = 36
    field[ventricle] = 122
    for x, y in ((0.5, 0.515), (0.585, 0.51)):
        field[ellipse((x, y), (0.014, 0.018))] = 56
    field *= 1 + 0.12 * texture(random, 30)
    return finish(field, random, 1.1, 4.0), ventricle.astype(np.uint8)


def prostate_mri(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A T2 pelvic MRI slice; the mask is the prostate: darker transition zone, brighter peripheral zone."""
    field = 48 + 16 * texture(random, 2.5)
    field[ellipse((0.5, 0.0), (0.75, 0.14))] = 126
    field[ellipse((0.5, 1.02), (0.7, 0.15))] = 76
    for side in (-1, 1):
        field[ellipse((0.5 + 0.27 * side, 0.3), (0.2, 0.09), 24 * side)] = 34
        field[ellipse((0.5 + 0.3 * side, 0.52), (0.075, 0.2), 14 * side)] = 36
        field[ellipse((0.5 + 0.19 * side, 0.64), (0.06, 0.15), 18 * side)] = 170
        field[ellipse((0.5 + 0.46 * side, 0.5), (0.08, 0.1))] = 92
    field[ellipse((0.5, 0.3), (0.09, 0.035))] = 120
    gland = ellipse((0.5, 0.46), (0.135, 0.115))
    field[ellipse((0.5, 0.46), (0.147, 0.127))] = 30
    field[gland] = 126
    zone = ellipse((0.5, 0.435), (0.105, 0.082))
    field[zone] = 84 + 16 * texture(random, 3)[zone]
    rectum = ellipse((0.5, 0.7), (0.115, 0.105))
    field[rectum] = 150
    field[ellipse((0.5, 0.705), (0.1, 0.092))] = 22
    field[ellipse((0.5, 0.7), (0.018, 0.018))] = 60
    field *= 1 + 0.2 * np.exp(-(((np.arange(SIDE) / SIDE - 0.55) / 0.25) ** 2))[:, None]
    return finish(field, random, 0.9, 7.0), gland.astype(np.uint8)


def breast_ultrasound(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A breast ultrasound: layered speckle, a dark lesion, brighter tissue beneath; the mask is the lesion."""
    rows = np.linspace(0, 1, SIDE)[:, None] * np.ones((1, SIDE))
    bend = rows + 0.02 * texture(random, 26)
    field = np.interp(
        bend, (0, 0.05, 0.09, 0.2, 0.32, 0.5, 0.66, 0.72, 0.85, 1), (235, 190, 92, 78, 142, 128, 92, 158, 60, 26)
    )
    lesion = ellipse((0.52, 0.44), (0.17, 0.105), -6)
    lesion = cv2.GaussianBlur(lesion.astype(np.float32), (0, 0), 5) + 0.09 * texture(random, 6) > 0.5
    field[ellipse((0.52, 0.68), (0.12, 0.17))] *= 1.3
    field[lesion] = 26
    speckle = np.abs(texture(random, 0.9) + 1j * texture(random, 0.9))
    streaks = cv2.GaussianBlur(speckle.astype(np.float32), (0, 0), sigmaX=1.7, sigmaY=0.6)
    field = cv2.GaussianBlur(field.astype(np.float32), (0, 0), 1.6) * (0.35 + 0.55 * streaks)
    return finish(field, random, 0.5, 2.0), lesion.astype(np.uint8)


def nuclei(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A fluorescence micrograph: bright nuclei of several sizes on a dark ground; the mask is all of them."""
    field, mask = 14 + 3 * texture(random, 20), np.zeros((SIDE, SIDE), bool)
    while mask.mean() < 0.17:
        centre, radius = random.uniform(0.03, 0.97, 2), random.uniform(0.028, 0.052)
        nucleus = ellipse(centre, (radius, radius * random.uniform(0.7, 1.0)), random.uniform(0, 180))
        ring = cv2.dilate(nucleus.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
        if (ring & mask).any():
            continue
        field[nucleus] = random.uniform(95, 190) + 15 * texture(random, 3)[nucleus]
        mask |= nucleus
    return finish(field, random, 1.1, 3.5), mask.astype(np.uint8)


# name: (drawing, title, modality, organ, finding, sentence for the segmenter)
PHANTOMS = {
    "chest_xray": (chest_xray, "Chest X-ray", "X-ray", "chest", "normal", "lung"),
    "abdominal_ct": (abdominal_ct, "Abdominal CT", "CT", "abdomen", "liver", "liver"),
    "cardiac_mri": (cardiac_mri, "Cardiac MRI", "MRI", "heart", "left ventricle", "left ventricle"),
    "prostate_mri": (prostate_mri, "Prostate MRI", "MRI", "prostate", "prostate", "prostate"),
    "breast_ultrasound": (
        breast_ultrasound,
        "Breast ultrasound",
        "Ultrasound",
        "breast",
        "benign lesion",
        "breast lesion",
    ),
    "nuclei": (nuclei, "Nuclei", "Microscopy", "nuclei", "fluorescence", "nuclei"),
}


def write_examples(folder: Path = EXAMPLES) -> list[dict]:
    """Draws every phantom into `folder` as PNG (mask beside it, class ids as 0/255) and returns the rows it listed."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed, (name, (draw, title, modality, organ, finding, text)) in enumerate(PHANTOMS.items()):
        image, mask = draw(np.random.default_rng(seed))
        cv2.imwrite(str(folder / f"drawn_{name}.png"), image)
        cv2.imwrite(str(folder / f"drawn_{name}_mask.png"), mask * 255)
        files = {"image": f"drawn_{name}.png", "mask": f"drawn_{name}_mask.png"}
        words = {"modality": modality, "organ": organ, "finding": finding, "text": text}
        rows.append(files | {"title": title, "origin": "drawn by a program"} | words)
    (folder / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


def write_example_dataset(path: Path, count: int = 4) -> Path:
    """Writes a ZIP of a dataset folder with `count` drawn ultrasound images, each a group of its own."""
    info: dict[str, object] = {"name": "drawn-ultrasound", "modality": "Ultrasound", "organ": "breast"}
    info |= {"labels": {"background": 0, "lesion": 1}, "licence": "CC0-1.0", "citation": "drawn by a program"}
    rows = ["file_name,mask,group,finding,text"]
    with zipfile.ZipFile(path, "w") as zipped:
        for seed in range(count):
            row = (f"images/drawn_{seed}.png", f"masks/drawn_{seed}.png")
            for name, drawn in zip(row, breast_ultrasound(np.random.default_rng(seed)), strict=True):
                picture = drawn[:, ::-1] if seed % 2 else drawn
                zipped.writestr(f"drawn-ultrasound/{name}", cv2.imencode(".png", picture)[1].tobytes())
            rows.append(f"{row[0]},{row[1]},drawing-{seed},benign lesion,breast lesion")
        zipped.writestr("drawn-ultrasound/dataset.json", json.dumps(info))
        zipped.writestr("drawn-ultrasound/metadata.csv", "\n".join(rows) + "\n")
    return path


def write_sample_data(path: Path, count: int = 4) -> Path:
    """Writes a ZIP of `count` drawn ultrasound images in images/ and their masks, white on black, in masks/."""
    with zipfile.ZipFile(path, "w") as zipped:
        for seed in range(count):
            image, mask = breast_ultrasound(np.random.default_rng(seed))
            for folder, drawn in (("images", image), ("masks", mask * 255)):
                zipped.writestr(f"my-images/{folder}/drawn_{seed}.png", cv2.imencode(".png", drawn)[1].tobytes())
    return path


if __name__ == "__main__":
    print(f"{len(write_examples())} examples drawn in {EXAMPLES}")
