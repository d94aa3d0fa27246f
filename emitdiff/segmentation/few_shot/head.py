"""A head trained on a few images: its inputs beside the frozen backbone's features, and its file format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from emitdiff.errors import EmitDiffError
from emitdiff.files import make_folder, write_atomically, write_text
from emitdiff.segmentation.model.features import are_valid_sizes, coordinates, weights_hash
from emitdiff.segmentation.model.textdiff import HeadConfig, TextDiff
from emitdiff.segmentation.pipeline import SegmentationPipeline

SUFFIX = ".safetensors"
KIND = "emitdiff taught head"
COORDINATES = 5
MAX_FILE_MB = 64  # megabytes of a file that may be a few-shot head
MAX_HEADER_BYTES = 2**20  # of its names, shapes and card: JSON, which grows some thirty times when it is read
MAX_TARGETS, MAX_TARGET_LENGTH, MAX_SCALES = 64, 200, 32
RESOLUTIONS, CELLS = range(32, 1025), range(1, 33)
REQUIRED_KEYS = ("targets", "checkpoint", "backbone", "text_encoder", "resolution", "cell", "config")


class PixelFeatures(nn.Module):
    """The maps of frozen `features` and, as one more and the finest scale, the image itself: the pixels of every
    `cell` x `cell` square side by side, with the maps of `coordinates`.

    From a few images, position and intensity are learnt faster than the meaning of hundreds of channels.
    """

    with_coordinates = True

    def __init__(self, features: nn.Module, cell: int) -> None:
        super().__init__()
        self.features, self.cell = features, cell

    def train(self, mode: bool = True) -> PixelFeatures:
        """In evaluation, like the backbone."""
        return super().train(False)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """`image` (B, 3, H, W) in [-1, 1], sides divisible by the cell, to (B, C_k, H_k, W_k), the last scale
        (B, 3 * cell**2 + 5, H / cell, W / cell); every scale ends with its coordinates.
        """
        squares = functional.pixel_unshuffle(image, self.cell)
        maps = self.features(image)
        if not self.features.with_coordinates:
            maps = [torch.cat([part, coordinates(part)], dim=1) for part in maps]
        return [*maps, torch.cat([squares, coordinates(squares)], dim=1)]


class PcaReduction(nn.Module):
    """The principal components of every scale's channels; the coordinates behind them pass as they are.

    Channels are standardised first, and components scaled by their spread to the power of -`whitening`. Hundreds of
    noisy channels would otherwise drown place and grey values, where only a few images teach. Linear, so it is folded
    into the head's projections at the end.
    """

    def __init__(self, maps: Sequence[torch.Tensor], components: int, whitening: float) -> None:
        super().__init__()
        for index, part in enumerate(maps):
            rows = part.float().permute(1, 0, 2, 3).flatten(1)
            mean, spread = rows.mean(1), rows.std(1) + 1e-5
            mean[-COORDINATES:], spread[-COORDINATES:] = 0, 1
            standard = (rows[:-COORDINATES] - mean[:-COORDINATES, None]) / spread[:-COORDINATES, None]
            values, vectors = torch.linalg.eigh(standard @ standard.T / standard.shape[1])
            values, vectors = values.flip(0)[:components].clamp_min(1e-4), vectors.flip(1)[:, :components]
            matrix = torch.block_diag((vectors / values ** (whitening / 2)).T, torch.eye(COORDINATES).to(vectors))
            self.register_buffer(f"mean_{index}", mean)
            self.register_buffer(f"matrix_{index}", matrix / spread)

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Maps (B, C_k, H_k, W_k) to (B, at most keep + 5, H_k, W_k), float32."""
        return [
            functional.conv2d(part.float() - getattr(self, f"mean_{k}")[:, None, None], self._kernel(k))
            for k, part in enumerate(maps)
        ]

    def _kernel(self, index: int) -> torch.Tensor:
        return getattr(self, f"matrix_{index}")[:, :, None, None]

    @torch.no_grad()
    def folded(self, head: TextDiff) -> TextDiff:
        """A head that does to the full maps what `head` does to the reduced ones."""
        matrices = [getattr(self, f"matrix_{k}") for k in range(len(head.projections))]
        whole = TextDiff(replace(head.config, feature_channels=tuple(matrix.shape[1] for matrix in matrices)))
        weights = deepcopy(head.state_dict())
        for index, matrix in enumerate(matrices):
            name = f"projections.{index}"
            weights[f"{name}.weight"] = weight = torch.einsum("dkyx,kc->dcyx", weights[f"{name}.weight"], matrix)
            weights[f"{name}.bias"] = weights[f"{name}.bias"] - weight[:, :, 0, 0] @ getattr(self, f"mean_{index}")
        whole.load_state_dict(weights)
        return whole.eval().requires_grad_(False)


