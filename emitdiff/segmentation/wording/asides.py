"""Unknown words of a text that cannot change what it asks for: those of how, what for and what next.

"Use clustering to find the liver", "the liver for my radiomics pipeline", "the liver. Respond in JSON". An unknown
word in the name itself ("a fatty liver", "liver function", "steatosis of the liver"), or asked for beside it, does
change it.
"""

from __future__ import annotations

from collections.abc import Sequence

from emitdiff.segmentation.wording import lexicon
from emitdiff.segmentation.wording import spans as s
from emitdiff.segmentation.wording.spans import Span
from emitdiff.segmentation.wording.words import BREAK, stems

NAMED = (s.TAUGHT, s.GENERIC)
NOMINAL = (
    s.UNKNOWN,
    s.ADJECTIVE,
    s.NOUN,
    s.NUMBER,
    s.MODALITY,
    s.PICTURE,
    s.ANYTHING,
)  # of one phrase with an unknown word


def without_asides(spans: Sequence[Span]) -> list[Span]:
    """`spans` without the unknown words that are beside the point."""
    return [span for index, span in enumerate(spans) if span.code != s.UNKNOWN or not _is_aside(spans, index)]


def _is_aside(spans: Sequence[Span], index: int) -> bool:
    if spans[index].words[0].endswith(lexicon.FINDING_ENDINGS) or not spans[index].words[0].isascii():
        return False
    first, last = _phrase(spans, index)
    before = spans[first - 1] if first else None
    after = spans[last + 1] if last + 1 < len(spans) else None
    if _modifies(before, after, spans[first]) or _governs(spans, last + 1):
        return False
    clause = _clause(spans, index)
    named = [k for k in clause if spans[k].code in NAMED]
    if before is not None and (before.code in (s.OF, s.CONTAINED) or before.words[0] in lexicon.ADJUNCTS):
        return True
    if before is not None and before.words == ("with",):  # "with the crayon tool", but not "the lung with crackles"
        return any(span.code in (s.NOUN, s.PICTURE, s.MODALITY) for span in spans[first : last + 1])
    if before is not None and before.code == s.VERB and set(stems(before.words[0])) & {*lexicon.MEANS}:
        return True
    ahead = range(last + 1, named[0]) if named else range(0)
    if any(spans[k].words == ("to",) and spans[k + 1].code == s.VERB for k in ahead):  # "smooth it to find the liver"
        return True
    opened = all(spans[k].code in (s.FILLER, s.MODALITY) for k in range(clause[0], first))
    asked = before is not None and before.words[0] in lexicon.ASKING
    # an unknown verb: "sketch the liver", "and respond with a mask"
    return opened and first == index == last and (
        (after is not None and after.code in NAMED and after.determined) or (asked and not named)
    )  # fmt: skip


def _phrase(spans: Sequence[Span], index: int) -> tuple[int, int]:
    """The first and last place of the words around an unknown one that belong to it."""
    first = last = index
    while first and spans[first - 1].code in NOMINAL and not spans[first].determined:
        first -= 1
    while last + 1 < len(spans) and spans[last + 1].code in NOMINAL and not spans[last + 1].determined:
        last += 1
    while first and spans[first - 1].words[0] in lexicon.DETERMINERS:
        first -= 1
    return first, last


def _modifies(before: Span | None, after: Span | None, first: Span) -> bool:
    """Whether the words stand in the name of a target, or in a row with it: "liver function", "a fatty liver"."""
    behind = before is not None and before.code in (*NAMED, s.PAIRED) and not first.determined
    ahead = after is not None and after.code in (*NAMED, s.PAIRED) and not after.determined
    return behind or ahead


def _governs(spans: Sequence[Span], place: int) -> bool:
    """Whether what stands at `place` puts the words before it into or onto a target: "steatosis of the liver"."""
    if place >= len(spans) or spans[place].code not in (s.OF, s.CONTAINED, s.RELATION):
        return False
    rest = (
        span for span in spans[place + 1 :] if span.code not in (s.FILLER, s.ADJECTIVE, s.SIDE, s.DIRECTION, s.PART)
    )
    following = next(rest, None)
    return following is not None and following.code in (*NAMED, s.PAIRED)


def _clause(spans: Sequence[Span], index: int) -> range:
    """The places from a break, or an "and" before a verb, to the next one around `index`."""

    def parts(place: int) -> bool:
        following = spans[place + 1].code if place + 1 < len(spans) else ""
        return spans[place].code == BREAK or (
            spans[place].words[0] in ("and", "then") and following in (s.VERB, s.UNKNOWN)
        )

    start = next((place + 1 for place in range(index - 1, -1, -1) if parts(place)), 0)
    end = next((place for place in range(index + 1, len(spans)) if parts(place)), len(spans))
    return range(start, end)
