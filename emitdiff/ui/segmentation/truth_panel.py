"""Reference mask, uploaded or drawn, and the metrics of the prediction: figures, a table, a CSV file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from emitdiff.cells import write_cells
from emitdiff.errors import EmitDiffError
from emitdiff.files import file_stem
from emitdiff.ui.archive import answer_folder
from emitdiff.ui.drawing import CLOSE, build_drawing
from emitdiff.ui.finding import Finding, Volume
from emitdiff.ui.interface import Callables
from emitdiff.ui.messages import figures, note, sentence
from emitdiff.ui.results import Scan
from emitdiff.ui.source import SESSION_SECONDS, Source, slice_index

MEASURES = ("dice", "iou", "precision", "recall", "hd95")
COLUMNS = ("image", "slice", "text", "weights", "threshold", "class", *MEASURES, "hd95_unit", "notice")
NOTICE = "research use only, not a medical device"
BEST_CLASS = 0  # in the menu of classes: the one that fits best
NO_TARGET = "The reference mask is empty: the target is absent, so any predicted mask scores 0."
ASK = "Add or draw a reference mask to compare with."


@dataclass(frozen=True, eq=False)
class Truth:
    """Class ids uint8 (S, H, W) of a whole scan, or (1, H, W) of its slice `index` alone."""

    classes: np.ndarray
    index: int | None = None

    def at(self, index: int) -> np.ndarray:
        if self.index is None:
            return self.classes[index]
        if self.index != index:
            raise EmitDiffError(
                f"The reference mask belongs to slice {self.index + 1}: go to that slice, or add one for this slice."
            )
        return self.classes[0]


class TruthPanel:
    """`lay_out_input` and `lay_out_scores` lay out its halves; `connect` ties them to the tab around."""

    def __init__(self, calls: Callables) -> None:
        self.calls = calls
        self.truth = gr.State(None, time_to_live=SESSION_SECONDS)

    def lay_out_input(self) -> None:
        self.file = gr.File(label="Reference mask (optional): for Dice, IoU, HD95", height=92, elem_classes="drop")
        self.note = gr.HTML(elem_classes="beside")
        self.drawing = build_drawing("Draw the reference mask", "Use the drawing as reference mask")
        self.label = gr.Dropdown([("best match", BEST_CLASS)], value=BEST_CLASS, label="Class of the reference mask",
                                 visible=False)  # fmt: skip

    def lay_out_scores(self) -> None:
        self.figures = gr.HTML(blank(ASK))
        self.table = gr.HTML(elem_classes="beside scores")
        self.csv = gr.DownloadButton("Download scores (CSV)", size="sm", interactive=False, elem_classes="download")

    @property
    def inputs(self) -> dict[str, Any]:
        """What `compare` needs besides the finding."""
        return {"truth": self.truth, "label": self.label}

    @property
    def outputs(self) -> list[Any]:
        return [self.figures, self.table, self.csv, self.note]

    def connect(self, source: Source, finding: gr.State, quiet: dict[str, Any]) -> dict[str, Any]:
        """Returns the event arguments of a comparison, for whatever changes `finding`."""
        compare = {"fn": self.compare, "inputs_kwargs": {"finding": finding, **self.inputs}, "outputs": self.outputs,
                   **quiet}  # fmt: skip
        taken: dict[str, Any] = {"file": self.file, "scan": source.scan, "slice_number": source.slice}
        self.file.change(self.take, inputs_kwargs=taken, outputs=[self.truth, self.label, self.note], **quiet).then(
            **compare
        )
        self.drawing.connect(source, self.file, self.note, quiet)
        gr.on([source.slice.input, source.scan.change], outputs=self.drawing.panel, **CLOSE)
        self.label.input(**compare)
        return compare

    def take(self, file: str | None, scan: Scan | None, slice_number: float) -> dict[Any, Any]:
        """The file was chosen, drawn or taken away: its classes; one that does not fit is named beside it."""
        hidden = gr.update(visible=False, value=BEST_CLASS)
        if not file:
            return {self.truth: None, self.label: hidden, self.note: ""}
        try:
            if scan is None:
                raise EmitDiffError("Choose an image before its reference mask.")
            truth = self._read(file, scan, slice_index(scan, slice_number))
        except Exception as error:
            return {self.truth: None, self.label: hidden, self.note: note(sentence(error), "error")}
        classes = [int(label) for label in np.unique(truth.classes) if label]
        menu = [("best match", BEST_CLASS), *((f"class {label}", label) for label in classes)]
        shown = gr.update(choices=menu, value=BEST_CLASS, visible=len(classes) > 1)
        return {self.truth: truth, self.label: shown, self.note: "" if classes else note(NO_TARGET)}

    def _read(self, file: str, scan: Scan, index: int) -> Truth:
        if scan.num_slices == 1:
            return Truth(self.calls.read_mask(file, scan, 0)[None])
        try:
            return Truth(self.calls.read_masks(file, scan))
        except EmitDiffError:
            return Truth(self.calls.read_mask(file, scan, index)[None], index)

    def compare(self, finding: Finding | None, truth: Truth | None, label: int | None) -> dict[Any, Any]:
        """Measures of what was found against the true mask, of one class where it has several."""
        nothing = {self.table: "", self.csv: gr.update(value=None, interactive=False), self.note: gr.skip()}
        if finding is None or truth is None or finding.refused:
            return {self.figures: blank("" if truth else ASK), **nothing}
        try:
            rows, chosen = self._rows(finding, truth, label or BEST_CLASS)
            file = write_csv(rows, finding)
        except Exception as error:
            return {**nothing, self.figures: blank(), self.note: note(sentence(error), "error")}
        first = next(row for row in rows if row["class"] == chosen)
        unit = first["hd95_unit"]
        shown = {"Dice": number(first["dice"]), "IoU": number(first["iou"]), f"HD95, {unit}": number(first["hd95"], 1)}
        words = f"“{finding.text}” compared with the reference mask, {first['where']}"
        if len({row["class"] for row in rows}) > 1:
            words += f", class {chosen}" + ("" if label else " (best match)")
        return {
            self.figures: figures(shown, words),
            self.table: scores_table(rows, chosen) if len(rows) > 1 else "",
            self.csv: gr.update(value=str(file), interactive=True),
            self.note: "" if truth.classes.any() else note(NO_TARGET),
        }

    def _rows(self, finding: Finding, truth: Truth, label: int) -> tuple[list[dict], int]:
        """The rows of the table and the class that is meant: every class in this slice, then the chosen one without
        text and in the whole volume, where there are such answers."""
        here, index = truth.at(finding.index), finding.index
        classes = [int(value) for value in np.unique(truth.classes) if value] or [1]
        where = "this slice" if finding.scan.num_slices > 1 else "this image"
        rows = [self._row(finding, finding.output.mask, here == value, value, where, index) for value in classes]
        chosen = label if label in classes else max(rows, key=lambda each: each["dice"])["class"]
        if finding.without is not None:
            mask = finding.without.mask
            rows.append({**self._row(finding, mask, here == chosen, chosen, "without the text", index), "text": ""})
        if finding.volume is not None and truth.index is None:
            kept, key = finding.volume.scores, (truth, chosen, finding.threshold)
            if key not in kept:  # every slice is scored once, not at each look at another
                kept.clear()
                kept[key] = list(self._volume_rows(finding, finding.volume, truth.classes == chosen, chosen))
            rows += [row for row in kept[key] if row["slice"] != index + 1]
        return rows, chosen

    def _volume_rows(
        self, finding: Finding, volume: Volume, there: np.ndarray, chosen: int
    ) -> Iterator[dict[str, Any]]:
        """All slices as one body, then each slice that shows the target or was said to; those are for the file only."""
        masks = volume.masks(finding.threshold)
        yield {**self._row(finding, masks, there, chosen, "all slices", 0), "slice": "all"}
        for index in np.flatnonzero((there | (masks > 0)).any(axis=(1, 2))):
            yield self._row(finding, masks[index], there[index], chosen, "", int(index))

    def _row(self, finding: Finding, mask: np.ndarray, there: np.ndarray, value: int, where: str, index: int) -> dict:
        """One comparison; `where` is what the table calls it, "" for one that is not shown there."""
        spacing = finding.scan.spacing
        measures = self.calls.score(mask, there.astype(np.uint8), spacing and spacing[-mask.ndim :])
        unit = "mm" if spacing else "px"
        return {"slice": index + 1, "where": where, "text": finding.text, "class": value, "hd95_unit": unit, **measures}


def blank(words: str = "") -> str:
    return figures({"Dice": "-", "IoU": "-", "HD95": "-"}, words)


def number(value: float | None, digits: int = 3) -> str:
    """A measure to read; a dash where it is not defined."""
    return "-" if value is None else f"{value:.{digits}f}"


def scores_table(rows: list[dict], chosen: int) -> str:
    """HTML with a line for each row, those of the chosen class in bold."""
    heads = ("Class", "Where", "Dice", "IoU", f"HD95, {rows[0]['hd95_unit']}")
    lines = "".join(
        f"<tr{' class=chosen' if row['class'] == chosen else ''}><th scope='row'>{row['class']}</th>"
        f"<td>{escape(row['where'])}</td><td>{number(row['dice'])}</td><td>{number(row['iou'])}</td>"
        f"<td>{number(row['hd95'], 1)}</td></tr>"
        for row in rows
        if row["where"]
    )
    head = "".join(f"<th scope='col'>{name}</th>" for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def write_csv(rows: list[dict], finding: Finding) -> Path:
    """A file with the columns `COLUMNS`, the whole before its slices; its path."""
    facts = {"image": finding.scan.name, "weights": Path(finding.checkpoint).name, "threshold": finding.threshold,
             "notice": NOTICE}  # fmt: skip
    path = answer_folder() / f"{file_stem(finding.scan.name)}_scores.csv"
    lines = []
    for row in sorted(rows, key=lambda each: 0 if each["slice"] == "all" else each["slice"]):
        measures = {name: row[name] if row[name] is None else round(row[name], 4) for name in MEASURES}
        lines.append({**facts, **row, **measures})
    with path.open("w", newline="", encoding="utf-8") as file:
        write_cells(file, COLUMNS, lines)
    return path


def one_class(classes: np.ndarray, label: int) -> np.ndarray:
    """The pixels of one class, 0 and 1. Raises EmitDiffError where it is not clear which."""
    there = [int(value) for value in np.unique(classes) if value]
    if label == BEST_CLASS and len(there) > 1:
        known = ", ".join(map(str, there))
        raise EmitDiffError(
            f"The reference mask holds the classes {known}: choose one under “Class of the reference mask”."
        )
    return (classes == (there[0] if label == BEST_CLASS and there else label or 1)).astype(np.uint8)
