"""Pictures on the page whose files are never written twice.

Gradio stores a picture under a name made from its content and writes that file again each time the same picture is
shown. A browser that is fetching it meanwhile gets more or fewer bytes than were announced, and the server an error.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np

from emitdiff.files import write_atomically
from emitdiff.images import to_rgb


def written_once(component: gr.Image | gr.Gallery | gr.ImageSlider) -> Any:
    """The component, from now on with files that are never rewritten; a gallery shows [(picture, caption)], a slider
    a pair of pictures."""
    show: Callable[[Any], Any] = component.postprocess  # of three classes, each of which takes something else

    def show_file(value: Any) -> Any:
        if isinstance(value, list):
            return show([(picture_file(picture, component.GRADIO_CACHE), caption) for picture, caption in value])
        if isinstance(value, tuple):
            return show(tuple(picture_file(picture, component.GRADIO_CACHE) for picture in value))
        return show(picture_file(value, component.GRADIO_CACHE))

    # A class of our own would have Gradio write a stub file beside its source.
    component.postprocess = show_file
    return component


def picture_file(picture: Any, cache: str | Path) -> Any:
    """The path of a PNG of uint8 (H, W, 3) in Gradio's cache, complete before it has its name; a path is kept."""
    if not isinstance(picture, np.ndarray):
        return picture
    digest = hashlib.sha256(repr(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()
    path = Path(cache) / digest / "image.png"
    if path.exists():
        os.utime(path)  # Gradio removes what is old; this is in use again
        return str(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    png = cv2.imencode(".png", to_rgb(picture)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    write_atomically(path, lambda partial: partial.write_bytes(png.tobytes()))
    return str(path)
