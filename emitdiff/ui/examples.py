"""The example cards: `examples/examples.jsonl`, one JSON object a line. To add one, drop files and a line.

Keys: `image` (file), `title`, `origin` ("synthetic, ..."); where they apply `mask` (file),
`modality`, `organ`, `finding`, `appearance` (the prompt's drop-downs) and `text` (the sentence for the segmenter).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "examples"
SAMPLES = FOLDER / "samples"  # four breast ultrasounds in images/, their masks in masks/


@dataclass(frozen=True)
class Example:
    image: Path
    title: str
    origin: str
    mask: Path | None = None
    modality: str = ""
    organ: str = ""
    finding: str = ""
    appearance: str = ""
    text: str = ""


def read_examples(folder: Path = FOLDER) -> list[Example]:
    """The rows of `folder/examples.jsonl`, in order, with file names made paths; an empty list where there is none."""
    listing = folder / "examples.jsonl"
    if not listing.exists():
        return []
    rows = [json.loads(line) for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [Example(**{**row, **{key: folder / row[key] for key in ("image", "mask") if row.get(key)}}) for row in rows]
