"""`python -m emitdiff VERB`: one frozen dataclass per verb, its fields handed on to the function that does the work.

Nothing heavy is imported before a verb runs, so that help is there at once.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from emitdiff.devices import quiet_libraries
from emitdiff.errors import EmitDiffError
from emitdiff.files import make_folder

if TYPE_CHECKING:
    import numpy as np

    from emitdiff.scans import Scan

IMAGE = arg(metavar="IMAGE", help="PNG, JPEG, WebP, TIFF, NIfTI, or DICOM (file, folder or zip).")
MASK = arg(metavar="MASK", help="Its mask, of the slice or the volume; its boundary joins in.", help_behavior_hint="")
SLICE = arg(metavar="INT", help="Slice of a volume, counted from 0; without it, the middle one.", help_behavior_hint="")
WINDOW = arg(metavar="W", help='Grey values: a name ("lung") or WIDTH/LEVEL ("1500/-600").', help_behavior_hint="")
DATASET = arg(metavar="DATASET", help="Dataset folder: dataset.json, metadata.csv, images/, masks/ (see README.md).")
DATASETS = arg(metavar="DATASET [DATASET ...]", help="Dataset folders; see README.md.", help_behavior_hint="(required)")
PAINTER = "emitdiff-mini, sd15-softedge, sd15-hed, sd15-canny, a Hub owner/repo, a folder, or BASE+CONTROLNET."
PARENT = f"A checkpoint to start from: {PAINTER}"
FINDER = "textdiff-mini, a Hub owner/repo, a folder, or the file of a taught head."
READER = "Hub name or folder of the text model, in transformers layout."
SIDES = "Column of metadata.csv that says train or val, instead of a fifth of the groups held out."
COLUMN = "Column of metadata.csv that says train or val, instead of --held-out."

POSITIVE = {"num_images", "steps", "resolution", "minutes", "threads", "limit", "ratio", "seeds", "patch"}
POSITIVE |= {"samples", "batch", "gradient_accumulation", "learning_rate", "images", "validation_images", "epochs"}
POSITIVE |= {"seconds", "test", "draws", "folds", "test_limit"}
# Options of train-synthesis that only the fine-tuning of a ControlNet knows.
FINETUNING = (
    "steps", "batch", "gradient_accumulation", "learning_rate", "mixed_precision", "gradient_checkpointing", "ema"
)  # fmt: skip

Image = Positional[Annotated[Path, IMAGE]]
PerhapsImage = Positional[Annotated[Path | None, IMAGE]]
MaskFile = Annotated[Path | None, MASK]
PRESET = arg(help="The paper's settings or its released code's; what is given beside it wins.")
Preset = Annotated[Literal["default", "paper", "released"], PRESET]
Size = Annotated[str | None, arg(metavar="HxW", help="Size to paint at without image and mask.", help_behavior_hint="")]
Slice = Annotated[int | None, SLICE]
GreyWindow = Annotated[str | None, WINDOW]
Dataset = Positional[Annotated[Path, DATASET]]
Datasets = Positional[Annotated[tuple[Path, ...], DATASETS]]
Output = Annotated[Path, arg(aliases=["-o"], metavar="DIR")]
Count = Annotated[int | None, arg(metavar="INT", help_behavior_hint="")]
Strength = Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="")]
Detector = Literal["soft", "canny", "hed"]
OwnDetector = Annotated[Detector | None, arg(metavar="{soft,canny,hed}", help_behavior_hint="")]
SynthesisWeights = Annotated[str, arg(metavar="NAME", help=PAINTER)]
SegmentationWeights = Annotated[str, arg(metavar="NAME", help=FINDER)]
Text = Literal["own", "none", "shuffled", "all"]
Precision = Literal["no", "fp16", "bf16"]
OwnPrecision = Annotated[Precision | None, arg(metavar="{no,fp16,bf16}", help_behavior_hint="")]
Split = Literal["all", "held-out", "train"]
Network = Literal["unet", "attention-unet"]
Mix = Literal["inputs", "logits", "pool"]
Folder = Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")]
BACKBONE = arg(metavar="DIR", help="Another one: a folder that convert-adm wrote.", help_behavior_hint="")
Backbone = Annotated[Path | None, BACKBONE]
NewFolder = Positional[Annotated[Path, arg(metavar="OUT", help="Folder to write; it must not hold anything else.")]]


@dataclass(frozen=True, kw_only=True)
class Synthesize:
    """Paint synthetic images that keep the edges of one image, so that its mask stays their label."""

    image: PerhapsImage = None
    prompt: str  # What to paint, e.g. "ultrasound, breast, benign".
    out: Output  # Folder for the images, the mask and manifest.json.
    mask: MaskFile = None
    num_images: Annotated[int, arg(aliases=["-n"])] = 4  # How many images; image i uses seed + i.
    seed: int = 0  # The same seed gives the same images.
    negative_prompt: str = ""  # What to keep away from.
    structure: float = 1.0  # 1 follows every edge, 0.5 only the mask, 0 is free: text alone, no image needed.
    size: Size = None
    move: Annotated[tuple[float, float], arg(metavar="X Y")] = (0.0, 0.0)  # Move the mask right and down; 1: the image.
    scale: float = 1.0  # Scale the mask about its middle; its edges go along, like with the three others.
    rotate: float = 0.0  # Turn it, in degrees anticlockwise.
    deform: float = 0.0  # Deform it smoothly, from 0 to 1; written is the mask that results.
    deform_seed: int = 0  # Another seed, another deformation.
    preset: Preset = "default"
    steps: Count = None  # Sampling steps; without it, what suits the checkpoint, like the two below.
    guidance: Strength = None  # How strongly the prompt counts.
    control_strength: Strength = None  # How strongly the edges count.
    detector: OwnDetector = None  # Edge detector; without it, the one the checkpoint was taught with.
    checkpoint: SynthesisWeights = "emitdiff-mini"
    slice: Slice = None
    window: GreyWindow = None

    def run(self) -> int:
        from emitdiff.images import manifest_entry, save_synthetic_png, synthetic_manifest
        from emitdiff.synthesis.mask_edits import MaskEdit, edit_mask

        if self.size is not None and (self.image or self.mask):
            raise EmitDiffError(f"--size {self.size} is for text alone: images get the size of their source.")
        stem, index, image, mask = _read_source(self.image, self.mask, self.slice, self.window)
        edit = MaskEdit(*self.move, self.scale, self.rotate, self.deform, self.deform_seed)
        size = _read_size(self.size)
        pipeline = _load("load_synthesizer", self.checkpoint)
        if warning := pipeline.prompt_warning(self.prompt):
            _say(warning)
        images = pipeline.stream(
            image,
            mask,
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            num_images=self.num_images,
            seed=self.seed,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            controlnet_conditioning_scale=self.control_strength,
            detector=self.detector,
            structure=self.structure,
            edit=edit,
            preset=self.preset,
            size=size,
        )
        source = {"source": stem, "slice": index, "window": self.window}
        folder = _output_folder(self.out, self.image, self.mask)
        label = None
        if mask is not None and self.structure > 0:  # what is painted freely follows no mask
            label = _write_png(folder / f"mask_{stem}.png", edit_mask(mask, edit)).name
        entries = []
        for result in _with_progress(images, self.num_images):
            result = replace(result, settings={**source, **result.settings, "mask": label})
            path = save_synthetic_png(result.image, folder / f"synthetic_{stem}_{result.seed}.png", result.settings)
            entries.append(manifest_entry(result, path.name, label))
            _write_json(folder / "manifest.json", synthetic_manifest(stem, entries))  # each time: a stop loses nothing
        print(f"{len(entries)} synthetic images and manifest.json are in {folder}")
        return 0


@dataclass(frozen=True)
class Segment:
    """Find what a sentence names in one image; writes mask, overlay, probability map and a JSON file."""

    image: Image
    text: str  # What to look for, e.g. "left lung".
    out: Output  # Folder for the results; the mask has the size and geometry of the source.
    threshold: float = 0.5  # Probability from which a pixel belongs to the target, between 0 and 1.
    checkpoint: SegmentationWeights = "textdiff-mini"
    slice: Slice = None
    window: GreyWindow = None

    def run(self) -> int:
        import numpy as np

        from emitdiff.images import file_stem, overlay

        scan, index, image = _read_slice(self.image, self.slice, self.window)
        result = _load("load_segmenter", self.checkpoint)(image, self.text, threshold=self.threshold)
        for warning in result.warnings:
            _say(warning)
        folder, stem = _output_folder(self.out, self.image), file_stem(scan.name)
        maps = {"probability": result.probability, "uncertainty": result.uncertainty}
        files = {
            "mask": scan.save_mask({index: result.mask}, folder).name,
            "overlay": _write_png(folder / f"{stem}_overlay.png", overlay(image, result.mask)).name,
            **{
                name: _write_png(folder / f"{stem}_{name}.png", np.rint(values * 255).astype(np.uint8)).name
                for name, values in maps.items()
            },
        }
        record = {
            "image": self.image.name,
            "slice": index,
            "window": self.window,
            "text": self.text,
            "target": result.target,
            "found": bool(result.found),
            "present": round(result.present, 4),
            "pixels": int(result.mask.sum()),
            "threshold": self.threshold,
            "checkpoint": self.checkpoint,
            "seconds": round(result.seconds, 2),
            "warnings": list(result.warnings),
            "files": files,
        }
        _write_json(folder / f"{stem}_segmentation.json", record)
        share = 100 * record["pixels"] / result.mask.size
        answer = f"{share:.1f} % of the image" if result.found else "not found"
        print(f"{result.target or self.text}: {answer}; see {folder}")
        return 0


@dataclass(frozen=True)
class Edges:
    """Write the edges of one image, with the boundary of its mask where one is given."""

    image: Image
    out: Output  # Folder for edges_NAME.png.
    mask: MaskFile = None
    detector: Detector = "soft"  # Edge detector; hed fetches weights from the Hub.
    slice: Slice = None
    window: GreyWindow = None

    def run(self) -> int:
        from emitdiff.images import file_stem
        from emitdiff.scans import read_slice_mask
        from emitdiff.synthesis.edges import control_image, detect_edges

        scan, index, image = _read_slice(self.image, self.slice, self.window)
        mask = None if self.mask is None else read_slice_mask(self.mask, scan, index)
        edges = control_image(detect_edges(image, self.detector), mask, boundary=mask is not None, layout="joined")
        folder = _output_folder(self.out, self.image, self.mask)
        print(_write_png(folder / f"edges_{file_stem(scan.name)}.png", edges))
        return 0


@dataclass(frozen=True)
class TrainSynthesis:
    """Train a synthesis checkpoint on dataset folders, from scratch or from another one; started again, it goes on.

    With --from NAME --train controlnet only the ControlNet learns (the paper's second stage), also that of Stable
    Diffusion, and `accelerate launch -m emitdiff train-synthesis ...` spreads the work over several GPUs.
    """

    datasets: Datasets
    out: Output  # Folder for the checkpoint, in diffusers layout.
    start: Annotated[str | None, arg(name="from", metavar="NAME", help=PARENT, help_behavior_hint="")] = None
    # Which part to train.
    train: Annotated[Literal["all", "autoencoder", "unet", "controlnet"], arg(aliases=["--stage"])] = "all"
    resolution: Count = None  # Side of the training images, a multiple of 64; without it, the checkpoint's, else 256.
    minutes: Strength = None  # Time to train, all stages together; without it and without --steps, 60.
    seed: int = 0  # Seed of the order and of the weights' beginning.
    threads: Count = None  # CPU threads; without it, all.
    held_out: Strength = None  # Part of each dataset's groups kept for measuring; without it, the parent's, else 0.2.
    # From here on only with --from NAME --train controlnet.
    steps: Count = None  # Steps of the optimizer, instead of --minutes.
    batch: Count = None  # Images at once in each process; without it, 4.
    gradient_accumulation: Count = None  # So many batches make one step; without it, 1.
    learning_rate: Strength = None  # Constant; without it, 1e-6 (the paper's) for Stable Diffusion, else 5e-5.
    mixed_precision: OwnPrecision = None  # Without it, what suits the device.
    gradient_checkpointing: bool = False  # Less memory, more time.
    ema: bool = True  # Keep the weights as they are at the end; without it, averaged ones.

    def run(self) -> int:
        _require_datasets(self.datasets)
        tunes = self.start is not None and self.train == "controlnet"
        folder = self._finetune() if tunes else self._train()
        if os.environ.get("RANK", "0") == "0":  # one voice for all that `accelerate launch` started
            print(f"The checkpoint is in {folder}")
        return 0

    def _finetune(self) -> Path:
        from emitdiff.synthesis.finetuning import FinetuneControlnet, finetune_controlnet

        given = {name: value for name, value in vars(self).items() if name != "train" and value is not None}
        return finetune_controlnet(FinetuneControlnet(**given))

    def _train(self) -> Path:
        for name in FINETUNING:
            if (value := getattr(self, name)) is not None and value != self.__dataclass_fields__[name].default:
                flag = "no-ema" if name == "ema" else name.replace("_", "-")
                raise EmitDiffError(f"--{flag} is for fine-tuning only: give --from NAME --train controlnet as well.")
        from emitdiff.synthesis.training import TrainSynthesis as Settings
        from emitdiff.synthesis.training import train_synthesis

        folder, side, share = (None, 256, 0.2) if self.start is None else _folder_to_inherit(self.start, self.train)
        own = {name: getattr(self, name) for name in ("datasets", "out", "seed", "threads")}
        held_out, minutes = share if self.held_out is None else self.held_out, self.minutes or 60.0
        if folder and held_out > share:
            _say(f"{self.start} kept only {share:g} of the groups aside: it may have learnt others now kept out.")
        return train_synthesis(
            Settings(
                **own, stage=self.train, resolution=self.resolution or side, minutes=minutes, held_out=held_out,
                start=folder,
            )
        )  # fmt: skip


@dataclass(frozen=True)
class TrainSegmentation:
    """Train a text-guided segmenter on dataset folders; started again, it goes on. It answers to the labels' names."""

    datasets: Datasets
    out: Output  # Folder for the checkpoint.
    resolution: int = 256  # Side of the training images in pixels, a multiple of 64.
    minutes: float = 60.0  # Time to train, both stages together.
    # backbone: without labels; joint: it learns along with words and masks; head: on the backbone as it is.
    stage: Literal["all", "backbone", "joint", "head"] = "all"
    seed: int = 0  # Seed of the order and of the weights' beginning.
    threads: Count = None  # CPU threads; without it, all.

    def run(self) -> int:
        _require_datasets(self.datasets)
        from emitdiff.segmentation.training import TrainSegmentation as Settings
        from emitdiff.segmentation.training import train_segmentation

        print(f"The checkpoint is in {train_segmentation(Settings(**vars(self)))}")
        return 0


@dataclass(frozen=True)
class EvaluateSynthesis:
    """Measure synthetic images against their sources: edges kept, similarity, variety, speed. Or what words do."""

    datasets: Datasets
    checkpoint: SynthesisWeights = "emitdiff-mini"
    prompts: bool = False  # How often a named kind is recognised, what appearance words move; for several datasets.
    split: Split = "all"  # held-out: only the fifth of the groups that training never sees, as --prompts always does.
    limit: Count = None  # At most so many images; with --prompts, of each dataset, 4 if not given.
    seed: int = 0  # Seed of the images painted.
    steps: Count = None  # Sampling steps; without it, what suits the checkpoint.
    guidance: Strength = None  # How strongly the prompt counts; without it, what suits the checkpoint.
    segmenter: Annotated[str, arg(metavar="NAME", help=f"Asked for the mask, painted and real. {FINDER}")] = "none"
    json: bool = False  # Print one JSON object as the last line, with several datasets one for each.

    def run(self) -> int:
        _require_datasets(self.datasets)
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
        from emitdiff.synthesis.quality import EvaluateSynthesis as Settings
        from emitdiff.synthesis.quality import evaluate_synthesis

        for dataset in self.datasets:
            evaluate_synthesis(Settings(dataset, **settings), _answers(self.segmenter, dataset))
        return 0


@dataclass(frozen=True)
class EvaluateSegmentation:
    """Measure predicted masks against a dataset's own, with its text, without, with shuffled text, or all three."""

    datasets: Datasets
    text: Text = "own"  # own: the row's text or, where it is empty, modality, organ and label name; all: side by side.
    checkpoint: SegmentationWeights = "textdiff-mini"
    split: Split = "all"  # held-out: only the fifth of the groups that training never sees.
    limit: Count = None  # At most so many images.
    threshold: float = 0.5  # Probability from which a pixel belongs to the target, between 0 and 1.
    seed: int = 0  # Seed of the choice of images and of the shuffling.
    json: bool = False  # Print one JSON object as the last line, with several datasets one for each.

    def run(self) -> int:
        _require_datasets(self.datasets)
        from emitdiff.segmentation.metrics import EvaluateSegmentation as Settings
        from emitdiff.segmentation.metrics import evaluate_segmentation

        settings = {name: value for name, value in vars(self).items() if name != "datasets"}
        for dataset in self.datasets:
            evaluate_segmentation(Settings(dataset, **settings))
        return 0


@dataclass(frozen=True)
class ConvertAdm:
    """Make TextDiff's backbone from OpenAI's 256x256_diffusion_uncond.pt: a diffusers folder, about 2.3 GB."""

    source: Positional[Annotated[Path, arg(metavar="FILE", help="256x256_diffusion_uncond.pt as OpenAI published it.")]]
    out: Positional[Annotated[Path, arg(metavar="DIR", help="Folder to make.")]]

    def run(self) -> int:
        from emitdiff.segmentation.adm import ConvertAdm as Settings
        from emitdiff.segmentation.adm import convert_adm

        print(f"The backbone is in {convert_adm(Settings(**vars(self)))}")
        return 0


@dataclass(frozen=True)
class TrainPublished:
    """Train TextDiff's published head on its frozen backbone; started again, it goes on. `segment` takes the folder."""

    dataset: Dataset
    out: Output  # Folder for the head, which --checkpoint then takes.
    backbone: Annotated[Path, arg(metavar="DIR")]  # Folder that convert-adm wrote.
    preset: Literal["monuseg", "qata"] = "monuseg"  # Which of its blocks are read: those of the paper's two data sets.
    settings: Literal["mended", "paper"] = "mended"  # paper: with the slips of the released code (see README.md).
    text_model: Annotated[str, arg(metavar="NAME", help=READER)] = "emilyalsentzer/Bio_ClinicalBERT"
    label: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None  # Label to find, where several are.
    images: Count = None  # Teach with so many images, of as many groups as possible; without it, all.
    held_out: float = 0.2  # Part of the groups kept aside; their Dice chooses the epoch.
    split_column: Annotated[str | None, arg(metavar="NAME", help=COLUMN, help_behavior_hint="")] = None
    validation_images: Count = None  # At most so many of the images kept aside; without it, all.
    epochs: int = 50  # Times every image is seen.
    batch: Count = None  # Images at once; without it, 4, and with the paper's settings 1.
    size: Annotated[str, arg(metavar="HxW")] = "256x256"  # Size the backbone sees, multiples of 32.
    quarter_turns: bool = True  # Mirror images only, where up and down mean something.
    views: int = 0  # So many small rotations of each image, up to 20 degrees, join its mirrors and turns.
    cache: Folder = None  # Folder for the frozen features; without it, OUT/features.
    seed: int = 0  # Seed of the choice of images, their order and the head's beginning.

    def run(self) -> int:
        from emitdiff.segmentation.published_run import TrainPublished as Settings
        from emitdiff.segmentation.published_run import train_published

        folder = train_published(Settings(**{**vars(self), "size": _read_size(self.size)}))
        print(f"The segmenter is in {folder}")
        return 0


@dataclass(frozen=True)
class Teach:
    """Teach a small head from a few labelled images in a minute: one file, which --checkpoint then takes."""

    dataset: Dataset
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE")]  # NAME.safetensors; its card goes beside it as NAME.md.
    images: Count = None  # So many images that show a label, of as many groups as possible; without it, all.
    checkpoint: SegmentationWeights = "textdiff-mini"
    seconds: float = 60.0  # Time to learn in, reading the images apart.
    label: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None  # Only this one; without it, all.
    split: Split = "all"  # train: leave out the fifth of the groups that evaluate-segmentation calls held-out.
    seed: int = 0  # Seed of the choice of images, their variations and the head's beginning.

    def run(self) -> int:
        from emitdiff.segmentation.taught import file_name
        from emitdiff.segmentation.teaching import Teach as Settings
        from emitdiff.segmentation.teaching import teach

        out, settings = file_name(self.out), Settings(self.seconds, self.label, self.checkpoint, self.seed)
        dataset = self._examples()
        pipeline = _load("load_segmenter", self.checkpoint)
        last = _followed(teach(pipeline, list(dataset), dataset.info, settings))
        last.head.save(out)
        seen = "" if last.dice is None else f", Dice {last.dice:.2f} on an image not learnt from by then"
        print(f"{', '.join(last.head.card['targets'])}: {last.steps} steps in {last.seconds:.0f} s{seen}; see {out}")
        return 0

    def _examples(self) -> Any:
        """The rows of the dataset to teach from."""
        from emitdiff.datasets import choose_rows, open_dataset
        from emitdiff.segmentation.questions import labels_to_teach
        from emitdiff.studies.splits import draw_labelled

        dataset = choose_rows(open_dataset(self.dataset).real(), self.split)
        wanted = replace(dataset.info, labels=labels_to_teach(dataset.info, self.label))
        if self.images is None:
            return dataset
        return replace(draw_labelled(replace(dataset, info=wanted), self.images, self.seed), info=dataset.info)


@dataclass(frozen=True)
class CheckDataset:
    """Count the classes of a dataset folder and list every defect; exit status 1 where there are any."""

    folder: Dataset

    def run(self) -> int:
        from emitdiff.dataset_check import check_dataset

        report = check_dataset(self.folder)
        print(report)
        return 0 if report.ok else 1


@dataclass(frozen=True)
class Augment:
    """Paint a dataset folder of synthetic images from a real one; started again, it goes on where it stopped.

    Under `accelerate launch -m emitdiff augment ...` each process paints its share.
    """

    dataset: Dataset
    out: NewFolder
    ratio: float = 1.0  # Synthetic images per real one; 0.5 paints one from every other image.
    checkpoint: SynthesisWeights = "emitdiff-mini"
    split: Split = "all"  # train: leave out the fifth of the groups that training never sees; held-out: only that.
    limit: Count = None  # At most so many real images.
    seed: int = 0  # Every image and variant gets a seed of its own from this one.
    steps: Count = None  # Sampling steps; without it, what suits the checkpoint or preset, like the two below.
    guidance: Strength = None  # How strongly the prompt counts.
    control_strength: Strength = None  # How strongly the edges count.
    structure: float = 1.0  # 1 follows every edge, 0.5 only the mask.
    preset: Preset = "default"
    edit: float = 0.0  # Move, turn, scale and deform mask and edges at random: strength from 0 (not) to 1.
    appearance: bool = False  # Draw appearance words, like "dark" or "noisy", into each prompt.
    include_real: bool = False  # Copy the real images into OUT too.

    def run(self) -> int:
        from emitdiff.synthesis.augmentation import Augment as Settings
        from emitdiff.synthesis.augmentation import augment

        written = augment(Settings(**vars(self)))
        if written is not None:
            painted = sum(bool(row["provenance"]) for row in written.rows)
            print(f"{painted} synthetic and {len(written) - painted} real images are in {self.out}")
        return 0


@dataclass(frozen=True)
class Filter:
    """Score synthetic images beside their sources, copy the good ones, and write quality.csv and a report page."""

    synthetic: Positional[Annotated[Path, arg(metavar="SYNTHETIC", help="Dataset folder that `augment` wrote.")]]
    real: Positional[Annotated[Path, arg(metavar="REAL", help="Dataset folder the images were painted from.")]]
    out: NewFolder
    segmenter: Annotated[str, arg(metavar="NAME", help=f"{FINDER} none: do not ask one.")] = "textdiff-mini"
    min_edges: float = 0.6  # F1 of the edges asked for and found.
    min_dice: float = 0.7  # Dice of the segmenter's answer and the mask, as a share of its Dice on the source.
    max_histogram: float = 12.0  # Grey levels between its histogram and the nearest real image's.
    max_copy: float = 0.96  # Similarity to the nearest real image, mirrored or not; 1 is the same.
    max_twin: float = 0.96  # Similarity to another one kept of the same source; the later is dropped.

    def run(self) -> int:
        from emitdiff.synthesis.filtering import Filter as Settings
        from emitdiff.synthesis.filtering import filter_images

        settings = {name: value for name, value in vars(self).items() if name != "segmenter"}
        kept = filter_images(Settings(**settings), _answers(self.segmenter, self.synthetic))
        where = f"{self.out / 'report.html'} and quality.csv say why"
        if kept is None:
            print(f"No image is good enough: {where}, and {self.out} holds no dataset")
        else:
            painted = sum(bool(row["score_copy"]) for row in kept.rows)
            print(f"{painted} synthetic images are kept in {self.out}; {where}")
        return 0


@dataclass(frozen=True)
class Export:
    """Write a dataset folder in the layout of nnU-Net v2, MONAI, COCO, or as paired folders; folds go by group."""

    dataset: Dataset
    out: NewFolder
    format: Literal["nnunet", "monai", "coco", "paired"]  # nnunet: OUT is nnUNet_raw, Dataset501_NAME goes into it.
    folds: int = 5  # Folds of cross-validation, on real images only; 0 for none.
    seed: int = 0  # Seed of the folds.
    dataset_id: int = 501  # nnU-Net's number of the dataset.

    def run(self) -> int:
        from emitdiff.exports import Export as Settings
        from emitdiff.exports import export

        written = export(Settings(**vars(self)))
        for note in written.notes:
            _say(note)
        print(f"{written.images} images are in {written.folder}")
        return 0


@dataclass(frozen=True)
class Utility:
    """Train a segmenter on synthetic images, test it on real ones: does it match one trained on the real images?"""

    dataset: Dataset
    out: Output  # Folder for results.csv, report.md, report.json and what is painted; started again, it goes on.
    checkpoint: SynthesisWeights = "emitdiff-mini"
    synthetic: Folder = None  # Folder that `augment` wrote; without it, images are painted into OUT/synthetic.
    # Sets of images, joined by +: real, synthetic; classical adds mirror, rotation, scale and contrast.
    arms: tuple[str, ...] = ("real", "synthetic")
    ratio: Count = None  # Images painted from each real one, 1 if not given; of --synthetic, at most so many, else all.
    limit: Count = None  # Paint from at most so many training images; every arm then rests on these alone.
    network: Network = "unet"
    steps: int = 300  # Training steps of every arm and seed.
    resolution: int = 128  # Side of the training images in pixels, a multiple of 32.
    seeds: int = 3  # How often each arm is trained, with seeds 0, 1, ...
    mix: Mix = "inputs"  # How real and synthetic join in one arm: merging mask on inputs or logits, or one pool.
    alpha: float = 0.6  # Share of real squares in the merging mask.
    patch: Count = None  # Side of its squares in pixels; without it, a sixth of the resolution, as in the paper.
    json: bool = False  # Print one JSON object as the last line.

    def run(self) -> int:
        from emitdiff.studies.utility import Utility as Settings
        from emitdiff.studies.utility import study_utility

        study_utility(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Steps:
    """Tabulate sampling steps, guidance and schedulers against measures and time, on held-out images."""

    datasets: Datasets
    out: Output  # Folder for results.csv, report.md and report.json; started again, it goes on.
    checkpoint: SynthesisWeights = "emitdiff-mini"
    steps: tuple[int, ...] = (4, 6, 8, 12, 20, 50)  # Sampling steps to try.
    guidance: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0)  # Guidance scales to try.
    schedulers: tuple[Literal["ddim", "unipc", "dpm++"], ...] = ("ddim",)  # Samplers to try.
    limit: int = 4  # Images of each dataset, spread evenly over its held-out groups; two are painted from each.
    seed: int = 0  # Seed of the images painted; the same for every setting.
    json: bool = False  # Print one JSON object as the last line.

    def run(self) -> int:
        _require_datasets(self.datasets)
        from emitdiff.studies.steps import Steps as Settings
        from emitdiff.studies.steps import study_steps

        study_steps(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Copies:
    """Compare samples, and real images kept out, with the training images most like them: is anything repeated?"""

    datasets: Datasets
    out: Output  # Folder for copies.json, sheets of the nearest pairs and what is painted; started again, it goes on.
    checkpoint: SynthesisWeights = "emitdiff-mini"
    samples: int = 500  # Images painted from kept-out edges, and as many from masks alone, for each dataset.
    minutes: Strength = None  # Stop painting after that long and measure what is there.
    seed: int = 0  # Sample i uses this + i.
    json: bool = False  # Print one JSON object as the last line.

    def run(self) -> int:
        _require_datasets(self.datasets)
        from emitdiff.studies.copies import Copies as Settings
        from emitdiff.studies.copies import study_copies

        study_copies(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Blocks:
    """Which decoder blocks and timesteps of a backbone find a dataset's labels best? A heat map, by a light probe."""

    dataset: Dataset
    out: Output  # Folder for results.csv, blocks.png, report.md and report.json; started again, it goes on.
    checkpoint: SegmentationWeights = "textdiff-mini"
    backbone: Backbone = None
    blocks: tuple[int, ...] = ()  # Decoder blocks, numbered from 0; without it, all.
    timesteps: tuple[int, ...] = (0, 20, 50, 100, 150, 250, 500)  # Noise levels to read at.
    images: int = 20  # Labelled images that each probe learns from.
    test: int = 20  # Images of held-out groups that it is measured on, at most.
    seeds: int = 3  # Draws of the labelled images.
    resolution: int = 256  # Short side of the images in pixels.
    json: bool = False  # Print one JSON object as the last line.

    def run(self) -> int:
        from emitdiff.studies.blocks import Blocks as Settings
        from emitdiff.studies.blocks import study_blocks

        study_blocks(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Labels:
    """How few labels are enough? A taught head beside U-Nets, all on the same few labelled images, drawn repeatedly."""

    datasets: Datasets
    out: Output  # Folder for results.csv, labels.png, report.md and report.json; started again, it goes on.
    images: tuple[int, ...] = (5, 10, 20)  # Numbers of labelled images.
    draws: int = 5  # How often each is drawn; draw and training have seed 0, 1, ...
    arms: tuple[Literal["ours", "unet", "attention-unet"], ...] = ("ours", "unet", "attention-unet")  # What to compare.
    texts: tuple[Literal["own", "none", "shuffled"], ...] = ("own", "none", "shuffled")  # What ours is asked with.
    checkpoint: SegmentationWeights = "textdiff-mini"
    backbone: Backbone = None
    steps: int = 1000  # Training steps of each network.
    batch: int = 4  # Images in each of them.
    learning_rate: float = 3e-3  # Of the networks, falling to zero along a cosine.
    seconds: float = 300.0  # Time in which ours has to be taught; it takes less where its recipe ends sooner.
    resolution: int = 256  # Side of the squares all images are brought to, a multiple of 32.
    split_column: Annotated[str | None, arg(metavar="NAME", help=SIDES, help_behavior_hint="")] = None
    folds: Count = None  # Folds by group instead of a fifth held out, so that every image is tested once.
    test_limit: Count = None  # At most so many test images, of each fold.
    # Names of datasets whose sentences were made from their masks: the report says so.
    derived: Annotated[tuple[str, ...], arg(metavar="[NAME ...]")] = ()
    json: bool = False  # Print one JSON object as the last line.

    def run(self) -> int:
        _require_datasets(self.datasets)
        from emitdiff.studies.labels import Labels as Settings
        from emitdiff.studies.labels import study_labels

        study_labels(Settings(**vars(self)))
        return 0


@dataclass(frozen=True)
class Study:
    """Experiments on dataset folders, one result row a run; started again, they go on."""

    study: Utility | Steps | Copies | Blocks | Labels

    def run(self) -> int:
        return self.study.run()


VERBS = (
    Synthesize, Segment, Edges, TrainSynthesis, TrainSegmentation, EvaluateSynthesis, EvaluateSegmentation,
    CheckDataset, ConvertAdm, TrainPublished, Teach, Filter, Augment, Export, Study,
)  # fmt: skip


def parse(arguments: list[str]) -> Any:
    """The verb, an instance of one of VERBS, that `arguments` ask for; without any, help. Exits 2 on a wrong one."""
    return tyro.cli(
        reduce(or_, VERBS),
        prog="python -m emitdiff",
        description="Synthetic medical images from edges and text, masks from an image and a sentence.",
        args=arguments or ["--help"],
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes),
    )


def main() -> int:
    """Run one verb and return the exit status: 2 with a sentence on stderr for anything the user can put right."""
    verb = parse(sys.argv[1:])
    quiet_libraries()
    try:
        _check_numbers(verb.study if isinstance(verb, Study) else verb)
        return verb.run()
    except EmitDiffError as error:
        _say(f"emitdiff: {error}")
        return 2
    except KeyboardInterrupt:
        _say("stopped")
        return 130


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _check_numbers(verb: Any) -> None:
    """EmitDiffError for a number that no verb can use, before anything is read or loaded."""
    for name, value in vars(verb).items():
        flag = f"--{name.replace('_', '-')} {value}"
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        if name in POSITIVE and not all(number > 0 and math.isfinite(number) for number in numbers):
            raise EmitDiffError(f"{flag} cannot be used: give a number above 0.")
        if name == "threshold" and not 0 < value < 1:
            raise EmitDiffError(f"{flag} cannot be used: give a probability between 0 and 1, like 0.5.")
        if name == "seed" and value < 0:
            raise EmitDiffError(f"{flag} cannot be used: give a whole number from 0 on.")


def _folder_to_inherit(name: str, train: str) -> tuple[Path, int, float]:
    """The folder of a checkpoint all of whose networks can be trained further, the side of its images in pixels, and
    the part of the groups that it kept aside: fewer, and what it learnt would be measured as if it had not."""
    from emitdiff.checkpoints import find_checkpoint, local_folder

    if train == "unet":
        raise EmitDiffError("With --from, the U-Net learns beside its ControlNet: give --train all.")
    found = find_checkpoint(name, "synthesis")
    index = {} if found.controlnet else _read_json(local_folder(found) / "model_index.json")
    if index.get("vae", ("", ""))[1] != "AutoencoderTiny":
        raise EmitDiffError(
            f"Of {name} only the ControlNet can be trained: add --train controlnet, or leave --from out to train small "
            "networks from scratch."
        )
    card = _read_json(local_folder(found) / "emitdiff.json")
    side, training = round(card.get("area", 256**2) ** 0.5), card.get("training", {})
    return local_folder(found), side, training.get("held_out", 0.2)


def _require_datasets(folders: tuple[Path, ...]) -> None:
    if not folders:
        raise EmitDiffError("No dataset folder was named: give one or more, each with dataset.json and metadata.csv.")


def _read_slice(path: Path, index: int | None, window: str | None) -> tuple[Scan, int, np.ndarray]:
    """The scan, the slice chosen (the middle one for None) and its picture, uint8 (H, W, 3)."""
    from emitdiff.scans import Window, read_scan

    scan = read_scan(path)
    for warning in scan.warnings:
        _say(warning)
    index = scan.middle if index is None else index
    if not 0 <= index < scan.num_slices:
        raise EmitDiffError(f"{path.name} has no slice {index}: give a number from 0 to {scan.num_slices - 1}.")
    width, _, level = (window or "").partition("/")
    try:
        chosen = Window(centre=float(level), width=float(width))
    except ValueError:
        chosen = window  # a name; the scan knows which it has
    return scan, index, scan.image(index, chosen)


def _read_source(
    path: Path | None, mask_file: Path | None, index: int | None, window: str | None
) -> tuple[str, int | None, np.ndarray | None, np.ndarray | None]:
    """What to paint from: a name for files, the slice, and image and mask where they are given."""
    from emitdiff.images import file_stem
    from emitdiff.scans import read_mask, read_slice_mask

    if path is not None:
        scan, index, image = _read_slice(path, index, window)
        mask = None if mask_file is None else read_slice_mask(mask_file, scan, index)
        return file_stem(scan.name), index, image, mask
    if window is not None:
        raise EmitDiffError(f"--window {window} is for an image, and none was given; leave it out.")
    if mask_file is None:
        return "text", None, None, None
    return file_stem(mask_file.name), index, None, read_mask(mask_file, index=index)


def _read_size(size: str | None) -> tuple[int, int] | None:
    """(height, width) from "HxW"."""
    height, _, width = (size or "").lower().partition("x")
    if size is None:
        return None
    if not (height.isdecimal() and width.isdecimal()):
        raise EmitDiffError(f"--size {size} cannot be used: give height and width in pixels, like 256x384.")
    return int(height), int(width)


def _load(loader: Literal["load_synthesizer", "load_segmenter"], checkpoint: str) -> Any:
    import emitdiff
    from emitdiff.devices import describe_device

    _say(f"Loading {checkpoint} ...")
    pipeline = getattr(emitdiff, loader)(checkpoint)
    _say(f"Running on {describe_device()}")
    return pipeline


def _answers(segmenter: str, folder: Path) -> Any:
    """What `filter_images` asks: every label that a sample holds as (mask found, mask); None for "none"."""
    from emitdiff.datasets import open_dataset

    dataset = open_dataset(folder)  # before any weights are loaded
    if segmenter == "none":
        return None
    from emitdiff.segmentation.metrics import SIDES, questions_of

    find, labels = _load("load_segmenter", segmenter), dataset.info.labels
    return lambda sample: [
        (find(sample.image, text).mask > 0, truth)
        for name, text, truth in questions_of(sample, dataset)
        if truth.any() and (name not in SIDES or name in labels)
    ]


def _with_progress(events: Iterator[Any], num_images: int) -> Iterator[Any]:
    """The finished images among `events`; the sampling steps between them move a progress bar on."""
    from tqdm import tqdm

    with tqdm(desc="Painting", unit="step", delay=1) as bar:
        for event in events:
            if hasattr(event, "steps"):
                bar.total = event.steps * num_images
                bar.update(event.image_index * event.steps + event.step - bar.n)
            else:
                yield event


def _followed(lessons: Iterator[Any]) -> Any:
    """The last of the lessons; a progress bar shows how far they are."""
    from tqdm import tqdm

    with tqdm(desc="Teaching", unit="step") as bar:
        for lesson in lessons:
            bar.total, bar.n = lesson.steps, lesson.step
            known = {} if lesson.dice is None else {"dice": f"{lesson.dice:.2f}"}
            bar.set_postfix(loss=f"{lesson.loss:.3f}", **known)
    return lesson


def _output_folder(path: Path, *sources: Path | None) -> Path:
    """`path`, made if needed; never a folder with a source in it, whose files would be written over or mixed up."""
    for source in (source.resolve() for source in sources if source):
        if path.resolve() != source.parent and not (source.is_dir() and path.resolve().is_relative_to(source)):
            continue
        raise EmitDiffError(f"{path} is where the source lies: give another folder, so that nothing is written over.")
    return make_folder(path)


def _write_png(path: Path, array: np.ndarray) -> Path:
    from PIL import Image as Picture

    Picture.fromarray(array).save(path)
    return path


def _read_json(path: Path) -> dict:
    import json

    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write_json(path: Path, content: dict) -> None:
    import json

    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
