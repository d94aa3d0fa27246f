"""Training the paper's head on a few labelled images, from features on disk.

Images are seen in up to eight ways, quarter turns and their mirrors, and each way passes the frozen backbone once: all
later epochs read it from disk. The paper's small random rotations would be new images every time and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from emitdiff.datasets import Sample
from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.backbone import save_state
from emitdiff.segmentation.feature_cache import FeatureCache
from emitdiff.segmentation.lean import lean_logits
from emitdiff.segmentation.published import (
    MENDED,
    Published,
    prepare_image,
    prepare_mask,
    published_loss,
    read_sentences,
    turned_example,
)
from emitdiff.segmentation.text import TextEncoder
from emitdiff.segmentation.textdiff import TextDiff


def train_published_head(head: TextDiff, cache: FeatureCache, encoder: TextEncoder, samples: Sequence[Sample],
                         out: Path, settings: Published = MENDED) -> list[float]:  # fmt: skip
    """Teach `head` in place for `settings.epochs`; writes `out`/head and returns the mean loss of every epoch.

    State is kept in `out`/state.pt after each epoch: started again, training goes on and ends at the same weights.
    Raises EmitDiffError without images, and for class ids the head has no answer for.
    """
    if not samples:
        raise EmitDiffError("No labelled images were given: a head needs at least one, five do well.")
    if (largest := max(int(sample.mask.max()) for sample in samples)) >= head.config.num_classes:
        raise EmitDiffError(f"A mask holds class {largest}, the head answers 0 to {head.config.num_classes - 1} only.")
    optimizer, losses = torch.optim.Adam(head.parameters(), lr=settings.learning_rate), []
    if (path := Path(out) / "state.pt").exists():
        state = torch.load(path, weights_only=True, map_location=next(head.parameters()).device)
        head.load_state_dict(state["head"])
        optimizer.load_state_dict(state["optimizer"])
        losses = state["losses"]
    head.train()
    for epoch in tqdm(range(len(losses), settings.epochs), desc="head", unit="epoch"):
        rng, found = np.random.default_rng((settings.seed, epoch)), []
        order = rng.permutation(len(samples))
        for start in range(0, len(order), settings.batch):
            chosen = [samples[index] for index in order[start : start + settings.batch]]
            loss = _loss(head, cache, encoder, chosen, rng, settings)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        losses.append(float(np.mean(found)))
        save_state(path, {"head": head.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses})
    head.eval().save(Path(out) / "head")
    return losses


def _loss(head: TextDiff, cache: FeatureCache, encoder: TextEncoder, samples: Sequence[Sample],
          rng: np.random.Generator, settings: Published) -> torch.Tensor:  # fmt: skip
    """The loss of one batch, each image seen in a way of its own."""
    device = next(head.parameters()).device
    seen = [
        turned_example(one.image, one.mask, one.text, int(rng.choice(settings.turns)), rng.random() < 0.5, settings)
        for one in samples
    ]
    images = torch.cat([prepare_image(image, settings) for image, _, _ in seen]).to(device)
    masks = torch.cat([prepare_mask(mask, settings) for _, mask, _ in seen]).to(device)
    with torch.no_grad():
        tokens, visible = read_sentences(encoder, [text for _, _, text in seen], settings)
    logits = lean_logits(head, cache(images), tokens, visible, settings.size)
    return published_loss(logits, masks, settings)
