"""Interface between the pages and the backend: plain functions and the vocabulary of the menus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from emitdiff.augmentation_settings import AugmentationSettings
from emitdiff.import_settings import ImportSettings
from emitdiff.synthesis_settings import SynthesisSettings
from emitdiff.ui.results import (
    DatasetReport,
    ForeignData,
    Pair,
    SamplingStep,
    Scan,
    SegmentationOutput,
    SyntheticImage,
    TrainingProgress,
)

Untaught = Literal["refuse", "try"]  # what is done with a text that asks for nothing that was taught
Labelled = tuple[np.ndarray, np.ndarray, str]  # an image uint8 (H, W, 3), class ids (H, W), a name
HEAD_SUFFIX = ".safetensors"  # what the file of a few-shot head ends in, by which it is told from other weights


@dataclass(frozen=True)
class SynthesisRequest:
    """Everything a run of the synthesis depends on besides the image; a form has it flat (see form.py)."""

    settings: SynthesisSettings = SynthesisSettings()
    checkpoint: str = "emitdiff-mini"


@dataclass(frozen=True)
class PackRequest:
    """How finished images leave the page: `layout` is "nnunet" or "coco", `classes` names the class ids 1, 2, ..."""

    layout: str
    name: str
    modality: str
    organ: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class PresetOption:
    """Named settings: `settings` are fields of the synthesis settings, set where a user sets none."""

    name: str
    summary: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class FewShotRequest:
    """What is trained: the `name` of the target, on which image kind, on whose frozen backbone."""

    name: str
    modality: str
    organ: str
    checkpoint: str = "textdiff-mini"
    seconds: float = 60.0
    seed: int = 0


@dataclass(frozen=True)
class FewShotDatasetRequest:
    """What is trained on a dataset folder: one `label` or all of them, `images` evenly spread or all of them."""

    checkpoint: str
    images: int | None = None
    seconds: float = 60.0
    label: str | None = None
    split: str = "all"  # "train": without the groups that "held-out" takes
    seed: int = 0


@dataclass(frozen=True)
class EvaluateRequest:
    """How a dataset folder is segmented to be measured: whose `text` asks is "own", "none", "shuffled" or "all"."""

    checkpoint: str
    limit: int | None = None
    text: str = "own"
    split: str = "all"
    threshold: float = 0.5


@dataclass(frozen=True)
class ModelInfo:
    """One line of the list of weights: `kind` is "synthesis" or "segmentation", `status` is a phrase for users."""

    name: str
    kind: str
    summary: str
    licence: str
    status: str
    defaults: dict[str, Any]
    detector: str = "soft"


@dataclass(frozen=True)
class Vocabulary:
    """The choices of the prompt's drop-downs and of the edge detector."""

    modalities: tuple[str, ...]
    organs: tuple[str, ...]
    findings: tuple[str, ...]
    appearances: tuple[str, ...]
    detectors: tuple[str, ...]
    presets: tuple[PresetOption, ...] = (PresetOption("default", "what suits the weights", {}),)
    # words to begin with: (modality, organ, finding, appearance), some of them ""
    example_words: tuple[tuple[str, str, str, str], ...] = ()
    hed_network: str = "original"  # what the detector "hed" stands for here, else "hed-mini"


@dataclass(frozen=True, kw_only=True)
class AugmentRequest(AugmentationSettings):
    """How a dataset is augmented here, the real images included. `segmenter` checks whether the labels fit; "" for
    none."""

    include_real: bool = True
    segmenter: str = ""


class JobState(Protocol):
    """Where a dataset that is augmented stands: `done` of `total` in this `stage`; `generated` and `kept` count
    synthetic images, `report` and `scores` are files; `notes` tell of the import."""

    @property
    def check(self) -> DatasetReport: ...
    @property
    def usable(self) -> bool: ...
    @property
    def stage(self) -> str: ...
    @property
    def request(self) -> AugmentRequest | None: ...
    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def seconds_left(self) -> float | None: ...
    @property
    def generated(self) -> int: ...
    @property
    def kept(self) -> int: ...
    @property
    def error(self) -> Exception | None: ...
    @property
    def report(self) -> Path | None: ...
    @property
    def scores(self) -> Path | None: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


class Score(Protocol):
    def __call__(
        self, predicted: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None, /
    ) -> dict[str, float | None]:
        """dice, iou, precision, recall and hd95 (in pixels without the spacing of each axis) of two 0/1 masks, (H, W)
        or (S, H, W); None where a measure is not defined."""


class Segment(Protocol):
    def __call__(
        self, image: np.ndarray, text: str, threshold: float, checkpoint: str, untaught: Untaught = "refuse", /
    ) -> SegmentationOutput:
        """What the text names; one that asks for nothing that was taught gets no mask, or with "try" whatever is marked
        then."""


