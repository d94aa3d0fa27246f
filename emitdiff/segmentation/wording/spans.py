"""A text as spans of words that belong together, each with a letter for what it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from emitdiff.segmentation.wording import lexicon
from emitdiff.segmentation.wording.words import BREAK, digest, stems, tokens, tokens_and_articles

# A text is judged by these letters in a row. A paired organ is one whose sides were taught.
TAUGHT, GENERIC, PAIRED, OTHER, UNKNOWN = "T", "G", "B", "O", "U"
NEGATION, RELATION, PART, SIDE, DIRECTION, FLANK = "-", "R", "X", "s", "d", "h"
OF, CONTAINED, ANYTHING, PIXEL, NOUN, PICTURE = "o", "i", "Q", "x", "N", "I"
VERB, FILLER, ADJECTIVE, LESION, MODALITY, PLACE, PERSON, NUMBER = "V", "F", "A", "L", "K", "P", "W", "#"
ADVERB = re.compile("(al|i|e|t|d|r|s|ng|ful|ous|b)ly$")  # but not "splenomegaly"
NUMERAL = re.compile(r"\d+(\.\d+)?|[ivx]+")
SELECTING = (OTHER, PART, SIDE, DIRECTION, FLANK, RELATION)  # harmless in a sentence that a head was taught by
INFLECTED = (VERB, ADJECTIVE, LESION)  # whose forms are known by their stems
COMMON = (
    (OF, ("of",)), (CONTAINED, lexicon.CONTAINED), (SIDE, lexicon.SIDES), (RELATION, lexicon.RELATIONS),
    (FLANK, ("side", "hand side")),
    (PICTURE, lexicon.PICTURES), (PERSON, lexicon.PERSONS), (PIXEL, lexicon.PIXELS), (VERB, lexicon.REQUESTS),
    (ANYTHING, lexicon.ANYTHING), (NOUN, lexicon.NOUNS), (DIRECTION, lexicon.DIRECTIONS), (PART, lexicon.PARTS),
    (LESION, lexicon.LESION_ADJECTIVES), (ADJECTIVE, lexicon.ADJECTIVES), (FILLER, lexicon.FILLERS),
)  # fmt: skip


@dataclass(frozen=True)
class Span:
    """Words, their letter, and what they stand for: a taught phrase, a paired organ, an organ or modality, or the
    target that is nearest to something else."""

    code: str
    words: tuple[str, ...]
    meaning: str = ""
    determined: bool = False  # by an article or a word like "this" before it


class SpanReader:
    """Finds the spans of texts. `add` says what words are, whoever says it first; `known_words` are digests of words
    that are harmless."""

    def __init__(self, known_words: frozenset[str] = frozenset()) -> None:
        self.spans: dict[tuple[str, ...], Span] = {}
        self._known_words, self._longest = known_words, 1

    def add(self, code: str, phrases: Iterable[str], meaning: str = "") -> None:
        """`phrases` are spans of this code and meaning, but for those that are something already."""
        for phrase in phrases:
            if words := tuple(word for word in tokens(phrase) if word != BREAK):
                self.spans.setdefault(words, Span(code, words, meaning))
                self._longest = max(self._longest, len(words))

    def read(self, text: str) -> list[Span]:
        """`text` as spans, at each word the longest that is known."""
        (words, articles), spans = tokens_and_articles(text), list[Span]()
        index = 0
        while index < len(words):
            span, before = self._at(words, index), spans[-1] if spans else None
            determined = index in articles or (before is not None and before.words[0] in lexicon.DETERMINERS)
            index += len(span.words)
            span = _in_context(span, before, words[index] if index < len(words) else "")
            spans.append(replace(span, determined=determined))
        return spans

    def _at(self, words: list[str], index: int) -> Span:
        for length in range(min(self._longest, len(words) - index), 0, -1):
            if (known := self.spans.get(tuple(words[index : index + length]))) is not None:
                learnt = known.code in SELECTING and all(digest(word) in self._known_words for word in known.words)
                return replace(known, code=ADJECTIVE) if learnt else known
        return Span(self._code_of_form(words[index]), (words[index],))

    def _code_of_form(self, word: str) -> str:
        if word == BREAK:
            return BREAK
        if word[0].isdecimal() and NUMERAL.fullmatch(word):
            return NUMBER
        if digest(word) in self._known_words:
            return ADJECTIVE
        known = (self.spans[stem,].code for stem in stems(word) if (stem,) in self.spans)
        return next((code for code in known if code in INFLECTED), FILLER if _is_adverb(word) else UNKNOWN)


def _in_context(span: Span, before: Span | None, following: str) -> Span:
    """What a word is by those beside it: a segment or spot after an organ's name is in it, a line around an organ and a
    look at it mean the organ."""
    if before is not None and before.code in (TAUGHT, PAIRED) and span.words[0] in lexicon.THINGS:
        return replace(span, code=UNKNOWN)
    if span.words == ("segment",):
        of_organ = before is not None and before.code in (TAUGHT, PAIRED)
        return replace(span, code=PART if of_organ or following == "of" or NUMERAL.fullmatch(following) else VERB)
    verbs = stems(before.words[-1]) if before is not None else []
    around = span.words in (("around",), ("along",))
    line = around and (following in ("", BREAK) or any(verb in lexicon.LINES for verb in verbs))
    look = span.code == CONTAINED and any(verb in (*lexicon.LOOKS, "in") for verb in verbs)
    return replace(span, code=FILLER) if line or look else span


def _is_adverb(word: str) -> bool:
    return bool(ADVERB.search(word)) and word not in ("family", "belly")
