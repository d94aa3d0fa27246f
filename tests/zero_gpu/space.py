"""A Space on ZeroGPU in a process of its own: `python space.py CHECKPOINT WHAT...` does each and prints what came.

The card that is lent is the processor; everything else is as on a Space.
"""

import json
import os
import sys
import threading
import time
import urllib.request

from emitdiff import zero_gpu

zero_gpu.CARD = "cpu"

import torch  # noqa: E402

if torch.version.cuda is None:  # what Hugging Face's own package looks for in the torch of a Space
    torch.version.cuda, torch._C._cuda_init, torch.cuda._is_in_bad_fork = "12.8", lambda: None, bool

import spaces  # noqa: E402

if hasattr(spaces, "zero"):  # and without a card there is none to begin with
    spaces.zero.torch.init = spaces.zero.torch.move = lambda *args, **kwargs: None

import numpy as np  # noqa: E402

building, forked = threading.Event(), []
os.register_at_fork(before=lambda: forked.append(building.is_set()))  # asked last: before what is registered below

from emitdiff.backend import painting, pipelines, services  # noqa: E402
from emitdiff.devices import choose_device, describe_device  # noqa: E402
from emitdiff.errors import EmitDiffError  # noqa: E402
from emitdiff.synthesis_settings import SynthesisSettings  # noqa: E402
from emitdiff.ui.interface import SynthesisRequest  # noqa: E402
from emitdiff.ui.results import is_image  # noqa: E402

SETTINGS = {"num_images": 2, "seed": 4, "num_inference_steps": 4}
IMAGE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)


def paint(checkpoint, cancelled=lambda: False, image=IMAGE, **changes):
    request = SynthesisRequest(SynthesisSettings("CT, abdomen", **{**SETTINGS, **changes}), checkpoint)
    return services.build_callables(checkpoint, "textdiff-mini").synthesize(image, None, request, cancelled)


def images(checkpoint, said):
    before = pipelines.is_loaded(checkpoint)
    events = list(paint(checkpoint))
    said["loaded"] = [before, pipelines.is_loaded(checkpoint)]
    said["steps"] = sum(not is_image(event) for event in events)
    said["previews"] = sum(not is_image(event) and event.preview is not None for event in events)
    made = [event for event in events if is_image(event)]
    here = pipelines.synthesizer(checkpoint)(IMAGE, settings=SynthesisSettings("CT, abdomen", **SETTINGS))
    said["same"] = [bool((mine.image == theirs.image).all()) for mine, theirs in zip(made, here, strict=True)]
    said["seeds"] = [image.seed for image in made]
    said["waits"], said["device"] = zero_gpu.waits_for_card(), describe_device()
    said["chosen"] = choose_device().type
    services.build_callables(checkpoint, "textdiff-mini").prepare()
    said["read"] = len(pipelines.synthesizer_for.cache)


def cancelled(checkpoint, said):
    seen = []
    for event in paint(checkpoint, lambda: len(seen) == 2, num_inference_steps=1000, num_images=1):
        seen.append(is_image(event))
    said["seen"] = seen


def closed(checkpoint, said):
    events = paint(checkpoint, num_inference_steps=1000, num_images=1)
    said["first"] = type(next(events)).__name__
    events.close()


def refused(checkpoint, said):
    for what, changes in (("settings", {"num_inference_steps": 0}), ("image", {"image": None})):
        try:
            list(paint(checkpoint, **changes))
        except EmitDiffError as error:
            said[what] = str(error)


def failing(checkpoint, said):
    """What goes wrong beside the card: a sentence for users, out of memory, a defect."""
    own = painting._on_card

    class Failing:
        def __init__(self, error):
            self.error = error

        def stream(self, *args):
            raise self.error

    for name, error in (("sentence", EmitDiffError("Do this.")), ("memory", MemoryError()), ("defect", KeyError("x"))):
        painting._on_card = lambda checkpoint, error=error: Failing(error)
        try:
            list(paint(checkpoint))
        except EmitDiffError as raised:
            said[name] = str(raised)
    painting._on_card = own


def quota(checkpoint, said):
    try:
        list(paint(checkpoint))
    except EmitDiffError as error:
        said["sentence"] = str(error)


def busy(checkpoint, said):
    """Forked while another thread imports or builds."""
    events = paint(checkpoint, num_images=1)

    def build():
        with pipelines.network_lock:
            building.set()
            time.sleep(2)
            building.clear()

    pipelines.synthesizer_for(checkpoint, zero_gpu.CARD)
    threading.Thread(target=build).start()
    building.wait(10)
    forked.clear()
    said["images"] = sum(is_image(event) for event in events)
    said["forked"] = forked
    said["free"] = pipelines.network_lock.acquire(timeout=5)


def run(checkpoint, names, told):
    for name in names:
        said: dict = {"pid": os.getpid()}
        told[name] = said
        begin = f"{os.environ['SPACES_ZERO_DEVICE_API_URL']}/begin?what={name}"
        urllib.request.urlopen(urllib.request.Request(begin, method="POST"), timeout=20).close()
        try:
            started = time.monotonic()
            globals()[name](checkpoint, said)
            said["seconds"] = time.monotonic() - started
        except BaseException as error:
            said["raised"] = f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    told: dict = {}
    worker = threading.Thread(target=run, args=(sys.argv[1], sys.argv[2:], told))  # as Gradio's: not the first thread
    worker.start()
    worker.join()
    print("\n" + json.dumps(told))
