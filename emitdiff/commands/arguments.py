"""Arguments that several commands share: their types, their metavars, their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

IMAGE = arg(metavar="IMAGE", help="PNG, JPEG, WebP, TIFF, NIfTI, or DICOM (file, folder or zip).")
MASK = arg(
    metavar="MASK", help="Mask of the slice or volume; its outline is added to the edges.", help_behavior_hint=""
)
SLICE = arg(metavar="INT", help="Slice of a volume, counted from 0; default: the middle slice.", help_behavior_hint="")
TIME_POINT = arg(
    metavar="INT",
    help="Volume of a file that holds several, counted from 0; default: the first.",
    help_behavior_hint="",
)
WINDOW = arg(metavar="W", help='Intensity window: a name ("lung") or WIDTH/LEVEL ("1500/-600").', help_behavior_hint="")
DATASET = arg(metavar="DATASET", help="Dataset folder: dataset.json, metadata.csv, images/, masks/.")
DATASETS = arg(metavar="DATASET [DATASET ...]", help="Dataset folders.", help_behavior_hint="(required)")
SYNTHESIS_WEIGHTS_HELP = (
    "emitdiff-mini, sd15-softedge, sd15-hed, sd15-canny, a Hub owner/repo, a folder, or BASE+CONTROLNET."
)
PARENT_HELP = f"Checkpoint to start from: {SYNTHESIS_WEIGHTS_HELP}"
SEGMENTATION_WEIGHTS_HELP = "textdiff-mini, a Hub owner/repo, a folder, or the file of a few-shot head."
TEXT_MODEL_HELP = "Hub name or folder of the text model, in transformers layout."
SPLIT_COLUMN_HELP = "Column of metadata.csv that says train or val, instead of a fifth of the groups held out."
TRAIN_SPLIT_COLUMN_HELP = "Column of metadata.csv that says train or val, instead of --held-out."

Image = Positional[Annotated[Path, IMAGE]]
OptionalImage = Positional[Annotated[Path | None, IMAGE]]
MaskFile = Annotated[Path | None, MASK]
PRESET = arg(help="Settings of the paper or of its released code; explicit options override them.")
PresetName = Annotated[Literal["default", "paper", "released"], PRESET]
Size = Annotated[
    str | None, arg(metavar="HxW", help="Image size when neither image nor mask is given.", help_behavior_hint="")
]
Slice = Annotated[int | None, SLICE]
TimePoint = Annotated[int | None, TIME_POINT]
WindowOption = Annotated[str | None, WINDOW]
Dataset = Positional[Annotated[Path, DATASET]]
Datasets = Positional[Annotated[tuple[Path, ...], DATASETS]]
Output = Annotated[Path, arg(aliases=["-o"], metavar="DIR")]
Count = Annotated[int | None, arg(metavar="INT", help_behavior_hint="")]
Strength = Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="")]
# Options that several commands have alike.
STEPS = arg(metavar="INT", help="Sampling steps; default: the preset's, else the checkpoint's.", help_behavior_hint="")
GUIDANCE = arg(metavar="FLOAT", help="Guidance scale (classifier-free); default as for --steps.", help_behavior_hint="")
CONTROL = arg(metavar="FLOAT", help="ControlNet conditioning scale; default as for --steps.", help_behavior_hint="")
THREADS = arg(metavar="INT", help="CPU threads; default: all.", help_behavior_hint="")
SamplingSteps = Annotated[int | None, STEPS]
GuidanceScale = Annotated[float | None, GUIDANCE]
ControlStrength = Annotated[float | None, CONTROL]
Threads = Annotated[int | None, THREADS]
Threshold = Annotated[float, arg(help="Probability threshold between 0 and 1.")]
JsonLine = Annotated[bool, arg(help="Print one JSON object as the last line.")]
JsonLines = Annotated[bool, arg(help="Print one JSON object as the last line, with several datasets one for each.")]
Detector = Literal["soft", "canny", "hed", "hed-mini"]
OwnDetector = Annotated[Detector | None, arg(metavar="{soft,canny,hed,hed-mini}", help_behavior_hint="")]
SynthesisWeights = Annotated[str, arg(metavar="NAME", help=SYNTHESIS_WEIGHTS_HELP)]
SegmentationWeights = Annotated[str, arg(metavar="NAME", help=SEGMENTATION_WEIGHTS_HELP)]
Text = Literal["own", "none", "shuffled", "all"]
Precision = Literal["no", "fp16", "bf16"]
OwnPrecision = Annotated[Precision | None, arg(metavar="{no,fp16,bf16}", help_behavior_hint="")]
Split = Literal["all", "held-out", "train"]
Network = Literal["unet", "residual-unet", "attention-unet", "swin-unetr"]
Method = Literal[
    "none", "contrast", "gamma", "brightness", "noise", "blur", "mirror", "rotate", "scale", "classical", "emit-diff",
    "painted", "classical+emit-diff", "classical+painted", "painted-only",
]  # fmt: skip
Mix = Literal["inputs", "logits", "pool"]
Folder = Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")]
BACKBONE = arg(metavar="DIR", help="Another backbone: a folder written by convert-adm.", help_behavior_hint="")
Backbone = Annotated[Path | None, BACKBONE]
NewFolder = Positional[Annotated[Path, arg(metavar="OUT", help="Output folder; must be empty or new.")]]
