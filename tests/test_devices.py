import json
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from emitdiff import devices
from emitdiff.devices import (
    choose_attention,
    choose_device,
    choose_dtype,
    choose_mixed_precision,
    choose_placement,
    component_sizes,
    compute_in_bfloat16,
    describe_device,
    is_offloaded,
    place,
    prepare_pipeline,
)
from emitdiff.errors import EmitDiffError

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[1]


def test_best_device_is_chosen_and_cpu_is_always_there():
    assert choose_device("cpu") == CPU
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device().type == expected


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "tpu", ""])
def test_unknown_device_is_refused(name):
    with pytest.raises(EmitDiffError, match="no device called"):
        choose_device(name)


def test_absent_device_is_refused_with_what_is_there():
    with pytest.raises(EmitDiffError, match="cpu, or name none"):
        choose_device("cuda:99")


def test_cpu_computes_in_single_precision_with_sdpa():
    assert choose_dtype(CPU) == torch.float32
    assert choose_attention(CPU) == "SDPA"


@pytest.mark.parametrize(("capable", "half"), [({}, ""), ({"amx_bf16": True}, "bfloat16, ")])
def test_description_is_a_phrase_for_people(monkeypatch, capable, half):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable)
    threads = torch.get_num_threads()
    assert describe_device(CPU) == f"CPU, {threads} thread{'s' if threads > 1 else ''}, {half}SDPA attention"


def test_placement_follows_free_memory():
    sizes = {"unet": 60, "vae": 30, "text_encoder": 10}
    assert choose_placement(sizes, 150) == "whole"
    assert choose_placement(sizes, 149) == "one model at a time"
    assert choose_placement(sizes, 90) == "one model at a time"
    assert choose_placement(sizes, 89) == "one layer at a time"


def test_tiny_pipeline_is_placed_on_the_cpu(tiny_synthesis_folder):
    from diffusers import StableDiffusionControlNetPipeline

    pipe = StableDiffusionControlNetPipeline.from_pretrained(tiny_synthesis_folder, use_safetensors=True)
    sizes = component_sizes(pipe)
    assert set(sizes) == {"vae", "text_encoder", "unet", "controlnet"}
    assert sizes["unet"] == sum(4 * parameter.numel() for parameter in pipe.unet.parameters())
    assert prepare_pipeline(pipe, CPU) is pipe
    assert pipe.device == CPU


@pytest.mark.parametrize(("capable", "dtype"), [({}, torch.float32), ({"avx512_bf16": True}, torch.bfloat16)])
def test_a_processor_samples_in_half_precision_only_where_it_computes_it(
    monkeypatch, tiny_synthesis_folder, capable, dtype
):
    from diffusers import StableDiffusionControlNetPipeline

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable)
    pipe = StableDiffusionControlNetPipeline.from_pretrained(tiny_synthesis_folder, use_safetensors=True)
    prepare_pipeline(pipe, CPU)
    assert pipe.unet.dtype == pipe.controlnet.dtype == dtype
    assert pipe.vae.dtype == pipe.text_encoder.dtype == torch.float32


def test_half_precision_stays_inside_the_network():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.SiLU(), torch.nn.Conv2d(8, 3, 3))
    image = torch.randn(1, 3, 32, 32)
    full = network(image)
    narrowed = compute_in_bfloat16(network)(image)
    assert narrowed.dtype == torch.float32 and next(network.parameters()).dtype == torch.bfloat16
    assert 1e-5 < (narrowed - full).abs().max() < 0.02 * full.abs().max()


@pytest.mark.parametrize(
    ("capability", "dtype", "trained_in"), [((7, 5), torch.float16, "fp16"), ((8, 0), torch.bfloat16, "bf16")]
)
def test_a_card_computes_in_the_half_precision_it_has(monkeypatch, capability, dtype, trained_in):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_dtype(torch.device("cuda")) == dtype
    assert choose_mixed_precision(torch.device("cuda")) == trained_in


