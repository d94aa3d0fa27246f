"""A training step of the paper's head: as published, and in our order of the same sums.

    python -m benchmarks.head_step --preset monuseg

Both get the same features, words, weights and mask at batch 1 and 256 x 256, and take turns. Printed are the seconds of
forward, backward and Adam's step, the memory kept for backward, the multiplications, and by how much logits and
gradients differ. On a processor the speed is that of processor time, which other programs do not change much.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.published_head import published_logits  # noqa: E402
from emitdiff.segmentation.published.efficient import efficient_logits
from emitdiff.segmentation.published.model import PAPER, build_published_head, published_loss

SIDES = {"monuseg": (32, 64, 128, 256), "qata": (16, 32, 64, 128)}
WAYS = {"published": published_logits, "ours": efficient_logits}


def kept_for_backward(run) -> tuple[torch.Tensor, int]:
    """(what `run()` returns, bytes that autograd holds for its backward, each storage once, weights left out)."""
    storages, held = {}, []

    def pack(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            held.append(tensor)  # or an address might be counted for two tensors
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        return run(), sum(storages.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=SIDES, default="monuseg")
    parser.add_argument("--steps", type=int, default=3, help="of each way; the first of each warms up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--half", action="store_true", help="our way reads features in half precision, as cached")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device, generator = torch.device(arguments.device), torch.Generator().manual_seed(0)
    head = build_published_head(arguments.preset).to(device).train()
    pairs = zip(head.config.feature_channels, SIDES[arguments.preset], strict=True)
    features = [torch.randn(1, count, side, side, generator=generator).to(device) for count, side in pairs]
    cached = [part.half() for part in features] if arguments.half else features
    read = {"published": [part.float() for part in cached], "ours": cached}
    tokens = torch.randn(1, 10, 768, generator=generator).to(device)
    mask = torch.randint(2, (1, 256, 256), generator=generator).to(device)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.0)  # the weights stay, so that both ways can be compared
    seconds, logits, gradients, work = {name: [] for name in WAYS}, {}, {}, {}
    for name, way in WAYS.items():
        found, kept = kept_for_backward(lambda way=way, name=name: way(head, read[name], tokens, None, (256, 256)))
        logits[name] = found.detach()
        print(f"{name:10} keeps {kept / 1e9:.3f} GB for backward", flush=True)
        del found
    for step in range(arguments.steps + 1):
        for name, way in WAYS.items():
            optimizer.zero_grad(set_to_none=True)
            counted = FlopCounterMode(display=False) if step == 0 else nullcontext()
            started = time.perf_counter(), time.process_time()
            with counted:
                loss = published_loss(way(head, read[name], tokens, None, (256, 256)), mask, PAPER)
                loss.backward()
            optimizer.step()
            loss.item()
            wall, busy = time.perf_counter() - started[0], time.process_time() - started[1]
            if step == 0:
                work[name] = counted.get_total_flops() / 2e9
                print(f"{name:10} {work[name]:.0f} billion multiplications", flush=True)
                continue
            seconds[name].append(busy if device.type == "cpu" else wall)
            gradients[name] = torch.cat([parameter.grad.flatten() for parameter in head.parameters()])
            print(f"{name:10} {wall:.2f} s, {busy:.2f} s of processor time", flush=True)
    difference = {kind: (values["ours"] - values["published"]).abs().max().item() for kind, values in
                  (("logits", logits), ("gradients", gradients))}  # fmt: skip
    print(f"largest differences: logits {difference['logits']:.1e}, gradients {difference['gradients']:.1e}")
    print(f"multiplications: {work['published'] / work['ours']:.2f} times fewer")
    print(f"speed: {median(seconds['published']) / median(seconds['ours']):.2f} times the published step's (medians)")


if __name__ == "__main__":
    main()
