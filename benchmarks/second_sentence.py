"""How long another sentence about an analysed image takes: through the pipeline, and through the served page.

    python -m benchmarks.second_sentence [IMAGE] --threads 2

The first answer encodes the image; the others, each with a sentence of its own, segment what was encoded. The page is
asked at /segment over HTTP, with a file that was sent once; its answer writes a mask file. Printed are medians in
milliseconds; the processor time beside them is not changed by what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from statistics import median

import torch

from emitdiff.backend.services import build_callables
from emitdiff.scans.reading import read_scan
from emitdiff.segmentation.loading import load_segmenter
from emitdiff.ui.demo import build_demo, launch_settings

EXAMPLES = Path(__file__).parents[1] / "emitdiff" / "ui" / "examples"
SENTENCES = ("left lung", "the right lung", "lung", "where is the liver?", "spleen", "an image of the pancreas",
             "breast lesion", "nuclei of the cells", "prostate gland", "left ventricle of the heart")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", type=Path, default=None, help="without it, an example of the page")
    parser.add_argument("--checkpoint", default="textdiff-mini")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    path = arguments.image or EXAMPLES / "painted_chest_xray.png"
    texts = [f"{SENTENCES[index % len(SENTENCES)]} {index}" for index in range(arguments.repeat + 1)]
    scan = read_scan(path)
    image = scan.image(scan.middle)
    print(f"{path.name}, {image.shape[1]} x {image.shape[0]}, {arguments.checkpoint}, {arguments.threads} threads")
    pipeline = load_segmenter(arguments.checkpoint, device="cpu")
    pipeline(image[::-1].copy(), texts[0])  # warms up on another image
    first = timed(lambda: pipeline(image, texts[0]))
    encoded = pipeline.encode(image)
    print(f"{'encoded':9} {encoded.nbytes / 2**20:.1f} MiB")
    report("pipeline", [first, *(timed(lambda text=text: pipeline.segment(encoded, text)) for text in texts[1:])])
    served(path, texts, arguments.checkpoint, scan.middle + 1)


def timed(call) -> tuple[float, float]:
    """Milliseconds of wall time and of this program's processor time."""
    started = time.perf_counter(), time.process_time()
    call()
    return 1e3 * (time.perf_counter() - started[0]), 1e3 * (time.process_time() - started[1])


def report(name: str, found: list[tuple[float, float]]) -> None:
    wall, busy = ([pair[index] for pair in found[1:]] for index in (0, 1))
    print(
        f"{name:9} first answer {found[0][0]:6.0f} ms; another sentence {median(wall):6.0f} ms "
        f"(fastest {min(wall):.0f}, slowest {max(wall):.0f}; processor time {median(busy):.0f}), {len(wall)} times",
        flush=True,
    )


def served(path: Path, texts: list[str], checkpoint: str, number: int) -> None:
    """The same through a page that runs here."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import httpx

    demo = build_demo(build_callables("emitdiff-mini", checkpoint))
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_settings())
    client = httpx.Client(base_url=f"{address}gradio_api/", timeout=600)
    sent = {}
    for place in (path, EXAMPLES / "painted_nuclei.png"):
        sent[place] = client.post("upload", files={"files": (place.name, place.read_bytes())}).json()[0]

    def ask(text: str, place: Path = path, slice_number: int = number) -> None:
        file = {"path": sent[place], "meta": {"_type": "gradio.FileData"}}
        event = client.post("call/segment", json={"data": [file, text, 0.5, slice_number, checkpoint, None]}).json()
        answer = client.get(f"call/segment/{event['event_id']}").text
        if "event: complete" not in answer:
            raise SystemExit(answer)

    for text in texts[:3]:  # loads the weights, and warms up on another image
        ask(text, EXAMPLES / "painted_nuclei.png", 1)
    report("page", [timed(lambda text=text: ask(text)) for text in texts])
    demo.close()


if __name__ == "__main__":
    main()
