"""Arrays, PIL images and tensors: the only place where value ranges change.

Arrays are uint8 in 0..255, shape (H, W, 3); image tensors are float in [-1, 1], shape (B, 3, H, W);
edge and control tensors are float in [0, 1]; masks hold class ids and are only ever resized by nearest neighbour.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from emitdiff.errors import EmitDiffError

if TYPE_CHECKING:
    import torch

SETTINGS_KEY = "emitdiff"  # the PNG text chunk that keeps how a synthetic image was made
NOTICE = "Synthetic images made by a generative model. Research use only, not a medical device."
USE = "Research use only, not a medical device."  # in every mask file
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
# IPTC's term for pictures made by a trained model, written as XMP so that other software can tell them from scans.
SYNTHETIC_XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 Iptc4xmpExt:DigitalSourceType="{DIGITAL_SOURCE_TYPE}"/>
</rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""

MAX_ASPECT = 8  # of an image that a network is given
# Okabe-Ito colours: told apart with every common colour vision, in the order class ids use them.
PALETTE = np.array(
    [(0, 158, 115), (230, 159, 0), (86, 180, 233), (204, 121, 167), (240, 228, 66), (0, 114, 178), (213, 94, 0)],
    dtype=np.uint8,
)


def to_rgb(array: np.ndarray) -> np.ndarray:
    """uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) to uint8 (H, W, 3). Alpha is dropped."""
    array = np.asarray(array)
    if array.dtype != np.uint8:
        raise TypeError(f"expected uint8, got {array.dtype}: window a scan to 8 bit first (emitdiff.read_scan)")
    if array.ndim == 2:
        array = array[..., None]
    if array.shape[-1] == 1:
        array = np.repeat(array, 3, axis=-1)
    return np.ascontiguousarray(array[..., :3])


def image_to_tensor(array: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H, W) in [-1, 1]."""
    import torch

    return torch.from_numpy(to_rgb(array)).permute(2, 0, 1)[None].float().div(127.5).sub(1)


def tensor_to_image(tensor: torch.Tensor) -> np.ndarray:
    """Float (3, H, W) or (1, 3, H, W) in [-1, 1] to uint8 (H, W, 3); values outside are clipped."""
    array = tensor.detach().float().reshape(tensor.shape[-3:]).permute(1, 2, 0).cpu().numpy()
    return np.clip(np.rint((array + 1) * 127.5), 0, 255).astype(np.uint8)


