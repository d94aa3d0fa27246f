"""Reads what a text asks of the weights at hand.

A network answers every text with a mask, also "pneumonia", "rib" and "no lesion". So a text is read before the network
is asked: it asks for a target that was taught where every word that matters is accounted for, the target's name is what
is asked for (and not "the wall of the left ventricle" or "a spot in the lung"), and nothing is denied. The words are
those of the lexicon and those a checkpoint was taught by. English alone is understood, beside a user's own label names.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any

from emitdiff.segmentation.vocabulary import BY_PHRASE, IMAGE_KINDS, Target, match_target, target_named
from emitdiff.segmentation.wording import lexicon
from emitdiff.segmentation.wording import spans as s
from emitdiff.segmentation.wording.asides import without_asides
from emitdiff.segmentation.wording.names import is_plain_lesion, lesion_names, names_of, split_side
from emitdiff.segmentation.wording.spans import Span, SpanReader
from emitdiff.segmentation.wording.words import BREAK, digest, plain_words, tokens

MAX_QUOTED = 60  # letters of a text that are repeated in a sentence about it
SPELLED_ALIKE = 0.75  # of difflib's ratio, from which a word may be a slip of another
MAX_RECORDED = 5000  # sentences that a card remembers
REGIONS = ("chest", "abdomen", "prostate", "")  # of the body: "in the chest" leaves an organ what it is
NEAREST = {name: target for target, names in lexicon.NEAREST.items() for name in names}
BETWEEN = f"[{s.FILLER}{s.PLACE}{s.NUMBER}{s.ADJECTIVE}]*"
# "the left one of the two lungs"; "the lung on the patient's left side", but not on that of the image
SIDED = re.compile(
    f"{s.SIDE}{BETWEEN}({s.SIDE}{BETWEEN})?({s.OF}{BETWEEN})?{s.PAIRED}"
    f"|{s.PAIRED}[{s.OF}{s.CONTAINED}{s.FILLER}{s.PERSON}{BREAK}]*{s.SIDE}({s.FILLER}*{s.SIDE})?{s.FLANK}?{BREAK}?"
    f"(?![{s.NOUN}{s.PART}]|{s.FILLER}*{s.OF}{s.FILLER}*[{s.PICTURE}{s.NOUN}])"
)
SPOT = f"[{s.SIDE}{s.DIRECTION}]({s.FILLER}*[{s.SIDE}{s.DIRECTION}])*[{s.FLANK}{s.PART}{s.NOUN}{s.ANYTHING}]?"
WHOLE = f"{s.OF}{BETWEEN}[{s.PICTURE}{s.MODALITY}{s.NOUN}{s.PERSON}]?{s.PLACE}?"
# "in the upper left of the image"
PLACED = re.compile(f"{s.CONTAINED}{s.FILLER}*{SPOT}({WHOLE})?(?!{s.OF}|{BETWEEN}[{s.TAUGHT}{s.GENERIC}])")


@dataclass(frozen=True)
class Request:
    """What a text asks for. `target` is a taught one, None where none is meant: then `problem` is a sentence that says
    so and `nearest` the phrase of the taught target that comes closest, if any. `spoken` is what the network is asked:
    the text itself, or the target's own name where the text uses a word that the network did not learn.
    """

    target: Target | None
    spoken: str
    problem: str = ""
    nearest: str | None = None


@dataclass(frozen=True)
class TaughtWords:
    """What a checkpoint was taught by, from its card: `kinds` (modality, organ, labels) of its datasets, and digests of
    the words and whole sentences of their rows, where those were learnt from."""

    kinds: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    words: frozenset[str] = frozenset()
    sentences: frozenset[str] = frozenset()

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> TaughtWords:
        """From the record of a checkpoint or a few-shot head; what is not there, or is of another form, is left out."""
        datasets, texts = card.get("datasets"), card.get("texts")
        rows = [row for row in (*(datasets if isinstance(datasets, list) else []), card) if isinstance(row, dict)]
        kinds = dict.fromkeys(kind for row in rows if (kind := _kind_of(row)) is not None)
        known = texts if isinstance(texts, dict) else {}
        words, sentences = (frozenset(_strings(known.get(name))) for name in ("words", "sentences"))
        return cls(tuple(kinds), words, sentences)


def _kind_of(row: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...]] | None:
    modality, organ, labels = row.get("modality"), row.get("organ"), row.get("labels")
    if not isinstance(modality, str) or not isinstance(organ, str):
        return None
    return modality.lower(), organ.lower(), tuple(_strings(list(labels) if isinstance(labels, dict) else None))


def _strings(values: object) -> list[str]:
    return [value.lower() for value in values if isinstance(value, str)] if isinstance(values, list) else []


def record_texts(texts: Iterable[str]) -> dict[str, list[str]]:
    """What a card remembers of the sentences that taught a head: digests, for the sentences may be private; {} for
    none."""
    distinct = sorted({plain for text in texts if (plain := " ".join(plain_words(text)))})[:MAX_RECORDED]
    words = {word for text in distinct for word in text.split()}
    return {"words": sorted(map(digest, words)), "sentences": sorted(map(digest, distinct))} if distinct else {}


class TextReader:
    """Reads texts for the `targets` of one checkpoint, the phrases it was taught, and the words it was `taught` by."""

    def __init__(self, targets: Sequence[str], taught: TaughtWords | None = None) -> None:
        self.taught = taught or TaughtWords()
        self.targets = {phrase: target_named(phrase) for phrase in targets}
        self._homes = {phrase: self._home(phrase) for phrase in targets}
        self._words = SpanReader(self.taught.words)
        self._pairs: dict[str, dict[str, str]] = {}  # organ to side ("" for both) to the taught phrase
        for phrase in targets:
            self._add_taught(phrase)
        self._add_pairs()
        self._add_others()

    def read(self, text: str) -> Request:
        """What `text` asks for; an empty one for nothing in particular: no target and no problem."""
        if not text.strip():
            return Request(None, text)
        spans = self._words.read(text)
        if digest(" ".join(plain_words(text))) in self.taught.sentences:
            return Request(self._named(spans) or next(iter(self.targets.values())), text)
        sided = self._with_sides(spans)
        if problem := self._problem(text, sided):
            return Request(None, text, problem, self._nearest(spans))
        target = self.targets[self._phrases(sided)[0]]
        return Request(target, text if match_target(text, tuple(self.targets)) == target else target.phrase)

    def _problem(self, text: str, spans: list[Span]) -> str:
        """Why `text` asks for no taught target, "" where it does."""
        quoted, phrases = f"“{shorten(text, MAX_QUOTED, placeholder=' …')}”", self._phrases(spans)
        if denied := [" ".join(span.words) for span in spans if span.code == s.NEGATION]:
            return f"{quoted} says what is not there or not wanted (“{denied[0]}”): name what to find."
        organs = [
            phrase for phrase in phrases if any(span.meaning == phrase and span.code == s.TAUGHT for span in spans)
        ]
        if len(organs) > 1 and len(organs) == len(phrases) and not self._means_other(spans, organs[0]):
            return f"{quoted} names several targets, {' and '.join(organs)}: ask for one at a time."
        if len(phrases) == 1 and not self._means_other(spans, phrases[0]):
            return ""
        return f"These weights were not taught {quoted}. Taught: {', '.join(self.targets)}."

    def _phrases(self, spans: Sequence[Span]) -> list[str]:
        """The taught targets that are named; both sides of an organ are the organ."""
        found = list(dict.fromkeys(span.meaning for span in spans if span.code in (s.TAUGHT, s.GENERIC)))
        for sides in self._pairs.values():
            if "" in sides and {sides.get("left"), sides.get("right")} <= set(found):
                found = [sides[""], *(phrase for phrase in found if phrase not in sides.values())]
        return found

    def _means_other(self, spans: list[Span], phrase: str) -> bool:
        """Whether something beside the name of `phrase` makes the text ask for something else."""
        spans, home = without_asides(_without_persons(spans)), self._homes[phrase]
        plain = not any(span.code == s.TAUGHT and span.meaning == phrase for span in spans)
        countable = plain or phrase.split()[-1] in (*lexicon.LESIONS, "nuclei", "nucleus", "cells")
        for span in spans:
            strange = span.code in (s.OTHER, s.UNKNOWN, s.RELATION) or (span.code == s.LESION and not countable)
            elsewhere = span.code == s.PLACE and span.meaning not in (home if plain else (*home, *REGIONS))
            elsewhere &= "microscopy" not in home
            other_kind = plain and span.code == s.MODALITY and span.meaning not in (*home, "")
            if strange or ((elsewhere or other_kind) and "image" not in home):  # drawn on the page, of no organ
                return True
        codes = re.sub(
            f"{s.PART}{s.OF}[{s.FILLER}{s.ADJECTIVE}]*{s.PICTURE}", s.FILLER, "".join(span.code for span in spans)
        )
        if re.search(
            f"[{s.SIDE}{s.DIRECTION}{s.FLANK}{s.PART}]{s.FILLER}*{s.OF}{BETWEEN}[{s.TAUGHT}{s.GENERIC}]", codes
        ):
            return True
        if countable or phrase not in {sides.get("") for sides in self._pairs.values()}:
            codes = PLACED.sub(s.FILLER, codes)
        codes = re.sub(f"[{s.SIDE}{s.DIRECTION}]+(?={s.FILLER}*{s.PLACE})", "", codes)
        if countable:
            codes = re.sub(f"[{s.SIDE}{s.DIRECTION}]", "", codes)
        inside = f"{s.CONTAINED}[{s.FILLER}{s.ADJECTIVE}]*{s.TAUGHT}(?!{s.MODALITY})"  # "a dark spot in the lung"
        within = re.search(inside, re.sub(f"{s.PIXEL}[{s.OF}{s.CONTAINED}]", s.FILLER, codes))
        return bool(re.search(f"[{s.PART}{s.FLANK}{s.SIDE}{s.DIRECTION}]", codes)) or (
            not countable and within is not None
        )

    def _nearest(self, spans: Sequence[Span]) -> str | None:
        """The phrase of the taught target that spans which ask for none come closest to, None where none is close."""
        if (named := self._named(spans)) is not None:
            return named.phrase
        for span in spans:
            if span.code == s.OTHER and span.meaning in self.targets:
                return span.meaning
        asked = {word for span in spans if span.code in (s.OTHER, s.UNKNOWN) for word in span.words}
        for phrase in self.targets:
            if asked & set(plain_words(phrase)):
                return phrase
        for span in spans:
            if span.code in (s.PLACE, s.OTHER) and span.meaning:
                for phrase, home in self._homes.items():
                    if span.meaning in home:
                        return phrase
        return self._spelled_alike(spans)

    def _named(self, spans: Sequence[Span]) -> Target | None:
        """The first taught target that is named, an organ rather than a mere "lesion"."""
        sided = self._with_sides(list(spans))
        named = [span.meaning for code in (s.TAUGHT, s.GENERIC) for span in sided if span.code == code]
        paired = [phrase for span in spans if span.code == s.PAIRED for phrase in self._pairs[span.meaning].values()]
        return next((self.targets[phrase] for phrase in (*named, *paired)), None)

    def _spelled_alike(self, spans: Sequence[Span]) -> str | None:
        known = self._words.spans.values()
        names = {" ".join(one.words): one.meaning for one in known if one.code in (s.TAUGHT, s.GENERIC)}
        names |= {
            " ".join(one.words): next(iter(self._pairs[one.meaning].values())) for one in known if one.code == s.PAIRED
        }
        unknown = [word for span in spans if span.code == s.UNKNOWN for word in span.words if len(word) > 3]
        for asked in (" ".join(unknown), *unknown):
            if close := difflib.get_close_matches(asked, names, 1, SPELLED_ALIKE):
                return names[close[0]]
        return None

    def _with_sides(self, spans: list[Span]) -> list[Span]:
        """The spans with every paired organ and its side as one."""
        found, start, codes = list[Span](), 0, "".join(span.code for span in spans)
        for match in SIDED.finditer(codes):
            within = spans[match.start() : match.end()]
            sides = {span.words[0] for span in within if span.code == s.SIDE}
            organ = next(span for span in within if span.code == s.PAIRED)
            whole = replace(self._sided(organ, sides), determined=within[0].determined)
            found += [*spans[start : match.start()], whole]
            start = match.end()
        rest = [*found, *spans[start:]]
        return [self._sided(span, set()) if span.code == s.PAIRED else span for span in rest]

    def _sided(self, organ: Span, sides: set[str]) -> Span:
        phrase = self._pairs[organ.meaning].get(next(iter(sides)) if len(sides) == 1 else "")
        return replace(organ, code=s.TAUGHT, meaning=phrase) if phrase else replace(organ, code=s.OTHER)

    def _home(self, phrase: str) -> tuple[str, ...]:
        """Modalities and organs of the images that show a target."""
        if phrase in BY_PHRASE:
            modality, organ = IMAGE_KINDS[BY_PHRASE[phrase].image_kind]
            return modality.lower(), organ.lower()
        kinds = self.taught.kinds
        own = [kind for kind in kinds if any(label.replace("_", " ") in phrase for label in kind[2])] or list(kinds)
        return tuple(word for modality, organ, _ in own for word in (modality, organ))

    def _add_taught(self, phrase: str) -> None:
        target, (side, organ), add = self.targets[phrase], split_side(phrase), self._words.add
        names = [phrase, *target.names, *target.labels]
        if side:  # the names that are more than a side and the organ
            self._pairs.setdefault(organ, {})[side] = phrase
            organs = [{side, *plain_words(name)} for name in self._organ_names(organ)]
            names = [name for name in names if not any(words <= set(plain_words(name)) for words in organs)]
        plain = [name for name in names if is_plain_lesion(name)]
        lesion = phrase == "breast lesion"
        add(s.TAUGHT, [name for name in names if name not in plain], phrase)
        add(s.TAUGHT, [*names_of(phrase), *(lesion_names() if lesion else ())], phrase)
        for name in [*plain, *(lexicon.PLAIN_LESIONS if lesion else ())]:
            words = tuple(tokens(name))
            if (other := self._words.spans.get(words)) is not None and other.meaning != phrase:
                self._words.spans[words] = replace(other, code=s.OTHER)  # of two targets: neither is meant
            add(s.GENERIC, [name], phrase)

    def _add_pairs(self) -> None:
        for organ, sides in self._pairs.items():
            if organ in self.targets:
                sides[""] = organ
            for name in self._organ_names(organ):
                words = tuple(plain_words(name))
                if words not in self._words.spans or self._words.spans[words].meaning == organ:
                    self._words.spans.pop(words, None)
                    self._words.add(s.PAIRED, [name], organ)

    @staticmethod
    def _organ_names(organ: str) -> list[str]:
        """Names of a paired organ that say nothing of its sides."""
        names = [organ, *names_of(organ), *(BY_PHRASE[organ].names if organ in BY_PHRASE else ())]
        return [name for name in names if not {"left", "right", "both", "bilateral"} & set(plain_words(name))]

    def _is_paired(self, name: str) -> bool:
        """Whether `name` is a side of an organ of which a side was taught: the side and the organ are read apart."""
        side, organ = split_side(name)
        return bool(side) and organ in self._pairs

    def _add_others(self) -> None:
        add = self._words.add
        for modality, organ, _ in self.taught.kinds:
            add(s.MODALITY, [modality], modality)
            add(s.PLACE, [organ], organ)
        for place, said in lexicon.PLACES.items():
            add(s.PLACE, said, place)
        others = [(names_of(name), NEAREST.get(name, name)) for name in lexicon.SYNONYMS if not self._is_paired(name)]
        for names, nearest in others:
            add(s.OTHER, names, nearest)
        add(s.NEGATION, lexicon.NEGATIONS)
        for name, target in NEAREST.items():
            if not self._is_paired(name):
                add(s.OTHER, [name], target)
        for modality, said in lexicon.MODALITIES.items():
            add(s.MODALITY, said, modality)
        add(s.MODALITY, lexicon.VIEWS)
        for code, words in s.COMMON:
            add(code, words)


def _without_persons(spans: list[Span]) -> list[Span]:
    """Without what is said of a person: "of this patient with pneumonia" asks for no pneumonia."""
    kept, index = list[Span](), 0
    while index < len(spans):
        if spans[index].code == s.PERSON:  # "of the diabetic patient"
            while kept and kept[-1].code in (s.UNKNOWN, s.OTHER):
                kept.pop()
        kept.append(spans[index])
        index += 1
        if kept[-1].code == s.PERSON and index < len(spans) and spans[index].words[0] in lexicon.OF_PERSONS:
            end = next((k for k in range(index, len(spans)) if spans[k].code == BREAK), len(spans))
            if not any(span.code in (s.TAUGHT, s.GENERIC) for span in spans[index:end]):
                index = end
    return kept
