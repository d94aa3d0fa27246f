"""Pictures that no dataset here shows: views given colour, and pictures drawn by a program."""

from __future__ import annotations

import cv2
import numpy as np


def coloured(view: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 (H, W, 3) with its channels mixed, its hue turned, or tinted like a stain or a colour scale."""
    way = rng.integers(3)
    if way == 0:  # a colour for each channel
        mixed = view.astype(np.float32) @ rng.uniform(-0.3, 1.0, (3, 3)).astype(np.float32)
        return np.clip(mixed * rng.uniform(0.6, 1.2) + rng.uniform(-20, 60), 0, 255).astype(np.uint8)
    if way == 1:  # from one colour to another along the grey values, by way of a third
        ends = np.sort(rng.uniform(0, 255, (3, 3)), axis=0) if rng.random() < 0.5 else rng.uniform(0, 255, (3, 3))
        scale = np.stack([np.interp(np.arange(256), (0, 128, 255), ends[:, channel]) for channel in range(3)], -1)
        return cv2.LUT(view, scale[:, None].astype(np.uint8))
    turned = cv2.cvtColor(view, cv2.COLOR_RGB2HSV)
    turned[..., 0] = (turned[..., 0].astype(int) + int(rng.integers(180))) % 180
    turned[..., 1] = np.clip(turned[..., 1] + rng.uniform(0, 160), 0, 255).astype(np.uint8)
    return cv2.cvtColor(turned, cv2.COLOR_HSV2RGB)


def stained(view: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 (H, W, 3) of light that passed two stains; the grey levels of two pictures are their amounts
    (Beer-Lambert)."""
    amounts = np.stack([picture.mean(-1) / 255 for picture in (view, other)], -1)
    return (255 * np.exp(-amounts @ rng.uniform(0.05, 1.6, (2, 3)))).astype(np.uint8)


def drawn_picture(side: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 (side, side, 3): dead leaves, a grating, a cloudy texture, or shapes on a ground, with blur and grain."""
    draw = (dead_leaves, dead_leaves, grating, clouds, shapes)[rng.integers(5)]
    picture = draw(side, rng)
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 2.5))
    if rng.random() < 0.6:
        picture = picture + grain(side, rng) * rng.uniform(2, 30)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """float32 (3,) in 0..255, grey in two of three cases."""
    return np.full(3, rng.uniform(0, 255), np.float32) if rng.random() < 0.67 else rng.uniform(0, 255, 3).astype("f4")


def grain(side: int, rng: np.random.Generator) -> np.ndarray:
    """float32 (side, side, 1): noise of deviation 1, white or in grains of a few pixels."""
    noise: np.ndarray = rng.standard_normal((side, side)).astype(np.float32)
    if rng.random() < 0.5:
        noise = cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.6, 2.0))
    return (noise / noise.std())[..., None]


def clouds(side: int, rng: np.random.Generator) -> np.ndarray:
    """float32 (side, side, 3): noise added up over scales, from one colour to another."""
    total, power = np.zeros((side, side), np.float32), rng.uniform(0.4, 1.3)
    for cells in (2, 4, 8, 16, 32, 64, 128):
        noise: np.ndarray = rng.standard_normal((cells + 1, cells + 1)).astype(np.float32)
        total += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC) * cells**-power
    total = np.clip(total / (3 * total.std()) + 0.5, 0, 1)[..., None]
    return total * _colour(rng) + (1 - total) * _colour(rng)


def grating(side: int, rng: np.random.Generator) -> np.ndarray:
    """float32 (side, side, 3): stripes of one width and direction, wavy or square, fading across the picture."""
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 80)
    wave = np.sin((rows * np.sin(angle) + columns * np.cos(angle)) * 2 * np.pi / period + rng.uniform(0, 6))
    if rng.random() < 0.5:
        wave = np.sign(wave)
    fade = rng.uniform(0.1, 1) + (columns / side if rng.random() < 0.5 else 0)
    share = np.clip(0.5 + 0.5 * wave * fade, 0, 1)[..., None].astype(np.float32)
    return share * _colour(rng) + (1 - share) * _colour(rng)


def dead_leaves(side: int, rng: np.random.Generator) -> np.ndarray:
    """float32 (side, side, 3): discs, ellipses and polygons that hide one another, small ones more often."""
    picture = np.full((side, side, 3), _colour(rng), np.float32)
    for _ in range(int(rng.integers(10, 150))):
        size = min(side / 2, 4 / (rng.random() ** 0.7 + 1e-3))
        cv2.fillPoly(picture, [_outline(side, size, rng)], _colour(rng).tolist())
    return picture


def shapes(side: int, rng: np.random.Generator) -> np.ndarray:
    """float32 (side, side, 3): a few large outlines, filled or not, on a cloudy ground, as organs lie in a scan."""
    picture = clouds(side, rng) * 0.4 + _colour(rng) * 0.4
    for _ in range(int(rng.integers(1, 9))):
        points, colour = [_outline(side, rng.uniform(side / 20, side / 2.5), rng)], _colour(rng)
        if rng.random() < 0.3:
            cv2.polylines(picture, points, True, colour.tolist(), int(rng.integers(1, 5)))
            continue
        inside = np.zeros((side, side, 1), np.float32)
        cv2.fillPoly(inside, points, 1.0)
        inside = cv2.GaussianBlur(inside, (0, 0), rng.uniform(0.3, 4))[..., None] * rng.uniform(0.1, 1)
        picture = picture * (1 - inside) + colour * inside
    return picture


def _outline(side: int, size: float, rng: np.random.Generator) -> np.ndarray:
    """int32 (n, 2): the points of a polygon or of a smooth wavy outline of about `size` pixels, somewhere."""
    count = int(rng.integers(3, 7)) if rng.random() < 0.35 else 40
    angles = np.sort(rng.uniform(0, 2 * np.pi, count)) if count < 40 else np.linspace(0, 2 * np.pi, count)
    waves = rng.uniform(0, 0.35) * np.sin(angles * rng.integers(1, 6) + rng.uniform(0, 6))
    across, down = np.cos(angles) * size * (1 + waves), np.sin(angles) * size * rng.uniform(0.3, 1) * (1 + waves)
    turn = rng.uniform(0, np.pi)
    points = np.stack([across * np.cos(turn) - down * np.sin(turn), across * np.sin(turn) + down * np.cos(turn)], -1)
    return np.rint(points + rng.uniform(0, side, 2)).astype(np.int32)
