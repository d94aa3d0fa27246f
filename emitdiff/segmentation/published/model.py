"""TextDiff as published (MICCAI 2024), and the same model with the errors of its released code corrected.

`PAPER` reproduces what the code does: ten tokens whose padding is attended to, channels in the order BGR, masks that
bilinear resizing dilates, a Dice term of raw logits, one image a step. `CORRECTED`, the default, does what was meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from emitdiff.errors import EmitDiffError, first_line
from emitdiff.images import image_to_tensor, resize_image, resize_mask, to_rgb
from emitdiff.segmentation.laterality import rewrite_directions, rotate_degrees, rotate_quarters
from emitdiff.segmentation.model.features import MULTIPLE, DiffusionFeatures, load_features
from emitdiff.segmentation.model.text import CLINICAL_BERT, TextEncoder
from emitdiff.segmentation.model.textdiff import PAPER_MONUSEG, PAPER_QATA, HeadConfig, TextDiff

TIMESTEPS = (50, 150, 250)
DICE_WEIGHT = 1.5
MAX_ROTATION = 20  # degrees at most


@dataclass(frozen=True)
class HeadPreset:
    """`blocks` of the decoder, as `features.decoder_blocks` numbers them, and the head that reads them."""

    blocks: tuple[int, ...]
    head: HeadConfig


HEAD_PRESETS = {"monuseg": HeadPreset((6, 8, 12, 16), PAPER_MONUSEG), "qata": HeadPreset((4, 6, 8, 12), PAPER_QATA)}


@dataclass(frozen=True)
class PublishedSettings:
    """How images, masks and sentences reach the model, and what it learns by.

    `size` (height, width) is that of the image the backbone sees, multiples of 32; the logits have it too. `turns` are
    the quarter turns an image may be given: (0,) where up and down mean something. `rewrite` keeps the sentence true.
    `views` small rotations of every image join its turns; their angles, within 20 degrees, are drawn once.
    """

    preset: Literal["monuseg", "qata"] = "monuseg"
    max_tokens: int = 32
    padding_mask: bool = True
    channel_order: Literal["rgb", "bgr"] = "rgb"
    masks: Literal["nearest", "dilated"] = "nearest"
    dice: Literal["probability", "logits"] = "probability"
    rewrite: bool = True
    size: tuple[int, int] = (256, 256)
    turns: tuple[int, ...] = (0, 1, 2, 3)
    views: int = 0
    batch: int = 4
    learning_rate: float = 1e-4
    epochs: int = 50
    seed: int = 0


CORRECTED = PublishedSettings()
PAPER = PublishedSettings(
    max_tokens=10, padding_mask=False, channel_order="bgr", masks="dilated", dice="logits", rewrite=False, batch=1
)
SETTINGS = {"mended": CORRECTED, "paper": PAPER}


def find_head_preset(name: str) -> HeadPreset:
    """The preset called `name`. Raises EmitDiffError for another name than "monuseg" and "qata"."""
    if name not in HEAD_PRESETS:
        raise EmitDiffError(f"There is no preset {name!r}: choose one of {', '.join(HEAD_PRESETS)}.")
    return HEAD_PRESETS[name]


def head_config(preset: str, channels: Sequence[int], text_dim: int = 768) -> HeadConfig:
    """The preset's head for blocks that bring `channels`, all steps together, and words of `text_dim`.

    With ADM 256 x 256 and BERT's 768 it is the paper's. Raises EmitDiffError where scales that share a convolution, or
    pass without one, differ in width: the backbone is not of ADM's shape.
    """
    head, dim = find_head_preset(preset).head, channels[-1]
    expected = [dim if number is None else channels[head.projections.index(number)] for number in head.projections]
    if list(channels) != expected:
        raise EmitDiffError(
            f"The backbone's blocks bring {', '.join(map(str, channels))} channels, and the preset {preset} needs "
            f"widths related like {', '.join(map(str, head.feature_channels))}: give a backbone that convert-adm made."
        )
    return replace(head, feature_channels=tuple(channels), dim=dim, text_dim=text_dim)


def build_published_head(preset: str = "monuseg", seed: int = 0, config: HeadConfig | None = None) -> TextDiff:
    """The paper's trainable part: 9,683,234 parameters for "monuseg", 10,862,882 for "qata"; or one of `config`.

    Weights N(0, 0.02) for convolutions and linear layers, N(1, 0.02) for batch norms; all biases 0.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return TextDiff(config or find_head_preset(preset).head).apply(_initialise)


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
    if isinstance(bias := getattr(layer, "bias", None), torch.Tensor):
        nn.init.zeros_(bias)


def load_published_features(backbone: Path, preset: str = "monuseg", seed: int = 0) -> DiffusionFeatures:
    """The frozen backbone that `convert-adm` wrote, read at the preset's blocks and the paper's three steps.

    Raises EmitDiffError where the folder holds no backbone, a damaged one, or one without the preset's blocks.
    """
    from safetensors import SafetensorError

    folder, blocks = Path(backbone), find_head_preset(preset).blocks
    if not (folder / "config.json").is_file():
        raise EmitDiffError(
            f"{folder} holds no backbone: run `python -m emitdiff convert-adm 256x256_diffusion_uncond.pt {folder}` "
            "first."
        )
    try:
        return load_features(folder, blocks, TIMESTEPS, seed, with_coordinates=False)
    except EmitDiffError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise EmitDiffError(
            f"The backbone in {folder} cannot be read ({first_line(error)}): convert it again."
        ) from error


