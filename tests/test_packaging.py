"""What holds the house together: import rules, light imports, package lists, pins, and files people meet first."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import emitdiff

ROOT = Path(emitdiff.__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# file to plant, an import it must not make, and the sentence the linter answers with
VIOLATIONS = [
    ("emitdiff/synthesis/planted.py", "from emitdiff.segmentation import pipeline", "The two halves"),
    ("emitdiff/synthesis/planted.py", "from ..segmentation import pipeline", "The two halves"),
    ("emitdiff/synthesis/planted.py", "import gradio", "gradio belongs to"),
    ("emitdiff/segmentation/planted.py", "import emitdiff.synthesis.edges", "The two halves"),
    ("emitdiff/segmentation/planted.py", "from emitdiff import detect_edges", "The two halves"),
    ("emitdiff/ui/planted.py", "from emitdiff.scans import read_scan", "handed callables"),
    ("emitdiff/ui/planted.py", "from emitdiff import load_synthesizer", "handed callables"),
    ("emitdiff/ui/planted.py", "import torch", "arrays, not tensors"),
    ("emitdiff/planted.py", "from emitdiff.synthesis import pipeline", "The ground floor"),
    ("emitdiff/planted.py", "from emitdiff import datasets", "do not know datasets"),
    ("emitdiff/planted.py", "import diffusers", "diffusers belongs"),
]


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, **options)


def lint(*arguments: str, source: str | None = None) -> subprocess.CompletedProcess:
    return run("-m", "ruff", "check", "--no-cache", "--output-format", "concise", *arguments, input=source)


def test_tree_keeps_the_import_rules():
    result = lint("--select", "TID251,TID253", ".")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("path", "statement", "answer"), VIOLATIONS)
def test_linter_catches_a_planted_import(path, statement, answer):
    inside_a_function = f"def load():\n    {statement}\n"
    result = lint("--select", "TID251", "--stdin-filename", path, "-", source=inside_a_function)
    assert result.returncode == 1
    assert "TID251" in result.stdout
    assert answer in result.stdout


def test_linter_catches_torch_at_the_top_of_a_light_module():
    result = lint("--select", "TID253", "--stdin-filename", "emitdiff/planted.py", "-", source="import torch\n")
    assert "TID253" in result.stdout


@pytest.mark.parametrize(
    "module", ["emitdiff", "emitdiff.cli", "emitdiff.verbs.studies", "emitdiff.checkpoints", "emitdiff.devices"]
)
def test_importing_is_light(module):
    heavy = ["torch", "diffusers", "transformers", "gradio", "monai", "cv2", "huggingface_hub"]
    program = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    assert run("-c", program).stdout.strip() == "[]"


def test_public_names_are_there():
    assert set(emitdiff.__all__) <= set(dir(emitdiff))
    assert callable(emitdiff.read_scan)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        emitdiff.nothing  # noqa: B018


def test_every_package_is_listed_for_the_wheel():
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "emitdiff").rglob("__init__.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | {"emitdiff_checkpoints"}


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-test.txt"])
def test_requirements_are_pinned_with_their_reason(name):
    lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    assert lines
    for line in lines:
        assert re.match(r"[\w-]+==[\d.]+(; .+?)?\s+# \w+", line), line


def pins(name: str) -> dict[str, str]:
    """Package to version, of a requirements or lock file."""
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / name).read_text(encoding="utf-8"), re.M)
    return {canonicalize_name(package): version for package, version in found}


def asked() -> list[Requirement]:
    """What pyproject.toml asks for, extras included."""
    project = PROJECT["project"]
    lines = sum(project["optional-dependencies"].values(), project["dependencies"])
    return [found for line in lines if (found := Requirement(line)).name != project["name"]]


def test_pins_lie_in_the_ranges_the_package_asks_for():
    pinned = pins("requirements.txt") | pins("requirements-test.txt")
    ranges = {canonicalize_name(found.name): found.specifier for found in asked()}
    assert ranges.keys() >= pins("requirements.txt").keys()
    for name, specifier in ranges.items():
        assert name == "pre-commit" or pinned[name] in specifier, f"{name} {specifier}"


@pytest.mark.parametrize("name", ["requirements", "requirements-test"])
def test_lock_files_hold_the_pins(name):
    locked = pins(f"{name}.lock")
    wanted = pins(f"{name}.txt")
    wanted.pop("torch", None)  # .ci/lock says why
    assert not {package for package, version in wanted.items() if locked.get(package) != version}, "run `make lock`"


def test_locks_agree_where_both_name_a_package():
    runtime, test = pins("requirements.lock"), pins("requirements-test.lock")
    both = runtime.keys() & test
    assert {name: runtime[name] for name in both} == {name: test[name] for name in both}


def test_changelog_begins_with_what_is_unreleased_and_dates_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (.+)$", text, re.M)
    assert sections[0] == "[Unreleased]"
    released = [re.fullmatch(r"\[([\d.]+)\] - \d{4}-\d{2}-\d{2}", section) for section in sections[1:]]
    assert all(released) and released[0][1] == emitdiff.__version__


def test_readme_begins_with_front_matter_sentence_picture_and_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    _, matter, body = text.split("---\n", 2)
    gradio_pin = re.search(r"^gradio==(\S+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.M)[1]
    assert f"sdk_version: {gradio_pin}\n" in matter
    assert "sdk: gradio\n" in matter and "app_file: app.py\n" in matter
    summary = re.search(r"^short_description: (.+)$", matter, re.M)[1]
    assert len(summary) <= 60, "longer ones are refused by Spaces"
    beginning = body[: body.index("\n## ")]
    assert "docs/synthesis.png" in beginning and "make demo" in beginning and "make test" in beginning


def test_readme_links_lead_somewhere():
    for document in ("README.md", "checkpoints/README.md"):
        path = ROOT / document
        for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target.partition("#")[0]).exists(), f"{document}: {target}"


def test_citation_names_both_papers():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert "arXiv:2310.12868" in text and "arXiv:2407.05323" in text
    assert f"version: {emitdiff.__version__}\n" in text


def test_container_runs_as_an_ordinary_user():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert "USER 1000" in lines and "EXPOSE 7860" in lines
    assert lines.index("USER 1000") < next(i for i, line in enumerate(lines) if line.startswith("CMD"))
