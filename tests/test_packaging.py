"""What holds the house together: packages, pins, and files users meet first."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import emitdiff

ROOT = Path(emitdiff.__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_public_names_are_there():
    assert set(emitdiff.__all__) <= set(dir(emitdiff))
    assert callable(emitdiff.read_scan)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        emitdiff.nothing  # noqa: B018


def test_the_wheel_has_all_folders_of_modules_and_the_weights():
    folders = {path.parent for path in (ROOT / "emitdiff").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == [], "setup.py would not find them"
    assert PROJECT["tool"]["setuptools"]["package-dir"]["emitdiff_checkpoints"] == "checkpoints"


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-test.txt", "requirements-gpu.txt"])
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
    files = [pins(name) for name in ("requirements.txt", "requirements-test.txt", "requirements-gpu.txt")]
    ranges = {canonicalize_name(found.name): found.specifier for found in asked()}
    assert ranges.keys() >= files[0].keys() | files[2].keys()
    for name, specifier in ranges.items():
        pinned = [file[name] for file in files if name in file]  # torch in two files: the package admits both
        assert name == "pre-commit" or (pinned and all(version in specifier for version in pinned)), name


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


def test_citation_names_both_papers():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert "arXiv:2310.12868" in text and "arXiv:2407.05323" in text
    assert f"version: {emitdiff.__version__}\n" in text
