"""Teaches `hed-mini` to draw what the original HED draws: no labels, any picture will do.

At every step the teacher draws the edges of a few new views, which then stay in a pool for some more steps. The loss is
cross-entropy to the teacher's soft map at full size and, for the coarser side maps, at theirs, with L1 and gradients.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.training_utils import EMAModel
from torch import Tensor

from emitdiff.datasets.fingerprint import HASHES, check_hashes
from emitdiff.datasets.folder import open_dataset
from emitdiff.errors import EmitDiffError
from emitdiff.files import begin_record, check_output_folder
from emitdiff.synthesis.hed.mini import MiniNetwork, save_hed_mini
from emitdiff.synthesis.hed.network import HedNetwork, load_hed
from emitdiff.synthesis.hed.views import COLOURED, DRAWN, teaching_view
from emitdiff.synthesis.hed.weights import hed_folder
from emitdiff.synthesis.training.autoencoder import gradient_loss
from emitdiff.synthesis.training.corpus import Corpus, load_corpus
from emitdiff.synthesis.training.optimization import optimizer_step
from emitdiff.training_state import StageState

MARKS = ("state/settings.json",)
SPLIT_SEED = 0
SIDE = 192  # pixels of the square views
BATCH = 8
FRESH = 2  # new views at each step
POOL = 256  # views kept
LEARNING_RATE = 3e-3
SIDES_WEIGHT, L1_WEIGHT, GRADIENT_WEIGHT = 0.3, 1.0, 1.0


@dataclass(frozen=True)
class TrainHed:
    """`teacher` is a folder that `convert-hed` wrote, None for where `hed` is looked for; `minutes` count without
    reading the images. A part `held_out` of each dataset's groups is never shown."""

    datasets: tuple[Path, ...]
    out: Path
    teacher: Path | None = None
    minutes: float = 30.0
    seed: int = 0
    threads: int | None = None
    held_out: float = 0.2


def open_teacher(folder: Path | None) -> tuple[HedNetwork, dict]:
    """The original network of a folder that `convert-hed` wrote, and the config.json beside it.

    Raises:
        EmitDiffError: it is not there or damaged.
    """
    folder = Path(folder or hed_folder())
    if not (folder / "model.safetensors").is_file():
        raise EmitDiffError(f"{folder} holds no HED to learn from: run `python -m emitdiff convert-hed FILE` first.")
    config = folder / "config.json"
    facts = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    return load_hed(folder / "model.safetensors").to(memory_format=torch.channels_last), facts  # type: ignore[call-overload]  # memory_format has no type there


def train_hed(settings: TrainHed) -> Path:
    """Trains for the minutes given, going on from `settings.out`/state, and writes the folder; returns it.

    Raises:
        EmitDiffError: no time, no teacher, unreadable datasets, or an `out` that holds something else or was started
        with
            other settings.
    """
    if settings.minutes <= 0:
        raise EmitDiffError(f"The time to train was {settings.minutes:g} minutes; give a positive number.")
    out = Path(settings.out)
    check_output_folder(out, MARKS, (*settings.datasets, settings.teacher))
    if settings.threads:
        torch.set_num_threads(settings.threads)
    teacher, facts = open_teacher(settings.teacher)
    corpus = load_corpus(settings.datasets, settings.held_out, SPLIT_SEED)
    names = sorted({item.info.name for item in corpus.items})
    wanted = {"datasets": names, "seed": settings.seed, "held_out": settings.held_out, "teacher": facts.get("sha256")}
    begin_record(out / "state" / "settings.json", wanted, out)
    check_hashes(out / "state" / HASHES, out, {}, [open_dataset(folder) for folder in settings.datasets])
    network, state = distil(teacher, corpus, out / "state" / "hed.pt", settings.minutes, settings.seed)
    return save_hed_mini(network, out, {"training": record(settings, corpus, facts, state)})


