"""Conversions between arrays, PIL images and tensors; value ranges change only here.

Arrays are uint8 in 0..255, shape (H, W, 3); image tensors are float in [-1, 1], shape (B, 3, H, W);
edge and control tensors are float in [0, 1]; masks hold class ids and are only ever resized by nearest neighbour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from emitdiff.errors import EmitDiffError

if TYPE_CHECKING:
    import torch


MAX_ASPECT = 8  # of an image that a network is given
# Okabe-Ito colours: told apart with every common colour vision, in the order class ids use them.
PALETTE = np.array(
    [(0, 158, 115), (230, 159, 0), (86, 180, 233), (204, 121, 167), (240, 228, 66), (0, 114, 178), (213, 94, 0)],
    dtype=np.uint8,
)


def to_rgb(array: np.ndarray) -> np.ndarray:
    """uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) to uint8 (H, W, 3). Alpha is dropped."""
    array = np.asarray(array)
    if array.dtype != np.uint8:
        raise TypeError(f"expected uint8, got {array.dtype}: window a scan to 8 bit first (emitdiff.read_scan)")
    if array.ndim == 2:
        array = array[..., None]
    if array.shape[-1] == 1:
        array = np.repeat(array, 3, axis=-1)
    return np.ascontiguousarray(array[..., :3])


def normalize(levels: torch.Tensor) -> torch.Tensor:
    """Grey levels 0..255 to float32 in [-1, 1], any shape."""
    return levels.float().div(127.5).sub(1)


def image_to_tensor(array: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H, W) in [-1, 1]."""
    return images_to_tensor(to_rgb(array)[None])


def images_to_tensor(arrays: np.ndarray) -> torch.Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [-1, 1]."""
    import torch

    return normalize(torch.from_numpy(arrays).permute(0, 3, 1, 2))


def tensor_to_image(tensor: torch.Tensor) -> np.ndarray:
    """Float (3, H, W) or (1, 3, H, W) in [-1, 1] to uint8 (H, W, 3); values outside are clipped."""
    array = tensor.detach().float().reshape(tensor.shape[-3:]).permute(1, 2, 0).cpu().numpy()
    return np.clip(np.rint((array + 1) * 127.5), 0, 255).astype(np.uint8)


def control_to_tensor(array: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) control image to float32 (1, 3, H, W) in [0, 1]."""
    import torch

    return torch.from_numpy(to_rgb(array)).permute(2, 0, 1)[None].float().div(255)


def resize_image(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 or float32 (H, W, ...) to `size` = (height, width): area when shrinking, cubic when growing."""
    height, width = size
    if array.shape[:2] == (height, width):
        return array
    shrinking = height * width < array.shape[0] * array.shape[1]
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Class ids (H, W) to `size` = (height, width), nearest neighbour (pixel centres); the dtype is kept."""
    height, width = size
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(np.int64)
    return np.ascontiguousarray(mask[rows[:, None], columns[None, :]])


def fitted_size(size: tuple[int, int], area: int, multiple: int) -> tuple[int, int]:
    """The (height, width) nearest to `size`'s aspect ratio with about `area` pixels, both divisible by `multiple`.

    A size that is one already is kept. Raises EmitDiffError for strips longer than 8:1, which would need far more.
    """
    height, width = size
    if height % multiple == width % multiple == 0 and 0.6 <= height * width / area <= 1.6:
        return height, width
    if max(size) > MAX_ASPECT * min(size):
        raise EmitDiffError(
            f"The image is {width} x {height} pixels; the aspect ratio may be at most {MAX_ASPECT}:1. Crop the image."
        )
    scale = (area / (height * width)) ** 0.5
    return tuple(max(multiple, round(side * scale / multiple) * multiple) for side in (height, width))


def outline(mask: np.ndarray, thickness: int = 1) -> np.ndarray:
    """Boolean (H, W): pixels on the inner side of every class boundary, `thickness` pixels deep."""
    mask = np.asarray(mask).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = np.zeros(mask.shape, dtype=bool)
    for label in np.unique(mask[mask > 0]):
        region = (mask == label).astype(np.uint8)
        inner |= (region - cv2.erode(region, kernel, iterations=thickness, borderValue=0)).astype(bool)
    return inner


def overlay(
    image: np.ndarray, mask: np.ndarray, opacity: float = 0.45, thickness: int = 2, dashed: bool = False
) -> np.ndarray:
    """uint8 (H, W, 3) with each class id > 0 of `mask` (H, W) tinted at `opacity` in 0..1 and outlined; `dashed` says
    that it is not sure."""
    blended = to_rgb(image).astype(np.float32)
    mask = np.asarray(mask)
    colours = PALETTE[(np.maximum(mask, 1).astype(np.int64) - 1) % len(PALETTE)].astype(np.float32)
    inside = mask > 0
    blended[inside] = (1 - opacity) * blended[inside] + opacity * colours[inside]
    edge = outline(mask, thickness) & (_dashes(mask) if dashed else True)
    blended[edge] = colours[edge]
    return np.clip(np.rint(blended), 0, 255).astype(np.uint8)


def _dashes(mask: np.ndarray) -> np.ndarray:
    """Boolean (H, W): every other stretch along the outlines of `mask`, about a fortieth of the longer side each."""
    length, width = max(4, max(mask.shape) // 40), 3
    period = 2 * length + width  # a line has half its width more at both ends
    drawn = np.zeros(mask.shape, np.uint8)
    contours, _ = cv2.findContours((mask > 0).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        dashes = [contour[start : start + length] for start in range(0, len(contour), period)]
        cv2.polylines(drawn, dashes, False, 1, width)
    return drawn > 0


def outline_path(mask: np.ndarray) -> str:
    """The outlines of boolean (H, W) as an SVG path in units of a thousandth of the longer side."""
    scale = 1000 / max(mask.shape)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    parts = []
    for contour in contours:
        points = (cv2.approxPolyDP(contour, 0.7 / scale / 4, True).reshape(-1, 2) + 0.5) * scale
        parts.append("M" + " ".join(f"{x:.0f},{y:.0f}" for x, y in points) + "Z")
    return "".join(parts)