def load_text_model(source: str | Path) -> TextEncoder:
    """The frozen text model in a folder or of a Hub name. Raises EmitDiffError where it is not there or damaged."""
    from safetensors import SafetensorError

    try:
        return TextEncoder.load(source)
    except EmitDiffError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise EmitDiffError(
            f"The text model {source} cannot be read ({first_line(error)}): give a Hub name such as {CLINICAL_BERT}, "
            "or a folder in transformers layout with its tokenizer."
        ) from error


def read_sentences(encoder: TextEncoder, texts: list[str],
                   settings: PublishedSettings = CORRECTED) -> tuple[torch.Tensor, torch.Tensor | None]:  # fmt: skip
    """Tokens (B, L, D) and the mask (B, L) that hides padding from the image.

    Without `padding_mask`, as published, every sentence is filled up to `max_tokens`, and the mask is None: the image
    attends to the filling as well. The text model itself never does.
    """
    if settings.padding_mask:
        return TextEncoder(encoder.model, encoder.tokenizer, settings.max_tokens)(texts)
    tokenize, device = encoder.tokenizer, next(encoder.parameters()).device
    batch = tokenize(texts, padding="max_length", truncation=True, max_length=settings.max_tokens, return_tensors="pt")
    ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
    return encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state, None


def prepare_image(image: np.ndarray, settings: PublishedSettings = CORRECTED) -> torch.Tensor:
    """uint8 (H, W) or (H, W, 3) of any size to (1, 3, *size) in [-1, 1], in the settings' order of channels."""
    if any(side < MULTIPLE or side % MULTIPLE for side in settings.size):
        raise EmitDiffError(f"The size {settings.size} was given: both sides must be multiples of {MULTIPLE}.")
    tensor = image_to_tensor(resize_image(to_rgb(image), settings.size))
    return tensor.flip(1) if settings.channel_order == "bgr" else tensor


def prepare_mask(mask: np.ndarray, settings: PublishedSettings = CORRECTED) -> torch.Tensor:
    """Class ids (H, W) to int64 (1, *size): nearest, or as published every pixel that bilinear resizing touches."""
    if settings.masks == "nearest":
        return torch.from_numpy(resize_mask(mask, settings.size).astype(np.int64))[None]
    height, width = settings.size
    resized = cv2.resize((mask > 0).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy((resized > 0).astype(np.int64))[None]


@dataclass(frozen=True)
class ViewTransform:
    """How an image is looked at: mirrored or not, then turned to the left by `quarters`, or tilted by `degrees`."""

    quarters: int = 0
    mirror: bool = False
    degrees: float = 0.0


def view_transforms(
    name: str, settings: PublishedSettings = CORRECTED
) -> tuple[list[ViewTransform], list[ViewTransform]]:
    """(turns, tilts): every way in which the image called `name` is seen. The angles follow from seed and name."""
    turns = [ViewTransform(quarters, mirror) for quarters in settings.turns for mirror in (False, True)]
    rng = np.random.default_rng([settings.seed, *name.encode()])
    return turns, [
        ViewTransform(degrees=float(angle)) for angle in rng.uniform(-MAX_ROTATION, MAX_ROTATION, settings.views)
    ]


def sample_transform(name: str, settings: PublishedSettings, rng: np.random.Generator) -> ViewTransform:
    """A turn; where there are `views`, one of these a quarter of the time, as often as the released code tilts."""
    turns, tilts = view_transforms(name, settings)
    chosen = tilts if tilts and rng.random() < 0.25 else turns
    return chosen[rng.integers(len(chosen))]


def transform_example(image: np.ndarray, mask: np.ndarray, text: str, transform: ViewTransform,
                 settings: PublishedSettings = CORRECTED) -> tuple[np.ndarray, np.ndarray, str]:  # fmt: skip
    """Picture and mask as `transform` shows them; with `rewrite`, the sentence says what is seen after a turn. A tilt
    is too small to make another sentence of it.
    """
    if transform.degrees:
        return rotate_degrees(image, transform.degrees), rotate_degrees(mask, transform.degrees, labels=True), text
    written = rewrite_directions(text, transform.quarters, transform.mirror) if settings.rewrite else text
    return (
        rotate_quarters(image, transform.quarters, transform.mirror),
        rotate_quarters(mask, transform.quarters, transform.mirror),
        written,
    )


def published_loss(logits: torch.Tensor, masks: torch.Tensor, settings: PublishedSettings = CORRECTED) -> torch.Tensor:
    """Cross-entropy + 1.5 Dice. `logits` (B, K, H, W), `masks` (B, H, W) of class ids below K.

    The Dice term, 1 - 2 |s t| / (|s|^2 + |t|^2) averaged over classes, is of probabilities, or as published of logits.
    """
    scores = logits if settings.dice == "logits" else logits.softmax(dim=1)
    truth = functional.one_hot(masks, logits.shape[1]).permute(0, 3, 1, 2).to(logits)
    over = (0, 2, 3)
    overlap = 2 * (scores * truth).sum(over) + 1e-5
    dice = overlap / (scores.square().sum(over) + truth.square().sum(over) + 1e-5)
    return functional.cross_entropy(logits, masks) + DICE_WEIGHT * (1 - dice).mean()