@dataclass(frozen=True)
class DatasetCalls:
    """Any of them may raise `EmitDiffError`; those that take a name do so for one that is not known any more."""

    # ZIP -> what is in it, in another layout than that of a dataset folder; None for a dataset folder
    describe: Callable[[str | Path], ForeignData | None]
    # ZIP, None for a dataset folder or how another layout is imported -> name of a job, checked and ready to start
    create: Callable[[str | Path, ImportSettings | None], str]
    # name -> None where there is none
    status: Callable[[str], JobState | None]
    start: Callable[[str, AugmentRequest], None]
    stop: Callable[[str], None]
    # name, how many -> the last ones generated, the latest first
    pairs: Callable[[str, int], Sequence[Pair]]
    # name, layout ("dataset", "nnunet", "coco", "monai", "paired"), only those the report keeps -> ZIP, sentences
    export: Callable[[str, str, bool], tuple[Path, tuple[str, ...]]]
    remove: Callable[[str], None]


class ReadScan(Protocol):
    def __call__(self, path: str | Path, /, *, time_point: int | None = None) -> Scan:
        """Reads a scan; of several volumes number `time_point`, counted from 0, or else the first."""


@dataclass(frozen=True)
class Callables:
    """The functions behind the pages. Any of them may raise `EmitDiffError`, whose sentence is shown beside the field.

    Images are uint8 (H, W, 3), masks uint8 class ids (H, W), probabilities float32 (H, W) in 0..1.
    """

    read_scan: ReadScan
    # file, scan it belongs to or None, slice -> class ids (H, W) of that slice
    read_mask: Callable[[str | Path, Scan | None, int], np.ndarray]
    # file, scan it belongs to -> class ids (S, H, W) of the whole scan
    read_masks: Callable[[str | Path, Scan], np.ndarray]
    # files that belong together by name or one ZIP, how many at most -> image, class ids and name of each, what was
    # left out
    read_labelled: Callable[[Sequence[str | Path], int], tuple[list[Labelled], tuple[str, ...]]]
    # image or None, mask or None, request -> uint8 (h, w, 3), exactly what the network will get
    control_image: Callable[[np.ndarray | None, np.ndarray | None, SynthesisRequest], np.ndarray]
    # image -> (name, modality, organ) of the kind of images it looks like, None for one like none that is known
    image_kind: Callable[[np.ndarray], tuple[str, str, str] | None]
    # modality, organ, finding, appearance, free text -> prompt
    compose_prompt: Callable[[str, str, str, str, str], str]
    # prompt, checkpoint -> "" or a sentence saying which words the tokenizer cuts
    prompt_warning: Callable[[str, str], str]
    # prompt, checkpoint -> (tokens it has, tokens that are read), None while the tokenizer is not on this machine
    token_count: Callable[[str, str], tuple[int, int] | None]
    # image or None, mask or None, request, cancelled -> what comes, as it comes; `results.is_image` tells which it is
    synthesize: Callable[
        [np.ndarray | None, np.ndarray | None, SynthesisRequest, Callable[[], bool]],
        Iterator[SamplingStep | SyntheticImage],
    ]
    # real image, synthetic image of its size -> {"edge_f1": .., "ssim": .., "ms_ssim": .., "mae": ..}, all in 0..1
    quality: Callable[[np.ndarray, np.ndarray], dict[str, float]]
    # finished images, their PNGs, how, a folder for it -> a ZIP in that folder, what its user should know in sentences
    pack: Callable[[list[SyntheticImage], list[Path], PackRequest, Path], tuple[Path, tuple[str, ...]]]
    segment: Segment
    # checkpoint -> the phrases its head was trained on
    targets: Callable[[str], tuple[str, ...]]
    # checkpoint, modality or "" -> sentences to start from
    sentences: Callable[[str, str], tuple[str, ...]]
    # examples (image, mask 0/1, name), request, cancelled: what was learnt until then becomes the head
    teach: Callable[
        [list[tuple[np.ndarray, np.ndarray, str]], FewShotRequest, Callable[[], bool]], Iterator[TrainingProgress]
    ]
    # file of a head that `teach` ended with, seconds, cancelled: goes on with what was learnt, while it is kept
    keep_teaching: Callable[[str, float, Callable[[], bool]], Iterator[TrainingProgress]]
    # zip of a dataset folder, what to teach from it
    teach_dataset: Callable[[str | Path, FewShotDatasetRequest], Iterator[TrainingProgress]]
    # file that the progress named, or anything a browser sent instead -> whether it is such a file and still there
    head_exists: Callable[[str], bool]
    # zip of a dataset folder, how -> None after each question, then the measures over all images and, under "targets",
    # for each target alone
    evaluate: Callable[[str | Path, EvaluateRequest], Iterator[dict[str, Any] | None]]
    score: Score
    # height, width, patch in pixels, share of real squares, generator -> (H, W) True where the real image stays
    merging_mask: Callable[[int, int, int, float, np.random.Generator], np.ndarray]
    # a zipped dataset folder, augmented in the background
    datasets: DatasetCalls
    models: Callable[[], tuple[ModelInfo, ...]]
    # name of weights -> whether they are in memory
    is_loaded: Callable[[str], bool]
    describe_device: Callable[[], str]
    # called once a page is open: may load what the first run would wait for
    prepare: Callable[[], None]
    # removes files that nobody has asked for in the time they are kept; called every few minutes
    tidy: Callable[[], None]
    vocabulary: Vocabulary
    synthesis_checkpoint: str = "emitdiff-mini"
    segmentation_checkpoint: str = "textdiff-mini"
