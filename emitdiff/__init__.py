"""Labelled synthetic medical images from edges and text, and masks from an image and a sentence.

>>> from emitdiff import load_synthesizer, load_segmenter, detect_edges, read_scan

Nothing heavy is imported before one of these names is used. Research use only, not a medical device.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from emitdiff.version import __version__ as __version__

if TYPE_CHECKING:  # for editors and type checkers
    from emitdiff.scans.reading import read_scan  # noqa: TID251
    from emitdiff.segmentation.loading import load_segmenter  # noqa: TID251
    from emitdiff.synthesis.edges import detect_edges  # noqa: TID251
    from emitdiff.synthesis.loading import load_synthesizer  # noqa: TID251
    from emitdiff.synthesis_settings import MaskEdit, SynthesisSettings

__all__ = ["MaskEdit", "SynthesisSettings", "detect_edges", "load_segmenter", "load_synthesizer", "read_scan"]

_EXPORTS = {
    "load_synthesizer": "emitdiff.synthesis.loading",
    "load_segmenter": "emitdiff.segmentation.loading",
    "detect_edges": "emitdiff.synthesis.edges",
    "read_scan": "emitdiff.scans.reading",
    "SynthesisSettings": "emitdiff.synthesis_settings",
    "MaskEdit": "emitdiff.synthesis_settings",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'emitdiff' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
