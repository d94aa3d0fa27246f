"""The quality report: one page that needs nothing else, images from worst to best, each beside its source."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from importlib.resources import files

import numpy as np
from PIL import Image

from emitdiff.datasets.folder import DatasetFolder
from emitdiff.images import outline_path, resize_image, to_rgb
from emitdiff.synthesis.filtering.scoring import Filter, ScoredImage

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
    "twin": "Duplicate",
}
MEANINGS = {
    "edges": "F1 of the control edges and the edges of the image, tolerance 2 pixels at 256",
    "dice": "Dice of a segmenter with the mask, relative to its Dice on the source",
    "histogram": "Wasserstein distance in grey levels to the histogram of the nearest real image",
    "copy": "Similarity to the nearest real image, mirrored or not (contrast-normalized MS-SSIM)",
    "twin": "Similarity to an earlier image generated from the same source",
}
UNAVAILABLE = {
    "edges": "not applicable: structure below 1, or an edited mask",
    "dice": "no segmenter, no label, or a segmenter that fails on the source as well",
    "twin": "the first kept image of its source",
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
        if "twin" in one.failed:
            third = ("earlier one", synthetic[by_name[one.twin_of]], False)
        elif "copy" in one.failed and one.nearest_name != one.row["source"]:
            third = ("real image", real[places[one.nearest_name]], one.nearest.mirrored)
        pictures = [("source", real[places[one.row["source"]]], False), ("synthetic", synthetic[one.index], False)]
        cards.append(_card(rank, one, pictures + ([third] if third else []), settings))
    kept = sum(one.kept for one in ranked)
    style = files("emitdiff.synthesis.filtering").joinpath("report.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Quality of {escape(synthetic.info.name)}: {kept} of {len(ranked)} kept</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{escape(synthetic.info.name)} <small>{escape(synthetic.info.modality)}, {escape(synthetic.info.organ)}</small></h1>
<p class="lead"><strong>{kept}</strong> of {len(ranked)} synthetic images kept, <strong>{len(ranked) - kept}</strong>
dropped. Compared with {len(real)} real ones; worst first.{_left_out(len(shown), len(ranked))}</p>
<section class="summary" aria-label="Scores of all images">
{"".join(_summary(name, ranked, settings) for name in TITLES)}
</section>
<form class="bar" aria-label="What is shown">
<fieldset><legend>Show</legend>
<label><input type="radio" name="show" id="all" checked><span>all</span></label>
<label><input type="radio" name="show" id="dropped"><span>dropped</span></label>
<label><input type="radio" name="show" id="kept"><span>kept</span></label></fieldset>
<fieldset><legend>Outline</legend>
<label><input type="checkbox" id="mask" checked><span><i class="line mask"></i>label</span></label>
<label><input type="checkbox" id="found"><span><i class="line found"></i>segmenter</span></label></fieldset>
</form>
</header>
<main>
{"".join(cards)}</main>
<footer>Synthetic images made by a generative model. Research use only, not a medical device. Every score of every image
is in quality.csv.</footer>
</body>
</html>
"""


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


def _picture(role: str, sample, mirrored: bool, found: str) -> str:
    height, width = sample.mask.shape
    box = f"0 0 {1000 * width / max(height, width):.0f} {1000 * height / max(height, width):.0f}"
    paths = "".join(
        f'<path class="{label}" d="{outline_path(sample.mask == label_id)}"/>'
        for label, label_id in (("mask", value) for value in np.unique(sample.mask[sample.mask > 0]))
    )
    paths += f'<path class="found" d="{found}"/>' if found else ""
    flip = ' class="mirrored"' if mirrored else ""
    words = f"{role}, mirrored" if mirrored else role
    return f"""<figure><div{flip}><img src="{data_uri(sample.image)}" alt="{escape(words)}: {escape(sample.name)}">
<svg viewBox="{box}" preserveAspectRatio="none" aria-hidden="true">{paths}</svg></div>
<figcaption>{escape(words)}</figcaption></figure>
"""


