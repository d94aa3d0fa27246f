"""A small classifier of what image kind is seen (modality and organ), trained on real images alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from emitdiff.devices import choose_device
from emitdiff.images import resize_image

SIDE = 96  # pixels it sees
STEPS = 200
BATCH = 16

Kind = tuple[str, str]  # modality, organ


class ImageKindNetwork:
    """Tells image kinds apart; `kinds` in the order of its answers."""

    def __init__(self, kinds: Sequence[Kind], seed: int = 0):
        self.kinds, self.seed = tuple(kinds), seed
        self.device = choose_device()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = _network(len(self.kinds)).to(self.device)

    def train(self, images: Sequence[np.ndarray], kinds: Sequence[Kind], steps: int = STEPS) -> None:
        """Learns from uint8 (H, W, 3) images; kinds are drawn equally often, brightness and contrast varied, so that
        neither their number nor an exposure decides."""
        rng = np.random.default_rng(self.seed)
        pictures, answers = _stack(images), np.array([self.kinds.index(kind) for kind in kinds])
        weights = 1 / np.bincount(answers, minlength=len(self.kinds))[answers]
        optimiser = torch.optim.AdamW(self.network.train().parameters(), 2e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            chosen = rng.choice(len(answers), BATCH, p=weights / weights.sum())
            gain, lift = (torch.tensor(rng.uniform(low, high, (BATCH, 1, 1, 1)), dtype=torch.float32)
                          for low, high in ((0.6, 1.4), (-0.2, 0.2)))  # fmt: skip
            batch = ((pictures[chosen].float() / 255 - 0.5) * gain + 0.5 + lift).clamp(0, 1)
            logits = self.network(batch.to(self.device))
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(answers[chosen]).to(self.device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        self.network.eval()

    @torch.inference_mode()
    def __call__(self, images: Sequence[np.ndarray]) -> list[Kind]:
        """The kind of each uint8 (H, W, 3) image."""
        found = []
        for part in _stack(images).split(64):
            found += self.network(part.to(self.device).float() / 255).argmax(1).tolist()
        return [self.kinds[index] for index in found]


def _network(kinds: int) -> nn.Module:
    """Four convolutions of stride 2 and their mean over the image: 0.2 M parameters."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (16, 32, 64, 128):
        layers += [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, kinds))


def _stack(images: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(resize_image(image, (SIDE, SIDE))).permute(2, 0, 1) for image in images])
