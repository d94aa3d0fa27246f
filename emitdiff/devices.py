"""Choice of device, dtype, attention implementation and offloading."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import warnings
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from emitdiff import zero_gpu
from emitdiff.errors import EmitDiffError, first_line

if TYPE_CHECKING:
    import torch

DEVICES = ("cuda", "mps", "cpu")
M_ARENA_MAX = -8  # malloc.h of glibc
# Activations and the allocator's slack beside the weights, measured in weights: sampling 512 x 512 in half precision
# with SDPA stays below this.
HEADROOM = 1.5

Placement = Literal["whole", "one model at a time", "one layer at a time"]
PLACEMENTS: tuple[Placement, ...] = get_args(Placement)  # the fastest first, the one that needs the least memory last


def choose_device(name: str | None = None) -> torch.device:
    """The device called `name` ("cuda", "cuda:1", "mps", "cpu"), or the best one here. Raises EmitDiffError."""
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name is None and zero_gpu.waits_for_card():
        return torch.device("cpu")
    if name is None:
        return torch.device(next(device for device in DEVICES if available[device]))
    kind, _, index = str(name).partition(":")
    if kind not in DEVICES or (index and not index.isdecimal()):
        raise EmitDiffError(f"There is no device called {name!r}: give one of {', '.join(DEVICES)}.")
    if not available[kind] or (kind == "cuda" and int(index or 0) >= torch.cuda.device_count()):
        present = ", ".join(device for device in DEVICES if available[device])
        raise EmitDiffError(f"The device {name} is not on this machine: choose among {present}, or name none.")
    return torch.device(name)


def choose_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on CUDA cards that compute it (Ampere and later), float16 on older ones, float32 elsewhere."""
    import torch

    if device.type != "cuda":
        return torch.float32  # half precision loses images to NaN on MPS; for CPUs see `compute_in_bfloat16`
    native = torch.cuda.get_device_capability(device)[0] >= 8
    return torch.bfloat16 if native else torch.float16


