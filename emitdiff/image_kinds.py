"""Kinds of images, by modality and organ, and whether a prompt asks for another kind than an image shows."""

from __future__ import annotations

import re
from dataclasses import dataclass

# What a prompt may call a modality or an organ, beside the words of the menus; whole words, whatever their case.
MODALITY_NAMES = {
    "Ultrasound": ("ultrasound", "sonogram", "sonography", "ultrasonography"),
    "MRI": ("mri", "mr", "magnetic resonance"),
    "CT": ("ct", "computed tomography"),
    "X-ray": ("x-ray", "xray", "radiograph", "cxr"),
    "Microscopy": ("microscopy", "micrograph", "histology", "h&e"),
}
ORGAN_NAMES = {
    "breast": ("breast", "mammary"),
    "prostate": ("prostate", "prostatic"),
    "heart": ("heart", "cardiac", "left ventricle", "myocardium"),
    "abdomen": ("abdomen", "abdominal", "liver", "pancreas", "spleen"),
    "chest": ("chest", "thorax", "thoracic", "lung", "lungs", "pulmonary"),
    "nuclei": ("nuclei", "nucleus"),
}


@dataclass(frozen=True)
class ImageKind:
    """A modality ("MRI") and an organ ("prostate", "" where it is not known); `told` begins a sentence that says how
    one knows: "This looks like a prostate MRI". `guessed` is whether it was read off the image."""

    modality: str
    organ: str
    told: str
    guessed: bool = False

    @property
    def words(self) -> str:
        """ "MRI, prostate"."""
        return ", ".join(word for word in (self.modality, self.organ) if word)


def kind_of_image(modality: str | None, seen: tuple[str, str, str] | None) -> ImageKind | None:
    """The kind of an image whose file names `modality`, None where it does not, and that looks like `seen`: a name, its
    modality and organ, None for none that is known. What the file says holds; None where neither says anything."""
    guess = None if seen is None else ImageKind(seen[1], seen[2], f"This looks like {with_article(seen[0])}", True)
    if not modality:
        return guess
    said = next((known for known in MODALITY_NAMES if known.lower() == modality.lower()), None)
    if said is None:
        return None
    if guess is not None and guess.modality == said:
        return guess
    return ImageKind(said, "", f"The file says {said}")


def contradiction(prompt: str, kind: ImageKind | None) -> str:
    """A sentence where `prompt` names another modality or organ than `kind`, and not its own; "" where it does not."""
    if kind is None:
        return ""
    modalities, organs = _named(prompt, MODALITY_NAMES), _named(prompt, ORGAN_NAMES)
    other_modality = bool(modalities) and kind.modality not in modalities
    other_organ = bool(organs) and bool(kind.organ) and kind.organ not in organs
    if not other_modality and not other_organ:
        return ""
    return f"{kind.told}; the prompt says {', '.join([*modalities, *organs])}."


def names_a_kind(prompt: str) -> bool:
    """Whether `prompt` names a modality or an organ, so that it can contradict an image."""
    return bool(_named(prompt, MODALITY_NAMES) or _named(prompt, ORGAN_NAMES))


def fitting_prompt(prompt: str, kind: ImageKind, findings: tuple[str, ...] = ()) -> str:
    """`prompt` for images of `kind`: its modality and organ, and of the parts between commas those that name neither
    another one nor one of the `findings`."""
    others = [MODALITY_NAMES, ORGAN_NAMES] if kind.organ else [MODALITY_NAMES]
    parts = [part.strip() for part in prompt.split(",")]
    known = {finding.lower() for finding in findings} if kind.organ else set()
    kept = [part for part in parts if part and part.lower() not in known
            and not any(_named(part, names) for names in others)]  # fmt: skip
    return ", ".join([kind.words, *kept])


def with_article(kind: str) -> str:
    """ "a breast ultrasound", "an abdominal CT", "microscopy"."""
    return kind if kind == "microscopy" else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _named(text: str, names: dict[str, tuple[str, ...]]) -> list[str]:
    """Those of `names` that `text` mentions by one of their words."""
    return [
        name for name, words in names.items()
        if any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in words)
    ]  # fmt: skip