def record(settings: TrainHed, corpus: Corpus, teacher: dict, state: StageState) -> dict:
    """What config.json says of the training."""
    infos = {item.info.name: item.info for item in corpus.items}
    return {
        "date": date.today().isoformat(),
        "teacher": {name: teacher.get(name) for name in ("source", "sha256")},
        "datasets": [
            {"name": name, "images": sum(item.info.name == name for item in corpus.items), "licence": info.licence,
             "citation": info.citation}
            for name, info in infos.items()
        ],
        "held_out": settings.held_out, "split_seed": SPLIT_SEED, "seed": settings.seed,
        "minutes": round(state.seconds / 60, 1), "steps": state.steps,
        "recipe": {"side": SIDE, "batch": BATCH, "new_views_a_step": FRESH, "learning_rate": LEARNING_RATE,
                   "drawn": DRAWN, "coloured": COLOURED},
    }  # fmt: skip


class TaughtViews:
    """A pool of views and the teacher's edges of them; the oldest go as new ones come."""

    def __init__(self, teacher: HedNetwork, corpus: Corpus, side: int, rng: np.random.Generator):
        self.teacher, self.corpus, self.side, self.rng = teacher, corpus, side, rng
        self.views: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def add(self, count: int) -> None:
        views = np.stack([teaching_view(self.corpus, self.side, self.rng) for _ in range(count)])
        images = torch.from_numpy(views).permute(0, 3, 1, 2)
        batch = images.float().contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            edges = self.teacher(batch).half()
        self.views = [*self.views, *zip(images, edges, strict=True)][-POOL:]

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Images (count, 3, side, side) in 0..255 and edges (count, 1, side, side) in 0..1, float32."""
        chosen = [self.views[index] for index in self.rng.choice(len(self.views), count, replace=False)]
        images, edges = (torch.stack(parts).float() for parts in zip(*chosen, strict=True))
        return images.contiguous(memory_format=torch.channels_last), edges


def distil(
    teacher: HedNetwork, corpus: Corpus, path: Path, minutes: float, seed: int, side: int = SIDE,
    widths: Sequence[int] | None = None, blocks: Sequence[int] | None = None,
) -> tuple[MiniNetwork, StageState]:  # fmt: skip
    """Trains for `minutes`, resuming from the file `path`; returns the averaged network and what it took."""
    torch.manual_seed(seed)
    network = MiniNetwork(tuple(widths), tuple(blocks)) if widths and blocks else MiniNetwork()
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # memory_format has no type there
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-3)
    average = EMAModel(network.parameters(), decay=0.995)
    state = StageState(path, minutes, {"network": network, "optimizer": optimizer, "average": average})
    pool = TaughtViews(teacher, corpus, side, np.random.default_rng([seed, state.steps]))
    if state.progress < 1:
        pool.add(BATCH)
    for step in state.run("hed-mini"):
        pool.add(FRESH)
        rate = LEARNING_RATE * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * (1 - state.progress) ** 0.9)
        images, edges = pool.draw(BATCH)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network.logits(images)
        loss = distillation_loss([side.float() for side in logits], edges)
        optimizer_step(loss, network, optimizer, average, rate)
        if step % 50 == 0:
            error = (logits[0].float().sigmoid() - edges).abs().mean()
            state.bar.set_postfix(step=step, mae=f"{error:.4f}", refresh=False)
    average.copy_to(network.parameters())
    return network.eval(), state


def distillation_loss(logits: Sequence[Tensor], edges: Tensor) -> Tensor:
    """Maps before the sigmoid, the first at full size, against the teacher's edges (B, 1, H, W) in [0, 1]."""
    loss = F.binary_cross_entropy_with_logits(logits[0], edges)
    drawn = logits[0].sigmoid()
    loss = loss + L1_WEIGHT * (drawn - edges).abs().mean() + GRADIENT_WEIGHT * gradient_loss(drawn, edges)
    for side in logits[1:]:
        small = F.adaptive_avg_pool2d(edges, (side.shape[-2], side.shape[-1]))
        loss = loss + SIDES_WEIGHT * F.binary_cross_entropy_with_logits(side, small) / (len(logits) - 1)
    return loss
