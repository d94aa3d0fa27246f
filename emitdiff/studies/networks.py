"""Plain reference segmenters, by name and with random weights: what synthetic images are tried on."""

from __future__ import annotations

import torch

from emitdiff.errors import EmitDiffError

CHANNELS = (16, 32, 64, 128, 128, 256)  # of EMIT-Diff's segmenters, stride 2 between them
DIVISOR = 32  # of both sides of an image that any of these networks takes


def unet(classes: int) -> torch.nn.Module:
    """MONAI UNet, channels 16 to 256, batch norm, no residual units: 1.2 M parameters, the quickest."""
    from monai.networks.nets import UNet

    return UNet(2, 3, classes, CHANNELS, (2,) * (len(CHANNELS) - 1), norm="batch")


def residual_unet(classes: int) -> torch.nn.Module:
    """MONAI UNet with two convolutions and a shortcut a level, channels 16 to 256: 2.6 M parameters."""
    from monai.networks.nets import UNet

    return UNet(2, 3, classes, CHANNELS, (2,) * (len(CHANNELS) - 1), num_res_units=2, norm="batch")


def attention_unet(classes: int) -> torch.nn.Module:
    """MONAI AttentionUnet as in EMIT-Diff, channels 16 to 256: 2.7 M parameters, six times as slow as unet."""
    from monai.networks.nets import AttentionUnet

    return AttentionUnet(2, 3, classes, CHANNELS, (2,) * (len(CHANNELS) - 1))


NETWORKS = {"unet": unet, "residual-unet": residual_unet, "attention-unet": attention_unet}


def check_network(name: str) -> None:
    """Raises EmitDiffError for a name that is not in NETWORKS."""
    if name not in NETWORKS:
        raise EmitDiffError(f"There is no network called '{name}': choose one of {', '.join(NETWORKS)}.")


def build_network(name: str, classes: int, seed: int = 0) -> torch.nn.Module:
    """A network from float (B, 3, H, W) to logits (B, classes, H, W), H and W multiples of 32; weights from `seed`.

    Raises:
        EmitDiffError: a name that is not in NETWORKS.
    """
    check_network(name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NETWORKS[name](classes)
