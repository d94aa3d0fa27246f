"""Words of a text in one form: lower case, singular, British spelling, without articles."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from emitdiff.segmentation.wording.lexicon import BRITISH, IRREGULAR, UNCHANGED

BREAK = ","  # in place of punctuation that parts words
ARTICLES = ("the", "a", "an")
WORD_OR_BREAK = re.compile(r"\d+(?:\.\d+)?(?![\w&])|[\w&]+|[^\w\s&-]")


def tokens(text: str) -> list[str]:
    """The words of `text` in one form, and `BREAK` where punctuation parts them; hyphens part words as spaces do."""
    return tokens_and_articles(text)[0]


def tokens_and_articles(text: str) -> tuple[list[str], set[int]]:
    """(what `tokens` gives, the places in it of words that an article stands before)."""
    plain = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'").replace("_", " ")
    plain = re.sub(r"n't\b", " not", plain)
    plain = re.sub(r"\bno\.? ?(?=\d)", "number ", plain)  # "slice no. 12" denies nothing
    plain = re.sub(r"'s\b|s'(?=\s)", lambda found: "s" if found[0].startswith("s") else "", plain)
    found = (BREAK if not re.match(r"[\w&]", word) else in_one_form(word) for word in WORD_OR_BREAK.findall(plain))
    kept, determined, article = list[str](), set[int](), False
    for word in found:
        if word in ARTICLES:
            article = True
        elif word != BREAK or (kept and kept[-1] != BREAK):
            determined |= {len(kept)} if article else set()
            kept.append(word)
            article = False
    return kept[:-1] if kept and kept[-1] == BREAK else kept, determined


def plain_words(text: str) -> list[str]:
    """The words of `text` in one form, without punctuation."""
    return [word for word in tokens(text) if word != BREAK]


def in_one_form(word: str) -> str:
    """`word`, in lower case, as singular and in British spelling; what is no plural stays."""
    word = BRITISH.get(word, word)
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word in UNCHANGED or len(word) < 3 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        singular = word[:-3] + "y"
    elif word.endswith(("ches", "shes", "xes", "sses", "zes")):
        singular = word[:-2]
    else:
        singular = word[:-1]
    return BRITISH.get(singular, singular)


def stems(word: str) -> list[str]:
    """`word`, and what it may be a form of: "outlined", "cropping", "evenly"."""
    found = [word]
    for ending, instead in (
        ("ing", ""),
        ("ing", "e"),
        ("ed", ""),
        ("ed", "e"),
        ("ly", ""),
        ("ily", "y"),
        ("en", ""),
        ("n", ""),
    ):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            stem = word[: -len(ending)] + instead
            found.append(stem)
            if not instead and len(stem) > 3 and stem[-1] == stem[-2]:
                found.append(stem[:-1])
    if word.endswith("ied"):
        found.append(word[:-3] + "y")
    return [*found, *(stem[:-2] + "se" for stem in found if stem.endswith("ze"))]


def digest(text: str) -> str:
    """Eight letters that stand for `text`, from which it cannot be read."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
