"""deploy-space against a stand-in of the Hub, through huggingface_hub's own client."""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from command_line import run
from hub_stand_in import Repository
from huggingface_hub import constants
from space_stand_in import Spaces

import emitdiff
from emitdiff.checkpoints import BASE_SD15, SOFTEDGE
from emitdiff.commands.deployment import SPACES, ZERO_PYTHON, ZERO_TORCH, Hardware, space_files
from emitdiff.errors import EmitDiffError

ROOT = Path(emitdiff.__file__).resolve().parents[1]
UNET = "unet/diffusion_pytorch_model"


@pytest.fixture
def spaces(hub, monkeypatch) -> Spaces:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    base = hub.add(
        BASE_SD15[0], {"model_index.json": b"{}", f"{UNET}.safetensors": b"f", f"{UNET}.fp16.safetensors": b"h"}
    )
    control = hub.add(
        SOFTEDGE[0], {"config.json": b"{}", "diffusion_pytorch_model.fp16.safetensors": b"c", "x.bin": b"p"}
    )
    pinned = {id(base): BASE_SD15[1], id(control): SOFTEDGE[1]}
    own = Repository.commit.fget
    monkeypatch.setattr(Repository, "commit", property(lambda self: pinned.get(id(self)) or own(self)))
    return Spaces(hub)


def front_matter(content: bytes) -> dict:
    return yaml.safe_load(content.decode().split("---\n")[1])


def small(monkeypatch, tmp_path) -> Path:
    """A checkout with one embedded weight, so that little is sent."""
    for name in ("README.md", "requirements.txt", "requirements-gpu.txt", "app.py", "LICENSE"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for name, content in (
        ("emitdiff/cli.py", b"1"),
        ("emitdiff/__pycache__/cli.pyc", b"2"),
        ("checkpoints/m.safetensors", b"w"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    place = tmp_path / "emitdiff" / "commands" / "spaces.py"
    monkeypatch.setattr("emitdiff.commands.spaces.__file__", str(place))
    return tmp_path


def test_a_space_on_zero_gpu_is_made_and_filled(hub, spaces, monkeypatch, tmp_path, capsys):
    small(monkeypatch, tmp_path)
    assert run(monkeypatch, "deploy-space", "ann/paint", "--hardware", "zero-a10g", "--private") == 0
    assert "/spaces/ann/paint" in capsys.readouterr().out
    assert spaces.made["ann/paint"]["sdk"] == "gradio" and spaces.made["ann/paint"]["visibility"] == "private"
    assert spaces.hardware == {"ann/paint": "zero-a10g"}
    files = hub.repositories["ann/paint"].files
    names = {
        "README.md",
        "requirements.txt",
        ".gitattributes",
        "app.py",
        "LICENSE",
        "emitdiff/cli.py",
        "checkpoints/m.safetensors",
    }
    assert set(files) == names, "what the template had is gone, and nothing compiled went up"
    assert files["checkpoints/m.safetensors"] == b"w" and files["app.py"] == (ROOT / "app.py").read_bytes()
    assert b"*.safetensors filter=lfs" in files[".gitattributes"]
    matter = front_matter(files["README.md"])
    assert matter["suggested_hardware"] == "zero-a10g" and matter["app_file"] == "app.py"
    assert matter["preload_from_hub"] == [
        f"{BASE_SD15[0]} model_index.json,{UNET}.fp16.safetensors {BASE_SD15[1]}",
        f"{SOFTEDGE[0]} config.json,diffusion_pytorch_model.fp16.safetensors {SOFTEDGE[1]}",
    ]
    requirements = files["requirements.txt"].decode()
    assert "torch==2.10.0" in requirements and "torch==2.13" not in requirements and "xformers=" not in requirements
    assert f"{SPACES}\n" in requirements and matter["python_version"] == ZERO_PYTHON
    assert re.search(r"^torch==(\S+)", requirements, re.MULTILINE)[1] in ZERO_TORCH


def test_again_it_is_brought_up_to_date(hub, spaces, monkeypatch, tmp_path):
    folder = small(monkeypatch, tmp_path)
    assert run(monkeypatch, "deploy-space", "ann/paint") == 0
    (folder / "emitdiff" / "cli.py").rename(folder / "emitdiff" / "new.py")
    assert run(monkeypatch, "deploy-space", "ann/paint", "--hardware", "t4-small") == 0
    files = hub.repositories["ann/paint"].files
    assert "emitdiff/new.py" in files and "emitdiff/cli.py" not in files
    assert spaces.hardware["ann/paint"] == "t4-small" and b"xformers==" in files["requirements.txt"]
    assert b"spaces==" not in files["requirements.txt"]
    assert front_matter(files["README.md"])["python_version"] == "3.11"


def test_a_dry_run_lists_this_checkout_and_sends_nothing(hub, monkeypatch, capsys):
    assert run(monkeypatch, "deploy-space", "ann/paint", "--dry-run") == 0
    out = capsys.readouterr().out
    listed = {line.split()[1] for line in out.splitlines()[:-1]}
    assert {"app.py", "emitdiff/ui/style.css", "checkpoints/emitdiff-mini/unet/config.json"} <= listed
    assert not any(name.startswith(("tests/", "docs/", ".git/")) or "__pycache__" in name for name in listed)
    assert "nothing was sent" in out and hub.requests == []


@pytest.mark.parametrize("hardware", get_args(Hardware))
def test_the_front_matter_says_what_spaces_read(spaces, hardware):
    """By the configuration reference of Spaces, which tells no one of a key it does not know."""
    matter = front_matter(space_files(ROOT, hardware)["README.md"])
    strings = {
        "title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file",
        "suggested_hardware", "short_description", "license",
    }  # fmt: skip
    lists = {"models", "tags"} | (set() if hardware == "cpu-basic" else {"preload_from_hub"})
    assert matter.keys() == strings | lists and matter["suggested_hardware"] == hardware
    assert all(isinstance(matter[key], str) for key in strings) and matter["sdk"] == "gradio"
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {matter["colorFrom"], matter["colorTo"]} <= colours
    for line in matter.get("preload_from_hub", ()):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+ [^\s,]+(,[^\s,]+)* [0-9a-f]{40}", line), line


def test_on_a_processor_nothing_is_preloaded_and_torch_brings_no_cuda(hub):
    files = space_files(ROOT, "cpu-basic")
    assert "preload_from_hub" not in front_matter(files["README.md"])
    assert files["requirements.txt"].startswith(b"--extra-index-url https://download.pytorch.org/whl/cpu\n")
    assert hub.requests == []


@pytest.mark.parametrize("status", [401, 402, 403])
def test_what_the_hub_does_not_allow_is_a_sentence(spaces, monkeypatch, tmp_path, capsys, status):
    small(monkeypatch, tmp_path)
    spaces.refuse = status
    assert run(monkeypatch, "deploy-space", "ann/paint") == 2
    assert f"does not let you make the Space ann/paint (HTTP {status}" in capsys.readouterr().err


def test_wrong_names_and_folders_are_refused(hub, monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, "deploy-space", "paint", "--dry-run") == 2
    assert "give it as USER/NAME" in capsys.readouterr().err
    with pytest.raises(EmitDiffError, match=r"no checkout of this repository \(app.py, LICENSE.* clone it"):
        space_files(tmp_path, "cpu-basic")
