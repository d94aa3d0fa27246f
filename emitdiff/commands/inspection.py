"""The command that tells where a picture comes from: inspect."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from emitdiff.commands.arguments import MASK, SLICE, WINDOW
from emitdiff.commands.io import load, read_source, say
from emitdiff.errors import EmitDiffError

if TYPE_CHECKING:
    import numpy as np

    from emitdiff.provenance import Origin

FILE = arg(metavar="FILE", help="PNG, JPEG, WebP or TIFF.")
IMAGE = arg(metavar="IMAGE", help="With --repaint: the image it was painted from.", help_behavior_hint="")
REPAINT = arg(metavar="DIR", help="Paint it again into DIR and compare it pixel by pixel.", help_behavior_hint="")
DATASET = "With --repaint: the dataset of an image that augment painted, in place of --image and --mask."
SHOWN = ("prompt", "negative_prompt", "seed", "num_inference_steps", "guidance_scale", "controlnet_conditioning_scale",
         "detector", "edge_weights", "structure", "preset", "appearance", "edit", "size")  # fmt: skip
SOURCE = ("source", "slice", "window", "mask", "variation_of")


@dataclass(frozen=True)
class Inspect:
    """Tell whether a picture says that it is synthetic, from which weights and settings, and paint it again.

    Exit status 1 where it says nothing, which does not prove that it is real, or where it comes out differently.
    """

    file: Positional[Annotated[Path, FILE]]
    repaint: Annotated[Path | None, REPAINT] = None
    image: Annotated[Path | None, IMAGE] = None
    mask: Annotated[Path | None, MASK] = None
    dataset: Annotated[Path | None, arg(metavar="DATASET", help=DATASET, help_behavior_hint="")] = None
    slice: Annotated[int | None, SLICE] = None
    window: Annotated[str | None, WINDOW] = None
    json: bool = False  # Print what the picture says as one JSON object.

    def run(self) -> int:
        from emitdiff.provenance import read_origin

        origin = read_origin(self.file)
        facts = {"file": self.file.name, "synthetic": origin.synthetic, "source_type": origin.source_type,
                 "system": origin.system, "c2pa": origin.credentials, "settings": origin.settings}  # fmt: skip
        print(json.dumps(facts) if self.json else "\n".join(_lines(self.file.name, origin)))
        if self.repaint is None:
            return 0 if origin.synthetic else 1
        if origin.settings is None:
            raise EmitDiffError(f"{self.file.name} carries no settings of emitdiff: only its own images are repainted.")
        return self._repaint(origin.settings, self.repaint)

    def _repaint(self, record: dict[str, Any], out: Path) -> int:
        import numpy as np
        from PIL import Image as Picture

        from emitdiff.files import check_writable, make_folder
        from emitdiff.provenance import save_synthetic_png
        from emitdiff.synthesis.repainting import check_source, difference, repaint

        image, mask = self._source(record)
        check_source(record, image, mask)  # before any weights are loaded
        check_writable(out)
        pipeline = load("load_synthesizer", _named(record, "checkpoint"))
        painted = repaint(record, pipeline, image, mask)
        path = save_synthetic_png(painted.image, make_folder(out) / self.file.name, {**record, **painted.settings})
        with Picture.open(self.file) as picture:
            differs = difference(np.asarray(picture.convert("RGB")), painted.image)
        if differs:
            say(
                f"emitdiff: {differs}. It was painted with {_made_with(record)}, and here with "
                f"{_made_with(painted.settings)}: only the same kind of machine and versions give every bit."
            )
            print(f"{path} is not the same")
            return 1
        print(f"{path} is the same, bit for bit")
        return 0

    def _source(self, record: dict[str, Any]) -> tuple[np.ndarray | None, np.ndarray | None]:
        if self.dataset is not None:
            from emitdiff.datasets.folder import open_dataset

            row = record.get("row")
            dataset, wanted = open_dataset(self.dataset), row.get("source") if isinstance(row, dict) else None
            found = [index for index, one in enumerate(dataset.rows) if one["file_name"] == wanted]
            if not found:
                raise EmitDiffError(f"{self.dataset} has no image {wanted!r}: give the dataset it was painted from.")
            sample = dataset[found[0]]
            return sample.image, sample.mask
        index = record.get("slice") if self.slice is None else self.slice
        window = record.get("window") if self.window is None else self.window
        index = index if isinstance(index, int) else None
        time_point = record.get("time_point") if self.image and isinstance(record.get("time_point"), int) else None
        return read_source(self.image, self.mask, index, window if self.image else None, time_point)[2:4]


def _named(record: dict[str, Any], name: str) -> str:
    if not isinstance(record.get(name), str):
        raise EmitDiffError(f"The picture does not say its {name}: it cannot be painted again.")
    return str(record[name])


def _lines(name: str, origin: Origin) -> list[str]:
    """What to tell users."""
    if not origin.synthetic:
        lines = [f"{name} does not say that it is synthetic. That does not prove that it is real."]
    elif origin.settings is None:
        lines = [f"{name} is synthetic ({origin.source_type}), made by {origin.system or 'another program'}."]
    else:
        settings = origin.settings
        weights = settings.get("weights_sha256") or "not recorded"
        lines = [f"{name} is synthetic, painted by emitdiff with {settings.get('checkpoint', 'unknown weights')}.",
                 f"  weights (sha256): {weights}", f"  made with: {_made_with(settings)}"]  # fmt: skip
        lines += [f"  {key}: {settings[key]}" for key in (*SOURCE, *SHOWN) if settings.get(key) not in (None, "")]
        lines += [f"  IPTC digital source type: {origin.source_type or 'missing'}"]
    return (
        [*lines, "  It carries C2PA Content Credentials, which are not verified here."] if origin.credentials else lines
    )


def _made_with(settings: dict[str, Any]) -> str:
    made = settings.get("made_with")
    facts = made if isinstance(made, dict) else {}
    return ", ".join(f"{key} {value}" for key, value in facts.items()) or "not recorded"
