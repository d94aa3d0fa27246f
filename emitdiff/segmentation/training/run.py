"""Training the embedded segmenter: a diffusion backbone without labels, then words and masks and the backbone along."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from emitdiff.checkpoints import find_checkpoint, local_folder
from emitdiff.checksums import CHECKSUMS, write_checksums
from emitdiff.datasets.fingerprint import HASHES, check_hashes, dataset_sha256
from emitdiff.datasets.folder import DatasetFolder, open_dataset
from emitdiff.datasets.splits import split_by_group
from emitdiff.errors import EmitDiffError
from emitdiff.files import begin_record, check_output_folder, check_record, read_record, write_text
from emitdiff.images import image_to_tensor, resize_image
from emitdiff.segmentation.model.features import load_features, working_size
from emitdiff.segmentation.model.presence import ImageKindClassifier, signature
from emitdiff.segmentation.training.backbone import build_scheduler, export_backbone, train_backbone
from emitdiff.segmentation.training.calibration import calibrate_presence
from emitdiff.segmentation.training.examples import LabelledImage, read_labelled, trained_phrases, view_elsewhere
from emitdiff.segmentation.training.head import train_head
from emitdiff.segmentation.training.presence import train_presence
from emitdiff.segmentation.training.settings import TrainSegmentation
from emitdiff.segmentation.training.statistics import estimate_statistics
from emitdiff.segmentation.vocabulary import image_kind_name

START_RECORD = "begun.json"  # beside the state of a stage: what it was started with
# by which a run knows its folder
RUN_MARKERS = (f"backbone/{START_RECORD}", "backbone/state.pt", "checkpoint/backbone")
IMAGES_PER_KIND = 36  # of each dataset, to learn what its image kind looks like
START_PARTS = ("backbone", "text", "head")  # of a checkpoint that training goes on from
BACKBONE_SHARE = 0.25  # of the minutes, where all stages are trained
PRESENCE_SHARE = 0.05  # of the head's minutes


def train_segmentation(settings: TrainSegmentation) -> Path:
    """Train on the groups of `settings.datasets` that are not held out; returns the checkpoint folder.

    Raises EmitDiffError when a dataset cannot be read or has no labels to train on, for a resolution that
    cannot be used, for an `out` that holds something else, lies in a dataset, was started with other settings or
    has a head already where the backbone alone is to learn, and for weights to start from that are no segmenter or held
    out other groups.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if settings.resolution < 64 or settings.resolution % 64:
        raise EmitDiffError(f"A resolution of {settings.resolution} was given: it must be a multiple of 64.")
    check_output_folder(settings.out, RUN_MARKERS, settings.datasets)
    start = None if settings.start is None else starting_weights(settings)
    from emitdiff.devices import choose_device

    device, out = choose_device(), Path(settings.out)
    train = [split_by_group(open_dataset(folder), settings.held_out, settings.seed)[0] for folder in settings.datasets]
    for dataset in train:
        if settings.stage != "backbone" and not any(dataset.info.labels.values()):
            raise EmitDiffError(
                f"'{dataset.info.name}' labels nothing but background: name what its masks show under \"labels\" in "
                "dataset.json, leave it out, or use --stage backbone."
            )
    checkpoint, records = out / "checkpoint", _stages(settings, train)
    for stage, record in records.items():
        check_record(out / stage / START_RECORD, record, out)
    if settings.stage == "backbone" and (out / "head" / "state.pt").exists():
        raise EmitDiffError(
            f"{out} holds a head that reads its backbone and would not fit another: give another --out for a backbone "
            "of its own, or go on with the --stage that the head was started with."
        )
    if start is not None and not (out / "head" / "state.pt").exists():
        for part in START_PARTS:
            shutil.copytree(start / part, checkpoint / part, dirs_exist_ok=True)
    if "backbone" not in records:
        load_features(checkpoint / "backbone", None, settings.timesteps, settings.seed)  # says so where there is none
    for stage in records:
        check_hashes(out / stage / HASHES, out, {}, train)
    (checkpoint / CHECKSUMS).unlink(missing_ok=True)  # until all is written again
    sets = read_labelled(train, settings.resolution)
    share = {"all": BACKBONE_SHARE, "backbone": 1.0}.get(settings.stage, 0.0) if start is None else 0.0
    if share:
        begin_record(out / "backbone" / START_RECORD, records["backbone"], out)
        images = [labelled.image for images in sets for labelled in images]
        unet = train_backbone(images, out / "backbone", settings.minutes * share, settings.resolution, settings.seed,
                              device=device)  # fmt: skip
        export_backbone(unet, build_scheduler(), checkpoint / "backbone")
    if share < 1:
        begin_record(out / "head" / START_RECORD, records["head"], out)
        joint = settings.stage != "head"
        minutes = settings.minutes * (1 - share)
        train_head(sets, settings, checkpoint, minutes * (1 - PRESENCE_SHARE), device, joint)
        estimate_statistics(sets, settings, checkpoint, device)
        train_presence(sets, settings, checkpoint, minutes * PRESENCE_SHARE, device)
        train_image_kinds(sets, settings, checkpoint, device)
        calibrate_presence(sets, checkpoint, settings.seed, str(device))
    _write_record(settings, train, sets)
    write_checksums(checkpoint)
    return checkpoint


