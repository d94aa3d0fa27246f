"""The quality report: one page that needs nothing else, images from worst to best, each beside its source."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from emitdiff.datasets.folder import DatasetFolder, Sample
from emitdiff.images import outline_path, resize_image, to_rgb
from emitdiff.synthesis.filtering.scoring import Filter, ScoredImage

if TYPE_CHECKING:
    from jinja2 import Template

MAX_SHOWN = 200  # images on the page, about 8 MB; beyond that the worst 150 and 50 spread over the rest
WORST = 150
THUMBNAIL = 224  # pixels of the longer side
QUALITY = 72  # of the WebP thumbnails
BARS = 24
TITLES = {
    "edges": "Edge F1",
    "dice": "Label Dice",
    "histogram": "Histogram",
    "copy": "Memorization",
    "duplicate": "Duplicate",
}
MEANINGS = {
    "edges": "F1 of the control edges and the edges of the image, tolerance 2 pixels at 256",
    "dice": "Dice of a segmenter with the mask, relative to its Dice on the source",
    "histogram": "Wasserstein distance in grey levels to the histogram of the nearest real image",
    "copy": "Similarity to the nearest real image, mirrored or not (contrast-normalized MS-SSIM)",
    "duplicate": "Similarity to an earlier image generated from the same source",
}
UNAVAILABLE = {
    "edges": "not applicable: structure below 1, or an edited mask",
    "dice": "no segmenter, no label, or a segmenter that fails on the source as well",
    "duplicate": "the first kept image of its source",
}


def report_page(ranked: Sequence[ScoredImage], synthetic: DatasetFolder, real: DatasetFolder, settings: Filter) -> str:
    """The page as HTML. `ranked` are all images, worst first; `real` holds their sources."""
    shown = choose_shown(len(ranked))
    places = {row["file_name"]: index for index, row in enumerate(real.rows)}
    by_name = {row["file_name"]: index for index, row in enumerate(synthetic.rows)}
    cards = []
    for rank in shown:
        one = ranked[rank]
        third = None
        if "duplicate" in one.failed:
            third = ("earlier one", synthetic[by_name[one.duplicate_of]], False)
        elif "copy" in one.failed and one.nearest_name != one.row["source"]:
            third = ("real image", real[places[one.nearest_name]], one.nearest.mirrored)
        pictures = [("source", real[places[one.row["source"]]], False), ("synthetic", synthetic[one.index], False)]
        cards.append(_card(rank, one, pictures + ([third] if third else []), settings))
    return _template().render(
        info=synthetic.info,
        kept=sum(one.kept for one in ranked),
        count=len(ranked),
        real_count=len(real),
        left_out=_left_out(len(shown), len(ranked)),
        charts=[_chart(name, ranked, settings) for name in TITLES],
        cards=cards,
    )


def _template() -> Template:
    """report.html; what is put into it is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("emitdiff.synthesis", "filtering")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template("report.html")


def choose_shown(count: int) -> list[int]:
    """The ranks of the images on the page, in order: all, or the `WORST` and others spread evenly over the rest."""
    if count <= MAX_SHOWN:
        return list(range(count))
    return [*range(WORST), *np.linspace(WORST, count - 1, MAX_SHOWN - WORST).round().astype(int).tolist()]


def _left_out(shown: int, count: int) -> str:
    if shown == count:
        return ""
    return (
        f" This page shows {shown} of them: the {WORST} worst and {shown - WORST} spread evenly over the rest; the "
        "charts count all."
    )


