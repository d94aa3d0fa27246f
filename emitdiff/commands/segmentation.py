"""The commands of segmenting: segment, teach, and the training and measuring of segmenters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from emitdiff.commands.arguments import (
    TEXT_MODEL_HELP,
    TRAIN_SPLIT_COLUMN_HELP,
    Count,
    Dataset,
    Datasets,
    Folder,
    Image,
    JsonLines,
    Output,
    SegmentationWeights,
    Slice,
    Split,
    Text,
    Threads,
    Threshold,
    TimePoint,
    WindowOption,
)
from emitdiff.commands.io import (
    load,
    output_folder,
    read_size,
    read_slice,
    require_datasets,
    say,
    show_training,
    write_json,
    write_png,
)
from emitdiff.errors import EmitDiffError
from emitdiff.files import check_writable

START_HELP = "Segmenter whose backbone, words and head training goes on from, such as textdiff-mini; all is then joint."


@dataclass(frozen=True)
class Segment:
    """Segment what a sentence names in one image; writes mask, overlay, probability map and a JSON file."""

    image: Image
    text: str  # Target to segment, e.g. "left lung".
    out: Output  # Folder for the results; the mask has the size and geometry of the source.
    threshold: Threshold = 0.5
    checkpoint: SegmentationWeights = "textdiff-mini"
    slice: Slice = None
    time_point: TimePoint = None
    window: WindowOption = None
    # For a text that asks for nothing the weights were taught: refuse, or try all the same, which is no finding.
    untaught: Literal["refuse", "try"] = "refuse"

    def run(self) -> int:
        import numpy as np

        from emitdiff.files import file_stem
        from emitdiff.images import overlay
        from emitdiff.provenance import pixels_sha256

        scan, index, image = read_slice(self.image, self.slice, self.window, self.time_point)
        pipeline = load("load_segmenter", self.checkpoint)
        result = pipeline(image, self.text, threshold=self.threshold, untaught=self.untaught)
        if result.untaught and self.untaught == "refuse":
            raise EmitDiffError(f"{result.warnings[0]} Nothing was written; `--untaught try` looks all the same.")
        for warning in result.warnings:
            say(warning)
        folder, stem = output_folder(self.out, self.image), file_stem(scan.name)
        drawn = overlay(image, result.mask, dashed=result.answer == "unsure")
        maps = {"probability": result.probability, "uncertainty": result.uncertainty}
        files = {
            "mask": scan.save_mask({index: result.mask}, folder).name,
            "overlay": write_png(folder / f"{stem}_overlay.png", drawn).name,
            **{
                name: write_png(folder / f"{stem}_{name}.png", np.rint(values * 255).astype(np.uint8)).name
                for name, values in maps.items()
            },
        }
        record = {
            "image": self.image.name,
            "slice": index,
            "time_point": self.time_point,
            "laterality": scan.laterality,
            "window": self.window,
            "text": self.text,
            "target": result.target,
            "found": bool(result.found),
            "answer": result.answer,
            "untaught": result.untaught,
            "present": None if result.present is None else round(result.present, 4),
            "pixels": int(result.mask.sum()),
            "threshold": self.threshold,
            "checkpoint": self.checkpoint,
            "weights_sha256": pipeline.weights,
            "image_sha256": pixels_sha256(image),
            "seconds": round(result.seconds, 2),
            "warnings": [*scan.warnings, *result.warnings],
            "files": files,
        }
        write_json(folder / f"{stem}_segmentation.json", record)
        share = 100 * record["pixels"] / result.mask.size
        words = {"unsure": "unsure, perhaps ", "not taught": "not taught, looked for all the same: "}
        marked = result.found or result.untaught
        answer = f"{words.get(result.answer, '')}{share:.1f} % of the image" if marked else "not found"
        print(f"{result.target or self.text or 'without text'}: {answer}; see {folder}")
        return 0


@dataclass(frozen=True)
class TrainSegmentation:
    """Train a text-guided segmenter on dataset folders, with the label names as targets; a rerun resumes."""

    datasets: Datasets
    out: Output  # Folder for the checkpoint.
    resolution: int = 256  # Side of the training images in pixels, a multiple of 64.
    minutes: float = 60.0  # Training time for all stages together.
    # backbone: self-supervised; joint: backbone and head together; head: on the frozen backbone.
    stage: Literal["all", "backbone", "joint", "head"] = "all"
    seed: int = 0  # Seed of data order and weight initialization.
    threads: Threads = None
    start: Annotated[str | None, arg(name="from", metavar="NAME", help=START_HELP, help_behavior_hint="")] = None

    def run(self) -> int:
        require_datasets(self.datasets)
        from emitdiff.segmentation.training.run import train_segmentation
        from emitdiff.segmentation.training.settings import TrainSegmentation as Settings

        print(f"The checkpoint is in {train_segmentation(Settings(**vars(self)))}")
        return 0


@dataclass(frozen=True)
class EvaluateSegmentation:
    """Evaluate predicted masks on a dataset with its own text, without text, with shuffled text, or all three."""

    datasets: Datasets
    text: Text = "own"  # own: the row's text, or modality, organ and label name if empty; all: the three compared.
    checkpoint: SegmentationWeights = "textdiff-mini"
    split: Split = "all"  # held-out: only the fifth of the groups not used for training.
    limit: Count = None  # Maximum number of images.
    threshold: Threshold = 0.5
    seed: int = 0  # Seed of the choice of images and of the shuffling.
    json: JsonLines = False
    # Datasets of other sources, taken whole: one table sets them beside DATASET, each with its own text.
    external: Annotated[tuple[Path, ...], arg(metavar="DATASET", help_behavior_hint="")] = ()
    # LABEL=TARGET, with --external: the taught target that a label of another source means.
    map: Annotated[tuple[str, ...], arg(metavar="LABEL=TARGET", help_behavior_hint="")] = ()

    def run(self) -> int:
        require_datasets(self.datasets)
        from emitdiff.segmentation.evaluation import EvaluateSegmentation as Settings
        from emitdiff.segmentation.evaluation import evaluate_segmentation

        settings = {name: value for name, value in vars(self).items() if name not in ("datasets", "external", "map")}
        if self.external:
            from emitdiff.segmentation.sources import compare_sources

            compare_sources(Settings(self.datasets[0], **settings), self.datasets, self.external, self._mapping())
            return 0
        for dataset in self.datasets:
            evaluate_segmentation(Settings(dataset, **settings))
        return 0

    def _mapping(self) -> dict[str, str]:
        """Label to target. Raises EmitDiffError for what is not written LABEL=TARGET."""
        split = [text.partition("=") for text in self.map]
        pairs = [(label.strip(), target.strip()) for label, _, target in split]
        if wrong := [text for text, pair in zip(self.map, pairs, strict=True) if not all(pair)]:
            raise EmitDiffError(f"--map {wrong[0]} cannot be used: write LABEL=TARGET, like nucleus=nuclei.")
        return dict(pairs)


@dataclass(frozen=True)
class ConvertAdm:
    """Convert OpenAI's 256x256_diffusion_uncond.pt to TextDiff's backbone: a diffusers folder, about 2.3 GB."""

    source: Positional[Annotated[Path, arg(metavar="FILE", help="256x256_diffusion_uncond.pt as OpenAI published it.")]]
    out: Positional[Annotated[Path, arg(metavar="DIR", help="Folder to make.")]]

    def run(self) -> int:
        from emitdiff.segmentation.published.adm import ConvertAdm as Settings
        from emitdiff.segmentation.published.adm import convert_adm

        print(f"The backbone is in {convert_adm(Settings(**vars(self)))}")
        return 0


@dataclass(frozen=True)
class TrainPublished:
    """Train TextDiff's published head on its frozen backbone; a rerun resumes. Use the folder with `segment`."""

    dataset: Dataset
    out: Output  # Folder for the head, for --checkpoint.
    backbone: Annotated[Path, arg(metavar="DIR")]  # Folder that convert-adm wrote.
    preset: Literal["monuseg", "qata"] = "monuseg"  # Decoder blocks of the paper's two datasets.
    settings: Literal["mended", "paper"] = "mended"  # paper: with the errors of the released code.
    text_model: Annotated[str, arg(metavar="NAME", help=TEXT_MODEL_HELP)] = "emilyalsentzer/Bio_ClinicalBERT"
    # Label to segment, if there are several.
    label: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    images: Count = None  # Number of training images, from as many groups as possible; default: all.
    held_out: float = 0.2  # Fraction of groups held out; their Dice selects the epoch.
    split_column: Annotated[str | None, arg(metavar="NAME", help=TRAIN_SPLIT_COLUMN_HELP, help_behavior_hint="")] = None
    validation_images: Count = None  # Maximum number of held-out images; default: all.
    epochs: int = 50  # Number of epochs.
    batch: Count = None  # Batch size; default: 4, with the paper's settings 1.
    size: Annotated[str, arg(metavar="HxW")] = "256x256"  # Input size of the backbone, multiples of 32.
    quarter_turns: bool = True  # Mirror only, without quarter turns, where orientation matters.
    views: int = 0  # Additional small rotations per image, up to 20 degrees.
    cache: Folder = None  # Feature cache; default: OUT/features.
    seed: int = 0  # Seed of image choice, data order and weight initialization.

    def run(self) -> int:
        from emitdiff.segmentation.published.run import TrainPublished as Settings
        from emitdiff.segmentation.published.run import train_published

        folder = train_published(Settings(**{**vars(self), "size": read_size(self.size)}))
        print(f"The segmenter is in {folder}")
        return 0


