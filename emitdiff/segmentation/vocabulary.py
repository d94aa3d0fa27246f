"""Targets a head can be trained on, the wordings of text queries, and the image kinds that never show a target.

Everything about words and their meaning is in this file: the targets, their names, the sentences made of them, and
the masks they stand for in a labelled image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from emitdiff.datasets.folder import DatasetFolder, DatasetInfo, Sample
from emitdiff.datasets.symmetry import canonical_kind

# Kinds of images, by modality and organ as dataset.json writes them.
IMAGE_KINDS = {
    "chest x-ray": ("X-ray", "chest"),
    "abdominal CT": ("CT", "abdomen"),
    "breast ultrasound": ("Ultrasound", "breast"),
    "prostate MRI": ("MRI", "prostate"),
    "cardiac MRI": ("MRI", "heart"),
    "microscopy": ("Microscopy", "nuclei"),
}
IMAGE_KIND_PHRASES = {
    "chest x-ray": ("chest X-ray", "chest radiograph", "X-ray of the chest", "CXR", "thorax radiograph", "X-ray"),
    "abdominal CT": ("abdominal CT", "CT of the abdomen", "CT slice", "CT scan", "axial CT", "computed tomography"),
    "breast ultrasound": ("breast ultrasound", "ultrasound image", "sonogram", "ultrasound of the breast", "US image"),
    "prostate MRI": ("prostate MRI", "pelvic MRI", "T2 MRI", "MR image", "MRI of the pelvis", "magnetic resonance"),
    "cardiac MRI": ("cardiac MRI", "heart MRI", "cine MRI", "short axis MRI", "MR image", "cardiac magnetic resonance"),
    "microscopy": ("microscopy image", "micrograph", "histology", "fluorescence microscopy", "tissue section", "H&E"),
}
LUNG_SIDES = ("left lung", "right lung")  # derived from a mask of both lungs


@dataclass(frozen=True)
class Target:
    """`labels` are the names datasets may give it; `absent_kinds` are the scenes that never show it (trusted
    negatives).

    A scene that is neither `image_kind` nor in `absent_kinds` may show it unlabelled: nothing is taught or claimed
    there. `scattered`: there may be several, some far smaller than others.
    """

    phrase: str
    image_kind: str
    labels: tuple[str, ...]
    names: tuple[str, ...]
    absent_kinds: tuple[str, ...]
    scattered: bool = False


def _all_kinds_but(*scenes: str) -> tuple[str, ...]:
    return tuple(scene for scene in IMAGE_KINDS if scene not in scenes)


_LUNG_ABSENT = _all_kinds_but("chest x-ray", "abdominal CT", "cardiac MRI")
_ORGAN_ABSENT = _all_kinds_but("abdominal CT", "cardiac MRI")

TARGETS = (
    Target("lung", "chest x-ray", ("lung", "lungs"), (
        "lung", "lungs", "both lungs", "lung fields", "pulmonary fields", "left and right lung", "the whole lung",
        "lung area", "lung parenchyma", "bilateral lungs"), _LUNG_ABSENT),
    Target("left lung", "chest x-ray", ("left lung",), (
        "left lung", "left lung field", "lung on the left", "the patient's left lung", "left pulmonary field",
        "only the left lung", "left-sided lung", "L lung"), _LUNG_ABSENT),
    Target("right lung", "chest x-ray", ("right lung",), (
        "right lung", "right lung field", "lung on the right", "the patient's right lung", "right pulmonary field",
        "only the right lung", "right-sided lung", "R lung"), _LUNG_ABSENT),
    Target("liver", "abdominal CT", ("liver",), (
        "liver", "liver tissue", "hepatic parenchyma", "hepatic region", "the whole liver", "liver organ", "hepar"),
        _ORGAN_ABSENT),
    Target("pancreas", "abdominal CT", ("pancreas",), (
        "pancreas", "pancreatic gland", "pancreatic tissue", "pancreas organ", "the whole pancreas",
        "pancreatic parenchyma"), _all_kinds_but("abdominal CT")),
    Target("spleen", "abdominal CT", ("spleen",), (
        "spleen", "splenic tissue", "splenic parenchyma", "spleen organ", "the whole spleen", "lien"), _ORGAN_ABSENT),
    Target("prostate", "prostate MRI", ("prostate",), (
        "prostate", "prostate gland", "whole prostate", "prostatic gland", "prostatic tissue", "whole gland"),
        _all_kinds_but("prostate MRI")),
    Target("breast lesion", "breast ultrasound", ("lesion", "tumour", "tumor", "mass", "breast lesion"), (
        "breast lesion", "lesion", "breast tumour", "tumor", "breast mass", "mass", "nodule", "cyst", "breast cancer",
        "tumour in the breast", "lesion of the breast", "malignant lesion", "benign lesion", "suspicious mass"),
        _all_kinds_but("breast ultrasound"), scattered=True),
    Target("nuclei", "microscopy", ("nucleus", "nuclei"), (
        "nuclei", "nucleus", "cell nuclei", "cell nucleus", "nuclei of the cells", "all nuclei", "cells",
        "nuclear regions", "stained nuclei"), _all_kinds_but("microscopy"), scattered=True),
    Target("left ventricle", "cardiac MRI", ("left ventricle", "lv"), (
        "left ventricle", "LV", "left ventricular cavity", "left ventricle cavity", "left heart chamber",
        "ventricle on the left", "left ventricular blood pool", "LV cavity"),
        _all_kinds_but("cardiac MRI", "abdominal CT")),
)  # fmt: skip
# Labels that say nothing without the organ.
GENERIC_LABELS = ("lesion", "lesions", "tumour", "tumours", "tumor", "tumors", "mass", "nodule", "cyst", "abnormality")
BY_PHRASE = {target.phrase: target for target in TARGETS}

# Other things people ask for: words that must be told apart though no embedded head was taught them.
OTHER_NAMES = (
    "kidney", "left kidney", "right kidney", "gallbladder", "stomach", "aorta", "vena cava", "oesophagus", "bowel",
    "colon", "bladder", "uterus", "ovary", "adrenal gland", "heart", "left atrium", "right ventricle", "myocardium",
    "pericardium", "trachea", "lung nodule", "infection", "consolidation", "pneumonia", "pleural effusion", "rib",
    "clavicle", "vertebra", "spine", "femur", "bone", "muscle", "fat", "skin", "skin lesion", "mole", "brain",
    "white matter", "grey matter", "hippocampus", "brain tumour", "oedema", "enhancing tumour", "necrosis", "stroke",
    "haemorrhage", "thyroid", "thyroid nodule", "lymph node", "vessel", "artery", "vein", "plaque", "aneurysm", "eye",
    "retina", "optic disc", "optic cup", "macula", "exudate", "fluid", "polyp", "instrument", "needle", "catheter",
    "gland", "epithelium", "stroma", "mitosis", "cytoplasm", "membrane", "bacterium", "organoid", "cartilage", "tendon",
    "meniscus", "tooth", "jaw", "tongue", "parotid gland", "fetal head", "placenta", "nerve", "kidney tumour",
    "liver tumour", "metastasis", "liver vessel", "peripheral zone", "transition zone", "shadow", "background",
)  # fmt: skip

TEMPLATES = (
    "{name}", "{name}", "the {name}", "segment the {name}", "segment {name}", "find the {name}", "where is the {name}?",
    "show me the {name}", "please mark the {name}", "outline the {name}", "{name} segmentation", "mask of the {name}",
    "delineate the {name}", "highlight the {name}", "I want the {name}", "which pixels belong to the {name}?",
    "locate {name}", "{name} only", "is there a {name}?", "contour of the {name}", "extract the {name}",
    "can you see the {name}?",
)  # fmt: skip
WITH_IMAGE_KIND = (
    "{rest} in this {scene}", "{rest} in the {scene}", "{rest} on the {scene}", "{scene}: {rest}", "{scene}, {rest}",
    "in this {scene}, {rest}", "{rest}, {scene}",
)  # fmt: skip
REMARKS = (
    "The {name} is evenly distributed.", "The {name} density is high.", "one {name}", "several {name}", "small {name}",
    "large {name}", "normal {name}", "The {name} is in the upper left.", "irregularly distributed {name}",
    "The {name} density is higher around.", "a {name} with unclear border", "dark {name}", "bright {name}",
    "The {name} are sparsely distributed.", "the {name} of the patient",
)  # fmt: skip


def own_sentence(info: DatasetInfo, label: str) -> str:
    """Modality, organ and label name: what is asked where a row brings no text of its own."""
    return f"{info.modality}, {info.organ}, {label}"


def compose_sentence(target: Target, rng: np.random.Generator) -> str:
    """One of very many ways to ask for `target`: names, word order, scene, remarks, letter case, punctuation, slips."""
    name = _choice(target.names, rng)
    kind = rng.random()
    if kind < 0.2:
        home = ", ".join(IMAGE_KINDS[target.image_kind]) if target.image_kind in IMAGE_KINDS else target.image_kind
        sentence = f"{home}, {_choice((name, _choice(target.labels, rng)), rng)}"
    elif kind < 0.35:
        sentence = _choice(REMARKS, rng).format(name=name)
    else:
        sentence = _choice(TEMPLATES, rng).format(name=name)
        if rng.random() < 0.35:
            scene = _choice(IMAGE_KIND_PHRASES.get(target.image_kind) or (target.image_kind.replace(",", ""),), rng)
            sentence = _choice(WITH_IMAGE_KIND, rng).format(rest=sentence, scene=scene)
    return _perturbed(sentence.replace("the the ", "the "), name, rng)


def _perturbed(sentence: str, name: str, rng: np.random.Generator) -> str:
    """Letter case, punctuation, and sometimes a dropped or strange word beside the name, which always stays."""
    kept = set(name.lower().split())
    words = []
    for word in sentence.split():
        if word.lower().strip(".,:?") not in kept and rng.random() < 0.1:
            continue
        words.append(word)
        if rng.random() < 0.03:
            words.append("".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 8))))
    text = " ".join(words)
    text = (text, text.lower(), text.upper(), text.capitalize())[rng.choice(4, p=(0.4, 0.3, 0.1, 0.2))]
    return text if text.endswith(("?", ".")) else text + ("", ".", "!")[rng.choice(3, p=(0.6, 0.35, 0.05))]


def _choice(choices, rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def image_kind_of(info: DatasetInfo) -> str | None:
    """The scene of a dataset by its modality and organ; None where it is another."""
    kind = canonical_kind(info)
    return next((name for name, pair in IMAGE_KINDS.items() if tuple(part.lower() for part in pair) == kind), None)


def image_kind_name(info: DatasetInfo) -> str:
    """The scene of a dataset, or for one that is none of `IMAGE_KINDS` its modality and organ."""
    return image_kind_of(info) or f"{info.modality}, {info.organ}"


def target_of(info: DatasetInfo, label: str) -> Target:
    """The target that a dataset's label stands for; one made of its own name where none of `TARGETS` is meant."""
    home, label = image_kind_name(info), label.lower().replace("_", " ")
    known = next((target for target in TARGETS if target.image_kind == home and label in target.labels), None)
    return known or _named_by(label, info.organ.lower(), home)


