"""Prompt adherence: image kinds are classified, appearance is measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from emitdiff.datasets.folder import DatasetFolder, open_dataset
from emitdiff.datasets.splits import choose_rows
from emitdiff.errors import EmitDiffError
from emitdiff.studies.image_kind_classifier import ImageKindNetwork, Kind
from emitdiff.studies.results_table import markdown_table
from emitdiff.synthesis.loading import load_synthesizer
from emitdiff.synthesis.pipeline import SynthesisPipeline
from emitdiff.synthesis.prompts import compose_prompt, prompt_of
from emitdiff.synthesis.training.captions import APPEARANCE_WORDS, measure_appearance
from emitdiff.synthesis_settings import SynthesisSettings

TRAIN_IMAGES, TEST_IMAGES = 200, 60  # real images of each dataset that the classifier is trained on, and tried on
STRUCTURE_OF_MODE = {"text alone": 0.0, "outline": 0.5}  # how kinds are generated: the structure asked for
STRUCTURES = {"full": 1.0, "outline": 0.5}  # at which structure words are tried


@dataclass(frozen=True)
class EvaluatePrompts:
    """Settings of `evaluate_prompts`. `limit` images are generated of each dataset's kind in each way, and as many
    sources of each dataset are generated with every appearance word, at each structure: 2 x (limit + 9 x limit) images
    a dataset."""

    datasets: tuple[Path, ...]
    checkpoint: str = "emitdiff-mini"
    limit: int = 4
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    json: bool = False


@dataclass(frozen=True)
class Source:
    """One dataset as it is used here: real training rows to teach the classifier, held-out rows for all the rest."""

    kind: Kind
    train: DatasetFolder
    held: DatasetFolder


def evaluate_prompts(settings: EvaluatePrompts) -> dict:
    """Prints how often named kinds are recognised and what appearance words move; with `json` one object at the end.

    The classifier is trained on training groups of the datasets (as the checkpoint's training split them) and tried on
    held-out ones; outlines and sources are of held-out images.

    Raises:
        EmitDiffError: unreadable datasets, fewer than two image kinds, or an unknown checkpoint.
    """
    opened = [open_dataset(folder) for folder in settings.datasets]
    kinds = list(dict.fromkeys((dataset.info.modality, dataset.info.organ) for dataset in opened))
    if len(kinds) < 2:
        raise EmitDiffError("All datasets have the same modality and organ: name two or more kinds to tell apart.")
    pipeline = load_synthesizer(settings.checkpoint)
    sources = [_source(dataset, pipeline) for dataset in opened]
    asked = SynthesisSettings(
        num_images=1, seed=settings.seed, num_inference_steps=settings.steps, guidance_scale=settings.guidance
    )
    network, real = train_kind_network(sources, kinds, settings.seed)
    result = {
        "real_images_recognised": real,
        "kinds": kind_accuracy(pipeline, sources, network, settings.limit, asked),
        "words": {
            name: appearance_words(pipeline, sources, structure, settings.limit, asked)
            for name, structure in STRUCTURES.items()
        },
        "settings": json.loads(json.dumps(asdict(settings), default=str)),
    }
    print(as_markdown(result))
    if settings.json:
        print(json.dumps(result))
    return result


def _source(dataset: DatasetFolder, pipeline: SynthesisPipeline) -> Source:
    training = pipeline.checkpoint_card.training
    split = training.get("held_out", 0.2), training.get("split_seed", 0)
    real = dataset.real()
    train, held = (choose_rows(real, part, None, *split) for part in ("train", "held-out"))
    return Source((dataset.info.modality, dataset.info.organ), train, held)


def train_kind_network(sources: Sequence[Source], kinds: Sequence[Kind], seed: int) -> tuple[ImageKindNetwork, dict]:
    """A classifier of `kinds`, and the share and number of held-out real images that it recognises."""
    network = ImageKindNetwork(kinds, seed)
    images, answers = _pictures(sources, "train", TRAIN_IMAGES)
    network.train(images, answers)
    images, answers = _pictures(sources, "held", TEST_IMAGES)
    return network, {"share": _share(network(images), answers), "n": len(answers)}


def _pictures(sources: Sequence[Source], part: str, limit: int) -> tuple[list[np.ndarray], list[Kind]]:
    rows = [
        (sample.image, source.kind) for source in sources for sample in choose_rows(getattr(source, part), limit=limit)
    ]
    return [image for image, _ in rows], [kind for _, kind in rows]


def _share(found: Sequence, wanted: Sequence) -> float:
    return float(np.mean([one == other for one, other in zip(found, wanted, strict=True)]))


def kind_accuracy(
    pipeline: SynthesisPipeline,
    sources: Sequence[Source],
    network: ImageKindNetwork,
    limit: int,
    asked: SynthesisSettings,
) -> dict[str, dict]:
    """Generation mode to the fractions of images whose modality, organ, and both are those named, whole and per kind.

    "text alone": the prompt names modality and organ, nothing else is given. "outline": a held-out mask and the prompt
    of its row.
    """
    result = {}
    for way, structure in STRUCTURE_OF_MODE.items():
        found: list[Kind] = []
        wanted: list[Kind] = []
        for source in tqdm(sources, desc=f"generating kinds, {way}", unit="dataset"):
            painted = _generate_kind(pipeline, source, structure, limit, asked)
            found += network(painted)
            wanted += [source.kind] * len(painted)
        both = list(zip(found, wanted, strict=True))
        result[way] = _accuracy(both) | {
            "per_kind": {", ".join(kind): _accuracy([pair for pair in both if pair[1] == kind])
                         for kind in dict.fromkeys(wanted)}
        }  # fmt: skip
    return result


def _generate_kind(
    pipeline, source: Source, structure: float, limit: int, asked: SynthesisSettings
) -> list[np.ndarray]:
    asked = asked.replace(structure=structure)
    if structure == 0:
        prompt = compose_prompt(*source.kind)
        return [one.image for one in pipeline(None, None, asked, prompt=prompt, num_images=limit)]
    painted = []
    for number, sample in enumerate(labelled(source.held, limit)):
        prompt = prompt_of(source.held.info, sample.mask, sample.finding)
        painted += pipeline(None, sample.mask, asked, prompt=prompt, seed=asked.seed + number)
    return [one.image for one in painted]


def labelled(rows: DatasetFolder, limit: int) -> list:
    """`limit` samples spread over the rows, those whose mask is empty left out (of twice as many, if need be)."""
    found = [sample for sample in choose_rows(rows, limit=2 * limit) if sample.mask.any()]
    kept = np.linspace(0, len(found) - 1, min(limit, len(found))).round().astype(int)
    return [found[index] for index in kept]


def _accuracy(pairs: Sequence[tuple[Kind, Kind]]) -> dict[str, float | int]:
    return {
        "modality": float(np.mean([found[0] == wanted[0] for found, wanted in pairs])),
        "organ": float(np.mean([found[1] == wanted[1] for found, wanted in pairs])),
        "both": float(np.mean([found == wanted for found, wanted in pairs])),
        "n": len(pairs),
    }


def appearance_words(
    pipeline: SynthesisPipeline, sources: Sequence[Source], structure: float, limit: int, asked: SynthesisSettings
) -> dict[str, dict]:
    """Word to the share of pairs in which its measure moves as it says, and the mean shift, with n.

    A pair shares seed, source and everything else; "word" compares with the word and without, "opposite" with the word
    and with its opposite ("dark" against "bright"). Shifts are in the units of `measure_appearance`.
    """
    words = [word for pair in APPEARANCE_WORDS.values() for word in pair]
    measured: list[dict[str, dict[str, float]]] = []
    chosen = [(source, sample) for source in sources for sample in labelled(source.held, limit)]
    for number, (source, sample) in enumerate(tqdm(chosen, desc=f"generating words, structure {structure:g}")):
        plain = prompt_of(source.held.info, sample.mask, sample.finding)
        row = {}
        for word in ("", *words):
            own = asked.replace(
                prompt=compose_prompt(plain, appearance=word), seed=asked.seed + number, structure=structure
            )
            painted = pipeline(sample.image if structure > 0.5 else None, sample.mask, own)
            row[word] = measure_appearance(painted[0].image)
        measured.append(row)
    return compare_words(measured)


def compare_words(measured: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict]:
    """The table of `appearance_words` from measures by word ("" for none) of every pair."""
    result = {}
    for name, (low, high) in APPEARANCE_WORDS.items():
        for word, opposite, sign in ((low, high, -1), (high, low, 1)):
            shifts = {
                "word": [row[word][name] - row[""][name] for row in measured],
                "opposite": [row[word][name] - row[opposite][name] for row in measured],
            }
            result[word] = {"measure": name, "n": len(measured)} | {
                against: {
                    "right": float(np.mean([sign * shift > 0 for shift in values])),
                    "shift": float(np.mean(values)),
                }
                for against, values in shifts.items()
            }
    return result


def as_markdown(result: dict) -> str:
    """The result as tables in markdown."""
    real = result["real_images_recognised"]
    kinds = [
        [way, name, *(f"{100 * row[share]:.1f} %" for share in ("modality", "organ", "both")), str(row["n"])]
        for way, found in result["kinds"].items()
        for name, row in {**found["per_kind"], "all": found}.items()
    ]
    words = [
        [structure, word, row["measure"], *(cell for against in ("word", "opposite") for cell in
         (f"{100 * row[against]['right']:.0f} %", f"{row[against]['shift']:+.2g}")), str(row["n"])]
        for structure, found in result["words"].items() for word, row in found.items()
    ]  # fmt: skip
    kind_columns = ["generated from", "named in the prompt", "modality found", "organ found", "both", "n"]
    word_columns = ["structure", "word", "measure", "against none", "shift", "against opposite", "shift", "n"]
    return "\n".join([
        "", f"Of {real['n']} held-out real images the classifier recognises {100 * real['share']:.1f} %.", "",
        markdown_table(kind_columns, kinds), "",
        "Appearance words, same seed: share of pairs that move the right way, and mean shift", "",
        markdown_table(word_columns, words),
    ])  # fmt: skip
