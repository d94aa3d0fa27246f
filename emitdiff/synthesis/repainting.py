"""A synthetic image painted again from what it says of itself, to be compared with it pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np

from emitdiff.checksums import SHORT
from emitdiff.errors import EmitDiffError
from emitdiff.provenance import source_hashes
from emitdiff.synthesis.pipeline import SynthesisPipeline, SyntheticImage
from emitdiff.synthesis_settings import SynthesisSettings

GIVE = {"image_sha256": "the image it was painted from as --image", "mask_sha256": "its mask as --mask"}


def repaint(
    record: dict[str, Any], pipeline: SynthesisPipeline, image: np.ndarray | None, mask: np.ndarray | None
) -> SyntheticImage:
    """The image that `record`, the settings in a synthetic PNG, describes.

    Args:
        image: uint8 (H, W, 3) that it was painted from, and mask: class ids (H, W); None where it had none.

    Raises:
        EmitDiffError: the weights or the source are others than the record says by their sha256, or are lacking.
    """
    recorded = record.get("weights_sha256")
    if recorded and pipeline.weights != recorded:
        raise EmitDiffError(
            f"The image was painted with weights {recorded[:SHORT]}..., and {pipeline.name} here is "
            f"{pipeline.weights[:SHORT]}...: install the version of emitdiff, or the weights, that it names."
        )
    check_source(record, image, mask)
    settings = SynthesisSettings.from_record(record).replace(num_images=1)
    (painted,) = pipeline(image, mask, settings)
    return painted


def check_source(record: dict[str, Any], image: np.ndarray | None, mask: np.ndarray | None) -> None:
    """Raises EmitDiffError where image and mask are not those that `record` names by their sha256."""
    found = source_hashes(image, mask)
    for name, what in GIVE.items():
        if name in record and name not in found:
            raise EmitDiffError(f"To paint it again, give {what}, or --dataset for an image of `augment`.")
        if name in record and found[name] != record[name]:
            raise EmitDiffError(
                f"This is not {what.partition(' as ')[0]}: its pixels are others. Give {what}, with the same --slice "
                "and --window."
            )
        if name not in record and name in found and record.keys() & GIVE.keys():
            raise EmitDiffError(f"It was painted without {what.partition(' as ')[0]}: leave that out.")


def difference(one: np.ndarray, other: np.ndarray) -> str:
    """How two pictures, uint8 (H, W, 3), differ, in words; "" where they are the same bit for bit."""
    if one.shape != other.shape:
        return f"it has {other.shape[1]} x {other.shape[0]} pixels instead of {one.shape[1]} x {one.shape[0]}"
    apart = np.abs(one.astype(np.int16) - other)
    count = int((apart > 0).any(axis=-1).sum())
    return (
        f"{count:,} of {one.shape[0] * one.shape[1]:,} pixels differ, by at most {apart.max()} of 255" if count else ""
    )
