"""Names of weights and where they lie: embedded folders, Hub repositories at a pinned revision, local folders.

Everything becomes a folder on this machine in diffusers layout, so whoever loads weights knows one way only:
`local_folder(find_checkpoint("emitdiff-mini", "synthesis"))`. Only safetensors, JSON and text files are fetched.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from emitdiff.checksums import check_checksums, check_downloaded, files_to_load, fingerprint
from emitdiff.downloads import fetch
from emitdiff.errors import EmitDiffError
from emitdiff.hub import (
    ALLOWED_FILES,
    HALF,
    IGNORED_FILES,
    HubPart,
    NotOnHub,
    choose_files,
    find_snapshot,
    has_weights,
    is_repository,
)
from emitdiff.progress import DownloadLines, Progress

Kind = Literal["synthesis", "segmentation"]

HASHES = {  # of the base, by revision: what two independent public sources give as the sha256 of its files
    "451f4fe16113bff5a5d2269ed5ad43b0592e9a14": {
        "text_encoder/model.safetensors": "d008943c017f0092921106440254dbbe00b6a285f7883ec8ba160c3faad88334",
        "unet/diffusion_pytorch_model.safetensors": "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1",
        "vae/diffusion_pytorch_model.safetensors": "a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c",
    }
}
# A Hub revision is a commit where two independent public sources name the same one, otherwise the branch "main".
BASE_SD15 = ("stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14")
SOFTEDGE = ("lllyasviel/control_v11p_sd15_softedge", "b5bcad0c48e9b12f091968cf5eadbb89402d6bc9")
HED = ("lllyasviel/sd-controlnet-hed", "main")
CANNY = ("lllyasviel/sd-controlnet-canny", "7f2f69197050967007f6bbd23ab5e52f0384162a")


@dataclass(frozen=True)
class Checkpoint:
    """One set of weights.

    `base` is a folder or a Hub repository at `revision`; `controlnet` the same for a ControlNet that lies elsewhere
    (None: in `base`/controlnet). `detector` is the edge detector the ControlNet was trained with, `size_mb` the
    download in megabytes (None: not known), `defaults` the sampling settings that suit it, by their diffusers names.
    `card` is the folder whose emitdiff.json describes the weights, where that is not `base`.
    """

    name: str
    kind: Kind
    summary: str
    licence: str
    base: str
    revision: str | None = None
    controlnet: str | None = None
    controlnet_revision: str | None = None
    detector: str | None = None
    size_mb: int | None = None
    embedded: bool = False
    defaults: dict[str, Any] = field(default_factory=dict)
    card: str | None = None


def checkpoints_folder() -> Path:
    """The folder of the embedded weights: $EMITDIFF_CHECKPOINTS, else the one beside the package."""
    if chosen := os.environ.get("EMITDIFF_CHECKPOINTS"):
        return Path(chosen)
    beside = Path(__file__).resolve().parents[1]
    installed = beside / "emitdiff_checkpoints"  # where a wheel puts it
    return installed if installed.is_dir() else beside / "checkpoints"


def known_checkpoints(kind: Kind | None = None) -> tuple[Checkpoint, ...]:
    """The weights known by name, embedded ones first; of one kind where `kind` is given."""
    checkpoints = (
        Checkpoint(
            name="emitdiff-mini",
            kind="synthesis",
            summary="Small Stable Diffusion with ControlNet, trained from scratch on public medical images.",
            licence="research use only; see the model card",
            base=str(checkpoints_folder() / "emitdiff-mini"),
            detector="soft",
            embedded=True,
        ),
        Checkpoint(
            name="textdiff-mini",
            kind="segmentation",
            summary="Small frozen diffusion backbone with a text-guided head, trained on public medical images.",
            licence="research use only; see the model card",
            base=str(checkpoints_folder() / "textdiff-mini"),
            embedded=True,
        ),
        _stable_diffusion("sd15-softedge", "hed", "soft edges", SOFTEDGE),
        _stable_diffusion("sd15-hed", "hed", "HED edges, EMIT-Diff's starting point", HED),
        _stable_diffusion("sd15-canny", "canny", "Canny edges", CANNY),
    )
    return tuple(checkpoint for checkpoint in checkpoints if kind in (None, checkpoint.kind))


def _stable_diffusion(name: str, detector: str, edges: str, controlnet: tuple[str, str]) -> Checkpoint:
    return Checkpoint(
        name=name,
        kind="synthesis",
        summary=f"Stable Diffusion 1.5 with a ControlNet for {edges}; natural images, needs a GPU.",
        licence="CreativeML OpenRAIL-M (base), OpenRAIL (ControlNet)",
        base=BASE_SD15[0],
        revision=BASE_SD15[1],
        controlnet=controlnet[0],
        controlnet_revision=controlnet[1],
        detector=detector,
        size_mb=5710,
        # EMIT-Diff's released sampler: DDIM, 20 steps, guidance 9, control strength 1.
        defaults={"num_inference_steps": 20, "guidance_scale": 9.0, "controlnet_conditioning_scale": 1.0},
    )


def find_checkpoint(name: str, kind: Kind) -> Checkpoint:
    """What `name` stands for: a known name, a local folder, "owner/repo", or "BASE+CONTROLNET" of the latter two.

    Raises EmitDiffError for anything else, and for embedded weights that are not there, naming what to run.
    """
    name = str(name).strip()
    for checkpoint in known_checkpoints():
        if checkpoint.name == name:
            return _checked(checkpoint, kind)
    parts = [name] if Path(name).is_dir() else name.split("+")
    if not name or len(parts) > (2 if kind == "synthesis" else 1) or not all(_is_source(part) for part in parts):
        raise EmitDiffError(
            f"No {kind} weights are called {name!r}: choose one of {_names(kind)}, a Hub repository as "
            f"owner/repo, or a folder that exists (`python -m emitdiff train-{kind} DATASET --out FOLDER` makes one)."
        )
    sources = [(str(Path(part).resolve()), None) if Path(part).is_dir() else (part, "main") for part in parts]
    (base, revision), (controlnet, controlnet_revision) = sources[0], sources[1] if len(sources) == 2 else (None, None)
    summary, card = "Local folder" if revision is None else "Hub repository", None
    if len(sources) == 1 and (named := _named_base(Path(base))):
        card, controlnet, (base, revision) = base, str(Path(base) / "controlnet"), named
    return Checkpoint(
        name=name,
        kind=kind,
        summary=summary,
        licence="see its model card",
        base=base,
        revision=revision,
        controlnet=controlnet,
        controlnet_revision=controlnet_revision,
        detector="soft" if kind == "synthesis" else None,
        card=card,
    )


def _named_base(folder: Path) -> tuple[str, str] | None:
    """(repository, revision) of the Hub base that a fine-tuned ControlNet's emitdiff.json names, if it names one."""
    try:
        base = json.loads((folder / "emitdiff.json").read_text(encoding="utf-8"))["base"]
        return base["repository"], base["revision"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _checked(checkpoint: Checkpoint, kind: Kind) -> Checkpoint:
    if checkpoint.kind != kind:
        raise EmitDiffError(
            f"{checkpoint.name} holds {checkpoint.kind} weights, but {kind} weights are expected: "
            f"choose one of {_names(kind)}."
        )
    if checkpoint.embedded and not has_weights(Path(checkpoint.base)):
        raise EmitDiffError(
            f"The weights {checkpoint.name} are not in {Path(checkpoint.base).parent}: set EMITDIFF_CHECKPOINTS to the "
            f"checkpoints folder of the repository, or train your own with "
            f"`python -m emitdiff train-{kind} DATASET --out FOLDER` and name their folder."
        )
    return checkpoint


def _names(kind: Kind) -> str:
    return ", ".join(checkpoint.name for checkpoint in known_checkpoints(kind))


def _is_source(text: str) -> bool:
    return bool(text) and (Path(text).is_dir() or is_repository(text))


def checkpoint_status(checkpoint: Checkpoint) -> str:
    """A few words for users: "ready (embedded)", "ready (downloaded)", "not downloaded (5.7 GB)", "missing"."""
    sources = [(checkpoint.base, checkpoint.revision), (checkpoint.controlnet, checkpoint.controlnet_revision)]
    present = [_cached(source, revision) for source, revision in sources if source]
    if all(present):
        if checkpoint.embedded:
            return "ready (embedded)"
        return "ready (local folder)" if checkpoint.revision is None else "ready (downloaded)"
    if checkpoint.revision is None:
        return "missing"
    return f"not downloaded ({checkpoint.size_mb / 1000:.1f} GB)" if checkpoint.size_mb else "not downloaded"


def cached_folder(checkpoint: Checkpoint) -> Path | None:
    """The folder with `checkpoint`'s base weights if they are on this machine, None otherwise; fetches nothing."""
    return _cached(checkpoint.base, checkpoint.revision)


def _cached(source: str, revision: str | None) -> Path | None:
    if revision is not None:
        return find_snapshot(HubPart(source, revision))
    return Path(source) if has_weights(Path(source)) else None


def hub_parts(checkpoint: Checkpoint) -> list[HubPart]:
    """What `checkpoint` takes from the Hub; nothing where all of it lies in folders of this machine."""
    sources = [(checkpoint.base, checkpoint.revision), (checkpoint.controlnet, checkpoint.controlnet_revision)]
    return [HubPart(source, revision) for source, revision in sources if source and revision]


def fetch_weights(checkpoint: Checkpoint, half: bool = False, progress: Progress | None = None) -> None:
    """Brings all of `checkpoint` to this machine, where it is not here yet.

    `half` takes half-precision files where the Hub has them. `progress` is told of bytes; None shows them on stderr.

    Raises:
        EmitDiffError: with what to do, where it cannot be had.
        DownloadStopped: `progress.cancelled()` said so.
    """
    try:
        fetch(
            hub_parts(checkpoint), half, progress or Progress(DownloadLines(checkpoint.name)),
            _download_command(checkpoint),
        )  # fmt: skip
    except NotOnHub as error:
        if checkpoint in known_checkpoints() or checkpoint.revision is None or checkpoint.card:
            raise
        raise EmitDiffError(
            f"{error} There is no folder of the name {checkpoint.base} here either; "
            f"`python -m emitdiff train-{checkpoint.kind} DATASET --out {checkpoint.base}` would make one."
        ) from error


def local_folder(checkpoint: Checkpoint) -> Path:
    """The folder with `checkpoint`'s base weights on this machine, fetched from the Hub where needed, every file of it
    compared with its sha256 where that is known.

    Raises EmitDiffError with the command to run when it can be neither found nor fetched, and for damaged weights.
    """
    return _folder(checkpoint, checkpoint.base, checkpoint.revision)


def controlnet_folder(checkpoint: Checkpoint) -> Path:
    """The folder with `checkpoint`'s ControlNet: its own place, or controlnet/ in the base. Raises EmitDiffError."""
    if checkpoint.controlnet:
        folder = _folder(checkpoint, checkpoint.controlnet, checkpoint.controlnet_revision)
        if checkpoint.card:
            check_checksums(Path(checkpoint.card))
        inside = folder / "controlnet"  # a folder that fine-tuning left
        return inside if has_weights(inside) else folder
    folder = local_folder(checkpoint) / "controlnet"
    if not has_weights(folder):
        raise EmitDiffError(
            f"{checkpoint.name} has no ControlNet: add one after a plus sign, for example "
            f"{checkpoint.name}+lllyasviel/control_v11p_sd15_softedge."
        )
    return folder


def _folder(checkpoint: Checkpoint, source: str, revision: str | None) -> Path:
    if revision is not None:
        part = HubPart(source, revision)
        if find_snapshot(part) is None:
            fetch_weights(checkpoint)
        if (folder := find_snapshot(part)) is not None:
            check_downloaded(folder, source, revision, HASHES.get(revision, {}))
        return folder or Path(source)
    if not has_weights(Path(source)):
        raise EmitDiffError(f"{source} holds no .safetensors weights: give a folder in diffusers layout.")
    # A folder of one's own need not have a list; that of the shipped weights must not be missing.
    check_checksums(Path(source), required=checkpoint.embedded and "EMITDIFF_CHECKPOINTS" not in os.environ)
    return Path(source)


def weights_fingerprint(checkpoint: Checkpoint, half: bool = False) -> str:
    """One sha256 for all that is loaded of `checkpoint`, a ControlNet from elsewhere with it; `half` as it is loaded.

    Raises EmitDiffError where the weights are not here.
    """
    folders = [(local_folder(checkpoint), checkpoint.revision)]
    if checkpoint.controlnet:
        folders.append((controlnet_folder(checkpoint), checkpoint.controlnet_revision))
    names = [choose_files(list(dict(files_to_load(folder))), half) if hub else None for folder, hub in folders]
    return fingerprint(*(folder for folder, _ in folders), names=names)


def _download_command(checkpoint: Checkpoint) -> str:
    """What fetches every Hub part of `checkpoint`, and nothing but what is loaded."""
    chosen = [f"--include '{pattern}'" for pattern in ALLOWED_FILES]
    chosen += [f"--exclude '{pattern}'" for pattern in (*IGNORED_FILES, f"*{HALF}*")]
    return " && ".join(
        f"hf download {part.repository} --revision {part.revision} {' '.join(chosen)}" for part in hub_parts(checkpoint)
    )
