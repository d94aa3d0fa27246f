"""torch and xformers of requirements-gpu.txt: kernels load beside the torch they were built for alone.

The file records what the wheels say of themselves. With EMITDIFF_ASK_REGISTRY=1 the wheels are asked, through pip.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import emitdiff

TEXT = (Path(emitdiff.__file__).resolve().parents[1] / "requirements-gpu.txt").read_text(encoding="utf-8")
PLATFORM = ["--only-binary", ":all:", "--platform", "manylinux_2_28_x86_64", "--python-version", "3.12", "--no-deps"]


def pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)==([^\s;]+)", text, re.M))


def recorded(text: str) -> dict[str, str]:
    """The version of each, the torch that xformers was built for, and both's CUDA, as the file has them."""
    torch = re.search(r"^# wheel: torch (\S+) brings CUDA ([\d.]+)$", text, re.M)
    kernels = re.search(r"^# wheel: xformers (\S+) was built for torch (\S+) and CUDA ([\d.]+)$", text, re.M)
    names = ("torch", "cuda", "xformers", "built_for", "built_for_cuda")
    return dict(zip(names, (*torch.groups(), *kernels.groups()), strict=True))


def of_the_wheels(text: str, folder: Path) -> dict[str, str]:
    pip = [sys.executable, "-m", "pip", "--quiet"]
    found = pins(text)
    report = folder / "report.json"
    subprocess.run(
        [*pip, "install", "--dry-run", "--ignore-installed", "--target", str(folder), "--report", str(report),
         *PLATFORM, f"torch=={found['torch']}"], check=True,
    )  # fmt: skip
    needed = json.loads(report.read_text())["install"][0]["metadata"]["requires_dist"]
    cuda = next(match[1] for line in needed if (match := re.match(r"nvidia-cuda-runtime\S*==(\d+\.\d+)", line)))
    subprocess.run([*pip, "download", "--dest", str(folder), *PLATFORM, f"xformers=={found['xformers']}"], check=True)
    with zipfile.ZipFile(next(folder.glob("xformers-*.whl"))) as wheel:
        built = json.loads(wheel.read("xformers/cpp_lib.json"))["version"]
    return {
        **found, "cuda": cuda, "built_for": built["torch"].partition("+")[0],
        "built_for_cuda": f"{built['cuda'] // 100}.{built['cuda'] % 100}",
    }  # fmt: skip


def problems(text: str, facts: dict[str, str]) -> list[str]:
    pinned = pins(text)
    found = [f"{name} {pinned[name]} is not {facts[name]}" for name in pinned if pinned[name] != facts[name]]
    if facts["built_for"] != pinned["torch"] or facts["built_for_cuda"] != facts["cuda"]:
        found.append(f"built for {facts['built_for']}, {facts['built_for_cuda']}")
    return found


def test_kernels_and_torch_are_of_one_build(tmp_path):
    facts = recorded(TEXT)
    if os.environ.get("EMITDIFF_ASK_REGISTRY"):
        assert of_the_wheels(TEXT, tmp_path) == facts
    assert pins(TEXT).keys() == {"torch", "xformers"} and problems(TEXT, facts) == []


@pytest.mark.parametrize(
    ("line", "other"),
    [("torch==2.10.0", "torch==2.13.0"), ("xformers==0.0.35", "xformers==0.0.36"), ("and CUDA 12.8", "and CUDA 13.0"),
     ("built for torch 2.10.0", "built for torch 2.9.0")],
)  # fmt: skip
def test_one_of_them_changed_alone_is_noticed(line, other):
    assert line in TEXT
    changed = TEXT.replace(line, other)
    assert problems(changed, recorded(changed))


def test_the_torch_of_requirements_txt_can_be_replaced_by_that_of_the_pair():
    """By the command that the file names: no other line of requirements.txt begins so, and torch alone is left out."""
    lines = (Path(emitdiff.__file__).resolve().parents[1] / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.startswith("torch==")]) == 1
    assert not any(line.startswith("xformers") for line in lines), "it would not load beside that torch"
