"""What the Dataset tab shows of a job: what is in the dataset, how far it is, pairs of images, the report."""

from __future__ import annotations

from collections import Counter
from html import escape
from pathlib import Path
from textwrap import shorten

import numpy as np

from emitdiff.images import overlay, resize_image
from emitdiff.ui.interface import JobState
from emitdiff.ui.messages import duration, finished, note, progress, sentence
from emitdiff.ui.results import Pair

BUSY = ("waiting", "generating", "scoring")
DEFECTS = FINDINGS = 20  # named one by one
GAP = 6  # pixels of black between the images of a pair
EMPTY = np.full((256, 2 * 256 + GAP, 3), 24, np.uint8)  # in place of a pair to come
# The frame does not see whether the page around it is dark: its first line is told.
THEME = """html => html.replace(/&lt;html lang=&quot;en&quot;(?= ?&gt;)/, "$& class=&quot;" +
  (document.body.classList.contains("dark") ? "dark" : "light") + "&quot;")"""
LAYOUT = """my-images.zip
  images/  scan_1.png  scan_2.png   PNG, JPEG, DICOM, NIfTI, ...
  masks/   scan_1.png  scan_2.png   white on black, or class ids"""
GUIDE = f"""<div class="guide"><h2>Augment a small labelled dataset</h2>
<ol><li>Upload a ZIP of images and masks, or try the example. You are asked what the images do not say, and what
cannot be used is listed.</li>
<li>Choose how many synthetic images to generate per real image. The mask stays the label.</li>
<li>Review the report, worst images first, and export the result in the layout of your training framework.</li></ol>
<pre tabindex="0" role="region" aria-label="What is in the ZIP">{escape(LAYOUT)}</pre>
<p>Masks beside their images work too (scan_1.png, scan_1_mask.png), as do nnU-Net folders, tasks of the Medical
Segmentation Decathlon, and dataset folders (dataset.json, metadata.csv).</p>
<p>Generation continues on the server when this page is closed; reopen it in this browser to see the dataset. It is
kept for at most a day, or until you remove it; on a busy server idle datasets are removed earlier.</p></div>"""


def check_html(state: JobState) -> str:
    """What `check_dataset` found: a line, the classes as a table, the defects by kind and the first of them."""
    check = state.check
    title = f"{check.info.name}: {check.info.modality}, {check.info.organ}. " if check.info else ""
    lines = [note(f"{title}{check.num_images} images in {check.num_groups} groups.")]
    if check.classes:
        rows = "".join(
            f"<tr><th scope='row'>{escape(name)}</th><td>{images:,}</td><td>{pixels:,}</td></tr>"
            for name, (images, pixels) in check.classes.items()
        )
        head = "".join(f"<th scope='col'>{word}</th>" for word in ("class", "images", "pixels"))
        lines.append(f"<table class='classes'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    if check.findings:
        most = sorted(check.findings.items(), key=lambda found: -found[1])[:FINDINGS]
        rest = len(check.findings) - len(most)
        listed = ", ".join(f"{shorten(name, 80)} {count}" for name, count in most)
        lines.append(note(f"Findings: {listed}" + (f" and {rest} more." if rest else ".")))
    return "".join(lines) + _import_notes(state) + _defects(state)


def _import_notes(state: JobState) -> str:
    items = "".join(f"<li>{escape(line.strip())}</li>" for line in state.notes)
    return f"<details class='defects'><summary>About the import</summary><ul>{items}</ul></details>" if items else ""


def _defects(state: JobState) -> str:
    defects = state.check.defects
    if not defects:
        return note("No defects.")
    kinds = ", ".join(f"{kind}: {count}" for kind, count in Counter(found.kind for found in defects).items())
    if state.usable:
        said = note(f"The dataset can be used. Warnings: {kinds}.", "warning")
    else:
        said = note(
            f"The dataset cannot be augmented until these defects are fixed: {kinds}. Then upload it again.", "error"
        )
    items = "".join(f"<li>{escape(found.where)}: {escape(found.what)}</li>" for found in defects[:DEFECTS])
    more = f"<li>and {len(defects) - DEFECTS} more</li>" if len(defects) > DEFECTS else ""
    return f"{said}<details class='defects'><summary>Show defects</summary><ul>{items}{more}</ul></details>"


def job_line(state: JobState) -> str:
    """HTML of the progress line for any stage."""
    if state.stage == "waiting":
        return progress("Queued. The first run after a server start loads the weights.", None)
    if state.stage in BUSY:
        return progress(_words(state), state.done / max(state.total, 1))
    images = f"{state.generated} synthetic image{'' if state.generated == 1 else 's'}"
    if state.stage == "failed" and state.error is not None:
        return finished(sentence(state.error), "error")
    if state.stage == "done":
        dropped = state.generated - state.kept
        return finished(f"{images}: {state.kept} kept, {dropped} dropped. The report lists the worst first.")
    if state.stage == "stopped":
        return finished(f"Stopped: {images} generated and kept. Augment resumes from there." if state.generated else
                        "Stopped before the first image was finished.")  # fmt: skip
    ready = "Dataset checked. Choose the settings and press Augment."
    return finished(ready) if state.usable else finished("This dataset has defects; see the list.", "error")


def _words(state: JobState) -> str:
    """ "Generating image 3 of 20, about 40 s left"."""
    doing = "Generating" if state.stage == "generating" else "Scoring"
    text = f"{doing} image {min(state.done + 1, state.total)} of {state.total}"
    return text if state.seconds_left is None else f"{text}, about {duration(state.seconds_left)} left"


def pair_picture(pair: Pair) -> np.ndarray:
    """Real and synthetic beside one another with the outlines of their masks, uint8 (H, 2 W + GAP, 3)."""
    real, painted = (overlay(image, mask, 0.0, 1) for image, mask in
                     ((pair.source, pair.source_mask), (pair.image, pair.mask)))  # fmt: skip
    real = resize_image(real, painted.shape[:2])
    return np.hstack([real, np.zeros((painted.shape[0], GAP, 3), np.uint8), painted])


def report_frame(path: Path) -> str:
    """The report page in a frame of its own, where no script runs."""
    page = escape(Path(path).read_text(encoding="utf-8"), quote=True)
    return f'<iframe class="report" title="Quality report, worst images first" sandbox srcdoc="{page}"></iframe>'