@pytest.mark.parametrize(
    ("capable", "trained_in"), [({"avx512_bf16": True}, "bf16"), ({"bf16": True}, "bf16"), ({"avx512": True}, "no")]
)
def test_a_processor_trains_in_half_precision_only_where_it_computes_it(monkeypatch, capable, trained_in):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable)
    assert choose_mixed_precision(CPU) == trained_in
    assert choose_mixed_precision(torch.device("mps")) == "no" and choose_dtype(torch.device("mps")) == torch.float32


def test_the_controlnet_counts_beside_the_unet():
    """It is no part of the chain in which one network makes room for the next."""
    sizes = {"unet": 60, "controlnet": 30, "vae": 40, "text_encoder": 10}
    assert choose_placement(sizes, 210) == "whole"
    assert choose_placement(sizes, 135) == "one model at a time"
    assert choose_placement(sizes, 134) == "one layer at a time"


def test_offloaded_networks_paint_the_same_without_previews(tiny_synthesis_folder, disc):
    """With accelerate's own hooks; the processor stands for the card too. Its hooks for single layers cannot be had so:
    they take weights on the card for those kept aside."""
    from emitdiff.synthesis.loading import load_synthesizer
    from emitdiff.synthesis.pipeline import SyntheticImage

    painted = []
    for where in ("whole", "one model at a time"):
        synthesizer = load_synthesizer(str(tiny_synthesis_folder), "cpu")
        place(synthesizer.pipe, CPU, where)
        events = list(synthesizer.stream(disc[0], prompt="disc", num_images=1, num_inference_steps=2))
        assert is_offloaded(synthesizer.pipe.vae) == (where != "whole")
        assert (events[1].preview is None) == (where != "whole") and isinstance(events[-1], SyntheticImage)
        painted.append(events[-1].image)
    assert np.abs(painted[0].astype(int) - painted[1]).max() <= 1


@pytest.mark.parametrize("times", [1, 2, 3])
def test_out_of_memory_is_answered_by_offloading_then_by_a_sentence(tiny_synthesis_folder, disc, monkeypatch, times):
    """A card that is too small until so much is taken off it; the processor stands for it. Hooks for single layers,
    which cannot be had so, are put there without effect."""
    from accelerate.hooks import ModelHook, add_hook_to_module

    from emitdiff.synthesis.loading import load_synthesizer

    synthesizer = load_synthesizer(str(tiny_synthesis_folder), "cpu")
    settings = {"prompt": "disc", "num_images": 1, "num_inference_steps": 2}
    expected = synthesizer(disc[0], **settings)[0].image
    asked, failed = [], []

    def put(pipe, device, placement):
        asked.append((placement, device.type))
        if placement != "one layer at a time":
            return own(pipe, device, placement)
        pipe.remove_all_hooks()
        add_hook_to_module(pipe.unet.conv_in, ModelHook())

    def fail(*_):
        if len(failed) < times:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory.")

    own = place
    monkeypatch.setattr(devices, "place", put)
    synthesizer.pipe.unet.register_forward_pre_hook(fail)
    if times < 3:
        made = synthesizer(disc[0], **settings)[0].image
        assert np.abs(made.astype(int) - expected).max() <= 1
    else:
        with pytest.raises(EmitDiffError, match=r"too little memory for an image of \d+ x \d+.* on the processor"):
            synthesizer(disc[0], **settings)
    assert asked == [(where, "cpu") for where in devices.PLACEMENTS[1 : times + 1]]
    assert len(synthesizer(disc[0], **settings)) == 1, "it can still be used"


def test_a_pipeline_that_refuses_xformers_keeps_pytorchs_attention_and_says_why(monkeypatch):
    card = torch.device("cuda:0")
    monkeypatch.setattr(devices, "_refusals", {})
    monkeypatch.setattr(devices, "_try_xformers", lambda device: "")
    monkeypatch.setattr(devices, "free_memory", lambda device: 10**9)
    assert choose_attention(card) == "xformers"
    pipe = Placed()
    pipe.fails = "enable_xformers_memory_efficient_attention"
    assert prepare_pipeline(pipe, card) is pipe
    assert [name for name, *_ in pipe.said] == [pipe.fails, "disable_xformers_memory_efficient_attention", "to"]
    assert choose_attention(card) == "SDPA"
    assert devices.xformers_problem(card) == "xformers failed: no kernel image is available"


