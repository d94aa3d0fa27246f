"""What commands read and write, and what they say on stderr meanwhile."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from emitdiff.errors import EmitDiffError
from emitdiff.files import make_folder, write_png, write_text

if TYPE_CHECKING:
    import numpy as np

    from emitdiff.scans.scan import Scan

MANIFEST = "manifest.json"
SOURCE_TYPE_KEY = "digital_source_type"  # what a manifest of synthetic images always says


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def say_edges(weights: str | None) -> bool:
    """Names the network that drew the edges, where one did; whether it was said."""
    if weights:
        instead = " (`python -m emitdiff convert-hed` brings the original here)" if weights == "hed-mini" else ""
        say(f"Edges drawn by HED: {weights}{instead}.")
    return bool(weights)


def require_datasets(folders: tuple[Path, ...]) -> None:
    if not folders:
        raise EmitDiffError("No dataset folder was named: give one or more, each with dataset.json and metadata.csv.")


def read_slice(
    path: Path, index: int | None, window: str | None, time_point: int | None = None
) -> tuple[Scan, int, np.ndarray]:
    """The scan, the slice chosen (the middle one for None) and its picture, uint8 (H, W, 3); of a slice that is named,
    no other is kept."""
    from emitdiff.scans.burned_in import WARNING as TEXT_WARNING
    from emitdiff.scans.burned_in import has_text_at_rim
    from emitdiff.scans.geometry import Window
    from emitdiff.scans.reading import read_scan

    width, _, level = (window or "").partition("/")
    chosen: str | Window | None
    try:
        chosen = Window(centre=float(level), width=float(width))
    except ValueError:
        chosen = window  # a name; the scan knows which it has
    scan = read_scan(path, index, time_point, chosen)
    index = scan.middle if index is None else index
    image = scan.image(index, chosen)
    if has_text_at_rim(image):
        scan.warnings += (TEXT_WARNING,)
    for warning in scan.warnings:
        say(warning)
    return scan, index, image


def read_source(
    path: Path | None,
    mask_file: Path | None,
    index: int | None,
    window: str | None,
    time_point: int | None = None,
    prompt: str = "",
) -> tuple[str, int | None, np.ndarray | None, np.ndarray | None, tuple[str, ...]]:
    """What to generate from: a name for files, the slice, image and mask where they are given, and the image's
    warnings, one of them where `prompt` says another kind of image."""
    from emitdiff.files import file_stem
    from emitdiff.scans.masks import read_mask, read_slice_mask

    if path is not None:
        scan, index, image = read_slice(path, index, window, time_point)
        mask = None if mask_file is None else read_slice_mask(mask_file, scan, index)
        return file_stem(scan.name), index, image, mask, (*scan.warnings, *_contradiction(prompt, image, scan.modality))
    if time_point is not None:
        raise EmitDiffError(f"--time-point {time_point} is for an image, and none was given; leave it out.")
    if window is not None:
        raise EmitDiffError(f"--window {window} is for an image, and none was given; leave it out.")
    if mask_file is None:
        return "text", None, None, None, ()
    return file_stem(mask_file.name), index, None, read_mask(mask_file, index=index), ()


def _contradiction(prompt: str, image: np.ndarray, modality: str | None) -> tuple[str, ...]:
    """What is said where `prompt` asks for another kind of image than is given, by the tags of its file or as the
    embedded segmenter takes it."""
    import emitdiff
    from emitdiff.image_kinds import contradiction, kind_of_image, names_a_kind

    if not names_a_kind(prompt):
        return ()
    try:
        warning = emitdiff.load_segmenter().prompt_warning(prompt, image, modality)
    except EmitDiffError:  # not there, or an image that it cannot look at: nobody asked for it
        warning = contradiction(prompt, kind_of_image(modality, None))
    if warning:
        say(warning)
    return (warning,) if warning else ()


def read_size(size: str | None) -> tuple[int, int] | None:
    """(height, width) from "HxW"."""
    height, _, width = (size or "").lower().partition("x")
    if size is None:
        return None
    if not (height.isdecimal() and width.isdecimal()):
        raise EmitDiffError(f"--size {size} cannot be used: give height and width in pixels, like 256x384.")
    return int(height), int(width)


def load(loader: Literal["load_synthesizer", "load_segmenter"], checkpoint: str) -> Any:
    import emitdiff
    from emitdiff.devices import describe_device

    say(f"Loading {checkpoint} ...")
    pipeline = getattr(emitdiff, loader)(checkpoint)
    say(f"Running on {describe_device()}")
    return pipeline


def label_predictor_for(segmenter: str, folder: Path) -> Any:
    """What `filter_images` asks: every label that a sample holds as (mask found, mask); None for "none"."""
    from emitdiff.datasets.folder import open_dataset

    dataset = open_dataset(folder)  # before any weights are loaded
    if segmenter == "none":
        return None
    from emitdiff.segmentation.evaluation import label_predictor

    return label_predictor(load("load_segmenter", segmenter), dataset)


@cache
def backbone_features() -> Any:
    """The features in which `evaluate-synthesis` measures `kid`: those of textdiff-mini's backbone, which learnt to
    denoise real images alone, at step 0, where nearly all of an image's grain is left."""
    from emitdiff.checkpoints import find_checkpoint, local_folder
    from emitdiff.devices import choose_device
    from emitdiff.segmentation.evaluation import feature_statistics
    from emitdiff.segmentation.model.features import load_features

    folder = local_folder(find_checkpoint("textdiff-mini", "segmentation"))
    return feature_statistics(
        load_features(folder / "backbone", None, (0,), with_coordinates=False).to(choose_device())
    )