def data_uri(image: np.ndarray) -> str:
    """uint8 (H, W, 3) as a WebP of at most `THUMBNAIL` pixels a side, ready for an <img>."""
    scale = min(1.0, THUMBNAIL / max(image.shape[:2]))
    small = resize_image(to_rgb(image), tuple(max(1, round(side * scale)) for side in image.shape[:2]))
    file = io.BytesIO()
    Image.fromarray(small).save(file, "WEBP", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _picture(role: str, sample: Sample, mirrored: bool, found: str) -> dict:
    height, width = sample.mask.shape
    return {
        "role": f"{role}, mirrored" if mirrored else role,
        "name": sample.name,
        "mirrored": mirrored,
        "data_uri": data_uri(sample.image),
        "box": f"0 0 {1000 * width / max(height, width):.0f} {1000 * height / max(height, width):.0f}",
        "outlines": [outline_path(sample.mask == value) for value in np.unique(sample.mask[sample.mask > 0])],
        "found": found if role == "synthetic" else "",
    }


def _card(rank: int, one: ScoredImage, pictures: list[tuple[str, Sample, bool]], settings: Filter) -> dict:
    """One image: the pictures, its scores, and the reason where it is dropped."""
    row = one.row
    facts = [row.get("prompt", ""), *(f"{key} {row[key]}" for key in ("seed", "structure") if row.get(key))]
    if row.get("edit"):
        facts.append("edited mask")
    if one.values["dice"] is None and one.dice is not None:
        facts.append(_why_unavailable("dice", one))
    return {
        "rank": rank + 1,
        "file_name": row["file_name"],
        "name": row["file_name"].rsplit("/", 1)[-1],
        "state": "kept" if one.kept else "dropped",
        "reason": one.reason,
        "pictures": [_picture(*picture, one.found) for picture in pictures],
        "scores": [_score(name, one, settings) for name in TITLES],
        "facts": " · ".join(fact for fact in facts if fact),
    }


def _score(name: str, one: ScoredImage, settings: Filter) -> dict:
    """Name, value and a small meter with a tick at the threshold, both in percent; "said" is None where unknown."""
    value, limit = one.values[name], settings.limit(name)
    if value is None:
        return {"title": TITLES[name], "said": None, "meaning": _why_unavailable(name, one)}
    top = 2 * limit if name == "histogram" else 1.0
    share, tick = (100 * min(1.0, max(0.0, part / top)) if top else 0 for part in (value, limit))
    return {
        "title": TITLES[name],
        "said": f"{value:.{1 if name == 'histogram' else 2}f}",
        "meaning": MEANINGS[name],
        "failed": name in one.failed,
        "share": f"{share:.0f}",
        "tick": f"{tick:.0f}",
    }


def _why_unavailable(name: str, one: ScoredImage) -> str:
    if name == "dice" and one.dice is not None and one.dice_source is not None:
        return f"the segmenter is unreliable here: Dice {one.dice_source:.2f} on the source itself"
    return UNAVAILABLE[name]


def _chart(name: str, ranked: Sequence[ScoredImage], settings: Filter) -> dict:
    """A histogram of one score over all images, with its threshold."""
    scored = [(one, value) for one in ranked if (value := one.values[name]) is not None]
    chart: dict[str, Any] = {
        "title": TITLES[name], "count": len(scored), "failed": sum(name in one.failed for one, _ in scored)
    }  # fmt: skip
    if not scored:
        return chart | {"unavailable": UNAVAILABLE[name]}
    limit, values = settings.limit(name), [value for _, value in scored]
    top = max(*values, 1.25 * limit) if name == "histogram" else max(1.0, *values)
    parts = {
        "bad": [value for one, value in scored if name in one.failed],
        "good": [value for one, value in scored if name not in one.failed],
    }
    return chart | {
        "meaning": MEANINGS[name],
        "bars": _bars({part: np.histogram(numbers, BARS, (0.0, top))[0] for part, numbers in parts.items()}),
        "limit": f"{limit:g}",
        "line": f"{240 * limit / top:.1f}",
        "limit_at_end": limit > 0.8 * top,  # its number stands there for the axis' own
        "top": f"{top:.{0 if name == 'histogram' else 2}f}",
        "sign": "≥" if name in ("edges", "dice") else "≤",
    }


def _bars(counts: dict[str, np.ndarray]) -> list[dict[str, str]]:
    """Bars of 240 x 54, the parts (CSS classes) stacked in the order given."""
    highest, below, bars = max(1, int(np.sum(list(counts.values()), axis=0).max())), np.zeros(BARS), []
    for part, numbers in counts.items():
        for place in np.flatnonzero(numbers):
            height = 54 * numbers[place] / highest
            below[place] += height
            sizes = {"x": 240 * place / BARS, "y": 60 - below[place], "width": 240 / BARS - 1.5, "height": height}
            bars.append({"part": part, **{name: f"{size:.1f}" for name, size in sizes.items()}})
    return bars