@pytest.mark.parametrize(
    ("built", "reason"),
    [
        ("2.9.0+cu128", f"xformers was built for torch 2.9.0+cu128, and this is torch {torch.__version__}: see"),
        (torch.__version__, f"xformers has no kernels for this card with torch {torch.__version__}"),
        (None, f"xformers has no kernels for this card with torch {torch.__version__}"),
    ],
)
def test_kernels_for_another_torch_are_named(monkeypatch, tmp_path, built, reason):
    """A package that lies where xformers would, and refuses as it does beside another torch."""
    (tmp_path / "xformers").mkdir()
    (tmp_path / "xformers" / "__init__.py").touch()
    (tmp_path / "xformers" / "ops.py").write_text("raise ImportError('no operator')")
    if built:
        (tmp_path / "xformers" / "cpp_lib.json").write_text(json.dumps({"version": {"torch": built}}))
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "xformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(devices, "_refusals", {})
    devices._try_xformers.cache_clear()
    said = devices.xformers_problem(torch.device("cuda:0"))
    devices._try_xformers.cache_clear()
    assert said.startswith(reason)


def test_a_card_is_described_with_its_attention_and_the_reason(monkeypatch):
    monkeypatch.setattr(devices, "_refusals", {})
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    devices._try_xformers.cache_clear()
    properties = SimpleNamespace(name="A card", total_memory=24 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    said = describe_device(torch.device("cuda:0"))
    devices._try_xformers.cache_clear()
    assert said == "A card, 24 GB, bfloat16, SDPA attention (xformers is not installed)"


class Placed:
    """Takes the place of a pipeline of two networks of 4,000 bytes, and tells how it was placed."""

    def __init__(self):
        self.components = {"unet": torch.nn.Linear(1000, 1, bias=False), "vae": torch.nn.Linear(1000, 1, bias=False)}
        self.said, self.vae, self.fails = [], self, ""

    def __getattr__(self, name):
        def said(*given, **named):
            self.said.append((name, *given, *named.values()))
            if name == self.fails:
                raise RuntimeError("no kernel image is available\nfor execution on the device")
            return self

        return said


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (12000, ["to"]),
        (11999, ["enable_slicing", "enable_model_cpu_offload"]),
        (5999, ["enable_slicing", "enable_sequential_cpu_offload"]),
    ],
)
def test_a_card_with_little_memory_is_given_a_part_at_a_time(monkeypatch, free, said):
    monkeypatch.setattr(devices, "choose_attention", lambda device: "SDPA")
    monkeypatch.setattr(devices, "free_memory", lambda device: free)
    pipe, card = Placed(), torch.device("cuda:1")
    assert prepare_pipeline(pipe, card) is pipe
    assert [name for name, *_ in pipe.said] == said and pipe.said[-1][1] == card


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
def test_cuda_computes_in_half_precision(tiny_synthesis_folder):
    from diffusers import StableDiffusionControlNetPipeline

    device = torch.device("cuda:0")
    assert choose_dtype(device) in (torch.float16, torch.bfloat16)
    assert choose_attention(device) in describe_device(device)
    pipe = StableDiffusionControlNetPipeline.from_pretrained(tiny_synthesis_folder, use_safetensors=True)
    assert prepare_pipeline(pipe.to(dtype=choose_dtype(device)), device).device.type == "cuda"


HEAPS = """
import ctypes, sys, threading
from emitdiff.devices import limit_malloc_arenas

if sys.argv[1] == "kept":
    limit_malloc_arenas()
meet = threading.Barrier(8)

def take():
    meet.wait()
    kept = [bytearray(1000) for _ in range(1000)]
    meet.wait()

threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL("libc.so.6")
libc.fopen.restype = ctypes.c_void_p
file = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, ctypes.c_void_p(file))
libc.fclose(ctypes.c_void_p(file))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps of glibc")
def test_threads_share_two_heaps(tmp_path):
    def heaps(kept: str) -> int:
        subprocess.run([sys.executable, "-c", HEAPS, kept, str(tmp_path / kept)], check=True, cwd=ROOT)
        return (tmp_path / kept).read_text().count("<heap nr=")

    assert heaps("kept") <= 2 < heaps("free")