def show_sampling(events: Iterator[Any], num_images: int) -> Iterator[Any]:
    """The finished images among `events`; the sampling steps between them move a progress bar on."""
    from tqdm import tqdm

    with tqdm(desc="Painting", unit="step", delay=1) as bar:
        for event in events:
            if hasattr(event, "steps"):
                bar.total = event.steps * num_images
                bar.update(event.image_index * event.steps + event.step - bar.n)
            else:
                yield event


def show_training(updates: Iterator[Any]) -> Any:
    """The last item of a few-shot training, shown as a progress bar."""
    from tqdm import tqdm

    with tqdm(desc="Teaching", unit="step") as bar:
        for update in updates:
            bar.total, bar.n = update.steps, update.step
            known = {} if update.dice is None else {"dice": f"{update.dice:.2f}"}
            bar.set_postfix(loss=f"{update.loss:.3f}", **known)
    return update


def output_folder(path: Path, *sources: Path | None) -> Path:
    """`path`, made if needed; never a folder with a source in it, whose files would be written over or mixed up."""
    for source in (source.resolve() for source in sources if source):
        if path.resolve() != source.parent and not (source.is_dir() and path.resolve().is_relative_to(source)):
            continue
        raise EmitDiffError(f"{path} is where the source lies: give another folder, so that nothing is written over.")
    return make_folder(path)


def read_manifest_entries(folder: Path) -> dict[str, dict]:
    """The entries of the manifest in `folder` whose images are there, by file name; none without a manifest.

    Raises EmitDiffError where another program wrote it.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = (
            json.loads(path.read_text(encoding="utf-8")) if path.exists() else {SOURCE_TYPE_KEY: "", "images": []}
        )
        entries = {entry["file"]: entry for entry in manifest["images"]}
        ours = SOURCE_TYPE_KEY in manifest and all(Path(name).name == name for name in entries)
    except (ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise EmitDiffError(
            f"{path} was not written by synthesize and would be written over: give another folder, or take it away."
        )
    return {name: entry for name, entry in entries.items() if (folder / name).is_file()}


def unused_path(folder: Path, stem: str, settings: dict, entries: dict[str, dict]) -> Path:
    """STEM.png in `folder`, numbered where an image of that name is there that was generated with other settings."""
    from emitdiff.provenance import read_synthetic_settings

    plain = json.loads(json.dumps(settings))

    def same(path: Path) -> bool:
        """By the manifest, or by the image itself, where a run was cut short between the two."""
        if path.name in entries:
            return entries[path.name].get("settings") == plain
        with suppress(EmitDiffError):
            return read_synthetic_settings(path) == {"synthetic": True, **plain}
        return False

    return _first_free(folder, stem, same)


def write_label(folder: Path, stem: str, mask: np.ndarray) -> Path:
    """`mask` as mask_STEM.png, numbered where images generated before have another one of that name."""
    return write_png(_first_free(folder, f"mask_{stem}", lambda path: _shows(path, mask)), mask)


def _first_free(folder: Path, stem: str, same: Callable[[Path], bool]) -> Path:
    """The first of STEM.png, STEM_2.png, ... in `folder` that is not there, or holds the `same`."""
    paths = (folder / (f"{stem}.png" if number == 1 else f"{stem}_{number}.png") for number in count(1))
    return next(path for path in paths if not path.exists() or same(path))


def _shows(path: Path, mask: np.ndarray) -> bool:
    import numpy as np
    from PIL import Image as Picture

    try:
        with Picture.open(path) as picture:
            return np.array_equal(np.asarray(picture), mask)
    except OSError:
        return False


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
