"""How near a small edge detector comes to the original HED, on the images of dataset folders."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from emitdiff.datasets.folder import open_dataset
from emitdiff.datasets.splits import choose_rows
from emitdiff.images import resize_image, to_rgb
from emitdiff.synthesis.edges import detect_edges, edge_f1
from emitdiff.synthesis.hed.distillation import open_teacher
from emitdiff.synthesis.hed.mini import load_hed_mini
from emitdiff.synthesis.hed.weights import hed_mini_folder

RIDGE = 64  # of 255: ridges of edges weaker than that do not count


@dataclass(frozen=True)
class EvaluateHed:
    """Settings of `evaluate_hed`. `student` is a folder that `train-hed` wrote, None for the embedded one; images are
    brought to a short `side` in pixels; `split` and `limit` as in `choose_rows`."""

    datasets: tuple[Path, ...]
    teacher: Path | None = None
    student: Path | None = None
    split: str = "held-out"
    limit: int | None = None
    side: int = 256
    json: bool = False


def ridges(edges: np.ndarray, threshold: float = RIDGE) -> np.ndarray:
    """Boolean (H, W): one-pixel crests of uint8 (H, W) edges, where they are at least `threshold`.

    A pixel is on a crest if it is no lower than its two neighbours across the direction in which the map bends most.
    """
    smooth = cv2.GaussianBlur(edges.astype(np.float32), (0, 0), 1.0)
    across, down = cv2.Sobel(smooth, cv2.CV_32F, 2, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 2)
    left_right = (smooth > np.roll(smooth, 1, 1)) & (smooth >= np.roll(smooth, -1, 1))
    up_down = (smooth > np.roll(smooth, 1, 0)) & (smooth >= np.roll(smooth, -1, 0))
    return np.where(across < down, left_right, up_down) & (smooth >= threshold)


def compared(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Mean absolute difference in 0..1 of two uint8 (H, W) maps, and F1 of their ridges within 2 pixels at 256."""
    tolerance = max(1, round(2 * min(wanted.shape) / 256))
    difference = np.abs(found.astype(np.float32) - wanted.astype(np.float32)).mean() / 255
    return {"mae": float(difference), "ridge_f1": edge_f1(ridges(wanted), ridges(found), tolerance)}


@torch.inference_mode()
def drawn(network: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    """What a network of network.py or mini.py makes of uint8 (H, W, 3): uint8 (H, W)."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    return (network(tensor)[0, 0] * 255).clamp(0, 255).byte().numpy()


def evaluate_hed(settings: EvaluateHed) -> list[dict]:
    """Prints, for each dataset, mean +- deviation over the images of what the small network and, to compare, the soft
    edges have in common with the teacher's; with `json` also one JSON object a dataset.

    Raises:
        EmitDiffError: no teacher, no student, or a dataset that cannot be read or split.
    """
    teacher, _ = open_teacher(settings.teacher)
    student = load_hed_mini(Path(settings.student or hed_mini_folder()))
    ways = {"hed-mini": lambda image: drawn(student, image), "soft": detect_edges}
    found = [_measure(folder, settings, lambda image: drawn(teacher, image), ways) for folder in settings.datasets]
    for row in found:
        print(f"\n{row['dataset']}, {settings.split}: {row['n']} images, short side {settings.side}")
        for way in ways:
            mae, f1 = row[way]["mae"], row[way]["ridge_f1"]
            spread = "MAE {:.4f} +- {:.4f}, ridge F1 {:.3f} +- {:.3f}".format(*mae, *f1)
            print(f"  {way:9} {spread}, {row[way]['milliseconds']:.0f} ms an image")
        if settings.json:
            print(json.dumps(row))
    return found


def _measure(folder: Path, settings: EvaluateHed, teacher: Callable, ways: dict[str, Callable]) -> dict:
    """One dataset: name, n, and for each way (mean, deviation) of the measures and the median time of an image."""
    dataset = open_dataset(folder).real()
    chosen = choose_rows(dataset, settings.split, settings.limit)
    rows: dict[str, list[dict]] = {way: [] for way in ways}
    for sample in tqdm(chosen, desc=dataset.info.name, unit="image", leave=False):
        scale = settings.side / min(sample.mask.shape)
        shape = tuple(max(1, round(length * scale)) for length in sample.mask.shape)
        image = to_rgb(resize_image(sample.image, shape))
        wanted = teacher(image)
        for way, detector in ways.items():
            started = time.process_time()
            edges = detector(image)
            seconds = time.process_time() - started
            rows[way].append({**compared(edges, wanted), "milliseconds": seconds * 1000})
    result: dict[str, Any] = {"dataset": dataset.info.name, "n": len(chosen)}
    for way, own in rows.items():
        values = {name: np.array([row[name] for row in own]) for name in own[0]}
        result[way] = {name: (float(of.mean()), float(of.std())) for name, of in values.items()}
        result[way]["milliseconds"] = float(np.median(values["milliseconds"]))
    return result