def _named_by(label: str, organ: str, home: str) -> Target:
    """A target whose only names are its label and, for a label like "lesion", the organ with it."""
    phrase = f"{organ} {label}" if label in GENERIC_LABELS else label
    return Target(phrase, home, (label,), tuple(dict.fromkeys((phrase, label))), ())


def targets_of(info: DatasetInfo) -> dict[str, Target]:
    """Phrase to target of everything a dataset can teach: what it labels, and the sides of a labelled lung."""
    labelled = [target_of(info, label) for label, value in info.labels.items() if value]
    found = {target.phrase: target for target in labelled}
    sides = ("left lung", "right lung") if found.get("lung") is BY_PHRASE["lung"] else ()
    return {**{side: BY_PHRASE[side] for side in sides}, **found}


def absent_targets(info: DatasetInfo) -> tuple[Target, ...]:
    """Targets that no image of this dataset shows."""
    scene, shown = image_kind_of(info), targets_of(info)
    return tuple(target for target in TARGETS if scene in target.absent_kinds and target.phrase not in shown)


def neighbouring_targets(info: DatasetInfo) -> tuple[Target, ...]:
    """Targets that an image of this dataset may show though it does not label them: organs beside the labelled one."""
    scene, shown = image_kind_of(info), targets_of(info)
    return tuple(target for target in TARGETS if target.image_kind == scene and target.phrase not in shown)