def starting_weights(settings: TrainSegmentation) -> Path:
    """The folder of the checkpoint that `settings` start from.

    Raises EmitDiffError where it is no segmenter with a head, where only a backbone is to learn, and where it held out
    other groups: it has seen what these settings would measure it on.
    """
    folder = local_folder(find_checkpoint(str(settings.start), "segmentation"))
    missing = [part for part in START_PARTS if not (folder / part).is_dir()]
    if missing:
        raise EmitDiffError(f"{folder} has no {', '.join(missing)}: give --from a segmenter that has both parts.")
    if settings.stage == "backbone":
        raise EmitDiffError("--from goes on from a segmenter: give --stage joint, or head to leave its backbone alone.")
    split = read_record(folder / "training.json", folder)
    split = (split or {}).get("split", {})
    given, kept = (settings.held_out, settings.seed), (split.get("held_out"), split.get("seed"))
    if split and given != kept:
        raise EmitDiffError(
            f"{settings.start} held out {kept[0]} of the groups with seed {kept[1]}, now {given[0]} with seed "
            f"{given[1]}: it has learnt from groups that these would hold out. Give the same seed, or leave out --from."
        )
    return folder


def _stages(settings: TrainSegmentation, train: list[DatasetFolder]) -> dict[str, dict]:
    """What the backbone and the head depend on, of those that `settings.stage` trains: started with other settings, two
    models would be mixed, and held-out images with training."""
    common = {"datasets": sorted(dataset.info.name for dataset in train), "held_out": settings.held_out,
              "resolution": settings.resolution, "seed": settings.seed}  # fmt: skip
    head = {**common, "stage": "head" if settings.stage == "head" else "joint", "timesteps": settings.timesteps,
            "start": settings.start}  # fmt: skip
    backbone = {"backbone": common} if settings.start is None and settings.stage in ("all", "backbone") else {}
    return backbone if settings.stage == "backbone" else {**backbone, "head": head}


def _write_record(settings: TrainSegmentation, train: list[DatasetFolder], sets: list[list[LabelledImage]]) -> None:
    """checkpoint/training.json: what the stage trained last learnt from, and under "backbone" what that was started
    with."""
    out = Path(settings.out)
    path = out / "checkpoint" / "training.json"
    record: dict[str, Any] = {"settings": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()
                           if k not in ("datasets", "out")},
              "datasets": [{**asdict(d.info), "images": len(d), "groups": len(set(d.groups)),
                            "sha256": dataset_sha256(d)} for d in train],
              "split": {"rule": "split_by_group", "held_out": settings.held_out, "seed": settings.seed},
              "targets": trained_phrases(sets)}  # fmt: skip
    if settings.start is not None:  # not where it lay on the machine that trained it
        record["settings"]["start"] = Path(settings.start).name
    record["backbone"] = read_record(out / "backbone" / START_RECORD, out)
    write_text(path, json.dumps(record, indent=1) + "\n")


def train_image_kinds(sets: list[list[LabelledImage]], settings: TrainSegmentation, checkpoint: Path,
                 device: torch.device) -> None:  # fmt: skip
    """scenes.safetensors: what image kinds the head was trained on look like, here and elsewhere; none where it is a
    single kind."""
    features = load_features(checkpoint / "backbone", None, settings.timesteps, settings.seed).to(device)
    rng = np.random.default_rng(settings.seed)
    signatures: dict[str, list[torch.Tensor]] = {}
    for images in tqdm(sets, desc="scenes", unit="set"):
        kind = image_kind_name(images[0].info)
        for index in rng.permutation(len(images))[:IMAGES_PER_KIND]:
            own, elsewhere = images[index], view_elsewhere(images[index], settings.resolution, rng)
            for image in (own.image, elsewhere.image):
                small = resize_image(image, working_size(image.shape[:2], settings.resolution))
                found = signature(features(image_to_tensor(small).to(device)), features.with_coordinates)
                signatures.setdefault(kind, []).append(found)
    if len(signatures) > 1:
        ImageKindClassifier.fit(signatures).save(checkpoint / "scenes.safetensors")
