"""How real images look: the spectrum of each against its source's, and sets of them against sets of real images.

Structure is measured elsewhere (evaluation.py); what is seen here is grain, noise and sharpness, which an image can
lack although each of its edges is where it belongs. Every image is brought to a square of `SIDE` pixels; the
spectrum and the classifier see grey alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import cv2
import numpy as np
import torch
from torch import nn

from emitdiff.images import resize_image, to_rgb

# One uint8 (SIDE, SIDE, 3) to float (D,): what a network that knows nothing of the synthesis weights says about it.
FeatureExtractor = Callable[[np.ndarray], np.ndarray]
SIDE = 256
BANDS = {"spectrum_mid_db": (16, 64), "spectrum_high_db": (64, 128)}  # cycles an image
SPECTRUM = tuple(BANDS)
SETS = ("kid", "two_sample_accuracy")
RESAMPLES = 200  # of the bootstrap
FOLDS = 4
PATCH, STRIDE = 64, 32  # pixels of the squares that the classifier tells apart
FILTERS = 5  # side of the texture filters
FLOOR = 0.2  # grey levels; weaker textures are as good as none
HIDDEN, STEPS, BATCH = 32, 150, 1024  # BATCH squares of each side

Score = tuple[float, float]  # value and its spread
NOT_KNOWN: Score = (float("nan"), float("nan"))


def power_spectrum(image: np.ndarray) -> np.ndarray:
    """Power of uint8 (H, W, 3) at 0 to 127 cycles an image, float (128,): mean removed, Hann window, and the power of
    all directions averaged over rings one cycle wide."""
    grey = cv2.cvtColor(to_rgb(image).astype(np.float32), cv2.COLOR_RGB2GRAY)
    values = resize_image(grey, (SIDE, SIDE)).astype(np.float64)
    window = np.hanning(SIDE)
    power = np.abs(np.fft.fft2((values - values.mean()) * np.outer(window, window))) ** 2
    cycles = np.fft.fftfreq(SIDE, 1 / SIDE)
    rings = np.rint(np.hypot(cycles[:, None], cycles[None])).astype(int).ravel()
    return (np.bincount(rings, power.ravel()) / np.bincount(rings))[: SIDE // 2]


def spectrum_gap(source: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """How much weaker (below 0) or stronger `other` is than `source` in each of `BANDS`, in dB; uint8 (H, W, 3) both.

    10 log10 is taken of the averaged power of each ring, then the mean of the difference over the rings of a band: a
    strong frequency does not hide the weak ones beside it. Rounding to 256 grey levels is part of both images.
    """
    levels = [10 * np.log10(np.maximum(power_spectrum(image), 1.0)) for image in (source, other)]
    return {name: float((levels[1] - levels[0])[low:high].mean()) for name, (low, high) in BANDS.items()}


@cache
def texture_filters() -> tuple[np.ndarray, ...]:
    """The 24 filters of the 5 x 5 cosine transform that do not see a constant, float32, each of norm 1."""
    places = np.arange(FILTERS)
    waves = np.cos(np.pi * (places[None] + 0.5) * places[:, None] / FILTERS)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    pairs = [(row, column) for row in places for column in places if row + column]
    return tuple(np.outer(waves[row], waves[column]).astype(np.float32) for row, column in pairs)


def textures(image: np.ndarray) -> np.ndarray:
    """What the squares of uint8 (H, W, 3) are made of: float32 (49, 100), at full and at half size.

    Of each filter the logarithm of its mean absolute answer (texture energy: Laws 1980; with the cosine transform:
    Unser, Signal Processing 11:61, 1986) and how much larger the root mean square is (few strong edges on flat ground,
    or grain all over); of the grey levels their mean and the logarithm of their spread.
    """
    grey = resize_image(cv2.cvtColor(to_rgb(image), cv2.COLOR_RGB2GRAY), (SIDE, SIDE)).astype(np.float32)
    return np.concatenate([_textures(grey, 1), _textures(cv2.pyrDown(grey), 2)], axis=1)


def _textures(grey: np.ndarray, shrunk: int) -> np.ndarray:
    side, stride = PATCH // shrunk, STRIDE // shrunk

    def over_squares(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (side, side))[side // 2 :: stride, side // 2 :: stride].ravel()

    columns = []
    for kernel in texture_filters():
        answer = np.abs(cv2.filter2D(grey, -1, kernel))
        energy = np.log(over_squares(answer) + FLOOR)
        columns += [energy, np.log(over_squares(answer**2) + FLOOR**2) / 2 - energy]
    mean = over_squares(grey)
    spread = np.sqrt(np.maximum(over_squares(grey**2) - mean**2, 0))
    return np.stack([*columns, mean, np.log(spread + FLOOR)], axis=1).astype(np.float32)


class ImageSet:
    """What is kept of some images to compare them as a set; not their pixels."""

    def __init__(self, extract: FeatureExtractor | None = None):
        self.groups: list[str] = []
        self.textures: list[np.ndarray] = []  # (49, 100) each
        self.features: list[np.ndarray] = []  # (D,) each; none without a `extract`
        self._extract = extract

    def add(self, image: np.ndarray, group: str) -> None:
        """uint8 (H, W, 3). A synthetic image is of its source's group."""
        self.groups.append(group)
        self.textures.append(textures(image))
        if self._extract is not None:
            self.features.append(self._extract(resize_image(to_rgb(image), (SIDE, SIDE))))