def match_target(text: str, trained: Sequence[str] = ()) -> Target | None:
    """The target a sentence names literally (the longest name found wins), None where it is put another way.

    `trained` are the phrases a head was taught: among them may be others than `TARGETS`, and of targets that share a
    name ("tumour") the taught one is meant.
    """
    words, custom = _words(text), [target_named(phrase) for phrase in trained if phrase not in BY_PHRASE]
    found = [((len(name), target.phrase in trained), target) for target in (*TARGETS, *custom)
             for name in (*target.names, *target.labels, target.phrase) if _words(name) in words]  # fmt: skip
    return max(found, key=lambda pair: pair[0])[1] if found else None


def target_named(phrase: str) -> Target:
    """The target of a phrase that a head was taught: one of `TARGETS`, or one as `target_of` made it, whose home is not
    known any more."""
    if phrase in BY_PHRASE:
        return BY_PHRASE[phrase]
    organ, _, label = phrase.rpartition(" ")
    return _named_by(label, organ, "") if organ and label in GENERIC_LABELS else _named_by(phrase, "", "")


def _words(text: str) -> str:
    """The words alone, each between spaces: punctuation and hyphens part words and mean nothing else."""
    words = re.findall(r"[\w&]+", text.lower())
    return f" {' '.join(words)} "


