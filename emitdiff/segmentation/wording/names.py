"""How a target may be called: the names it was taught by, and those of the lexicon."""

from __future__ import annotations

from emitdiff.segmentation.vocabulary import GENERIC_LABELS
from emitdiff.segmentation.wording import lexicon
from emitdiff.segmentation.wording.words import plain_words


def names_of(phrase: str) -> list[str]:
    """Names of what `phrase` is called, from the lexicon: "hepatic parenchyma" for "liver"; none where it has none."""
    found = next((entry for entry in lexicon.SYNONYMS.values() if phrase in entry[0]), None)
    nouns, adjectives = lexicon.SYNONYMS.get(phrase) or found or ((), ())
    whole = lexicon.SUBSTANCE
    together = [f"{adjective} {noun}" for adjective in adjectives for noun in whole]
    return [*nouns, *together, *(f"{noun} {part}" for noun in nouns for part in whole),
            *(f"{part} of {noun}" for noun in nouns for part in whole)]  # fmt: skip


def lesion_names() -> list[str]:
    """Names of a lesion of the breast that say the breast."""
    before = [f"{organ} {name}" for organ in ("breast", "mammary") for name in lexicon.LESIONS]
    return [*before, *(f"{name} {where} breast" for name in lexicon.LESIONS for where in ("of", "in", "within"))]


def is_plain_lesion(name: str) -> bool:
    """Whether `name` says nothing of where: "lesion", "tumours"."""
    words = plain_words(name)
    plain = {*lexicon.PLAIN_LESIONS, *(word for label in GENERIC_LABELS for word in plain_words(label))}
    return len(words) == 1 and words[0] in plain


def split_side(phrase: str) -> tuple[str, str]:
    """(side, organ) of "left lung" or "kidney right"; ("", phrase) of what has no side."""
    words = phrase.split()
    if len(words) > 1 and words[0] in lexicon.SIDES:
        return words[0], " ".join(words[1:])
    if len(words) > 1 and words[-1] in lexicon.SIDES:
        return words[-1], " ".join(words[:-1])
    return "", phrase
