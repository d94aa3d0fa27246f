"""PNG, JPEG, WebP and TIFF as masks: what palettes, transparency and few bits mean by class ids, else a refusal.

A picture program knows nothing of classes. It may write a mask as grey values, as the colours of a palette in whatever
order, or as what is opaque; it may smooth the edges, or compress with loss. Each of these is taken by its own rule.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from emitdiff.errors import EmitDiffError
from emitdiff.scans.decoding import damaged_file_error
from emitdiff.scans.mask_values import class_ids, non_finite, two_classes
from emitdiff.scans.pictures import ORIENTATION, read_picture
from emitdiff.scans.tiff import PALETTE, TRANSPARENT, Page, read_pages, upright

SAVE_GREY = "Save it as grey PNG: one value for every class, 0 for the background."
TIFF_MAGIC = {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}
LOSSY_TIFF = {6: "JPEG", 7: "JPEG", 33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 50001: "WebP"}
COLOUR_NOISE = 16  # how far lossy compression may take the channels of grey apart


def read_mask_picture(path: Path) -> np.ndarray:
    """Class ids uint8 (S, H, W); S is 1 but for a TIFF of several pages.

    Raises:
        EmitDiffError: the file cannot be read, or its pixels can mean several things.
    """
    with path.open("rb") as file:
        head = file.read(4)
    if head in TIFF_MAGIC:
        return _tiff(path)
    scan = read_picture(path, keep_indices=True)  # also says what is damaged, too large or no picture at all
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as picture:
            lossy = _lossy(path, picture)
            depth, colour_type = _png_header(path) if picture.format == "PNG" else (8, None)
            frames = getattr(picture, "n_frames", 1)
            if picture.format != "MPO" and frames > 1:
                raise EmitDiffError(
                    f"The mask '{path.name}' holds {frames} pictures (an animation), and a mask is one. "
                    "Save the one that is meant as a PNG of its own."
                )
            orientation = int(picture.getexif().get(ORIENTATION, 1))
            turned = ImageOps.exif_transpose(picture)
            return _picture(turned, scan.values[0], path, lossy, depth, colour_type, orientation)[None]
    except EmitDiffError:
        raise
    except Exception:
        raise damaged_file_error(path.name) from None


def _picture(
    picture: Image.Image, values: np.ndarray, path: Path, lossy: str, depth: int, colour_type: int | None,
    orientation: int,
) -> np.ndarray:  # fmt: skip
    """Class ids (H, W); `values` are the pixels as `read_picture` gives them, `depth` the bits of a PNG's sample, and
    `orientation` what EXIF said before `picture` was turned."""
    if depth in {2, 4} and colour_type == 0:
        _check_few_bits(values, path.name, depth)
    if depth == 16 and colour_type in {4, 6}:
        return _deep_transparent(path, orientation)
    alpha = _alpha(picture)
    if alpha is not None and alpha.min() != alpha.max():
        if lossy:
            raise EmitDiffError(f"The mask '{path.name}' is a {lossy} and partly transparent. {SAVE_GREY}")
        return _transparent(picture, values, alpha, path.name)
    if alpha is not None and not alpha.any():
        raise EmitDiffError(f"The mask '{path.name}' is wholly transparent: it shows nothing. {SAVE_GREY}")
    if picture.mode == "P":
        return _by_palette(np.asarray(picture), _colours(picture), path.name)
    if lossy:
        return two_classes(_grey(values, path.name, COLOUR_NOISE), path.name, lossy)
    return class_ids(_grey(values, path.name), path.name)


def _tiff(path: Path) -> np.ndarray:
    """Class ids (S, H, W) of the pages that `read_picture` shows."""
    scan = read_picture(path, keep_indices=True)
    if any("NaN" in warning for warning in scan.warnings):
        raise non_finite(path.name)
    with path.open("rb") as file:
        every = read_pages(path.name, file)
    pages = [page for page in every if not page.secondary] or every
    if len({(page.width, page.height) for page in pages}) > 1:
        raise EmitDiffError(
            f"The mask '{path.name}' has pages of several sizes, and nothing says which are the mask. Save those that "
            "are meant, of one size, as a file of their own."
        )
    if TRANSPARENT in scan.warnings or len(pages) != scan.num_slices:
        what = "is partly transparent" if TRANSPARENT in scan.warnings else "holds several channels for each pixel"
        raise EmitDiffError(f"The mask '{path.name}' {what}, so what it marks is not sure. {SAVE_GREY}")
    arrays = [_tiff_page(path, page, values) for page, values in zip(pages, scan.values, strict=True)]
    if lossy := next((LOSSY_TIFF[page.compression] for page in pages if page.compression in LOSSY_TIFF), ""):
        return two_classes(np.stack(arrays), path.name, f"TIFF compressed as {lossy}")
    return class_ids(np.stack(arrays), path.name)


def _tiff_page(path: Path, page: Page, values: np.ndarray) -> np.ndarray:
    """One page as grey values or class ids (H, W)."""
    if page.photometric == PALETTE:
        with Image.open(path, formats=("TIFF",)) as picture:
            picture.seek(page.index)
            turned = ImageOps.exif_transpose(picture)
            return _by_palette(np.asarray(turned), _colours(turned), path.name)
    if page.bits in {2, 4}:
        _check_few_bits(values, path.name, page.bits)
    return _grey(values, path.name, COLOUR_NOISE if page.compression in LOSSY_TIFF else 0)


def _lossy(path: Path, picture: Image.Image) -> str:
    """The name of the format, where it has changed the values."""
    if picture.format in {"JPEG", "MPO"}:
        return "JPEG"
    if picture.format == "WEBP":
        with path.open("rb") as file:
            content = file.read()
        place = 12
        while place + 8 <= len(content):  # the chunks of RIFF
            kind, size = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
            if kind == b"VP8 ":
                return "WebP with loss"
            place += 8 + size + size % 2
    return ""


def _png_header(path: Path) -> tuple[int, int]:
    """Bits of a sample, and the kind of colour."""
    with path.open("rb") as file:
        depth, colour_type = file.read(26)[24:]
    return depth, colour_type


def _check_few_bits(values: np.ndarray, name: str, depth: int) -> None:
    # As a picture, a grey value of 2 bits is 0, 85, 170 or 255; some programs mean 0, 1, 2, 3 by it.
    if not np.isin(values, (0, 255)).all():
        raise EmitDiffError(
            f"The mask '{name}' has grey values of {depth} bits, which may be meant as class ids or as shades of grey. "
            "Save it with 8 bits."
        )


def _grey(values: np.ndarray, name: str, noise: int = 0) -> np.ndarray:
    """(H, W) of grey (H, W) or (H, W, 3), whose channels may differ by `noise`. EmitDiffError for colour."""
    if values.ndim == 2:
        return values
    if int((values.max(-1).astype(np.int64) - values.min(-1)).max()) > noise:
        raise EmitDiffError(f"The mask '{name}' is in colour. {SAVE_GREY}")
    return values[..., 1]


def _alpha(picture: Image.Image) -> np.ndarray | None:
    """uint8 (H, W), how opaque each pixel is; None where the file says nothing of it."""
    if "A" in picture.getbands():
        return np.asarray(picture.getchannel("A"))
    said = picture.info.get("transparency")
    if said is None:
        return None
    if picture.mode == "P":
        table = np.full(256, 255, np.uint8)
        if isinstance(said, bytes):
            table[: len(said)] = np.frombuffer(said, np.uint8)
        else:
            table[said] = 0
        alpha: np.ndarray = table[np.asarray(picture)]
        return alpha
    pixels = np.asarray(picture)
    see_through = pixels == (np.asarray(said) if pixels.dtype != bool else bool(said))
    return np.where(see_through.all(-1) if see_through.ndim == 3 else see_through, 0, 255).astype(np.uint8)


def _transparent(picture: Image.Image, values: np.ndarray, alpha: np.ndarray, name: str) -> np.ndarray:
    """Of a picture of one colour, what is opaque; of others, what is transparent is background."""
    if picture.mode == "P" and (alpha[np.asarray(picture) != 0] == 255).all():
        return _by_palette(np.asarray(picture), _colours(picture), name, background_first=True)
    colours = _colours(picture)[np.asarray(picture)] if picture.mode == "P" else values
    return _opaque(colours, alpha, name)


def _opaque(colours: np.ndarray, alpha: np.ndarray, name: str) -> np.ndarray:
    """Class ids (H, W) of colours (H, W) or (H, W, 3) under `alpha` (H, W), 0 where nothing is to be seen."""
    visible = colours[alpha > 0]
    if len(np.unique(alpha)) > 2 or alpha.min():
        raise EmitDiffError(
            f"The mask '{name}' is half transparent in places: its edges are smooth. Draw them hard. {SAVE_GREY}"
        )
    if (visible == visible[:1]).all():
        return (alpha > 0).astype(np.uint8)
    flat = np.where(alpha[..., None] > 0, colours.reshape(*alpha.shape, -1), 0)
    return class_ids(_grey(flat, name) if flat.shape[-1] == 3 else flat[..., 0], name)


def _deep_transparent(path: Path, orientation: int) -> np.ndarray:
    """A PNG with transparency and 16 bits a sample, of which Pillow keeps 8."""
    array = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise damaged_file_error(path.name)
    array = upright(array, orientation)
    colours, alpha = array[..., :3], array[..., 3]
    if alpha.min() == alpha.max() and alpha.any():
        return class_ids(_grey(colours, path.name), path.name)
    return _opaque(colours, alpha, path.name)


def _colours(picture: Image.Image) -> np.ndarray:
    """uint8 (256, 3), the palette; black where it has no colour."""
    table = np.zeros((256, 3), np.uint8)
    palette = picture.getpalette("RGB") or []
    table.flat[: len(palette)] = palette
    return table


def _by_palette(indices: np.ndarray, table: np.ndarray, name: str, background_first: bool = False) -> np.ndarray:
    """Class ids (H, W): black and white by their colour; else the indices, where index 0 is the background.

    It is where it is black, as in Pascal VOC, or `background_first` says so. Other programs order a palette as they
    like, by how often a colour comes for example; then the indices mean nothing.
    """
    used = np.unique(indices)
    colours = table[used]
    grey = bool((colours == colours[:, :1]).all())
    black_or_white = grey and bool(np.isin(colours, (0, 255)).all()) and len(np.unique(colours[:, 0])) == len(used)
    if black_or_white and not background_first:
        return np.asarray(table[indices][..., 0] > 0, np.uint8)
    grey = grey and len(used) > 1
    if (table[0].any() and not background_first) or (grey and not (colours[:, 0] == used).all()):
        raise EmitDiffError(
            f"The mask '{name}' has a palette that does not say which colour is which class: "
            + ("its greys are not its indices. " if grey else "its first colour is not black. ")
            + SAVE_GREY
        )
    return class_ids(indices, name)