def split_lungs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(left lung, right lung) of the patient from a boolean lung mask in radiological display; None where unclear.

    The patient's left is on the image's right. Two large regions are needed, one beside the other.
    """
    from scipy.ndimage import label

    regions, count = label(mask)
    if count < 2:
        return None
    areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    first, second = np.argsort(areas)[::-1][:2] + 1
    if areas[second - 1] < 0.25 * areas[first - 1]:
        return None
    columns = [np.nonzero(regions == region)[1].mean() for region in (first, second)]
    if abs(columns[0] - columns[1]) < 0.15 * mask.shape[1]:
        return None
    beyond_middle = np.arange(mask.shape[1])[None, :] > np.mean(columns)
    left = regions == (first if columns[0] > columns[1] else second)
    right = regions == (second if columns[0] > columns[1] else first)
    rest = mask & ~left & ~right
    return left | (rest & beyond_middle), right | (rest & ~beyond_middle)


def target_masks(sample: Sample, info: DatasetInfo) -> dict[str, np.ndarray]:
    """Every target this labelled image teaches: phrase to boolean (H, W); empty masks mean that it is not there."""
    masks = {}
    for label, value in info.labels.items():
        if value:
            masks[target_of(info, label).phrase] = sample.mask == value
    sides = split_lungs(masks["lung"]) if "left lung" in targets_of(info) and "lung" in masks else None
    if sides is not None:
        masks["left lung"], masks["right lung"] = sides
    return masks


def queries_of(sample: Sample, dataset: DatasetFolder) -> list[tuple[str, str, np.ndarray]]:
    """(target, own sentence, truth) for every label of the dataset in one image, left and right lung included."""
    queries, labels = [], {label: value for label, value in dataset.info.labels.items() if value}
    for label, value in labels.items():
        # a row's own text speaks of all its labels at once: with several labels it would not say which is meant
        own = sample.text if sample.text and len(labels) == 1 else own_sentence(dataset.info, label)
        queries.append((target_of(dataset.info, label).phrase, own, sample.mask == value))
    sides = target_masks(sample, dataset.info)
    queries += [(side, own_sentence(dataset.info, side), sides[side]) for side in LUNG_SIDES
              if side in sides and side not in dataset.info.labels]  # fmt: skip
    return queries


def num_queries(info: DatasetInfo) -> int:
    """How many `queries_of` an image has at most."""
    labelled = {target_of(info, label).phrase for label, value in info.labels.items() if value}
    return sum(value != 0 for value in info.labels.values()) + len(targets_of(info).keys() - labelled)


def example_sentences(targets: Sequence[str], modality: str = "") -> tuple[str, ...]:
    """Three sentences for each of the taught `targets` at home in `modality`, or without one a sentence for each.

    A target that was taught elsewhere has no home: it is asked for plainly, whatever the modality.
    """
    sentences = []
    for phrase in targets:
        known = BY_PHRASE.get(phrase)
        if known is None:
            sentences += [f"segment the {phrase}", f"outline the {phrase} in this image"]
        elif not modality or IMAGE_KINDS[known.image_kind][0].lower() == modality.lower():
            sentences += list(_phrasings(phrase))[: None if modality else 1]
    return tuple(dict.fromkeys(sentences))


def _phrasings(phrase: str) -> Iterator[str]:
    target = BY_PHRASE[phrase]
    scene = IMAGE_KIND_PHRASES[target.image_kind][0]
    yield f"segment the {phrase} in this {scene}"
    yield f"{scene}: {target.names[1]}"
    yield f"{target.names[2]} only"
