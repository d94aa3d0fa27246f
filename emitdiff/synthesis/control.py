"""From an image, a mask and the settings to what the ControlNet is given, and to the label that goes with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emitdiff.checkpoints import edge_weights
from emitdiff.errors import EmitDiffError
from emitdiff.images import fitted_size, resize_image, resize_mask, to_rgb
from emitdiff.synthesis.card import CheckpointCard
from emitdiff.synthesis.edges import control_image, detect_edges, weaken_edges
from emitdiff.synthesis.mask_edits import edit_edges, edit_mask
from emitdiff.synthesis.sampling import Sampling


@dataclass(frozen=True)
class Control:
    """`picture` uint8 (h, w, 3) at the working size; `mask` the edited class ids (H, W), None where nothing follows
    one; `size` the (H, W) wanted in the end; `edge_weights` names the weights that drew the edges, if any did."""

    picture: np.ndarray
    mask: np.ndarray | None
    size: tuple[int, int]
    edge_weights: str | None = None


def build_control(
    image: np.ndarray | None, mask: np.ndarray | None, sampling: Sampling, card: CheckpointCard
) -> Control:
    """Edges at the dose asked for, joined with the edited mask in the layout of the checkpoint.

    Args:
        image: uint8 (H, W, 3), or None to generate from the mask, or from text, alone.
        mask: class ids (H, W) of the same size, or None.

    Raises:
        EmitDiffError: neither of them (and not free), sizes that differ, or an edit without a mask.
    """
    wanted, edit = _wanted_size(image, mask, sampling, card), sampling.edit
    size = fitted_size(wanted, card.area, card.multiple)
    if edit and not edit.changes_nothing and (mask is None or not mask.any()):
        raise EmitDiffError("A mask edit needs a mask: upload or draw one, or give it with --mask.")
    edited = edit_mask(mask, edit) if edit and mask is not None else mask
    small = None if edited is None else resize_mask(edited, size)
    edges = _edges(image, size, sampling)
    if edit and mask is not None and small is not None:
        edges = edit_edges(edges, resize_mask(mask, size), small, edit)
    picture = control_image(edges, small, sampling.boundary and sampling.structure > 0, card.control_layout)
    if card.control_layout == "layered" and sampling.mask_share < 1:
        picture = np.rint(picture * sampling.mask_share).astype(np.uint8)
    weights = edge_weights(sampling.detector) if _wants_edges(image, sampling) else None
    return Control(picture, edited if sampling.structure > 0 else None, wanted, weights)


def _wanted_size(
    image: np.ndarray | None, mask: np.ndarray | None, sampling: Sampling, card: CheckpointCard
) -> tuple[int, int]:
    if image is not None and mask is not None and image.shape[:2] != mask.shape:
        raise EmitDiffError(
            f"The mask has {mask.shape[1]} x {mask.shape[0]} pixels and the image "
            f"{image.shape[1]} x {image.shape[0]}; export the mask at the size of its image."
        )
    for given in (image, mask):
        if given is not None:
            return given.shape[0], given.shape[1]
    if sampling.structure > 0:
        raise EmitDiffError(
            "Neither an image nor a mask was given: choose an image or a mask (IMAGE or --mask on the "
            "command line), or set structure to 0 (--structure 0) to generate from text alone."
        )
    side = round(card.area**0.5)
    return sampling.size or (side, side)


def _wants_edges(image: np.ndarray | None, sampling: Sampling) -> bool:
    return image is not None and sampling.structure > 0.5


def _edges(image: np.ndarray | None, size: tuple[int, int], sampling: Sampling) -> np.ndarray:
    """Edges at the dose asked for; where none are wanted no detector is asked, so none need be there."""
    if image is None or not _wants_edges(image, sampling):
        return np.zeros(size, np.uint8)
    image = resize_image(to_rgb(image), size)
    edges = detect_edges(image, sampling.detector, sampling.low_threshold, sampling.high_threshold)
    return weaken_edges(edges, sampling.structure, image)