@dataclass(frozen=True)
class FewShotHead:
    """`head` reads the maps of `PixelFeatures` over the backbone of `base`; `card` says how it came about."""

    head: TextDiff
    base: SegmentationPipeline
    card: dict

    def pipeline(self) -> SegmentationPipeline:
        """Ready to segment; backbone, text encoder and turns are those of `base`."""
        pipeline = SegmentationPipeline(
            PixelFeatures(self.base.features, self.card["cell"]),  # type: ignore[arg-type]  # gives maps as they do
            self.base.text,
            self.head.to(self.base.device),
            tuple(self.card["targets"]),
            self.card["resolution"],
            self.card["cell"],
            self.card,
            sizes=tuple(self.card.get("sizes", ())),
            prepare=self.base.scaled if self.base.greys else None,
        )
        pipeline.turns = self.base.turns
        return pipeline

    def save(self, path: str | Path) -> Path:
        """One safetensors file with the card in its metadata, and the card for users beside it (.md).

        Raises EmitDiffError for a name that does not end in .safetensors, and a folder that cannot be made.
        """
        from safetensors.torch import save_file

        path = check_head_path(path)
        make_folder(path.parent)
        weights = {name: value.cpu().contiguous() for name, value in self.head.state_dict().items()}
        card = json.dumps(self.card, ensure_ascii=False)
        metadata = {"kind": KIND, "card": card, "sha256": _content_sha256(card, weights)}
        write_atomically(path, lambda partial: save_file(weights, partial, metadata))
        write_text(path.with_suffix(".md"), describe(self.card, path.name))
        return path


def _content_sha256(card: str, weights: dict[str, torch.Tensor]) -> str:
    """Of the card and of every value of the weights."""
    digest = hashlib.sha256(card.encode())
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_head_path(path: str | Path) -> Path:
    """`path`, where a few-shot head can be called so. Raises EmitDiffError where not."""
    path = Path(path)
    if path.suffix != SUFFIX or path.is_dir():
        raise EmitDiffError(f"A few-shot head is one file: give a name that ends in {SUFFIX}, not '{path}'.")
    return path


def is_head_file(checkpoint: str | Path) -> bool:
    """Whether a name given as a checkpoint means a file that `FewShotHead.save` writes."""
    return Path(checkpoint).suffix == SUFFIX


def load_few_shot_head(path: str | Path, base: SegmentationPipeline) -> FewShotHead:
    """From a file that `FewShotHead.save` wrote, on `base`: the checkpoint that its card names.

    Raises EmitDiffError as `read_few_shot_head`, and where the backbone or text encoder is not the one it was trained
    on.
    """
    card, weights = read_few_shot_head(path)
    name = Path(path).name
    head = _read_head(weights, card, name)
    _check_backbone(base, card, name)
    return FewShotHead(head, base, card)


