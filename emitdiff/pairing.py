"""Which mask belongs to which image, by names alone: `x.png` with `x_mask.png`, `images/x.png` with `masks/x.png`.

Every way to read a name is considered. A mask that may belong to several images belongs to none, and neither do they
get another: a wrong label would be learnt, a missing one is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from unicodedata import normalize

IMAGE_FOLDERS = frozenset({"image", "images", "img", "imgs", "scan", "scans"})
MASK_FOLDERS = frozenset({
    "mask", "masks", "label", "labels", "gt", "gts", "groundtruth", "ground_truth", "seg", "segs", "segmentation",
    "segmentations", "annotation", "annotations",
})  # fmt: skip
_MASK = "masks?|labels?|labelmap|gts?|ground[ _-]?truth|segmentations?|segm?|annotations?"
_IMAGE = "images?|imgs?"
_BETWEEN = r"[ _.\-]"
# What files of images and masks end in, also those that are refused by name when they are read.
SUFFIX = re.compile(
    r"(\.nii(\.gz)?|\.png|\.jpe?g|\.webp|\.tiff?|\.dcm|\.dicom|\.bmp|\.gif|\.jp2|\.nrrd|\.mh[ad]|\.hdr|\.npy|\.mat)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Pairing:
    """`pairs` has the masks of each image; `images` and `masks` are those without the other; `unclear` has masks with
    the images each may belong to, none of which is in `pairs`."""

    pairs: dict[str, tuple[str, ...]]
    images: tuple[str, ...]
    masks: tuple[str, ...]
    unclear: dict[str, tuple[str, ...]]


def stem(name: str) -> str:
    """The last part of a path without the suffix of a picture or scan, its letters composed (NFC)."""
    return SUFFIX.sub("", normalize("NFC", PurePosixPath(name).name))


def is_picture(name: str) -> bool:
    """Whether a file is called like a picture or scan."""
    return SUFFIX.search(name) is not None


def pair_folders(images: Iterable[str], masks: Iterable[str]) -> Pairing:
    """Pairs paths inside a folder of images with paths inside a folder of masks; folders within them must agree."""
    table = _Images(sorted(set(images)))
    return table.pair({mask: {_key(mask, stem(mask)), *_readings(mask, _MASK)} for mask in sorted(set(masks))})


def pair_mixed(names: Iterable[str]) -> Pairing:
    """Pairs images and masks that lie in the same folders: a mask is called like its image, with a word such as `mask`
    or `seg` behind it (and perhaps a number) or before it."""
    names = sorted(set(names))
    keys: dict[str, str] = {name: _key(name, stem(name)) for name in names}
    readings = {name: _readings(name, _MASK) for name in names}
    there = {*keys.values(), *(key for name in names for key in _readings(name, _IMAGE))}
    named = {key for found in readings.values() for key in found}
    # What a mask is called after is an image, though it be called like a mask itself; where it is both, nobody knows.
    images = [name for name in names if not readings[name] or (keys[name] in named and not readings[name] & there)]
    masks = [name for name in names if name not in set(images)]
    whole = {keys[name] for name in images}
    both = {name for name in masks if keys[name] in named or (_readings(name, _IMAGE) and not readings[name] & whole)}
    return _Images(images).pair({mask: readings[mask] for mask in masks}, both)


@dataclass
class _Images:
    """Images by what their masks may be called after: their whole names, and those without a word such as `image`."""

    names: list[str]
    whole: dict[str, set[str]] = field(default_factory=dict)
    short: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.names:
            self.whole.setdefault(_key(name, stem(name)), set()).add(name)
            for key in _readings(name, _IMAGE):
                self.short.setdefault(key, set()).add(name)

    def pair(self, masks: dict[str, set[str]], doubtful: Iterable[str] = ()) -> Pairing:
        """`masks` with the keys of the images that each may belong to; those that are `doubtful` belong to none."""
        doubtful = set(doubtful)
        found = {mask: set().union(*(self._fitting(key) for key in keys)) for mask, keys in masks.items()}
        sure = {mask for mask in masks if len(found[mask]) == 1 and mask not in doubtful}
        plain = {mask for mask in sure if any(found[mask] & self.whole.get(key, set()) for key in masks[mask])}
        # Words are taken off the names of images only in folders where no mask is called after a whole one.
        usual = {_folder(mask) for mask in plain}
        sure = {mask for mask in sure if mask in plain or _folder(mask) not in usual}
        unclear = {mask: tuple(sorted(found[mask])) for mask in masks if len(found[mask]) > 1 or mask in doubtful}
        unclear |= {mask: tuple(sorted(found[mask])) for mask in masks if found[mask] and mask not in sure}
        barred = {image for images in unclear.values() for image in images}
        pairs: dict[str, tuple[str, ...]] = {}
        for mask in sorted(sure):
            (image,) = found[mask]
            if image in barred:
                unclear[mask] = (image,)
            else:
                pairs[image] = (*pairs.get(image, ()), mask)
        lonely = tuple(mask for mask in masks if not found[mask] and mask not in unclear)
        return Pairing(pairs, tuple(name for name in self.names if name not in pairs), lonely, unclear)

    def _fitting(self, key: str) -> set[str]:
        return self.whole.get(key, set()) | self.short.get(key, set())


def _folder(name: str) -> str:
    return str(PurePosixPath(name).parent)


def _key(name: str, base: str) -> str:
    """The folder with the name, in one spelling."""
    return normalize("NFC", f"{_folder(name)}/{base}").casefold()


def _readings(name: str, words: str) -> set[str]:
    """What is left of a name without one of the `words`: behind the rest, perhaps with a number; before it; or between
    the rest and a number. Of several separators in a row, any may be the name's own."""
    bases: set[str] = set()
    whole = stem(name)
    if behind := re.fullmatch(rf"(.+?)({_BETWEEN}+)(?:{words})({_BETWEEN}*\(?\d+\)?)?", whole, re.IGNORECASE):
        base, between, number = behind[1], behind[2], behind[3] or ""
        bases |= {base + between[:count] + rest for count in range(len(between) + 1) for rest in ("", number)}
    if before := re.fullmatch(rf"(?:{words})({_BETWEEN}*)(.+)", whole, re.IGNORECASE):
        between, base = before[1], before[2]
        if between or base[0].isdigit():
            bases |= {between[count:] + base for count in range(len(between) + 1)}
    return {_key(name, base) for base in bases}
