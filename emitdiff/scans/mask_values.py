"""The numbers of a mask file as class ids: taken where they can mean one thing only, else refused with what to do."""

from __future__ import annotations

import cv2
import numpy as np

from emitdiff.errors import EmitDiffError

MAX_CLASS_ID = 254  # 255 is white, or what is to be ignored
ROUNDING = 0.01  # how far a label that was scaled and stored in few bits may be from its whole number
FULL_WHITE = (255, 65535)  # of 8 and 16 bits
HIGHEST = max(FULL_WHITE)
# A picture's grey values change from pixel to pixel: its regions of one value have 1 to 6 pixels, those of a label map
# more than 50, in small maps fewer. Of a handful of values nothing can be told.
MANY_VALUES, MIN_REGION = 8, 8
SMALL, MIN_REGION_OF_SMALL = 64 * 64, 4
BLACK, WHITE = 63, 192  # how far lossy compression may take the values of a black and white mask ...
PLAIN = 24  # ... and how far where there is no edge
BLOCK = 17  # twice the blocks of JPEG: an edge changes no pixel beyond its own


def class_ids(values: np.ndarray, name: str) -> np.ndarray:
    """Class ids uint8 of `values`, numbers of any type and shape (..., H, W); 0 and full white become 0 and 1.

    Raises:
        EmitDiffError: they are no class ids: not whole, negative, above 254, or so many that it is a picture.
    """
    ids = np.empty(values.shape, np.uint8)
    there = np.zeros(HIGHEST + 1, bool)
    pages = zip(values.reshape(-1, *values.shape[-2:]), ids.reshape(-1, *values.shape[-2:]), strict=True)
    for page, page_ids in pages:  # one by one: what is computed of a whole volume takes several times its memory
        whole = _whole(page, name)
        _check_range(int(whole.min()), int(whole.max()), name)
        there |= np.bincount(whole.astype(np.int64).ravel(), minlength=HIGHEST + 1) > 0
        page_ids[:] = whole.astype(np.uint8)
    found = np.flatnonzero(there)
    if found[-1] in FULL_WHITE and len(found) - there[0] == 1:
        return np.minimum(ids, 1)
    if found[-1] > 255:
        raise _too_high(name, int(found[-1]))
    if found[-1] > MAX_CLASS_ID:
        raise EmitDiffError(
            f"The mask '{name}' holds 255 beside {len(found) - there[0] - 1} other value(s) above 0: smooth edges, a "
            "picture, or 255 for what is to be ignored. Give every class an id from 1 to 254, with hard edges; or save "
            "black and white alone, 0 and 255."
        )
    if _looks_like_picture(ids):
        raise EmitDiffError(
            f"The mask '{name}' looks like an image: its values change from pixel to pixel. A mask holds class ids (0 "
            "is background), one for every class, saved without loss (PNG)."
        )
    return ids


def _check_range(low: int, high: int, name: str) -> None:
    if low < 0:
        raise EmitDiffError(
            f"The mask '{name}' holds negative values, down to {low}, which are not class ids. Give the background the "
            "id 0, and every class an id from 1 to 254."
        )
    if high > HIGHEST:
        raise _too_high(name, high)


def _too_high(name: str, high: int) -> EmitDiffError:
    return EmitDiffError(
        f"The mask '{name}' holds values up to {high}, which are not class ids: those go from 0 (background) to "
        f"{MAX_CLASS_ID}. Number the classes anew from 1."
    )


def _whole(values: np.ndarray, name: str) -> np.ndarray:
    """The values as whole numbers; those of a scaled label map may be a hundredth beside theirs."""
    if values.dtype.kind in "bui":
        return values
    if not np.isfinite(values).all():
        raise non_finite(name)
    whole: np.ndarray = np.rint(values)
    if np.abs(values - whole).max() <= ROUNDING and np.abs(whole).max() < 2**53:
        return whole.astype(np.int64)
    wrong = float(values.flat[int(np.abs(values - whole).argmax())])
    unit = values.min() >= 0 and values.max() <= 1
    remedy = (
        "They look like probabilities: save the mask after a threshold."
        if unit
        else "Save the label map as whole numbers, without scaling (scl_slope 1) and without interpolation."
    )
    raise EmitDiffError(
        f"The mask '{name}' holds values that are not class ids (whole numbers, 0 to 254), such as {wrong:.6g}. "
        + remedy
    )


def non_finite(name: str) -> EmitDiffError:
    return EmitDiffError(f"The mask '{name}' holds values that are NaN or infinite. Give the background the id 0.")


def two_classes(values: np.ndarray, name: str, form: str) -> np.ndarray:
    """0 and 1, uint8 (..., H, W), of a black and white mask after lossy compression in the format `form`.

    Raises:
        EmitDiffError: anything else: lossy compression changes class ids, and nobody can tell what they were.
    """
    white = values >= WHITE
    plain = (values <= PLAIN) | (values >= 255 - PLAIN)
    sure = values.dtype == np.uint8 and bool((white | (values <= BLACK)).all()) and bool(white.any() or plain.all())
    if sure:
        pages = zip(white.reshape(-1, *white.shape[-2:]), plain.reshape(-1, *plain.shape[-2:]), strict=True)
        sure = all(_plain_away_from_edges(*page) for page in pages)
    if not sure or (values.max() <= PLAIN and values.any()):
        raise EmitDiffError(
            f"The mask '{name}' is a {form}, and its compression has changed the values: only black and white (0 and "
            "255) can be told apart afterwards. Save the mask as PNG, from where it was drawn."
        )
    return white.astype(np.uint8)


def _plain_away_from_edges(white: np.ndarray, plain: np.ndarray) -> bool:
    """Whether values between black and white are only where compression puts them, near an edge between the two."""
    kernel = np.ones((BLOCK, BLOCK), np.uint8)
    near_white, near_black = (cv2.dilate(side.astype(np.uint8), kernel) > 0 for side in (white, ~white))
    return bool((plain | (near_white & near_black)).all())


def _looks_like_picture(ids: np.ndarray) -> bool:
    """Whether the page with the most values consists of specks, four-connected regions of one value."""
    pages = ids.reshape(-1, *ids.shape[-2:])
    page = max(pages, key=lambda page: np.count_nonzero(np.bincount(page.ravel(), minlength=256)))
    counts = np.bincount(page.ravel(), minlength=256)
    values = np.flatnonzero(counts[1:]) + 1
    if len(values) <= MANY_VALUES:
        return False
    regions = sum(cv2.connectedComponents((page == value).astype(np.uint8), connectivity=4)[0] - 1 for value in values)
    least = MIN_REGION_OF_SMALL if page.size <= SMALL else MIN_REGION
    return bool(counts[1:].sum() < least * regions)
