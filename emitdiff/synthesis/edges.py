"""What the ControlNet sees: edges of the image, joined with the outline of the mask as EMIT-Diff does.

Detectors give uint8 (H, W) in 0..255. A control image is uint8 (H, W, 3) in one of two layouts:

* "joined": clip(edges + boundary(mask), 0, 1) in all three channels (EMIT-Diff, arXiv 2310.12868); for Hub weights.
* "layered": edges, boundary and filled mask in one channel each, so that a network trained on it can tell the outline
  of a lesion from any other edge, and its inside from its outside; for the embedded weights.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.images import outline, to_rgb

DETECTORS = ("soft", "canny", "hed", "hed-mini")
LAYOUTS = ("joined", "layered")
BOUNDARY_THICKNESS = 2
LINE_REACH = 9  # pixels over which the strength of a line is averaged


def detect_edges(image: np.ndarray, detector: str = "soft", low: float = 50, high: float = 120) -> np.ndarray:
    """Edges of uint8 (H, W, 3) as uint8 (H, W).

    Args:
        detector: "soft" (multi-scale gradient), "canny", "hed" (the original network where it is on this machine, else
            hed-mini), or "hed-mini" (embedded). Nothing is fetched.
        low, high: in 0..255. For Canny the hysteresis thresholds. Soft edges are shown as they are at 50 and 120; a
            higher `low` hides the weaker ones, another `high` scales them by 120 / high. The networks have none.

    Raises:
        EmitDiffError: unknown detector, thresholds out of order, or damaged weights.
    """
    if detector not in DETECTORS:
        raise EmitDiffError(f"The edge detector '{detector}' is not known; choose one of {', '.join(DETECTORS)}.")
    if not is_network(detector) and not 0 <= low < high <= 255:
        raise EmitDiffError(f"Edge thresholds were {low:g} and {high:g}; expected 0 <= low < high <= 255.")
    grey = cv2.cvtColor(to_rgb(image), cv2.COLOR_RGB2GRAY)
    if detector == "canny":
        return cv2.Canny(cv2.GaussianBlur(grey, (0, 0), 1.0), low, high)
    if detector == "soft":
        strength = soft_edges(grey)
        floor = max(0.0, (low - 50) / 255)  # the default low of 50 shows everything
        return np.clip((strength - floor) / (high / 120 - floor) * 255, 0, 255).astype(np.uint8)
    from emitdiff.synthesis.hed.network import hed_edges

    return hed_edges(to_rgb(image), detector)


def is_network(detector: str) -> bool:
    """Whether the detector is a network, which has no thresholds to set."""
    return detector.startswith("hed")


def soft_edges(grey: np.ndarray) -> np.ndarray:
    """Scale-normalized gradient magnitude of uint8 (H, W) over three Gaussian scales, float32 (H, W) in [0, 1].

    1 stands for the image's 99th percentile, but never for less than a faint step: noise alone stays dim.
    """
    image = grey.astype(np.float32) / 255
    side = min(grey.shape) / 256
    strength = np.zeros_like(image)
    for sigma in (1.0, 2.0, 4.0):
        smooth = cv2.GaussianBlur(image, (0, 0), sigma * max(side, 0.5))
        across, down = (
            cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8),
            cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8),
        )
        strength += cv2.magnitude(across, down) * sigma
    return np.clip(strength / max(float(np.percentile(strength, 99)), 0.06), 0, 1) ** 0.8


def weaken_edges(edges: np.ndarray, structure: float, image: np.ndarray | None = None) -> np.ndarray:
    """uint8 (H, W) edges at a dose: all at `structure` 1, none at 0.5 and below, the weaker ones gone in between.

    A floor is taken off and what is left stretched to the old maximum, (e - floor) / (255 - floor), as in training with
    conditions dropped. The floor is such that the share of the edges' sum that remains is 2 x structure - 1: equal
    steps of the slider take equal amounts of ink away, whatever the image. Lines that are all of one strength (Canny)
    go piece by piece instead, first where the soft edges of `image`, uint8 (H, W, 3), are faintest.
    """
    if structure >= 1 or not edges.any():
        return edges
    if structure <= 0.5:
        return np.zeros_like(edges)
    share = 2 * structure - 1
    if image is not None and set(np.unique(edges)) <= {0, 255}:
        return _strongest_lines(edges, share, soft_edges(cv2.cvtColor(to_rgb(image), cv2.COLOR_RGB2GRAY)))
    values, counts = np.unique(edges.astype(np.float32), return_counts=True)
    wanted = share * float(values @ counts)
    floors = np.arange(255, dtype=np.float32)
    left = [float(np.clip((values - floor) / (255 - floor) * 255, 0, None) @ counts) for floor in floors]
    floor = int(np.abs(np.array(left) - wanted).argmin())
    return np.clip((edges.astype(np.float32) - floor) / (255 - floor) * 255, 0, 255).astype(np.uint8)


def _strongest_lines(edges: np.ndarray, share: float, strength: np.ndarray) -> np.ndarray:
    """The given share of the pixels of uint8 (H, W) lines, where `strength` averaged along the line is highest."""
    lines = (edges > 0).astype(np.float32)
    reach = (LINE_REACH, LINE_REACH)
    along = cv2.blur(strength * lines, reach) / np.maximum(cv2.blur(lines, reach), 1e-6)
    floor = np.quantile(along[edges > 0], 1 - share)
    return np.where(along >= floor, edges, 0).astype(np.uint8)


def boundary_of(mask: np.ndarray) -> np.ndarray:
    """The outline of every class of (H, W) ids, uint8 (H, W) in {0, 255}."""
    thickness = max(1, round(BOUNDARY_THICKNESS * min(mask.shape) / 256))
    return outline(mask, thickness).astype(np.uint8) * 255


def control_image(edges: np.ndarray, mask: np.ndarray | None, boundary: bool, layout: str) -> np.ndarray:
    """Puts uint8 (H, W) edges and class ids (H, W) together: uint8 (H, W, 3), exactly what the network is given.

    Raises:
        EmitDiffError: unknown layout, or a mask of another size than the image.
    """
    if layout not in LAYOUTS:
        raise EmitDiffError(f"The control layout '{layout}' is not known; choose one of {', '.join(LAYOUTS)}.")
    if mask is not None and mask.shape != edges.shape:
        raise EmitDiffError(
            f"The mask has {mask.shape[1]} x {mask.shape[0]} pixels and the image {edges.shape[1]} x {edges.shape[0]}; "
            "export the mask at the size of its image."
        )
    nothing = np.zeros_like(edges)
    rim = boundary_of(mask) if mask is not None and boundary else nothing
    if layout == "joined":
        return to_rgb(np.maximum(edges, rim))
    inside = (mask > 0).astype(np.uint8) * 255 if mask is not None and boundary else nothing
    return np.stack([edges, rim, inside], axis=-1)


@lru_cache(maxsize=4)
def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def edge_ridges(image: np.ndarray, threshold: float = 0.25) -> np.ndarray:
    """Boolean (H, W): one-pixel ridges of the soft edges of uint8 (H, W, 3) above `threshold`."""
    grey = cv2.cvtColor(to_rgb(image), cv2.COLOR_RGB2GRAY)
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.5 * max(min(grey.shape) / 256, 0.5))
    across, down = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    magnitude = cv2.magnitude(across, down)
    horizontal = np.abs(across) > np.abs(down)
    left_right = (magnitude >= np.roll(magnitude, 1, 1)) & (magnitude >= np.roll(magnitude, -1, 1))
    up_down = (magnitude >= np.roll(magnitude, 1, 0)) & (magnitude >= np.roll(magnitude, -1, 0))
    return np.where(horizontal, left_right, up_down) & (soft_edges(grey) > threshold)


def edge_f1(asked: np.ndarray, found: np.ndarray, tolerance: int = 2) -> float:
    """F1 of two boolean (H, W) edge maps; an edge is met within `tolerance` pixels. 1.0 if both are empty."""
    if not asked.any() and not found.any():
        return 1.0
    near_asked = cv2.dilate(asked.astype(np.uint8), _disc(tolerance)) > 0
    near_found = cv2.dilate(found.astype(np.uint8), _disc(tolerance)) > 0
    precision = (found & near_asked).sum() / max(found.sum(), 1)
    recall = (asked & near_found).sum() / max(asked.sum(), 1)
    return float(2 * precision * recall / max(precision + recall, 1e-9))
