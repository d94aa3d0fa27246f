"""The published model asked: an image and a sentence in, a mask out, with a head that `train-published` made."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from torch import nn

from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.model.features import DiffusionFeatures, weights_hash
from emitdiff.segmentation.model.text import TextEncoder
from emitdiff.segmentation.model.textdiff import TextDiff
from emitdiff.segmentation.output import SegmentationOutput, checked_image, entropy, grown, taught_phrase
from emitdiff.segmentation.published.efficient import lean_logits
from emitdiff.segmentation.published.feature_cache import LARGEST
from emitdiff.segmentation.published.model import (
    Published,
    load_published_features,
    load_text_model,
    prepare_image,
    read_sentences,
)
from emitdiff.segmentation.vocabulary import asked_for

KIND = "published"  # said in segmenter.json


class PublishedPipeline:
    """Called like `SegmentationPipeline`, and answers alike: without votes `uncertainty` is the entropy in bits, and
    without a layer for it `present` is the highest probability of a pixel. The features of the last image are kept, in
    half precision as in training: another sentence about it does not touch the backbone. Safe to call from several
    threads.
    """

    def __init__(self, features: DiffusionFeatures, text: TextEncoder, head: TextDiff, settings: Published,
                 targets: tuple[str, ...], card: dict | None = None) -> None:  # fmt: skip
        self.features, self.head, self.settings = features, head, settings
        self.text = TextEncoder(text.model, text.tokenizer, settings.max_tokens)
        self.targets, self.card = tuple(targets), card or {}
        self.device = next(head.parameters()).device
        self._lock = Lock()
        self._last: tuple[np.ndarray, list[torch.Tensor]] | None = None

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, text: str, threshold: float = 0.5) -> SegmentationOutput:
        """`image` uint8 (H, W), (H, W, 3) or (H, W, 4); `text` what to find; pixels above `threshold` are the mask.

        Raises EmitDiffError for an image, text or threshold that cannot be used.
        """
        started = time.perf_counter()
        image = checked_image(image, text, threshold)
        with self._lock:
            tokens, visible = read_sentences(self.text, [text], self.settings)
            logits = lean_logits(self.head, self._seen(image), tokens, visible, self.settings.size)
            shares = grown(logits.float(), image.shape[:2]).softmax(dim=1)
        probability = shares[0, 1].cpu().numpy()
        answer = SegmentationOutput(
            mask=np.zeros(probability.shape, np.uint8),
            probability=probability,
            found=False,
            target=taught_phrase(asked_for(text, self.targets), self.targets),
            present=float(probability.max()),
            uncertainty=entropy(shares)[0].cpu().numpy(),
            seconds=time.perf_counter() - started,
            warnings=tuple(self._warnings(text)),
        )
        return answer.at(threshold)

    def _seen(self, image: np.ndarray) -> list[torch.Tensor]:
        if self._last is None or not np.array_equal(self._last[0], image):
            maps = self.features(prepare_image(image, self.settings).to(self.device))
            self._last = (image.copy(), [part.clamp(-LARGEST, LARGEST).half() for part in maps])
        return self._last[1]

    def _warnings(self, text: str) -> Iterator[str]:
        if not text.strip():
            yield f"No text was given: these weights look for {', '.join(self.targets)}."
        if self.text.is_cut(text):
            yield f"The text is longer than {self.text.max_tokens} tokens: its end was not read."


def load_published(folder: Path, facts: dict, device: torch.device) -> PublishedPipeline:
    """The pipeline of a folder that `train-published` wrote; `facts` is its segmenter.json.

    Backbone and text model are taken from `folder`/backbone and `folder`/text where they are there, else from where
    they were in training. Raises EmitDiffError where one is not found or is another one, and for a damaged folder.
    """
    try:
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in facts["settings"].items()}
        settings, targets = Published(**values), tuple(facts["targets"])
        backbone, text = (_place(folder, facts, part) for part in ("backbone", "text"))
        hashes = [facts[part]["sha256"] for part in ("backbone", "text")]
    except (KeyError, TypeError, AttributeError) as error:
        raise EmitDiffError(
            f"{folder / 'segmenter.json'} is damaged ({error}): train-published writes it anew."
        ) from None
    features = load_published_features(_existing(folder, backbone), settings.preset, settings.seed)
    encoder = load_text_model(text)
    for part, module, expected in zip(("backbone", "text"), (features.unet, encoder.model), hashes, strict=True):
        _check_hash(folder, part, module, expected)
    try:
        head = TextDiff.load(folder / "head")
        card = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    except Exception as error:  # noqa: BLE001 - every library has its own family of errors for a damaged file
        raise EmitDiffError(f"The head in {folder} is damaged ({error}): train-published writes it anew.") from error
    head = head.to(device).requires_grad_(False)
    return PublishedPipeline(features.to(device), encoder.to(device), head, settings, targets, card)


def _place(folder: Path, facts: dict, part: str) -> str | Path:
    """A folder, or a Hub name where there is none of the name."""
    place = facts[part]["place"]
    return next((path for path in (folder / part, folder / place) if path.is_dir()), place)


def _existing(folder: Path, backbone: str | Path) -> Path:
    if Path(backbone).is_dir():
        return Path(backbone)
    raise EmitDiffError(
        f"The backbone that {folder} was taught on is not at {folder / backbone}: put it there or into "
        f"{folder / 'backbone'}, or write where it is into {folder / 'segmenter.json'}."
    )


def _check_hash(folder: Path, part: str, module: nn.Module, expected: str) -> None:
    if (found := weights_hash(module)) != expected:
        raise EmitDiffError(
            f"The head in {folder} was taught on another {part} (sha256 {expected[:12]}..., this one has "
            f"{found[:12]}...): put the right one into {folder / part}."
        )
