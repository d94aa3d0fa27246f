"""Training the embedded segmenter: a diffusion backbone without labels, then words and masks and the backbone along."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from emitdiff.datasets import open_dataset, split_by_group
from emitdiff.errors import EmitDiffError
from emitdiff.images import image_to_tensor, resize_image
from emitdiff.segmentation.backbone import build_scheduler, export_backbone, train_backbone
from emitdiff.segmentation.examples import LabelledImage, read_labelled, taught
from emitdiff.segmentation.features import load_features, working_size
from emitdiff.segmentation.head_training import train_head
from emitdiff.segmentation.presence import Scenes, signature
from emitdiff.segmentation.presence_training import train_presence
from emitdiff.segmentation.targets import home_of

SCENE_IMAGES = 36  # of each dataset, to learn what its kind of image looks like
BACKBONE_SHARE = 0.25  # of the minutes, where all stages are trained
PRESENCE_SHARE = 0.05  # of the head's minutes


@dataclass(frozen=True)
class TrainSegmentation:
    """`minutes` are shared between the stages. "backbone" learns without labels; "joint" begins with the backbone in
    `out`/checkpoint and teaches it along with words and masks; "all" is the one, then the other; "head" leaves that
    backbone as it is, as the paper does. Training again into the same `out` goes on where it stopped.

    `batch` images at full resolution are seen at once, four times as many of half the side.
    """

    datasets: tuple[Path, ...]
    out: Path
    minutes: float = 60.0
    stage: Literal["all", "backbone", "head", "joint"] = "all"
    resolution: int = 256
    held_out: float = 0.2
    seed: int = 0
    threads: int | None = None
    batch: int = 5
    timesteps: tuple[int, ...] = (20,)


def train_segmentation(settings: TrainSegmentation) -> Path:
    """Train on the groups of `settings.datasets` that are not held out; returns the checkpoint folder.

    Raises EmitDiffError when a dataset cannot be read or labels nothing the head can be taught, and for a
    resolution that cannot be used.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if settings.resolution < 64 or settings.resolution % 64:
        raise EmitDiffError(f"A resolution of {settings.resolution} was given: it must be a multiple of 64.")
    from emitdiff.devices import choose_device

    device, out = choose_device(), Path(settings.out)
    train = [split_by_group(open_dataset(folder), settings.held_out, settings.seed)[0] for folder in settings.datasets]
    for dataset in train:
        if settings.stage != "backbone" and not any(dataset.info.labels.values()):
            raise EmitDiffError(
                f"'{dataset.info.name}' labels nothing but background: name what its masks show under \"labels\" in "
                "dataset.json, leave it out, or use --stage backbone."
            )
    sets = read_labelled(train, settings.resolution)
    share = {"all": BACKBONE_SHARE, "backbone": 1.0}.get(settings.stage, 0.0)
    checkpoint = out / "checkpoint"
    if share:
        images = [labelled.image for images in sets for labelled in images]
        unet = train_backbone(images, out / "backbone", settings.minutes * share, settings.resolution, settings.seed,
                              device=device)  # fmt: skip
        export_backbone(unet, build_scheduler(), checkpoint / "backbone")
    if share < 1:
        joint = settings.stage != "head"
        minutes = settings.minutes * (1 - share)
        train_head(sets, settings, checkpoint, minutes * (1 - PRESENCE_SHARE), device, joint)
        train_presence(sets, settings, checkpoint, minutes * PRESENCE_SHARE, device)
        learn_scenes(sets, settings, checkpoint, device)
    record = {"settings": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()
                           if k not in ("datasets", "out")},
              "datasets": [{**asdict(d.info), "images": len(d), "groups": len(set(d.groups))} for d in train],
              "split": {"rule": "split_by_group", "held_out": settings.held_out, "seed": settings.seed},
              "targets": taught(sets)}  # fmt: skip
    (checkpoint / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    return checkpoint


def learn_scenes(sets: list[list[LabelledImage]], settings: TrainSegmentation, checkpoint: Path,
                 device: torch.device) -> None:  # fmt: skip
    """scenes.safetensors: what kinds of image the head was taught on look like; none where it is a single kind."""
    features = load_features(checkpoint / "backbone", None, settings.timesteps, settings.seed).to(device)
    rng = np.random.default_rng(settings.seed)
    signatures: dict[str, list[torch.Tensor]] = {}
    for images in tqdm(sets, desc="scenes", unit="set"):
        scene = home_of(images[0].info)
        for index in rng.permutation(len(images))[:SCENE_IMAGES]:
            image = images[index].image
            small = resize_image(image, working_size(image.shape[:2], settings.resolution))
            seen = signature(features(image_to_tensor(small).to(device)), features.place)
            signatures.setdefault(scene, []).append(seen)
    if len(signatures) > 1:
        Scenes.learnt_from(signatures).save(checkpoint / "scenes.safetensors")
