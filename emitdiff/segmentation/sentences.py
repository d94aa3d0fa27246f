"""Sentences to start from: what may be asked of a head about one kind of image, in words that people use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from emitdiff.segmentation.targets import BY_PHRASE, SCENE_PHRASES, SCENES


def example_sentences(targets: Sequence[str], modality: str = "") -> tuple[str, ...]:
    """Three sentences for each of the taught `targets` at home in `modality`, or without one a sentence for each.

    A target that was taught elsewhere has no home: it is asked for plainly, whatever the modality.
    """
    sentences = []
    for phrase in targets:
        known = BY_PHRASE.get(phrase)
        if known is None:
            sentences += [f"segment the {phrase}", f"outline the {phrase} in this image"]
        elif not modality or SCENES[known.home][0].lower() == modality.lower():
            sentences += list(_asked(phrase))[: None if modality else 1]
    return tuple(dict.fromkeys(sentences))


def _asked(phrase: str) -> Iterator[str]:
    target = BY_PHRASE[phrase]
    scene = SCENE_PHRASES[target.home][0]
    yield f"segment the {phrase} in this {scene}"
    yield f"{scene}: {target.names[1]}"
    yield f"{target.names[2]} only"