def _card(rank: int, one: ScoredImage, pictures: list, settings: Filter) -> str:
    """One image: the pictures, its scores, and the reason where it is dropped."""
    figures = "".join(
        _picture(role, sample, mirrored, one.found if role == "synthetic" else "")
        for role, sample, mirrored in pictures
    )
    state = "kept" if one.kept else "dropped"
    row, name = one.row, one.row["file_name"].rsplit("/", 1)[-1]
    facts = [row.get("prompt", ""), *(f"{key} {row[key]}" for key in ("seed", "structure") if row.get(key))]
    if row.get("edit"):
        facts.append("edited mask")
    if one.values["dice"] is None and one.dice is not None:
        facts.append(_why_unavailable("dice", one))
    reason = f'<p class="reason">{escape(one.reason)}</p>' if one.reason else ""
    return f"""<article class="{state}" id="image-{rank + 1}">
<h2><span class="rank">{rank + 1}</span><span class="name" title="{escape(one.row["file_name"])}">{escape(name)}</span>
<span class="state">{state}</span></h2>
<div class="pictures">{figures}</div>
{reason}
<dl>{"".join(_score(key, one, settings) for key in TITLES)}</dl>
<p class="facts">{escape(" · ".join(fact for fact in facts if fact))}</p>
</article>
"""


def _score(name: str, one: ScoredImage, settings: Filter) -> str:
    """Name, value and a small meter with a tick at the threshold."""
    value, limit = one.values[name], settings.limit(name)
    if value is None:
        return f'<div title="{escape(_why_unavailable(name, one))}"><dt>{TITLES[name]}</dt><dd>–</dd></div>'
    top = 2 * limit if name == "histogram" else 1.0
    share, tick = (100 * min(1.0, max(0.0, part / top)) if top else 0 for part in (value, limit))
    failed = name in one.failed
    said = f"{'✕ ' if failed else ''}{value:.{1 if name == 'histogram' else 2}f}"
    return (
        f'<div class="{"failed" if failed else "passed"}" title="{escape(MEANINGS[name])}"><dt>{TITLES[name]}</dt>'
        f'<dd>{said}</dd><span class="meter" style="--share:{share:.0f}%;--tick:{tick:.0f}%"></span></div>'
    )


def _why_unavailable(name: str, one: ScoredImage) -> str:
    if name == "dice" and one.dice is not None and one.dice_source is not None:
        return f"the segmenter is unreliable here: Dice {one.dice_source:.2f} on the source itself"
    return UNAVAILABLE[name]


def _summary(name: str, ranked: Sequence[ScoredImage], settings: Filter) -> str:
    """A histogram of one score over all images, with its threshold."""
    scored = [(one, value) for one in ranked if (value := one.values[name]) is not None]
    failed = sum(name in one.failed for one, _ in scored)
    head = f"<h2>{TITLES[name]} <small>{f'{failed} fail' if failed else 'none fail'}</small></h2>"
    if not scored:
        return f'<div class="chart">{head}<p>No image has this score: {escape(UNAVAILABLE[name])}.</p></div>'
    limit, values = settings.limit(name), [value for _, value in scored]
    top = max(*values, 1.25 * limit) if name == "histogram" else max(1.0, *values)
    parts = {
        "bad": [value for one, value in scored if name in one.failed],
        "good": [value for one, value in scored if name not in one.failed],
    }
    bars = _bars({part: np.histogram(numbers, BARS, (0.0, top))[0] for part, numbers in parts.items()})
    line, right = f"{240 * limit / top:.1f}", limit > 0.8 * top  # near the end, its number stands for the axis' own
    digits, sign = 0 if name == "histogram" else 2, "≥" if name in ("edges", "dice") else "≤"
    end = "" if right else f'<text x="240" y="73" text-anchor="end">{top:.{digits}f}</text>'
    where = 'x="240" text-anchor="end"' if right else f'x="{line}" text-anchor="middle"'
    return f"""<div class="chart">{head}
<svg viewBox="0 0 240 76" role="img" aria-label="{TITLES[name]} of {len(values)} images, threshold {limit:g}">{bars}
<line class="base" x2="240" y1="60.5" y2="60.5"/><line class="limit" x1="{line}" x2="{line}" y2="60"/>
<text x="0" y="73">0</text>{end}<text class="limit" y="73" {where}>{sign} {limit:g}</text></svg>
<p>{escape(MEANINGS[name])}</p></div>
"""


def _bars(counts: dict[str, np.ndarray]) -> str:
    """Bars of 240 x 54, the parts (CSS classes) stacked in the order given."""
    highest, below, bars = max(1, int(np.sum(list(counts.values()), axis=0).max())), np.zeros(BARS), []
    for part, numbers in counts.items():
        for place in np.flatnonzero(numbers):
            height = 54 * numbers[place] / highest
            below[place] += height
            bars.append(
                f'<rect class="{part}" x="{240 * place / BARS:.1f}" y="{60 - below[place]:.1f}" '
                f'width="{240 / BARS - 1.5:.1f}" height="{height:.1f}"/>'
            )
    return "".join(bars)