class Realism:
    """Gathers real images, those generated from them and what the autoencoder makes of them, and compares the sets."""

    def __init__(self, extract: FeatureExtractor | None = None):
        """Without a `extract` there is no `kid`."""
        self.real, self.painted, self.decoded = (ImageSet(extract) for _ in range(3))

    def add(self, group: str, source: np.ndarray, painted: Sequence[np.ndarray], decoded: np.ndarray) -> None:
        """One source of `group`, all uint8 (H, W, 3)."""
        self.real.add(source, group)
        self.decoded.add(decoded, group)
        for image in painted:
            self.painted.add(image, group)

    def scores(self) -> dict[str, Score]:
        """(value, spread) of `kid` and `two_sample_accuracy`, and of both with "autoencoder_" in front."""
        found = {}
        for prefix, other in (("", self.painted), ("autoencoder_", self.decoded)):
            if other.features:
                found[f"{prefix}kid"] = kid(self.real, other)
            found[f"{prefix}two_sample_accuracy"] = two_sample_accuracy(self.real, other)
        return found


def kid(real: ImageSet, other: ImageSet, seed: int = 0) -> Score:
    """Kernel distance of two sets in what `extract` gives, and its standard deviation over a bootstrap of groups.

    The squared MMD with the kernel (x.y / D + 1)^3 of the Kernel Inception Distance (Binkowski et al., arXiv
    1801.01401), unbiased over all pairs: 0 for two sets of one distribution, a little below it by chance. A generated
    image is no independent draw, so pairs within a group are left out of all three means, which for a generated image a
    source is eq. 4 of Gretton et al., JMLR 13:723, 2012. The bootstrap is about twice too wide where the distance is 0.
    NaN for fewer than two groups. Not comparable with distances in Inception's features.
    """
    names = sorted({*real.groups, *other.groups})
    if len(names) < 2:
        return NOT_KNOWN
    pair = [(np.stack(part.features).astype(np.float64), _members(part.groups, names)) for part in (real, other)]
    terms = [(_kernel_sums(*pair[i], *pair[j]), np.outer(pair[i][1].sum(1), pair[j][1].sum(1)), sign)
             for i, j, sign in ((0, 0, 1), (1, 1, 1), (0, 1, -2))]  # fmt: skip

    def distance(counts: np.ndarray) -> float:
        weights = np.outer(counts, counts) * (1 - np.eye(len(names)))
        return float(sum(sign * (weights * sums).sum() / (weights * pairs).sum() for sums, pairs, sign in terms))

    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    drawn = [distance(counts) for counts in draws if np.count_nonzero(counts) > 1]
    return distance(np.ones(len(names))), float(np.std(drawn))


def _members(groups: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """(groups, images): 1 where the image is of the group."""
    return (np.array(names)[:, None] == np.array(groups)[None]).astype(np.float64)


def _kernel_sums(first: np.ndarray, own: np.ndarray, second: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Sums of the kernel over all pairs of images, for each pair of groups: (groups, groups)."""
    return own @ (first @ second.T / first.shape[1] + 1) ** 3 @ others.T


def two_sample_accuracy(real: ImageSet, other: ImageSet, seed: int = 0) -> Score:
    """How often a small network says rightly from which set a square of 64 pixels is, in 0..1, and the standard
    deviation over the folds: 0.5 where nothing tells the sets apart (Lopez-Paz & Oquab, arXiv 1610.06545).

    It reads `textures`, learns from the groups of all folds but one and is asked about that one; both sets count the
    same. NaN for fewer than two groups.
    """
    names = sorted({*real.groups, *other.groups})
    if len(names) < 2:
        return NOT_KNOWN
    sides = [(np.stack(part.textures), fold_of(part.groups, names, seed)) for part in (real, other)]
    rights = []
    for fold in range(min(FOLDS, len(names))):
        learnt = [squares[folds != fold] for squares, folds in sides]
        asked = [squares[folds == fold] for squares, folds in sides]
        if all(map(len, learnt)):
            rights.append(_accuracy(learnt, asked, seed))
    return (float(np.mean(rights)), float(np.std(rights))) if rights else NOT_KNOWN


def fold_of(groups: Sequence[str], names: Sequence[str], seed: int = 0) -> np.ndarray:
    """The fold, 0 to `FOLDS` - 1, of each of `groups`, int (N,); `names` are dealt to the folds in an order that `seed`
    decides."""
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[place]: number % FOLDS for number, place in enumerate(order)}
    return np.array([fold[group] for group in groups])


def _accuracy(learnt: list[np.ndarray], asked: list[np.ndarray], seed: int) -> float:
    """The mean over the sets of the share of squares rightly told, having learnt from others; both (images, 49, D)."""
    tensors = [torch.from_numpy(part.reshape(-1, part.shape[-1])) for part in learnt]
    everything = torch.cat(tensors)
    mean, deviation = everything.mean(0), everything.std(0) + 1e-3
    network = _taught([(part - mean) / deviation for part in tensors], seed)
    with torch.inference_mode():
        logits = [network((torch.from_numpy(part) - mean) / deviation) for part in asked if len(part)]
    signs = [sign for sign, part in zip((-1, 1), asked, strict=True) if len(part)]
    return float(np.mean([(sign * said > 0).float().mean() for sign, said in zip(signs, logits, strict=True)]))


def _taught(sides: list[torch.Tensor], seed: int) -> nn.Module:
    """Two layers that answer below 0 for the first of `sides` and above it for the second."""
    rng, truth = np.random.default_rng(seed), torch.arange(2).float().repeat_interleave(BATCH)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(sides[0].shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
    optimiser = torch.optim.AdamW(network.parameters(), 5e-3, weight_decay=0.05)
    for _ in range(STEPS):
        batch = torch.cat([side[rng.integers(len(side), size=BATCH)] for side in sides])
        loss = nn.functional.binary_cross_entropy_with_logits(network(batch)[:, 0], truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network