def read_few_shot_head(path: str | Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """(the card, the weights) of a file that `FewShotHead.save` wrote.

    Raises EmitDiffError where there is no such file, and where it is no few-shot head or damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise EmitDiffError(
            f"There is no file '{path}': `python -m emitdiff teach DATASET --out {path.name}` makes one."
        )
    if path.stat().st_size > MAX_FILE_MB * 2**20:
        raise EmitDiffError(f"'{path.name}' has more than {MAX_FILE_MB} MB: it is not a few-shot head.")
    try:
        with path.open("rb") as opened:
            if int.from_bytes(opened.read(8), "little") > MAX_HEADER_BYTES:
                raise ValueError("its header is too long")
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no dict
        card = json.loads(metadata.get("card", "{}"))
    except (OSError, ValueError, SafetensorError) as error:
        raise EmitDiffError(f"'{path.name}' cannot be read ({error}): copy or download it again.") from error
    if metadata.get("kind") != KIND or not isinstance(card, dict) or not all(name in card for name in REQUIRED_KEYS):
        raise EmitDiffError(f"'{path.name}' is not a few-shot head: give a file that `python -m emitdiff teach` wrote.")
    if metadata.get("sha256") not in (None, _content_sha256(metadata["card"], weights)):  # older heads have none
        raise EmitDiffError(f"'{path.name}' is damaged (its sha256 is not what it was): copy or download it again.")
    _check_card(card, path.name)
    return card, weights


def _check_card(card: dict, name: str) -> None:
    """Anyone may have written it: EmitDiffError where it asks for what no head has."""
    targets, config, sizes = card["targets"], card["config"], card.get("sizes", [])
    usable = (
        isinstance(targets, list)
        and 0 < len(targets) <= MAX_TARGETS
        and all(isinstance(one, str) and 0 < len(one) <= MAX_TARGET_LENGTH for one in targets)
        and isinstance(card["checkpoint"], str)
        and type(card["resolution"]) is int
        and card["resolution"] in RESOLUTIONS
        and are_valid_sizes(sizes, card["resolution"])
        and type(card["cell"]) is int
        and card["cell"] in CELLS
        and isinstance(config, dict)
        and all(not isinstance(value, list) or len(value) <= MAX_SCALES for value in config.values())
    )
    if not usable:
        raise EmitDiffError(f"'{name}' is damaged (its card is invalid): download it again.")


def _read_head(weights: dict[str, torch.Tensor], card: dict, name: str) -> TextDiff:
    try:
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in card["config"].items()
        }
        with torch.device("meta"):  # memory is only taken by what the file holds, whatever sizes its card names
            head = TextDiff(HeadConfig(**values))
        head.load_state_dict(weights, assign=True)
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise EmitDiffError(f"'{name}' is damaged (its card and its weights disagree): download it again.") from error
    return head.eval().requires_grad_(False)


def _check_backbone(base: SegmentationPipeline, card: dict, name: str) -> None:
    """Raises EmitDiffError where the backbone or text encoder of `base` is not the one that the card names."""
    for part, expected in fingerprints(base).items():
        if card[part] != expected:
            raise EmitDiffError(
                f"'{name}' was trained on another {part.replace('_', ' ')} ({str(card[part])[:12]}...) than that of "
                f"{card['checkpoint']} here ({expected[:12]}...): use the original weights, or train the head again."
            )


def fingerprints(pipeline: SegmentationPipeline) -> dict[str, str]:
    """What a few-shot head depends on: hashes of the backbone, with how it is read, and of the text encoder."""
    features = pipeline.features
    settings: list[Any] = [features.blocks, features.timesteps, features.seed, features.with_coordinates]
    if pipeline.greys:  # a head taught on other greys would read them wrongly
        settings.append(sorted(pipeline.greys.items()))
    joined = f"{weights_hash(features.unet)} {json.dumps(settings)}"
    return {
        "backbone": hashlib.sha256(joined.encode()).hexdigest(),
        "text_encoder": weights_hash(pipeline.text.model),
    }


def describe(card: dict, name: str) -> str:
    """The card for users, in Markdown."""
    lines = [f"# {name}", "", f"Finds: {', '.join(card['targets'])}.", ""]
    rows = {
        "trained on": card.get("dataset"),
        "images": card.get("images"),
        "groups": card.get("groups"),
        "licence of the images": card.get("licence") or "not given",
        "citation": card.get("citation") or None,
        "on the backbone of": card["checkpoint"],
        "backbone": card["backbone"],
        "steps": card.get("steps"),
        "seconds": card.get("seconds"),
        "loss at the end": card.get("loss"),
        "Dice on the validation image": card.get("validation_dice"),
        "date": card.get("date"),
    }
    lines += [f"- {key}: {value}" for key, value in rows.items() if value is not None]
    use = "Research use only. Not a medical device."
    example = f'    python -m emitdiff segment IMAGE --text "{card["targets"][0]}" --checkpoint {name} -o out'
    return "\n".join([*lines, "", use, "", example, ""])


def config_record(head: TextDiff) -> dict:
    """The sizes of a head as the card keeps them."""
    return asdict(head.config)
