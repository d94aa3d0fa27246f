"""The weights in memory: each loaded once, by whoever asks first, and the ones used last kept; all of them take turns
on one device."""

from __future__ import annotations

from threading import Condition, RLock
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache, cached
from cachetools.keys import hashkey

from emitdiff import zero_gpu
from emitdiff.checkpoints import Checkpoint, checkpoint_status, find_checkpoint, known_checkpoints, local_folder
from emitdiff.errors import EmitDiffError
from emitdiff.turns import Turns
from emitdiff.ui.interface import HEAD_SUFFIX

if TYPE_CHECKING:
    from emitdiff.segmentation.pipeline import SegmentationPipeline
    from emitdiff.synthesis.pipeline import SynthesisPipeline

MAX_LOADED = 2  # pipelines of each kind, the ones used last
# Held while the libraries of networks are imported and networks built, not while files are fetched. Their modules
# import one another when first needed: of two threads that do so, one finds a module half done ("cannot import name
# ..."). And transformers builds networks on a default device of its own, which all threads share: what another thread
# builds meanwhile has no data.
network_lock = RLock()
# Of what computes in this process: an image that is encoded, a question, a step of painting or of training. What is
# painted on a card that ZeroGPU lends asks for none: it has the card to itself.
device = Turns()


@cached(LRUCache(MAX_LOADED), condition=Condition())
def synthesizer(name: str) -> SynthesisPipeline:
    """Loaded by whoever asks first; only those who ask for the same one wait meanwhile."""
    with network_lock:
        from emitdiff.synthesis.loading import build_synthesizer, fetch_synthesizer
    fetch_synthesizer(name)
    with network_lock:
        return _on_device(build_synthesizer(name))


@cached(LRUCache(MAX_LOADED), condition=Condition())
def synthesizer_for(name: str, device: str) -> SynthesisPipeline:
    """As `synthesizer`, in the precision of `device` but not on it yet."""
    with network_lock:
        from emitdiff.synthesis.loading import fetch_synthesizer, read_synthesizer
    fetch_synthesizer(name, device)
    with network_lock:
        return read_synthesizer(name, device)


@cached(LRUCache(MAX_LOADED), condition=Condition())
def segmenter(name: str) -> SegmentationPipeline:
    """As `synthesizer`; also of the file of a few-shot head."""
    if name.endswith(HEAD_SUFFIX):
        return _few_shot_pipeline(name)
    local_folder(find_checkpoint(name, "segmentation"))
    with network_lock:
        from emitdiff.segmentation.loading import load_segmenter

        return _on_device(load_segmenter(name))


def _on_device(pipeline: Any) -> Any:
    pipeline.turns = device
    return pipeline


def _few_shot_pipeline(file: str) -> SegmentationPipeline:
    """A head on the weights it was trained on, which are shared with others. The file may come from anyone: it cannot
    have the server fetch weights."""
    with network_lock:
        from emitdiff.segmentation.few_shot.head import load_few_shot_head, read_few_shot_head
    name = str(read_few_shot_head(file)[0]["checkpoint"])
    base = next((found for found in known_checkpoints("segmentation") if found.name == name), None)
    if base is None or not is_ready(base):
        raise EmitDiffError(f"This head was trained on the weights {name}, which are not among those of this page.")
    pipeline = segmenter(name)
    with network_lock:
        return load_few_shot_head(file, pipeline).pipeline()


def import_measures() -> None:
    """What measures of images import only once they are computed: MONAI, which imports transformers."""
    with network_lock:
        import monai.metrics  # noqa: F401


def prepare(synthesis: Checkpoint, segmentation: Checkpoint) -> None:
    """Loads the weights chosen at first, so that the first press of a button need not wait. Downloads nothing."""
    if is_ready(synthesis):
        synthesizer_for(synthesis.name, zero_gpu.CARD) if zero_gpu.is_here() else synthesizer(synthesis.name)
    if is_ready(segmentation):
        segmenter(segmentation.name)


def is_loaded(name: str) -> bool:
    """Whether the weights are in memory now."""
    for_card = hashkey(name, zero_gpu.CARD) in synthesizer_for.cache
    return for_card or any(hashkey(name) in loader.cache for loader in (synthesizer, segmenter))


def is_ready(checkpoint: Checkpoint) -> bool:
    return checkpoint_status(checkpoint).startswith("ready")
