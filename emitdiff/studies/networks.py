"""Plain reference segmenters, by name and with random weights: what synthetic images are tried on."""

from __future__ import annotations

from importlib.util import find_spec

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


def swin_unetr(classes: int) -> torch.nn.Module:
    """MONAI SwinUNETR of 24 features: 6.3 M parameters; shifted windows of 7 x 7, so it takes its time."""
    from monai.networks.nets import SwinUNETR

    return SwinUNETR(3, classes, feature_size=24, spatial_dims=2)


NETWORKS = {
    "unet": unet,
    "residual-unet": residual_unet,
    "attention-unet": attention_unet,
    "swin-unetr": swin_unetr,
}


def check_network(name: str) -> None:
    """Raises EmitDiffError for a name that is not in NETWORKS, and for one that needs what is not installed."""
    if name not in NETWORKS:
        raise EmitDiffError(f"There is no network called '{name}': choose one of {', '.join(NETWORKS)}.")
    if name == "swin-unetr" and find_spec("einops") is None:
        raise EmitDiffError(
            "swin-unetr needs the package einops, which is not installed: pip install 'emitdiff[study]'."
        )


def build_network(name: str, classes: int, seed: int = 0) -> torch.nn.Module:
    """A network from float (B, 3, H, W) to logits (B, classes, H, W), H and W multiples of 32; weights from `seed`.

    Raises:
        EmitDiffError: as `check_network`.
    """
    check_network(name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NETWORKS[name](classes)
