"""Inference with the published model: an image and a sentence in, a mask out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from emitdiff.errors import EmitDiffError
from emitdiff.segmentation.model.features import DiffusionFeatures, weights_hash
from emitdiff.segmentation.model.text import TextEncoder
from emitdiff.segmentation.model.textdiff import TextDiff
from emitdiff.segmentation.output import (
    SegmentationOutput,
    entropy,
    upsample,
)
from emitdiff.segmentation.published.efficient import efficient_logits
from emitdiff.segmentation.published.feature_cache import FLOAT16_MAX
from emitdiff.segmentation.published.model import (
    PublishedSettings,
    load_published_features,
    load_text_model,
    prepare_image,
    read_sentences,
)
from emitdiff.segmentation.segmenter import EncodedImage, ImageFeatures, Segmenter
from emitdiff.segmentation.wording.reader import Request

KIND = "published"  # said in segmenter.json


class PublishedPipeline(Segmenter):
    """Called like `SegmentationPipeline`, and answers alike: without votes `uncertainty` is the entropy in bits, and
    without a layer for it `present` is the highest probability of a pixel. Features are in half precision, as in
    training.
    """

    def __init__(self, features: DiffusionFeatures, text: TextEncoder, head: TextDiff, settings: PublishedSettings,
                 targets: tuple[str, ...], card: dict | None = None) -> None:  # fmt: skip
        super().__init__(targets, card)
        self.features, self.head, self.settings = features, head, settings
        self.text = TextEncoder(text.model, text.tokenizer, settings.max_tokens)
        self.device = next(head.parameters()).device

    @torch.inference_mode()
    def _encode(self, image: np.ndarray) -> EncodedImage:
        with self.turns:
            maps = self.features(prepare_image(image, self.settings).to(self.device))
        halves = [part.clamp(-FLOAT16_MAX, FLOAT16_MAX).half() for part in maps]
        return EncodedImage((ImageFeatures(halves, self.settings.size),), None, image.shape[:2], self._encoder)

    @torch.inference_mode()
    def _answer(self, encoded: EncodedImage, request: Request) -> SegmentationOutput:
        (look,) = encoded.features
        with self.turns:
            tokens, visible = read_sentences(self.text, [request.spoken], self.settings)
            logits = efficient_logits(self.head, look.maps, tokens, visible, look.grid)
            probabilities = upsample(logits.float(), encoded.size).softmax(dim=1)
        probability = encoded.within(probabilities[0, 1].cpu().numpy())
        return SegmentationOutput(
            mask=np.zeros(probability.shape, np.uint8),
            probability=probability,
            found=False,
            target=None if request.target is None else request.target.phrase,
            present=float(probability.max()),
            uncertainty=encoded.within(entropy(probabilities)[0].cpu().numpy()),
            seconds=0.0,
            warnings=tuple(self._warnings(request.spoken)),
        )

    def _warnings(self, text: str) -> Iterator[str]:
        if not text.strip():
            yield f"No text was given: these weights look for {', '.join(self.targets)}."
        if self.text.is_truncated(text):
            yield f"The text is longer than {self.text.max_tokens} tokens and was truncated."


def load_published(folder: Path, config: dict, device: torch.device) -> PublishedPipeline:
    """The pipeline of a folder that `train-published` wrote; `config` is its segmenter.json.

    Backbone and text model are taken from `folder`/backbone and `folder`/text where they are there, else from where
    they were in training. Raises EmitDiffError where one is not found or is another one, and for a damaged folder.
    """
    try:
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in config["settings"].items()
        }
        settings, targets = PublishedSettings(**values), tuple(config["targets"])
        backbone, text = (_locate(folder, config, part) for part in ("backbone", "text"))
        hashes = [config[part]["sha256"] for part in ("backbone", "text")]
    except (KeyError, TypeError, AttributeError) as error:
        raise EmitDiffError(
            f"{folder / 'segmenter.json'} is damaged ({error}): train-published writes it again."
        ) from None
    features = load_published_features(_existing(folder, backbone), settings.preset, settings.seed)
    encoder = load_text_model(text)
    for part, module, expected in zip(("backbone", "text"), (features.unet, encoder.model), hashes, strict=True):
        _check_hash(folder, part, module, expected)
    try:
        head = TextDiff.load(folder / "head")
        card = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    except Exception as error:  # noqa: BLE001 - every library has its own family of errors for a damaged file
        raise EmitDiffError(f"The head in {folder} is damaged ({error}): train-published writes it again.") from error
    head = head.to(device).requires_grad_(False)
    return PublishedPipeline(features.to(device), encoder.to(device), head, settings, targets, card)


def _locate(folder: Path, config: dict, part: str) -> str | Path:
    """A folder, or a Hub name where there is none of the name."""
    place = config[part]["place"]
    return next((path for path in (folder / part, folder / place) if path.is_dir()), place)


def _existing(folder: Path, backbone: str | Path) -> Path:
    if Path(backbone).is_dir():
        return Path(backbone)
    raise EmitDiffError(
        f"The backbone that {folder} was trained on is not at {folder / backbone}: put it there or into "
        f"{folder / 'backbone'}, or write where it is into {folder / 'segmenter.json'}."
    )


def _check_hash(folder: Path, part: str, module: nn.Module, expected: str) -> None:
    if (found := weights_hash(module)) != expected:
        raise EmitDiffError(
            f"The head in {folder} was trained on another {part} (sha256 {expected[:12]}..., this one has "
            f"{found[:12]}...): put the right one into {folder / part}."
        )
