"""Results made beforehand for the example cards, so that a click shows them at once: `examples/stored/`.

`stored.json` holds, by the name of an example's image, the settings and for each synthetic image its seed, the seconds
it took and its scores; beside it lie the images (WebP, small and therefore not exact to the last bit) and the control
image. `python docs/stored_examples.py` makes them again with the embedded weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.files import file_stem
from emitdiff.images import to_rgb
from emitdiff.ui.examples import FOLDER, Example
from emitdiff.ui.form import BLANK_FORM, fill_form, read_form, sampling_defaults
from emitdiff.ui.interface import Callables, SynthesisRequest
from emitdiff.ui.results import is_image
from emitdiff.ui.synthesis.runs import Run

STORED = FOLDER / "stored"
QUALITY = 88  # of WebP
COPY = "a small copy, not exact to the last bit"


@dataclass(frozen=True)
class StoredImage:
    """As a run gives an image: uint8 (H, W, 3), its label (H, W) or None, and how it was made."""

    image: np.ndarray
    mask: np.ndarray | None
    seed: int
    settings: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Stored:
    """What is kept of one run; `control` is the control image, uint8 (h, w, 3), `scores` are those of each image."""

    request: SynthesisRequest
    control: np.ndarray
    images: tuple[StoredImage, ...]
    scores: tuple[dict[str, float], ...]

    def run(self, source: np.ndarray, label: np.ndarray | None, stem: str) -> Run:
        """A finished run of these images, generated from `source` (H, W, 3)."""
        run = Run(self.request, source, label, stem, running=False)
        for image, scores in zip(self.images, self.scores, strict=True):
            run.add_event(image)
            run.images[-1].scores = scores
        return run


def read_stored(card: Example, mask: np.ndarray | None, folder: Path = STORED) -> Stored | None:
    """What was made from the image of `card` with its `mask` (H, W) as the label; None where nothing is stored."""
    listing = folder / "stored.json"
    row = json.loads(listing.read_text(encoding="utf-8")).get(card.image.name) if listing.exists() else None
    if row is None:
        return None
    images = tuple(
        StoredImage(
            read_picture(folder / one["file"]), mask, one["seed"],
            {**row["settings"], "seed": one["seed"], "stored": COPY}, one["seconds"],
        )
        for one in row["images"]
    )  # fmt: skip
    control, scores = read_picture(folder / row["control"]), tuple(one["scores"] for one in row["images"])
    return Stored(read_form(row["request"]), control, images, scores)


def write_stored(calls: Callables, cards: list[Example], folder: Path = STORED) -> Path:
    """Makes and stores four images of every card with the first weights and their defaults; returns the listing."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {card.image.name: _store(calls, card, folder) for card in cards}
    listing = folder / "stored.json"
    listing.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return listing


def _store(calls: Callables, card: Example, folder: Path) -> dict[str, Any]:
    model = next(model for model in calls.models() if model.name == calls.synthesis_checkpoint)
    scan, stem = calls.read_scan(card.image), file_stem(card.image.name)
    image, mask = scan.image(0), calls.read_mask(card.mask, scan, 0) if card.mask else None
    prompt = calls.compose_prompt(card.modality, card.organ, card.finding, card.appearance, "")
    request = read_form({**BLANK_FORM, **sampling_defaults(model), "prompt": prompt, "checkpoint": model.name})
    events = calls.synthesize(image, mask, request, lambda: False)
    made = [event for event in events if is_image(event)]
    control = f"{stem}_control.webp"
    write_picture(folder / control, calls.control_image(image, mask, request))
    images = []
    for result in made:
        file = f"{stem}_{result.seed}.webp"
        write_picture(folder / file, result.image)
        scores = {name: round(float(score), 4) for name, score in calls.quality(image, result.image).items()}
        images.append({"file": file, "seed": result.seed, "seconds": round(result.seconds, 1), "scores": scores})
    return {"request": fill_form(request), "settings": made[0].settings, "control": control, "images": images}


def read_picture(path: Path) -> np.ndarray:
    """uint8 (H, W, 3); EmitDiffError where the file is missing or damaged."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise EmitDiffError(f"{path.name} is missing or damaged; `python docs/stored_examples.py` makes it again.")
    return np.ascontiguousarray(picture[..., ::-1])


def write_picture(path: Path, image: np.ndarray) -> None:
    """uint8 (H, W, 3) as WebP."""
    cv2.imwrite(str(path), to_rgb(image)[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
