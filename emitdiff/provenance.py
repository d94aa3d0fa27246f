"""That a picture is synthetic and how it was made: said in every PNG, and read again from it."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr, unescape

import numpy as np
from PIL import Image, PngImagePlugin

from emitdiff.errors import EmitDiffError
from emitdiff.files import write_atomically
from emitdiff.images import to_rgb

logging.getLogger("PIL").setLevel(logging.INFO)  # at DEBUG, Pillow writes what the EXIF and text of a picture say

SETTINGS_KEY = "emitdiff"  # the PNG text chunk that keeps how a synthetic image was made
MAX_SETTINGS_LETTERS = 2**18
NOTICE = "Synthetic images made by a generative model. Research use only, not a medical device."
USE_NOTICE = "Research use only, not a medical device."  # in every mask file
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP = "XML:com.adobe.xmp"  # the PNG text chunk of XMP
NAMESPACES = {
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
}
PICTURES = ("PNG", "JPEG", "WEBP", "TIFF")
C2PA = (b"c2pa.assertions", b"c2pa.claim")  # in the file of a picture that carries Content Credentials


def synthetic_xmp(settings: dict[str, Any]) -> str:
    """XMP that tells other software that a picture is synthetic and what made it: IPTC's DigitalSourceType, and of its
    standard 2025.1 system, version and prompt."""
    made_with = settings.get("made_with") or {}
    version = ", ".join(
        f"{name} {value}"
        for name, value in (
            ("emitdiff", made_with.get("emitdiff", "")),
            ("weights", settings.get("weights_sha256", "")),
        )
        if value
    )
    properties = {
        "Iptc4xmpExt:DigitalSourceType": DIGITAL_SOURCE_TYPE,
        "Iptc4xmpExt:AISystemUsed": f"emitdiff, {settings.get('checkpoint', 'unknown weights')}",
        "Iptc4xmpExt:AISystemVersionUsed": version,
        "Iptc4xmpExt:AIPromptInformation": settings.get("prompt") or "",
        "xmp:CreatorTool": "emitdiff",
    }
    said = "".join(f"\n {name}={_attribute(str(value))}" for name, value in properties.items() if value)
    spaces = "".join(f'\n xmlns:{name}="{address}"' for name, address in NAMESPACES.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
        f'<rdf:Description rdf:about=""{spaces}{said}/>\n</rdf:RDF></x:xmpmeta>\n<?xpacket end="r"?>'
    )


def _attribute(text: str) -> str:
    """Quoted for XML, without the characters that XML has no room for."""
    return quoteattr(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "", text))


def source_hashes(image: np.ndarray | None, mask: np.ndarray | None) -> dict[str, str]:
    """sha256 of the pixels that a synthetic image is made from, where there are any: whoever has the source can tell
    that it is the same one, nobody else learns anything of it."""
    given = {"image_sha256": image, "mask_sha256": mask}
    return {name: pixels_sha256(array) for name, array in given.items() if array is not None}


def pixels_sha256(array: np.ndarray) -> str:
    """sha256 of an array's shape and values, whole numbers of any type."""
    digest = hashlib.sha256(str(array.shape).encode())
    digest.update(np.ascontiguousarray(array, dtype=np.uint8).tobytes())
    return digest.hexdigest()


def save_synthetic_png(image: np.ndarray, path: str | Path, settings: dict[str, Any]) -> Path:
    """Write uint8 (H, W, 3) as a PNG that says it is synthetic and how it was made.

    `settings` is kept as JSON in the text chunk "emitdiff" (`read_synthetic_settings` gives it back), the origin as XMP
    (`synthetic_xmp`). A name without "synthetic_" in front gets it. Returns the path written.
    """
    path = Path(path)
    if not path.name.startswith("synthetic_"):
        path = path.with_name(f"synthetic_{path.name}")
    text = PngImagePlugin.PngInfo()
    text.add_text(SETTINGS_KEY, json.dumps({"synthetic": True, **settings}, sort_keys=True))
    text.add_text("Comment", NOTICE)
    text.add_itxt(XMP, synthetic_xmp(settings))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(to_rgb(image))
    write_atomically(path, lambda partial: picture.save(partial, format="PNG", pnginfo=text))
    return path