@dataclass(frozen=True)
class Teach:
    """Train a few-shot head on a few labelled images in a minute: one file for --checkpoint."""

    dataset: Dataset
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE")]  # NAME.safetensors; its card goes beside it as NAME.md.
    images: Count = None  # Number of images that show a label, from as many groups as possible; default: all.
    checkpoint: SegmentationWeights = "textdiff-mini"
    seconds: float = 60.0  # Training time; reading the images comes on top.
    label: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None  # Only this label; default: all.
    split: Split = "all"  # train: exclude the groups that evaluate-segmentation calls held-out.
    seed: int = 0  # Seed of image choice, augmentation and weight initialization.

    def run(self) -> int:
        from emitdiff.datasets.fingerprint import dataset_sha256
        from emitdiff.segmentation.few_shot.head import check_head_path
        from emitdiff.segmentation.few_shot.training import TrainFewShot as Settings
        from emitdiff.segmentation.few_shot.training import train_few_shot

        out, settings = check_head_path(self.out), Settings(self.seconds, self.label, self.checkpoint, self.seed)
        if out.exists():
            raise EmitDiffError(f"{out} already exists: choose another name.")
        check_writable(out.parent)
        dataset = self._examples()
        pipeline = load("load_segmenter", self.checkpoint)
        last = show_training(train_few_shot(pipeline, list(dataset), dataset.info, settings))
        hashes = {"weights_sha256": pipeline.weights, "dataset_sha256": dataset_sha256(dataset)}
        replace(last.head, card={**last.head.card, **hashes}).save(out)
        seen = "" if last.dice is None else f", Dice {last.dice:.2f} on a held-out image"
        print(f"{', '.join(last.head.card['targets'])}: {last.steps} steps in {last.seconds:.0f} s{seen}; see {out}")
        if last.shortfall:
            say(f"{last.shortfall} Allow more seconds or give more images.")
        return 0

    def _examples(self) -> Any:
        """The rows of the dataset to teach from."""
        from emitdiff.datasets.folder import open_dataset
        from emitdiff.datasets.splits import choose_rows, draw_labelled
        from emitdiff.segmentation.few_shot.queries import labels_to_train

        dataset = choose_rows(open_dataset(self.dataset).real(), self.split)
        wanted = replace(dataset.info, labels=labels_to_train(dataset.info, self.label))
        if self.images is None:
            return dataset
        return replace(draw_labelled(replace(dataset, info=wanted), self.images, self.seed), info=dataset.info)
