"""The commands of generating: synthesize, edges, train-synthesis, evaluate-synthesis."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from emitdiff.commands.arguments import (
    PARENT_HELP,
    SEGMENTATION_WEIGHTS_HELP,
    ControlStrength,
    Count,
    Datasets,
    Detector,
    GuidanceScale,
    Image,
    JsonLines,
    MaskFile,
    OptionalImage,
    Output,
    OwnDetector,
    OwnPrecision,
    PresetName,
    SamplingSteps,
    Size,
    Slice,
    Split,
    Strength,
    SynthesisWeights,
    Threads,
    TimePoint,
    WindowOption,
)
from emitdiff.commands.io import (
    MANIFEST,
    backbone_features,
    label_predictor_for,
    load,
    output_folder,
    read_json,
    read_manifest_entries,
    read_size,
    read_slice,
    read_source,
    require_datasets,
    say,
    say_edges,
    show_sampling,
    unused_path,
    write_json,
    write_label,
    write_png,
)
from emitdiff.errors import EmitDiffError
from emitdiff.files import check_writable, locked
from emitdiff.synthesis_settings import MaskEdit, SynthesisSettings

# Options of train-synthesis that only the fine-tuning of a ControlNet knows.
FINETUNING = (
    "steps", "gradient_accumulation", "learning_rate", "mixed_precision", "gradient_checkpointing", "ema"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Synthesize:
    """Generate synthetic images that keep the edges of one image, so that its mask remains their label."""

    image: OptionalImage = None
    prompt: str  # Text prompt, e.g. "ultrasound, breast, benign".
    out: Output  # Folder for the images, the mask and manifest.json.
    mask: MaskFile = None
    num_images: Annotated[int, arg(aliases=["-n"])] = 4  # How many images; image i uses seed + i.
    seed: int = 0  # Random seed.
    negative_prompt: str = ""  # What to avoid.
    structure: float = 1.0  # 1: all edges, 0.5: mask only, 0: text only, no image needed.
    size: Size = None
    # Shift the mask right and down, in image sizes.
    move: Annotated[tuple[float, float], arg(metavar="X Y")] = (0.0, 0.0)
    scale: float = 1.0  # Scale the mask about its centre; all four edits change its edges too.
    rotate: float = 0.0  # Rotate the mask, degrees anticlockwise.
    deform: float = 0.0  # Strength of a smooth deformation, 0 to 1; the edited mask is saved.
    deform_seed: int = 0  # Seed of the deformation.
    preset: PresetName = "default"
    steps: SamplingSteps = None
    guidance: GuidanceScale = None
    control_strength: ControlStrength = None
    detector: OwnDetector = None  # Edge detector; default: the one the checkpoint was trained with.
    checkpoint: SynthesisWeights = "emitdiff-mini"
    slice: Slice = None
    time_point: TimePoint = None
    window: WindowOption = None

    def run(self) -> int:
        from emitdiff.provenance import manifest_entry, save_synthetic_png, synthetic_manifest
        from emitdiff.synthesis.mask_edits import edit_mask

        if self.size is not None and (self.image or self.mask):
            raise EmitDiffError(
                f"--size {self.size} is for text-only generation: other images have the size of their source."
            )
        stem, index, image, mask, warnings = read_source(
            self.image, self.mask, self.slice, self.window, self.time_point, self.prompt if self.structure else ""
        )
        settings = self._settings()
        pipeline = load("load_synthesizer", self.checkpoint)
        if warning := pipeline.prompt_warning(self.prompt):
            say(warning)
        images = pipeline.stream(image, mask, settings)
        source = {"source": stem, "slice": index, "window": self.window, "warnings": list(warnings)}
        source |= {} if self.time_point is None else {"time_point": self.time_point}
        folder = output_folder(self.out, self.image, self.mask)
        check_writable(folder)
        read_manifest_entries(folder)  # what another program wrote there is told now
        label = None
        if (
            mask is not None and settings.edit is not None and self.structure > 0
        ):  # what is generated freely follows no mask
            label = write_label(folder, stem, edit_mask(mask, settings.edit)).name
        said = False
        for result in show_sampling(images, self.num_images):
            said = said or say_edges(result.settings.get("edge_weights"))
            result = replace(result, settings={**source, **result.settings, "mask": label})
            with locked(folder, wait=True):  # for others that generate into it at the same time
                entries = read_manifest_entries(folder)
                path = unused_path(folder, f"synthetic_{stem}_{result.seed}", result.settings, entries)
                save_synthetic_png(result.image, path, result.settings)
                entries[path.name] = manifest_entry(result, path.name, label)
                sources = sorted({str(entry["settings"].get("source")) for entry in entries.values()})
                manifest = synthetic_manifest(", ".join(sources), list(entries.values()))
                write_json(folder / MANIFEST, manifest)  # each time: a stop loses nothing
        print(f"{self.num_images} synthetic images and {MANIFEST} are in {folder}")
        return 0

    def _settings(self) -> SynthesisSettings:
        return SynthesisSettings(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            num_images=self.num_images,
            seed=self.seed,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            controlnet_conditioning_scale=self.control_strength,
            detector=self.detector,
            structure=self.structure,
            edit=MaskEdit(*self.move, self.scale, self.rotate, self.deform, self.deform_seed),
            preset=self.preset,
            size=read_size(self.size),
        )


@dataclass(frozen=True)
class Edges:
    """Write the edges of one image, with the boundary of its mask where one is given."""

    image: Image
    out: Output  # Folder for edges_NAME.png.
    mask: MaskFile = None
    detector: Detector = "soft"  # Edge detector; hed is the original where convert-hed put it, else hed-mini.
    slice: Slice = None
    time_point: TimePoint = None
    window: WindowOption = None

    def run(self) -> int:
        from emitdiff.files import file_stem
        from emitdiff.scans.masks import read_slice_mask
        from emitdiff.synthesis.edges import control_image, detect_edges
        from emitdiff.synthesis.hed.weights import edge_weights

        scan, index, image = read_slice(self.image, self.slice, self.window, self.time_point)
        mask = None if self.mask is None else read_slice_mask(self.mask, scan, index)
        say_edges(edge_weights(self.detector))
        edges = control_image(detect_edges(image, self.detector), mask, boundary=mask is not None, layout="joined")
        folder = output_folder(self.out, self.image, self.mask)
        print(write_png(folder / f"edges_{file_stem(scan.name)}.png", edges))
        return 0


Stage = Literal["all", "autoencoder", "grain", "unet", "controlnet", "networks"]


@dataclass(frozen=True)
class TrainSynthesis:
    """Train a synthesis checkpoint on dataset folders, from scratch or from another checkpoint; a rerun resumes.

    With --from NAME --train networks the autoencoder and its grain stay, all else learns on. With --from NAME --train
    controlnet only the ControlNet learns (the paper's second stage), also that of Stable Diffusion, and `accelerate
    launch -m emitdiff train-synthesis ...` spreads the work over several GPUs.
    """

    datasets: Datasets
    out: Output  # Folder for the checkpoint, in diffusers layout.
    start: Annotated[str | None, arg(name="from", metavar="NAME", help=PARENT_HELP, help_behavior_hint="")] = None
    # Which part to train.
    train: Annotated[Stage, arg(aliases=["--stage"])] = "all"
    resolution: Count = None  # Side of the training images, a multiple of 64; default: the checkpoint's, else 256.
    minutes: Strength = None  # Training time of all stages; default without --steps: 60.
    seed: int = 0  # Seed of data order and weight initialization.
    threads: Threads = None
    held_out: Strength = None  # Fraction of each dataset's groups held out; default: that of --from, else 0.2.
    batch: Count = None  # Images of a step, of each process where several train; default: 4.
    workers: Count = None  # Processes that make training views while a GPU trains; not for fine-tuning; default: 0.
    # The following need --from NAME --train controlnet.
    steps: Count = None  # Optimizer steps, instead of --minutes.
    gradient_accumulation: Count = None  # Gradient accumulation steps; default: 1.
    # Constant learning rate; default: 1e-6 (the paper's) for Stable Diffusion, else 5e-5.
    learning_rate: Strength = None
    mixed_precision: OwnPrecision = None  # Default: chosen for the device.
    gradient_checkpointing: bool = False  # Less memory, more time.
    ema: bool = True  # Save the final weights instead of their moving average.

    def run(self) -> int:
        require_datasets(self.datasets)
        tunes = self.start is not None and self.train == "controlnet"
        folder = self._finetune() if tunes else self._train()
        if os.environ.get("RANK", "0") == "0":  # one voice for all that `accelerate launch` started
            print(f"The checkpoint is in {folder}")
        return 0

    def _finetune(self) -> Path:
        from emitdiff.synthesis.finetuning.run import FinetuneControlnet, finetune_controlnet

        if self.workers is not None:
            raise EmitDiffError("--workers does not go with --from NAME --train controlnet: leave it out.")
        given = {name: value for name, value in vars(self).items() if name != "train" and value is not None}
        return finetune_controlnet(FinetuneControlnet(**given))

    def _train(self) -> Path:
        for name in FINETUNING:
            if (value := getattr(self, name)) is not None and value != self.__dataclass_fields__[name].default:
                flag = "no-ema" if name == "ema" else name.replace("_", "-")
                raise EmitDiffError(f"--{flag} is for fine-tuning only: give --from NAME --train controlnet as well.")
        from emitdiff.synthesis.training.run import TrainSynthesis as Settings
        from emitdiff.synthesis.training.run import train_synthesis

        folder, side, share = (None, 256, 0.2) if self.start is None else _folder_to_inherit(self.start, self.train)
        own = {name: getattr(self, name) for name in ("datasets", "out", "seed", "threads")}
        held_out, minutes = share if self.held_out is None else self.held_out, self.minutes or 60.0
        if folder and held_out > share:
            say(f"{self.start} kept only {share:g} of the groups aside: it may have learnt others now held out.")
        return train_synthesis(
            Settings(
                **own, stage=self.train, resolution=self.resolution or side, minutes=minutes, held_out=held_out,
                start=folder, batch=4 if self.batch is None else self.batch, workers=self.workers or 0,
            )
        )  # fmt: skip


@dataclass(frozen=True)
class EvaluateSynthesis:
    """Evaluate synthetic images against their sources: edges, similarity, diversity, speed; or the effect of prompts.

    And do they look real? spectrum_mid_db and spectrum_high_db: their power at 16 to 64 and 64 to 128 cycles an image
    against the source's (0 dB: as much grain). kid: a kernel distance of the sets in the features of textdiff-mini's
    backbone (0: as real ones). two_sample_accuracy: how often a small network tells their squares of 64 pixels from
    real ones (0.5: it cannot). The same, with autoencoder_ in front, for sources only encoded and decoded.
    """

    datasets: Datasets
    checkpoint: SynthesisWeights = "emitdiff-mini"
    # Evaluate prompt adherence instead: image kinds and appearance words; needs several datasets.
    prompts: bool = False
    split: Split = "all"  # held-out: only the fifth of the groups not used for training, as always with --prompts.
    limit: Count = None  # Maximum number of images; with --prompts per dataset, 4 if not given.
    seed: int = 0  # Seed of the generated images.
    steps: SamplingSteps = None
    guidance: GuidanceScale = None
    segmenter: Annotated[
        str, arg(metavar="NAME", help=f"Segments generated and real images: {SEGMENTATION_WEIGHTS_HELP}")
    ] = "none"
    json: JsonLines = False

    def run(self) -> int:
        require_datasets(self.datasets)
        settings = {
            name: value for name, value in vars(self).items() if name not in ("datasets", "prompts", "segmenter")
        }
        if self.prompts:
            if self.segmenter != "none":
                raise EmitDiffError("--segmenter is not asked with --prompts; leave one of them out.")
            from emitdiff.studies.prompts import EvaluatePrompts, evaluate_prompts

            del settings["split"]
            evaluate_prompts(EvaluatePrompts(self.datasets, **{**settings, "limit": self.limit or 4}))
            return 0
        from emitdiff.synthesis.evaluation import EvaluateSynthesis as Settings
        from emitdiff.synthesis.evaluation import evaluate_synthesis

        for dataset in self.datasets:
            asked = label_predictor_for(self.segmenter, dataset)  # opens the dataset, before any weights are loaded
            evaluate_synthesis(Settings(dataset, **settings), asked, backbone_features())
        return 0


def _folder_to_inherit(name: str, train: str) -> tuple[Path, int, float]:
    """The folder of a checkpoint all of whose networks can be trained further, the side of its images in pixels, and
    the part of the groups that it held out: fewer, and what it learnt would be measured as if it had not."""
    from emitdiff.checkpoints import find_checkpoint, local_folder

    if train == "unet":
        raise EmitDiffError("With --from, the U-Net learns beside its ControlNet: give --train all.")
    found = find_checkpoint(name, "synthesis")
    index = {} if found.controlnet else read_json(local_folder(found) / "model_index.json")
    if index.get("vae", ("", ""))[1] != "AutoencoderTiny":
        raise EmitDiffError(
            f"Of {name} only the ControlNet can be trained: add --train controlnet, or leave --from out to train small "
            "networks from scratch."
        )
    card = read_json(local_folder(found) / "emitdiff.json")
    side, training = round(card.get("area", 256**2) ** 0.5), card.get("training", {})
    return local_folder(found), side, training.get("held_out", 0.2)