def control_to_tensor(array: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) control image to float32 (1, 3, H, W) in [0, 1]."""
    import torch

    return torch.from_numpy(to_rgb(array)).permute(2, 0, 1)[None].float().div(255)


def resize_image(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 or float32 (H, W, ...) to `size` = (height, width): area when shrinking, cubic when growing."""
    height, width = size
    if array.shape[:2] == (height, width):
        return array
    shrinking = height * width < array.shape[0] * array.shape[1]
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Class ids (H, W) to `size` = (height, width), nearest neighbour (pixel centres); the dtype is kept."""
    height, width = size
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(np.int64)
    return np.ascontiguousarray(mask[rows[:, None], columns[None, :]])


def fitted_size(size: tuple[int, int], area: int, multiple: int) -> tuple[int, int]:
    """The (height, width) nearest to `size`'s aspect ratio with about `area` pixels, both divisible by `multiple`.

    A size that is one already is kept. Raises EmitDiffError for strips longer than 8:1, which would need far more.
    """
    height, width = size
    if height % multiple == width % multiple == 0 and 0.6 <= height * width / area <= 1.6:
        return height, width
    if max(size) > MAX_ASPECT * min(size):
        raise EmitDiffError(
            f"The image is a strip of {width} x {height} pixels; one side may be {MAX_ASPECT} times the other at most. "
            "Cut a part out."
        )
    scale = (area / (height * width)) ** 0.5
    return tuple(max(multiple, round(side * scale / multiple) * multiple) for side in (height, width))


def outline(mask: np.ndarray, thickness: int = 1) -> np.ndarray:
    """Boolean (H, W): pixels on the inner side of every class boundary, `thickness` pixels deep."""
    mask = np.asarray(mask).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = np.zeros(mask.shape, dtype=bool)
    for label in np.unique(mask[mask > 0]):
        region = (mask == label).astype(np.uint8)
        inner |= (region - cv2.erode(region, kernel, iterations=thickness, borderValue=0)).astype(bool)
    return inner


def overlay(image: np.ndarray, mask: np.ndarray, opacity: float = 0.45, thickness: int = 2) -> np.ndarray:
    """uint8 (H, W, 3) with each class id > 0 of `mask` (H, W) tinted at `opacity` in 0..1 and outlined."""
    blended = to_rgb(image).astype(np.float32)
    mask = np.asarray(mask)
    colours = PALETTE[(np.maximum(mask, 1).astype(np.int64) - 1) % len(PALETTE)].astype(np.float32)
    inside = mask > 0
    blended[inside] = (1 - opacity) * blended[inside] + opacity * colours[inside]
    edge = outline(mask, thickness)
    blended[edge] = colours[edge]
    return np.clip(np.rint(blended), 0, 255).astype(np.uint8)


def file_stem(name: str) -> str:
    """A file's or folder's name for use in other names: no folders, no suffix of a scan, nothing but letters, digits,
    dots, - and _. The dots of a DICOM identifier stay, so that two series do not share a name."""
    stem = re.sub(r"(\.nii)?\.(png|jpe?g|webp|tiff?|dcm|dicom|zip|nii|gz)$", "", Path(name).name, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]", "_", stem).strip(".")[:100] or "scan"


def manifest_entry(result: Any, file: str, mask: str | None) -> dict:
    """One synthetic image (`seed`, `seconds`, `settings`) in a manifest, with the names of its file and its label."""
    return {
        "file": file,
        "mask": mask,
        "seed": result.seed,
        "seconds": round(result.seconds, 2),
        "settings": result.settings,
    }


def synthetic_manifest(source: str, entries: list[dict]) -> dict:
    """What was made from `source` and how, JSON-able; the form is the same wherever images are written."""
    return {"notice": NOTICE, "digital_source_type": DIGITAL_SOURCE_TYPE, "source": source, "images": entries}


def save_synthetic_png(image: np.ndarray, path: str | Path, settings: dict) -> Path:
    """Write uint8 (H, W, 3) as a PNG that says it is synthetic and how it was made.

    `settings` is kept as JSON in the text chunk "emitdiff" (`read_synthetic_settings` gives it back), the origin as XMP
    DigitalSourceType trainedAlgorithmicMedia. A name without "synthetic_" in front gets it. Returns the path written.
    """
    path = Path(path)
    if not path.name.startswith("synthetic_"):
        path = path.with_name(f"synthetic_{path.name}")
    text = PngImagePlugin.PngInfo()
    text.add_text(SETTINGS_KEY, json.dumps({"synthetic": True, **settings}, sort_keys=True))
    text.add_text("Comment", NOTICE)
    text.add_itxt("XML:com.adobe.xmp", SYNTHETIC_XMP)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(to_rgb(image)).save(path, format="PNG", pnginfo=text)
    return path


def copy_png_text(source: str | Path) -> PngImagePlugin.PngInfo | None:
    """The text chunks of a PNG, to be given to `Image.save(pnginfo=...)`; None where `source` is none or has none."""
    try:
        with Image.open(source, formats=["PNG"]) as png:
            png.load()
            chunks = dict(png.text)
    except (OSError, SyntaxError):
        return None
    text = PngImagePlugin.PngInfo()
    for key, value in chunks.items():
        text.add_text(key, value)  # XMP comes as iTXt and stays it
    return text if chunks else None


def read_synthetic_settings(path: str | Path) -> dict:
    """The settings `save_synthetic_png` kept in a PNG. Raises EmitDiffError for any file without them."""
    try:
        with Image.open(path, formats=["PNG"]) as png:
            png.load()  # text chunks may stand behind the pixels
            settings = json.loads(png.text[SETTINGS_KEY])
    except FileNotFoundError as error:
        raise EmitDiffError(f"{path} does not exist: give a PNG that emitdiff wrote.") from error
    except (OSError, ValueError, KeyError, SyntaxError, Image.DecompressionBombError) as error:
        raise EmitDiffError(
            f"{Path(path).name} carries no synthesis settings: give a PNG that emitdiff wrote and nobody re-saved."
        ) from error
    if not isinstance(settings, dict):
        raise EmitDiffError(f"{Path(path).name} carries settings of an unknown form: give a PNG that emitdiff wrote.")
    return settings
