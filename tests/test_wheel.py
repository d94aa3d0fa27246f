"""The package as others install it: a wheel, used in a folder that has nothing to do with this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import pytest

import emitdiff
from benchmarks.application import application

ROOT = Path(emitdiff.__file__).resolve().parents[1]
NOT_SOURCE = shutil.ignore_patterns(".*", "build", "dist", "outputs", "runs", "*.egg-info", "__pycache__")

pytestmark = pytest.mark.slow


def run(*command: str | Path, **options) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing is left here, and with the setuptools that is there, so without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_SOURCE)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--no-build-isolation"]
    run(*pip, "--wheel-dir", folder, folder / "source")
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--target", folder, wheel)
    return folder


@pytest.fixture
def outside(installed, tmp_path) -> dict:
    """Options for `run`: another folder, and what is installed before what is checked out."""
    return {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(installed)}}


def test_wheel_holds_types_weights_and_what_the_page_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    here = {path.relative_to(ROOT).as_posix() for path in (ROOT / "emitdiff").rglob("*") if path.is_file()}
    wanted = {name for name in here if not any(part in name for part in ("/__pycache__/", "/.", "/ruff.toml"))}
    assert "emitdiff/py.typed" in wanted
    assert wanted - set(names) == set()
    for checkpoint in ("emitdiff-mini", "textdiff-mini"):
        assert any(f"/{checkpoint}/" in name and name.endswith(".safetensors") for name in names), checkpoint
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]
    asked = [line for line in metadata.splitlines() if line.startswith("Requires-Dist: ") and "extra ==" not in line]
    assert asked and not [line for line in asked if "==" in line], "the package asks for ranges"
    for extra in ("gpu", "mcp", "test", "dev"):
        assert f"Provides-Extra: {extra}\n" in metadata


def test_command_line_finds_edges_from_any_folder(installed, outside, disc_files):
    command = installed / "bin" / "emitdiff"
    assert "synthesize" in run(command, "--help", **outside)
    run(command, "edges", disc_files[0], "--out", "edges", **outside)
    assert list((outside["cwd"] / "edges").glob("*.png"))


def test_the_page_is_served_from_any_folder(installed, tmp_path):
    command = installed / "bin" / "emitdiff"
    with application(command, "serve", folder=tmp_path, path=str(installed)) as (address, _):
        assert "Research use only" in urllib.request.urlopen(address, timeout=60).read().decode()


def test_embedded_weights_load_from_any_folder(installed, outside):
    program = (
        "import emitdiff; print(emitdiff.__file__); "
        "emitdiff.load_synthesizer('emitdiff-mini'); emitdiff.load_segmenter('textdiff-mini')"
    )
    assert run(sys.executable, "-c", program, **outside).startswith(str(installed))