def read_synthetic_settings(path: str | Path) -> dict[str, Any]:
    """The settings `save_synthetic_png` kept in a PNG. Raises EmitDiffError for any file without them."""
    try:
        text = _read_text_chunks(path)[SETTINGS_KEY]
        if len(text) > MAX_SETTINGS_LETTERS:
            raise ValueError("more than any settings have")
        settings = json.loads(text)
    except FileNotFoundError as error:
        raise EmitDiffError(f"{path} does not exist: give a PNG that emitdiff wrote.") from error
    except (OSError, ValueError, KeyError, SyntaxError, RecursionError, Image.DecompressionBombError) as error:
        raise EmitDiffError(
            f"{Path(path).name} carries no synthesis settings: give a PNG that emitdiff wrote and nobody re-saved."
        ) from error
    if not isinstance(settings, dict):
        raise EmitDiffError(f"{Path(path).name} carries settings of an unknown form: give a PNG that emitdiff wrote.")
    return settings


def _read_text_chunks(path: str | Path) -> dict[str, str]:
    with Image.open(path, formats=["PNG"]) as png:
        png.load()  # text chunks may stand behind the pixels
        return dict(png.text) if isinstance(png, PngImagePlugin.PngImageFile) else {}


@dataclass(frozen=True)
class Origin:
    """What a picture says of its origin. `settings` are those of emitdiff, None for pictures of other programs;
    `source_type` is IPTC's word, like "trainedAlgorithmicMedia", and `system` what made it, "" where it does not say;
    `credentials` whether it carries C2PA Content Credentials, which are not verified here."""

    settings: dict[str, Any] | None
    source_type: str
    system: str
    credentials: bool

    @property
    def synthetic(self) -> bool:
        """Whether it says that a model or a program made it, or a part of it. Silence proves nothing."""
        return self.settings is not None or "algorithmicmedia" in self.source_type.lower()


def read_origin(path: str | Path) -> Origin:
    """What a PNG, JPEG, WebP or TIFF says of its origin. Raises EmitDiffError for what is no such picture."""
    path = Path(path)
    try:
        with Image.open(path, formats=PICTURES) as picture:
            if isinstance(picture, PngImagePlugin.PngImageFile):
                picture.load()  # text chunks may stand behind the pixels
            packet = picture.info.get(XMP) or picture.info.get("xmp") or ""
            png = picture.format == "PNG"
        with path.open("rb") as file:
            head = file.read(2**22)
    except FileNotFoundError:
        raise EmitDiffError(f"There is no file '{path}': check the path.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise EmitDiffError(f"'{path.name}' is no picture that can be read: give a PNG, JPEG, WebP or TIFF.") from None
    text = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else str(packet)
    settings = None
    if png and SETTINGS_KEY in (_read_text_chunks(path)):
        settings = read_synthetic_settings(path)
    source_type = _property(text, "Iptc4xmpExt:DigitalSourceType").rpartition("/")[2]
    system = _property(text, "Iptc4xmpExt:AISystemUsed") or _property(text, "xmp:CreatorTool")
    return Origin(settings, source_type, system, any(mark in head for mark in C2PA))


def _property(packet: str, name: str) -> str:
    """The value of a property in XMP, which may stand as an attribute or as an element; "" for none."""
    found = re.search(rf"{name}\s*=\s*[\"']([^\"']*)[\"']|<{name}[^>]*>([^<]*)<", packet)
    return unescape((found[1] or found[2] or "").strip(), {"&quot;": '"', "&apos;": "'"}) if found else ""


def copy_png_text(source: str | Path) -> PngImagePlugin.PngInfo | None:
    """The text chunks of a PNG, to be given to `Image.save(pnginfo=...)`; None where `source` is none or has none."""
    try:
        chunks = _read_text_chunks(source)
    except (OSError, SyntaxError):
        return None
    text = PngImagePlugin.PngInfo()
    for key, value in chunks.items():
        text.add_text(key, value)  # XMP comes as iTXt and stays it
    return text if chunks else None


def manifest_entry(result: Any, file: str, mask: str | None) -> dict[str, Any]:
    """One synthetic image (`seed`, `seconds`, `settings`) in a manifest, with the names of its file and its label."""
    return {
        "file": file,
        "mask": mask,
        "seed": result.seed,
        "seconds": round(result.seconds, 2),
        "settings": result.settings,
    }


def synthetic_manifest(source: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """What was made from `source` and how, JSON-able; the form is the same wherever images are written."""
    return {"notice": NOTICE, "digital_source_type": DIGITAL_SOURCE_TYPE, "source": source, "images": entries}