def choose_mixed_precision(device: torch.device) -> Literal["no", "fp16", "bf16"]:
    """What to compute in beside float32 sums and master weights: bf16 where the hardware computes it, fp16 on older
    CUDA cards."""
    import torch

    if device.type == "cpu":
        capable = torch.cpu.get_capabilities()
        return "bf16" if any(capable.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")) else "no"
    if device.type != "cuda":
        return "no"
    return "bf16" if choose_dtype(device) == torch.bfloat16 else "fp16"


def paints_in_half(device: torch.device) -> bool:
    """Whether the sampler's networks compute in half precision on `device`, so that its files need hold no more."""
    return choose_mixed_precision(device) != "no"


def choose_attention(device: torch.device) -> Literal["xformers", "SDPA"]:
    """xformers where it is installed and its kernels run on `device`, else PyTorch's own SDPA."""
    return "xformers" if device.type == "cuda" and not xformers_problem(device) else "SDPA"


def xformers_problem(device: torch.device) -> str:
    """Why xformers is not used on a CUDA `device`, in a few words; "" where it is."""
    return _refusals.get(str(device)) or _try_xformers(str(device))


_refusals: dict[str, str] = {}  # by device: why a pipeline would not take it, though its kernels ran alone


@cache
def _try_xformers(device: str) -> str:
    """Tried out, since an installed xformers may come without kernels for this card or this torch."""
    if find_spec("xformers") is None:
        return "xformers is not installed"
    import torch

    try:
        from xformers.ops import memory_efficient_attention

        query = torch.ones(1, 8, 2, 40, device=device, dtype=choose_dtype(torch.device(device)))
        finite = bool(torch.isfinite(memory_efficient_attention(query, query, query)).all())
    except (ImportError, NotImplementedError, RuntimeError, ValueError, OSError):
        built, here = _torch_of_xformers(), torch.__version__
        if built and built.partition("+")[0] != here.partition("+")[0]:
            return f"xformers was built for torch {built}, and this is torch {here}: see requirements-gpu.txt"
        return f"xformers has no kernels for this card with torch {here}"
    return "" if finite else "xformers computes wrong numbers here"


def _torch_of_xformers() -> str:
    """The torch that the installed kernels were built for, like "2.10.0+cu128"; "" where they do not say."""
    found = find_spec("xformers")
    try:
        facts = json.loads((Path(found.origin or "").parent / "cpp_lib.json").read_text(encoding="utf-8"))  # type: ignore[union-attr]
        return str(facts["version"]["torch"])
    except (AttributeError, OSError, ValueError, KeyError, TypeError):
        return ""


def _enable_xformers(pipe: Any, device: torch.device) -> None:
    """Attention of a pipeline by xformers; where that raises although its kernels ran alone, PyTorch's own stays."""
    try:
        pipe.enable_xformers_memory_efficient_attention()
    except (ImportError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        _refusals[str(device)] = f"xformers failed: {first_line(error)}"
        pipe.disable_xformers_memory_efficient_attention()


def quiet_libraries() -> None:
    """Call before diffusers is imported: keeps it from announcing hardware and packages that are not needed here."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    logging.getLogger("xformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="monai")


def limit_malloc_arenas() -> None:
    """Let all threads of a server share two heaps of glibc: with one for each, as it would have it, what they gave back
    stays in many places. Without effect on other systems; to be called before any other thread is started.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(M_ARENA_MAX, 2)


def compute_in_bfloat16(network: Any) -> Any:
    """Keeps a network's weights in bfloat16 and what goes in and out of it in float32; returns it.

    For the networks of a sampler on processors that multiply bfloat16 matrices (AMX, AVX512_BF16): three times as fast
    there, while the sampler's own sums, which bfloat16 would round, stay in float32.
    """
    import torch
    from torch.utils._pytree import tree_map_only

    def narrow(module: Any, args: Any, kwargs: Any) -> Any:
        return tree_map_only(torch.Tensor, lambda value: _cast(value, torch.bfloat16), (args, kwargs))

    def widen(module: Any, args: Any, output: Any) -> Any:
        return tree_map_only(torch.Tensor, lambda value: _cast(value, torch.float32), output)

    network.to(torch.bfloat16).to(memory_format=torch.channels_last)
    network.register_forward_pre_hook(narrow, with_kwargs=True)
    network.register_forward_hook(widen)
    return network


def _cast(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def prepare_pipeline(pipe: Any, device: torch.device) -> Any:
    """Set attention, placement and, on a CPU, precision of a diffusers pipeline for `device`; returns it, ready to be
    called.

    Where the card's free memory is short, `accelerate` moves one model or even one layer at a time onto it.
    """
    import torch

    if device.type == "cpu":
        pipe.vae.to(memory_format=torch.channels_last)
        if choose_mixed_precision(device) == "bf16":
            compute_in_bfloat16(pipe.unet)
            compute_in_bfloat16(pipe.controlnet)
    if choose_attention(device) == "xformers":
        _enable_xformers(pipe, device)
    placement: Placement = (
        "whole" if device.type != "cuda" else choose_placement(component_sizes(pipe), free_memory(device))
    )
    return place(pipe, device, placement)


def place(pipe: Any, device: torch.device, placement: Placement) -> Any:
    """Puts a diffusers pipeline onto `device` as `placement` says, wherever it is now; returns it."""
    if placement == "whole":
        return pipe.to(device)
    pipe.vae.enable_slicing()
    if placement == "one model at a time":
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.enable_sequential_cpu_offload(device=device)
    return pipe


def take_less_memory(pipe: Any, device: torch.device) -> Placement | None:
    """Offloads a diffusers pipeline that ran out of memory on `device` one step further; None where there is none."""
    import torch

    less = PLACEMENTS[PLACEMENTS.index(_placement_of(pipe)) + 1 :]
    if not less:
        return None
    with torch.inference_mode(False):
        place(pipe, device, less[0])
    torch.cuda.empty_cache()
    return less[0]


def _placement_of(pipe: Any) -> Placement:
    from accelerate.hooks import CpuOffload

    if not is_offloaded(pipe.unet):
        return "whole"
    of_model = isinstance(getattr(pipe.unet, "_hf_hook", None), CpuOffload)
    return "one model at a time" if of_model else "one layer at a time"


def is_offloaded(network: Any) -> bool:
    """Whether `accelerate` moves a network, or its layers, onto the device when they are called."""
    return any(hasattr(module, "_hf_hook") for module in network.modules())


def choose_placement(sizes: dict[str, int], free: int) -> Placement:
    """How models of `sizes` (bytes, by component) fit into `free` bytes with room for activations.

    Under offloading the ControlNet stays on the card beside the U-Net, which it is called with in every step.
    """
    if HEADROOM * sum(sizes.values()) <= free:
        return "whole"
    beside = sizes.get("unet", 0) + sizes.get("controlnet", 0)
    return "one model at a time" if HEADROOM * max(*sizes.values(), beside) <= free else "one layer at a time"


def component_sizes(pipe: Any) -> dict[str, int]:
    """Bytes of parameters and buffers of every network in a diffusers pipeline, by component name."""
    import torch

    networks = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {
        name: sum(tensor.numel() * tensor.element_size() for tensor in (*part.parameters(), *part.buffers()))
        for name, part in networks.items()
    }


def free_memory(device: torch.device) -> int:
    """Free bytes on a CUDA device."""
    import torch

    return torch.cuda.mem_get_info(device)[0]


def describe_device(device: torch.device | None = None) -> str:
    """What is used, for users: "CPU, 2 threads, bfloat16, SDPA attention"."""
    import torch

    if device is None and zero_gpu.waits_for_card():
        return f"ZeroGPU for generating, lent for each run; else {describe_device(choose_device())}"
    device = device or choose_device()
    attention = f"{choose_attention(device)} attention"
    if device.type == "cuda" and (problem := xformers_problem(device)):
        attention += f" ({problem})"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        half = "bfloat16, " if choose_mixed_precision(device) == "bf16" else ""
        return f"CPU, {threads} thread{'s' if threads > 1 else ''}, {half}{attention}"
    if device.type == "mps":
        return f"Apple GPU (MPS), {attention}"
    properties = torch.cuda.get_device_properties(device)
    dtype = str(choose_dtype(device)).removeprefix("torch.")
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GB, {dtype}, {attention}"
