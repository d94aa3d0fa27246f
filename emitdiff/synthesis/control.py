"""From an image, a mask and the settings to what the ControlNet is given, and to the label that goes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.images import fitted_size, resize_image, resize_mask, to_rgb
from emitdiff.synthesis.card import CheckpointCard
from emitdiff.synthesis.edges import control_image, detect_edges, weaken_edges
from emitdiff.synthesis.hed.weights import edge_weights
from emitdiff.synthesis.mask_edits import edit_edges, edit_mask
from emitdiff.synthesis.sampling import resolve
from emitdiff.synthesis_settings import SynthesisSettings

if TYPE_CHECKING:
    from emitdiff.synthesis.sampling import ResolvedSettings


@dataclass(frozen=True)
class Control:
    """`picture` uint8 (h, w, 3) at the working size; `mask` the edited class ids (H, W), None where nothing follows
    one; `size` the (H, W) wanted in the end; `edge_weights` names the weights that drew the edges, if any did."""

    picture: np.ndarray
    mask: np.ndarray | None
    size: tuple[int, int]
    edge_weights: str | None = None


def build_control(
    image: np.ndarray | None, mask: np.ndarray | None, settings: SynthesisSettings, card: CheckpointCard
) -> Control:
    """Edges at the dose asked for, joined with the edited mask in the layout of the checkpoint.

    Args:
        image: uint8 (H, W, 3), or None to generate from the mask, or from text, alone.
        mask: class ids (H, W) of the same size, or None.
        settings: what is None in them is the preset's, else the card's.

    Raises:
        EmitDiffError: neither of them (and not free), sizes that differ, an edit without a mask, or settings out of
            range.
    """
    resolved = resolve(settings, card)
    wanted, edit = _wanted_size(image, mask, resolved, card), resolved.edit
    size = fitted_size(wanted, card.area, card.multiple)
    if edit and not edit.changes_nothing and (mask is None or not mask.any()):
        raise EmitDiffError("A mask edit needs a mask: upload or draw one, or give it with --mask.")
    edited = edit_mask(mask, edit) if edit and mask is not None else mask
    small = None if edited is None else resize_mask(edited, size)
    edges = _edges(image, size, resolved)
    if edit and mask is not None and small is not None:
        edges = edit_edges(edges, resize_mask(mask, size), small, edit)
    picture = control_image(edges, small, resolved.boundary and resolved.structure > 0, card.control_layout)
    if card.control_layout == "layered" and resolved.mask_share < 1:
        picture = np.rint(picture * resolved.mask_share).astype(np.uint8)
    weights = edge_weights(resolved.detector) if _wants_edges(image, resolved) else None
    return Control(picture, edited if resolved.structure > 0 else None, wanted, weights)


def _wanted_size(
    image: np.ndarray | None, mask: np.ndarray | None, settings: SynthesisSettings, card: CheckpointCard
) -> tuple[int, int]:
    if image is not None and mask is not None and image.shape[:2] != mask.shape:
        raise EmitDiffError(
            f"The mask has {mask.shape[1]} x {mask.shape[0]} pixels and the image "
            f"{image.shape[1]} x {image.shape[0]}; export the mask at the size of its image."
        )
    for given in (image, mask):
        if given is not None:
            return given.shape[0], given.shape[1]
    if settings.structure > 0:
        raise EmitDiffError(
            "Neither an image nor a mask was given: choose an image or a mask (IMAGE or --mask on the "
            "command line), or set structure to 0 (--structure 0) to generate from text alone."
        )
    side = round(card.area**0.5)
    return settings.size or (side, side)


def _wants_edges(image: np.ndarray | None, settings: SynthesisSettings) -> bool:
    return image is not None and settings.structure > 0.5


def _edges(image: np.ndarray | None, size: tuple[int, int], settings: ResolvedSettings) -> np.ndarray:
    """Edges at the dose asked for; where none are wanted no detector is asked, so none need be there."""
    if image is None or not _wants_edges(image, settings):
        return np.zeros(size, np.uint8)
    image = resize_image(to_rgb(image), size)
    edges = detect_edges(image, settings.detector, settings.low_threshold, settings.high_threshold)
    return weaken_edges(edges, settings.structure, image)
